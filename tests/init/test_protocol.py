"""Every byte of control is hostile: nonsense costs control its life, and no service anything."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import time
from collections.abc import Callable

import pytest

from tests.init.pid1 import Control, Pid1, lib, m, plain, seal, wire


def survives(daemon: Pid1, control: Control, nonsense: Callable[[Control], None]) -> Control:
    """Send it; vigild drops this control, keeps the service, and takes the next."""
    started = control.spawn("sleep", "1000")
    nonsense(control)
    second = daemon.attached()
    assert [state.pid for state in second.runs] == [started.pid]
    second.stop(started.run)
    return second


def frame(kind: int, size: int, filler: bytes = b"\xff") -> bytes:
    """A message with an honest size and a body of one byte over and over."""
    return struct.pack("=IHH", size, kind, 0) + filler * (size - 8)


NONSENSE: dict[str, Callable[[Control], None]] = {
    "an unknown kind": lambda c: c.send(frame(999, 16)),
    "a kind that only PID 1 sends": lambda c: c.send(plain(lib.VG_PING)),
    "another size than the kind has": lambda c: c.send(frame(lib.VG_SPAWN, 16)),
    "a size that is not the datagram's": lambda c: c.send(struct.pack("=IHHQ", 999, lib.VG_PONG, 0, 0)),
    "less than a head": lambda c: c.send(b"abc"),
    "a second HELLO": lambda c: c.send(wire.hello(m.Settings())),
    "more than any message has": lambda c: c.send(frame(lib.VG_PONG, 4096)),
    "a descriptor where none belongs": lambda c: c.send(plain(lib.VG_PONG), [0]),
    "no descriptor where one belongs": lambda c: c.send(wire.park("a")),
    "more descriptors than any message has": lambda c: c.send(wire.park("a"), [0] * 20),
    "the end of its link": lambda c: c.link.shutdown(socket.SHUT_RDWR),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_control_is_replaced_when_it_sends(pid1: Callable[..., Pid1], what: str) -> None:
    daemon = pid1()
    before = daemon.attached()
    descriptors = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    survives(daemon, before, NONSENSE[what])
    daemon.until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) == descriptors, "no descriptor left over")


def test_a_message_before_hello_is_nonsense(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    first = daemon.attached()
    started = first.spawn("sleep", "1000")
    daemon.kill_control(first)
    early = daemon.control()
    early.send(wire.stop(started.run))
    third = daemon.attached()
    assert third.runs[0].state is m.RunPhase.RUNNING


def test_another_version_is_refused_with_a_clear_message(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    first = daemon.attached()
    first.spawn("sleep", "1000")
    daemon.kill_control(first)
    old = daemon.control()
    hello = bytearray(wire.hello(m.Settings()))
    struct.pack_into("=I", hello, 8, 99)
    old.send(bytes(hello))
    assert daemon.attached().runs[0].state is m.RunPhase.RUNNING
    assert daemon.err
    daemon.err.wait_for("version 99 of the protocol")


REFUSED: dict[str, tuple[Callable[[Control], None], int, int]] = {
    "STOP of a run that is not there": (lambda c: c.send(wire.stop(m.Run(5, 5))), lib.VG_STOP, errno.ESRCH),
    "SIGNAL to a slot beyond the table": (
        lambda c: c.send(wire.signal(m.Run(0xFFFFFFF0, 1), 1, m.Target.MAIN)), lib.VG_SIGNAL, errno.ESRCH),
    "RELEASE of a run that is not there": (lambda c: c.send(wire.release(m.Run(0, 0))), lib.VG_RELEASE, errno.ESRCH),
    "UNPARK of a name that is not there": (lambda c: c.send(wire.unpark("nothing")), lib.VG_UNPARK, errno.ENOENT),
    "PARK of vigild's own log": (lambda c: c.send(wire.park("log/vigild"), [0]), lib.VG_PARK, errno.EPERM),
    "PARK of vigild's own board": (lambda c: c.send(wire.park("notify/board"), [0]), lib.VG_PARK, errno.EPERM),
    "UNPARK of what wakes control": (lambda c: c.send(wire.unpark("notify/wake")), lib.VG_UNPARK, errno.EPERM),
    "SPAWN with a notification socket that is none": (
        lambda c: c.ask(c.spec("/bin/true", notify=c.link.fileno())) and None,
        lib.VG_SPAWN,
        errno.EINVAL,
    ),
    "REEXEC": (lambda c: c.send(plain(lib.VG_REEXEC)), lib.VG_REEXEC, errno.ENOSYS),
    "SHUTDOWN with a code that is none": (lambda c: c.send(wire.shutdown(256, False)), lib.VG_SHUTDOWN, errno.EINVAL),
    "SPAWN of a session": (
        lambda c: c.ask(c.spec("/bin/true", kind=m.RunKind.SESSION)) and None, lib.VG_SPAWN, errno.ENOSYS),
    "SPAWN with a limit of the resource that marks a run": (
        lambda c: c.ask(c.spec("/bin/true", limits=((10, 1, 1),))) and None, lib.VG_SPAWN, errno.EINVAL),
    "SPAWN with a log that is not parked": (
        lambda c: c.ask(c.spec("/bin/true", log_mode=m.LogMode.ENABLED, log="nope")) and None,
        lib.VG_SPAWN, errno.ENOENT),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_done_is_refused_and_changes_nothing(pid1: Callable[..., Pid1], what: str) -> None:
    control = pid1().attached()
    act, kind, error = REFUSED[what]
    act(control)
    refused = control.expect(m.Refused)
    assert (refused.kind, refused.error) == (kind, error)
    assert control.end(control.sh("exit 4").run).exit_code == 4


def test_a_live_run_cannot_be_released(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    run = control.spawn("sleep", "1000").run
    control.send(wire.release(run))
    assert control.expect(m.Refused).error == errno.EBUSY
    control.stop(run)


def spawn_raw(control: Control, change: Callable[[bytearray, bytearray], None], seals: bool = True) -> int:
    """SPAWN with a message or blob that was tampered with; the errno it is refused with."""
    message, blob = (bytearray(part) for part in wire.spawn(control.spec("/bin/true")))
    change(message, blob)
    memfd = os.memfd_create("blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memfd, blob)
    if seals:
        seal(memfd)
    control.send(bytes(message), [memfd])
    os.close(memfd)
    return control.expect(m.Refused, lambda r: r.kind == lib.VG_SPAWN).error


def test_a_blob_that_lies_is_refused(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    assert spawn_raw(control, lambda _m, _b: None, seals=False) == errno.EINVAL
    assert spawn_raw(control, lambda _m, blob: blob.__delitem__(slice(20, None))) == errno.EINVAL
    assert spawn_raw(control, lambda _m, blob: blob.__setitem__(slice(None), b"x" * len(blob))) == errno.EINVAL
    assert control.end(control.sh("exit 4").run).exit_code == 4


def test_random_changes_to_a_spawn_never_cost_more_than_control(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    keep = control.spawn("sleep", "1000")
    dice = random.Random(20260321)
    for _ in range(300):
        message, blob = (bytearray(part) for part in wire.spawn(control.spec("/bin/true")))
        # Not the deadline and not the token: those may be anything.
        for _ in range(dice.randint(1, 4)):
            message[dice.randrange(16, len(message))] = dice.randrange(256)
        memfd = os.memfd_create("blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(memfd, blob)
        seal(memfd)
        try:
            control.send(bytes(message), [memfd])
        except OSError:
            daemon.kill_control(control)
            control = daemon.attached()
        os.close(memfd)
    control.send(plain(lib.VG_REEXEC))
    try:
        control.expect(m.Refused, lambda r: r.kind == lib.VG_REEXEC)
    except ConnectionError:
        control = daemon.attached()
    assert os.path.exists(f"/proc/{daemon.host_pid(keep.pid)}")


def test_a_control_that_reads_nothing_holds_up_nothing(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    for _ in range(400):
        control.ask(control.spec("/bin/true", name="quick"))
    daemon.until(lambda: not [p for p in daemon.processes().values() if p.state == "Z"], "no zombie")
    daemon.kill_control(control)
    second = daemon.attached()
    assert {state.state for state in second.runs} == {m.RunPhase.GONE}
    assert len(second.runs) == 400


def test_all_that_a_dead_control_sent_is_done_before_the_next_attaches(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    for _ in range(20):
        control = daemon.attached()
        known = {state.run for state in control.runs}
        os.kill(daemon.pid, 19)  # vigild stands still while control sends and dies
        tokens = {control.ask(control.spec("sleep", "1000")).token for _ in range(5)}
        daemon.kill_control(control)
        os.kill(daemon.pid, 18)
        second = daemon.attached()
        assert {state.token for state in second.runs if state.run not in known} == tokens
        for state in second.runs:
            second.send(wire.stop(state.run))
        for state in second.runs:
            second.end(state.run)
        daemon.kill_control(second)


def test_a_snapshot_tells_everything_that_is_under_way(pid1: Callable[..., Pid1], tmp_path: object) -> None:
    daemon = pid1()
    first = daemon.attached()
    read, write = os.pipe()
    deaf = first.sh(
        "trap '' TERM; echo; while :; do sleep 0.1; done", kill_delay=1000, fds=(None, write, None), note=b"deaf"
    )
    os.read(read, 1)
    first.send(wire.stop(deaf.run))
    first.expect(m.Stopping)
    unreleased = first.sh("exit 9")
    first.exited(unreleased.run)
    probe = first.spawn("sleep", "1000", kind=m.RunKind.PROBE, ephemeral=True)
    lasting = first.spawn("sleep", "1000", kind=m.RunKind.PROBE)
    first.send(wire.park("listener"), [read])
    os.kill(daemon.pid, 19)
    flight = first.ask(first.spec("sleep", "1000"))
    daemon.kill_control(first)
    os.kill(daemon.pid, 18)
    second = daemon.attached()
    runs = {state.token: state for state in second.runs}
    assert (runs[deaf.token].stopping, runs[deaf.token].asked, runs[deaf.token].note) == (True, True, b"deaf")
    assert (runs[unreleased.token].exit_code, runs[unreleased.token].released) == (9, False)
    assert runs[flight.token].state in (m.RunPhase.STARTING, m.RunPhase.RUNNING)
    assert (runs[lasting.token].state, runs[lasting.token].kind) == (m.RunPhase.RUNNING, m.RunKind.PROBE)
    assert runs[probe.token].ephemeral
    if runs[probe.token].state is not m.RunPhase.GONE:
        second.gone(probe.run)
    assert os.fstat(second.parked["listener"]).st_ino == os.fstat(read).st_ino
    os.close(read)
    os.close(write)


def test_parking_under_a_used_name_swaps_and_closes_the_old(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    first = daemon.attached()
    old, new = os.pipe()
    first.send(wire.park("journal"), [new])
    os.close(new)
    other = os.memfd_create("other")
    first.send(wire.park("journal"), [other])
    assert os.read(old, 1) == b"", "the old one is closed"
    daemon.kill_control(first)
    second = daemon.attached()
    assert os.fstat(second.parked["journal"]).st_ino == os.fstat(other).st_ino
    second.send(wire.unpark("journal"))
    daemon.kill_control(second)
    assert "journal" not in daemon.attached().parked
    os.close(old)
    os.close(other)


def test_a_deadline_empties_a_probe(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    run = control.sh("trap '' TERM; setsid sleep 1000 & while :; do sleep 0.1; done", kind=m.RunKind.PROBE,
                     deadline=time.monotonic_ns() + 200_000_000).run  # fmt: skip
    assert control.end(run).overdue
