"""The link: everything in order, nothing waited for, no descriptor lost."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import time

import pytest

from tests.channel import fake
from tests.channel.fake import Peer
from vigil._native import ffi, lib
from vigil.model.errors import StartError
from vigil.shim import wire
from vigil.shim.link import Link
from vigil.shim.messages import (
    NO_RUN,
    Format,
    LogMode,
    Refused,
    RunKind,
    Settings,
    SpawnFailed,
    SpawnSpec,
    Started,
    Step,
)


def spec(token=1, name="web", **more):
    return SpawnSpec(**{"token": token, "name": name, "argv": ["/bin/true"], "env": {}, **more})


def descriptors():
    gc.collect()  # what earlier tests left in cycles goes now, not in between
    return len(os.listdir("/proc/self/fd"))


class Control:
    """A control's link with a loop of its own."""

    def __init__(self, fd, settings=None):
        self.link, self.welcome, self.snapshot = Link.attach(fd, settings or Settings())
        self.loop = asyncio.new_event_loop()
        self.messages = []
        self.lost = []

    def listen(self):
        self.link.listen(self.loop, self.messages.append, self.lost.append)
        return self

    def until(self, condition, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it never came: {self.messages} {self.lost}"
            self.loop.run_until_complete(asyncio.sleep(0.001))

    def close(self):
        self.link.close()
        self.loop.close()
        for fd in self.snapshot.parked.values():
            os.close(fd)


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.hang_up()
    peer.pid1.close()
    assert peer.problems == []


@pytest.fixture
def control(peer):
    made = []

    def attach(settings=None):
        made.append(Control(peer.connect(), settings))
        return made[-1]

    yield attach
    for one in made:
        if one.link._socket.fileno() >= 0:
            one.close()


def test_hello_carries_the_settings(peer, control):
    control(
        Settings(
            log_format=Format.JSON,
            log_level=2,
            watchdog=1.5,
            forward_format=Format.TIMESTAMP,
            stop_budget=8,
            forward_stall=0.25,
        )
    )
    hello = peer.hello
    assert (hello.version, hello.log_format, hello.log_level) == (lib.VG_PROTOCOL, lib.VG_FORMAT_JSON, lib.VG_WARN)
    assert (hello.watchdog_ms, hello.stop_budget_ms, hello.forward_stall_ms) == (1500, 8000, 250)
    assert hello.forward_format == lib.VG_FORMAT_TIMESTAMP


def test_a_spawn_arrives_as_it_was_meant(peer, control):
    one = control().listen()
    read, write = os.pipe()
    sent = spec(
        7,
        "web.1",
        argv=["/bin/sh", "-c", "echo ä \udcff"],
        env=[b"A=1", b"B=\xff"],
        cwd="/var",
        kind=RunKind.PROBE,
        ephemeral=True,
        stdin_inherit=True,
        fds=(None, write, write),
        uid=1000,
        gid=1001,
        groups=[1001, 4, 27],
        umask=0o027,
        nice=-5,
        oom_score_adj=-100,
        limits=[(7, 1024, 4096), (4, 0, 2**64 - 1)],
        stop_signal=37,
        kill_delay=None,
        component=3,
        rank=9,
        forward=frozenset({1, 10, 64}),
        deadline=2**62,
        log_mode=LogMode.NONE,
        prefix="[web.1] ",
        forward_format=Format.JSON,
        note=b"\x00note\xff",
    )
    one.link.spawn(sent)
    peer.wait(lambda pid1: pid1.calls)
    os.close(read)
    os.close(write)
    with peer.table() as pid1:
        got = pid1.calls[0][1]
        assert None not in got.fds[1:]
        for field in sent.__struct_fields__:
            if field not in ("fds", "groups", "limits", "argv"):
                assert getattr(got, field) == getattr(sent, field), field
        for field in ("groups", "limits", "argv"):
            assert list(getattr(got, field)) == list(getattr(sent, field)), field


def test_what_it_says_comes_back_as_messages(peer, control):
    one = control().listen()
    one.link.spawn(spec(5))
    peer.wait(lambda pid1: pid1.runs)
    with peer.table() as pid1:
        run = pid1.start("web")
    one.until(lambda: one.messages)
    assert one.messages == [Started(run=run, token=5, pid=102, keeper=101, started_real_ns=pid1.now_ns)]
    one.link.update(run, stop=(2, None), order=(1, 2), forward=frozenset({10}), log_mode=LogMode.DISABLED)
    one.link.signal(run, 10)
    one.link.stop(run)
    one.link.release(run)
    one.until(lambda: len(one.messages) == 3)
    assert isinstance(one.messages[2], Refused)
    assert one.messages[2].error == errno.EBUSY
    entry = peer.pid1.find(run)
    assert (entry.stop, entry.order, entry.forward, entry.log_mode) == ((2, None), (1, 2), {10}, LogMode.DISABLED)
    assert entry.signals == [(10, 1)]


def test_what_comes_before_the_loop_is_delivered_first_and_in_order(peer, control):
    one = control()
    for token in range(1, 4):
        one.link.spawn(spec(token, f"s{token}"))
    peer.wait(lambda pid1: len(pid1.runs) == 3)
    with peer.table() as pid1:
        pid1.start("s2")
    one.link.breathe()
    with peer.table() as pid1:
        pid1.start("s1")
        pid1.start("s3")
    one.listen().until(lambda: len(one.messages) == 3)
    assert [message.token for message in one.messages] == [2, 1, 3]


def test_a_ping_is_answered_before_the_loop_and_in_it(peer, control):
    one = control()
    peer.ping(11)
    one.link.breathe()
    peer.wait(lambda _: peer.pongs == [11])
    one.listen()
    peer.ping(12)
    one.until(lambda: peer.pongs == [11, 12])
    assert one.messages == []


def test_a_loop_that_does_not_turn_answers_no_ping(peer, control):
    one = control().listen()
    peer.ping(1)
    time.sleep(0.05)
    assert peer.pongs == []
    one.until(lambda: peer.pongs == [1])


def stuffed(count=2000):
    """A link whose peer reads nothing yet, and asks that it does not take all at once."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(theirs.detach())
    for token in range(count):
        link.spawn(spec(token, note=token.to_bytes(4, "big")))
    return link, mine


def read_tokens(mine, count):
    tokens = []
    while len(tokens) < count:
        data, fds, _, _ = socket.recv_fds(mine, 2048, 4)
        assert len(fds) == 1
        m = fake._copy("struct vg_spawn", data)
        assert os.pread(fds[0], 4, 0) == b"web\0"
        os.close(fds[0])
        tokens.append(m.token)
    return tokens


def test_a_full_socket_queues_in_order_and_loses_nothing():
    before = descriptors()
    link, mine = stuffed()
    assert not link.idle
    loop = asyncio.new_event_loop()
    link.listen(loop, lambda _: None)
    reading = loop.run_in_executor(None, read_tokens, mine, 2000)
    assert loop.run_until_complete(asyncio.wait_for(reading, 30)) == list(range(2000))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert link.idle
    link.close()
    mine.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert descriptors() == before


def test_before_the_loop_the_queue_is_sent_between_steps():
    link, mine = stuffed(600)
    assert not link.idle
    tokens = []
    while not link.idle:
        tokens += read_tokens(mine, 1)
        link.breathe()
    tokens += read_tokens(mine, 600 - len(tokens))
    assert tokens == list(range(600))
    link.close()
    mine.close()


def test_a_closed_link_gives_up_what_is_queued_with_its_descriptors():
    before = descriptors()
    link, mine = stuffed()
    link.close()
    mine.close()
    assert descriptors() == before


def test_parking_at_once_or_not_at_all(peer, control):
    one = control().listen()
    assert one.link.try_park("journal", 0)
    peer.wait(lambda pid1: "journal" in pid1.parked)
    before = descriptors()
    link, mine = stuffed()
    count = len(link._queue)
    assert not link.try_park("journal", 0)
    assert len(link._queue) == count
    link.close()
    mine.close()
    assert descriptors() == before


def test_memory_that_is_short_for_a_moment_is_waited_out(peer, control, monkeypatch):
    one = control().listen()
    real, refusals = one.link._socket, iter([errno.ENOBUFS, errno.ETOOMANYREFS, errno.ENOMEM])

    class Short:
        def sendmsg(self, *arguments):
            for error in refusals:
                raise OSError(error, os.strerror(error))
            return real.sendmsg(*arguments)

        def __getattr__(self, name):
            return getattr(real, name)

    monkeypatch.setattr(one.link, "_socket", Short())
    one.link.park("a", 0)
    one.link.park("b", 0)
    assert not one.link.idle
    one.until(lambda: len(peer.pid1.calls) == 2)
    assert peer.pid1.calls == [("park", "a"), ("park", "b")]


@pytest.mark.parametrize(
    ("bad", "step", "error"),
    [
        ({"argv": ["/bin/echo", "a\0b"]}, Step.EXEC, errno.EINVAL),
        ({"env": {"A": "x" * (lib.VG_BLOB_MAX + 1)}}, Step.EXEC, errno.E2BIG),
    ],
)
def test_what_execve_could_never_take_fails_as_a_start_does(peer, control, bad, step, error):
    one = control().listen()
    one.link.spawn(spec(9, **bad))
    assert one.messages == []  # never from within the call
    one.until(lambda: one.messages)
    assert one.messages == [SpawnFailed(run=NO_RUN, token=9, step=step, error=error)]
    assert not one.messages[0].shortage
    assert peer.pid1.calls == []


def test_no_descriptor_for_the_blob_is_a_shortage(peer, control, monkeypatch):
    one = control()

    def none(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", none)
    one.link.spawn(spec(9))
    monkeypatch.undo()
    one.listen().until(lambda: one.messages)
    assert one.messages[0].shortage


def test_no_descriptor_for_what_is_queued_is_a_shortage_too(monkeypatch):
    link, mine = stuffed()
    before = descriptors()
    left = [2]
    copy = os.dup

    def one_more(fd):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return copy(fd)

    monkeypatch.setattr(os, "dup", one_more)
    with open(os.devnull) as null:
        link.spawn(spec(9999, fds=(null.fileno(), None, null.fileno())))
    monkeypatch.undo()
    assert descriptors() == before
    loop = asyncio.new_event_loop()
    messages = []
    link.listen(loop, messages.append)
    loop.run_until_complete(asyncio.sleep(0))
    assert [(message.token, message.shortage) for message in messages] == [(9999, True)]
    link.close()
    mine.close()
    loop.close()


def test_spawning_leaves_no_descriptor_behind(peer, control):
    one = control().listen()
    before = descriptors()
    for token in range(50):
        one.link.spawn(spec(token, fds=(0, 1, 2)))
        one.link.park(f"log/{token}", 1)
        one.link.unpark(f"log/{token}")
    peer.wait(lambda pid1: len(pid1.calls) == 150)
    with peer.table():
        assert descriptors() == before


def test_a_link_that_vigild_closes_is_told_once_with_a_reason(peer, control):
    one = control().listen()
    peer.hang_up()
    one.until(lambda: one.lost)
    one.link.ready()  # nothing fails any more, nothing is sent
    one.link.spawn(spec())
    one.loop.run_until_complete(asyncio.sleep(0.01))
    assert one.lost == ["cannot go on: vigild closed the link (its own diagnostics say why)"]


def test_a_link_that_breaks_before_the_loop_is_an_error(peer, control):
    one = control()
    peer.hang_up()
    with pytest.raises(StartError, match="vigild closed the link"):
        one.link.breathe()


@pytest.mark.parametrize(
    "bad", [b"x" * 12, bytes(ffi.buffer(fake._new("struct vg_plain", 12345))), b"\x08\0\0\0\x2b\0\0\0"]
)
def test_nonsense_from_vigild_breaks_the_link(peer, control, bad):
    one = control().listen()
    peer.send(bad)
    one.until(lambda: one.lost)
    assert "cannot understand vigild" in one.lost[0]


def test_descriptors_that_nobody_asked_for_are_closed(peer, control):
    one = control().listen()
    before = descriptors()
    message = fake._new("struct vg_plain", lib.VG_PING)
    for count in (1, 4, 9):
        message.value = count
        peer.send(bytes(ffi.buffer(message)), [0] * count)
    one.until(lambda: one.lost)  # nine do not fit
    assert peer.pongs == [1, 4]
    assert descriptors() == before


def attach_to(*answers):
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine:
        for answer in answers:
            mine.send(answer)
        mine.shutdown(socket.SHUT_WR)
        return Link.attach(theirs.detach(), Settings())


def test_attaching_to_what_does_not_fit_is_an_error():
    end = bytes(ffi.buffer(fake._new("struct vg_plain", lib.VG_SNAPSHOT_END)))
    other = fake._new("struct vg_welcome", lib.VG_WELCOME)
    other.version = lib.VG_PROTOCOL + 1
    parked = fake._new("struct vg_park", lib.VG_SNAPSHOT_PARKED)
    with pytest.raises(StartError, match="closed the link"):
        attach_to()
    with pytest.raises(StartError, match="makes no sense"):
        attach_to(end)
    with pytest.raises(StartError, match="makes no sense"):
        attach_to(bytes(ffi.buffer(parked)))
    with pytest.raises(wire.WireError, match="version"):
        attach_to(bytes(ffi.buffer(other)))


def test_a_second_snapshot_breaks_the_link(peer, control):
    one = control().listen()
    peer.send(bytes(ffi.buffer(fake._new("struct vg_plain", lib.VG_SNAPSHOT_END))))
    one.until(lambda: one.lost)
    assert "second snapshot" in one.lost[0]
