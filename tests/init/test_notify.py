"""Notifications of services (sd_notify), from the datagram to what control reads. The test is control.

VIGIL_KILLS=N kills N times instead of a few hundred, VIGIL_STEP=N kills after every Nth instruction, VIGIL_SEED=S
repeats a run.
"""

from __future__ import annotations

import mmap
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import LIMIT
from tests.init.logger_play import DRAINED, PING, PONG, Play, build, compile_c
from tests.init.pid1 import Control, Pid1, lib, m, wire
from vigil.shim import notify
from vigil.shim.board import BOARD, WAKE, Board, Notice

KILLS = int(os.environ.get("VIGIL_KILLS", "0"))
SEED = int(os.environ.get("VIGIL_SEED", "0")) or random.randrange(1, 1 << 30)
STEP = int(os.environ.get("VIGIL_STEP", "0"))
SANITIZED = os.environ.get("VIGIL_TEST_SANITIZE") == "1"
NOBODY = 65534
LOCKS = 10  # RLIMIT_LOCKS: the tag of a run's processes


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="n")  # for every user to reach
    os.chmod(folder, 0o755)
    yield str(compile_c(Path(folder), "notify_load", ["tests/init/notify_load.c"]))
    shutil.rmtree(folder)


class Told:
    """What one life of control sees of the board."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.wake = control.parked.pop(WAKE)
        fd = control.parked.pop(BOARD)
        self.board = Board(fd, os.dup(self.wake))
        os.close(fd)

    def start(self, *argv: str, uid: int | None = None, address: str | None = None, **more: object) -> m.Run:
        """A run with a socket, or with the address of another one's."""
        fd, own = notify.make(None, uid)
        env = {"NOTIFY_SOCKET": address or own, "PATH": os.environ["PATH"]}
        if uid is not None:
            more |= {"uid": uid, "gid": uid}
        try:
            run = self.control.spawn(*argv, env=env, notify=fd, **more).run
        finally:
            os.close(fd)
        self.address = own
        return run

    def until(self, run: m.Run, holds: Callable[[Notice], object], timeout: float = LIMIT) -> Notice:
        """Its notice, once something holds of it."""
        end = time.monotonic() + timeout
        while True:
            notice = self.board.read(run)
            if notice is not None and holds(notice):
                return notice
            assert time.monotonic() < end, notice
            time.sleep(0.002)

    def settled(self, run: m.Run) -> Notice:
        """Its notice, once all that was sent until now is in it."""
        now = time.monotonic_ns()
        end = time.monotonic() + LIMIT
        while self.board.drained_ns() < now:
            assert time.monotonic() < end, "logger looks at no socket"
            time.sleep(0.01)
        return self.until(run, lambda notice: True)

    def woken(self, timeout: float = LIMIT) -> bool:
        """Whether control is woken in time."""
        if not select.select([self.wake], [], [], timeout)[0]:
            return False
        os.eventfd_read(self.wake)
        return True

    def close(self) -> None:
        self.board.close()
        os.close(self.wake)


@pytest.fixture
def told(pid1: Callable[..., Pid1]) -> Iterator[Told]:
    made = Told(pid1().attached())
    yield made
    made.close()


def logger_of(daemon: Pid1) -> int:
    """logger, as the test sees it; 0: it is being replaced."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    for child in children:
        try:
            if Path(f"/proc/{child}/comm").read_text().strip() == "vigil-logger":
                return int(child)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return 0


def the_logger(daemon: Pid1) -> int:
    """logger, once there is one."""
    return daemon.until(lambda: logger_of(daemon), "logger to be started")


def diagnosed(daemon: Pid1, text: str, timeout: float = LIMIT) -> None:
    assert daemon.err
    daemon.err.wait_for(text, timeout)


# --- what is said ---


def test_a_notification_tells_its_run_and_its_sender_and_wakes_control(told: Told, load: str) -> None:
    assert told.woken(), "a logger that has just begun wakes, since it does not know whom its predecessor woke"
    run = told.start(load, "send", r"READY=1\nSTATUS=serving 3 of 4 \xc3\n", "stay")
    assert told.woken()
    notice = told.until(run, lambda notice: notice.ready)
    assert notice.run == run
    assert notice.ready is not None
    assert notice.ready_again == notice.status_mark == notice.ready
    assert (notice.status, notice.taken) == ("serving 3 of 4 xc3", 1)
    assert (notice.ready.uid, notice.ready.seq) == (0, 1)
    assert abs(notice.ready.real_ns - time.time_ns()) < LIMIT * 1e9
    assert abs(notice.ready.monotonic_ns - time.monotonic_ns()) < LIMIT * 1e9
    assert list(told.board.changed()) == [notice]
    assert list(told.board.changed()) == []
    assert told.board.read(m.Run(run.slot, run.generation + 1)) is None
    assert told.control.stop(run).exit_code == 0


def test_each_thing_that_can_be_said_has_its_place(told: Told, load: str) -> None:
    texts = [
        "READY=1",
        "RELOADING=1\\nMONOTONIC_USEC=5",
        "READY=1",
        "WATCHDOG=1",
        "WATCHDOG=trigger",
        "WATCHDOG_USEC=2500000",
        "EXTEND_TIMEOUT_USEC=1500000\\nSTATUS=" + "é" * 300,
        "STOPPING=1\\nERRNO=5\\nX_OWN=thing\\nREADY\\nREADY=2\\n=\\n\\nWATCHDOG_USEC=-1\\nEXTEND_TIMEOUT_USEC=",
    ]
    run = told.start(load, *(word for text in texts for word in ("send", text)), "stay")
    notice = told.until(run, lambda notice: notice.taken == len(texts))
    marks = {
        "ready": 1, "ready_again": 3, "reloading": 2, "watchdog": 4, "trigger": 5, "period_mark": 6, "extend_mark": 7,
        "status_mark": 7, "stopping": 8,
    }  # fmt: skip
    assert {name: getattr(notice, name).seq for name in marks} == marks
    assert (notice.period, notice.extend, notice.status) == (2.5, 1.5, "é" * 256)
    assert not notice.is_reloading
    assert (notice.forged, notice.senseless) == (0, 0)


def test_another_main_process_is_ignored_and_said_once(pid1: Callable[..., Pid1], load: str) -> None:
    daemon = pid1()
    told = Told(daemon.attached())
    run = told.start(load, *["send", "READY=1\\nMAINPID=1"] * 5, "stay", name="db")
    assert told.until(run, lambda notice: notice.taken == 5).ready
    diagnosed(daemon, "MAINPID")
    told.settled(run)
    assert daemon.err
    assert daemon.err.data.count(b"MAINPID") == 1
    assert b"db: pid" in daemon.err.data
    told.close()


def test_senseless_datagrams_are_counted_and_do_no_harm(told: Told, load: str) -> None:
    run = told.start(
        load, "send", "", "size", "4097", "size", "100000", "send", "READY=1\\0", "send", "READ\\0Y=1", "send", "\\0",
        "size", "4096", "send", "\\n\\n\\n", "send", "=", "send", "\\xff\\xfeSTATUS", "barrier", "stay",
    )  # fmt: skip
    notice = told.until(run, lambda notice: notice.taken + notice.senseless == 11)
    assert notice.senseless == 5
    assert notice.ready is not None, "a NUL at the end is none of ours to refuse"
    assert (notice.status_mark, notice.stopping) == (None, None)


def test_random_bytes_do_no_harm(told: Told, load: str, tmp_path: Path) -> None:
    print(f"VIGIL_SEED={SEED}")
    chance = random.Random(SEED)
    run = told.start(load, "stay")
    keys = [b"READY=1", b"STATUS=", b"WATCHDOG_USEC=", b"MAINPID=", b"\n", b"\0", b"=", b"9" * 30, b"\xf0\x9f\x90\xb3"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for _ in range(1500):
            parts = [chance.choice([chance.choice(keys), chance.randbytes(chance.randrange(200))]) for _ in range(9)]
            sender.sendto(b"".join(parts), "\0" + told.address[1:])
    notice = told.until(run, lambda notice: notice.forged == 1500)  # this test is no process of the service
    assert notice.ready is None


# --- who says it ---


def test_the_notification_of_another_service_is_dropped_and_said_once(pid1: Callable[..., Pid1], load: str) -> None:
    daemon = pid1()
    told = Told(daemon.attached())
    run = told.start(load, "stay", name="victim")
    victim = told.address
    other = told.control.spawn(load, *["send", "READY=1"] * 10, "stay", env={"NOTIFY_SOCKET": victim})
    notice = told.until(run, lambda notice: notice.forged == 10)
    assert (notice.ready, notice.taken) == (None, 0)
    diagnosed(daemon, f"victim: pid {other.pid} (uid 0) sent it a notification without being one of its processes")
    assert daemon.err
    assert daemon.err.data.count(b"without being one of") == 1
    told.close()


def test_any_process_of_the_service_may_notify_however_deep_and_under_whatever_user(told: Told, load: str) -> None:
    run = told.start(
        "/bin/sh", "-c",
        f"setsid env -i NOTIFY_SOCKET=$NOTIFY_SOCKET sh -c '({load} as {NOBODY} send READY=1 stay) & wait' & wait",
    )  # fmt: skip
    notice = told.until(run, lambda notice: notice.ready)
    assert notice.ready is not None
    assert notice.ready.uid == NOBODY


@pytest.mark.parametrize(
    ("service", "sender", "believed"), [(NOBODY, NOBODY, True), (NOBODY, 0, True), (NOBODY, 1, False), (0, 1, False)]
)
def test_a_sender_that_has_ended_already_is_believed_by_its_uid(
    pid1: Callable[..., Pid1], load: str, root: None, service: int, sender: int, believed: bool
) -> None:
    daemon = pid1()
    told = Told(daemon.attached())
    run = told.start(load, "stay", uid=service or None)
    victim = told.address
    told.settled(run)
    logger = the_logger(daemon)
    os.kill(logger, signal.SIGSTOP)
    # Not a process of the service: so it is the uid alone that counts. It is reaped before logger looks.
    one = told.control.spawn(load, "as", str(sender), "send", "READY=1", env={"NOTIFY_SOCKET": victim}).run
    told.control.end(one)
    os.kill(logger, signal.SIGCONT)
    notice = told.until(run, lambda notice: notice.taken or notice.forged)
    assert (notice.ready is not None, notice.forged) == (believed, not believed)
    told.close()


def test_what_the_last_run_said_makes_the_next_one_not_ready(pid1: Callable[..., Pid1], load: str) -> None:
    daemon = pid1()
    told = Told(daemon.attached())
    told.settled(told.start(load, "stay"))
    logger = the_logger(daemon)
    os.kill(logger, signal.SIGSTOP)
    first = told.start(load, "send", "READY=1")
    told.control.end(first)
    second = told.start(load, "stay")
    assert (second.slot, second.generation) == (first.slot, first.generation + 1)
    os.kill(logger, signal.SIGCONT)
    notice = told.settled(second)
    assert (notice.ready, notice.taken, notice.forged) == (None, 0, 0)
    assert told.board.read(first) is None
    told.close()


def test_all_that_a_run_said_is_known_when_it_is_gone_and_nothing_is_held(
    pid1: Callable[..., Pid1], need: Callable[..., None], load: str
) -> None:
    need("prlimit")
    told = Told(pid1(prefix=("prlimit", "--nofile=256:256")).attached())  # room for 48 runs
    for number in range(200):
        run = told.start(load, "child", "READY=1", "child", f"STATUS={number}")
        told.control.exited(run)
        told.control.gone(run)
        notice = told.board.read(run)
        assert notice is not None
        assert (notice.ready is not None, notice.status, notice.taken) == (True, str(number), 2)
        told.control.send(wire.release(run))
    told.close()


def test_a_service_of_another_user_gets_to_its_socket_and_others_do_not(told: Told, load: str, root: None) -> None:
    folder = tempfile.mkdtemp(prefix="n")
    os.chmod(folder, 0o755)
    sockets = notify.Sockets(f"{folder}/v.sock.notify")
    fd, address = sockets.open(7, NOBODY)
    assert address.startswith(f"{folder}/v.sock.notify/7-")
    run = told.control.spawn(
        load, "send", "READY=1", "stay", uid=NOBODY, gid=NOBODY, env={"NOTIFY_SOCKET": address}, notify=fd
    ).run
    os.close(fd)
    notice = told.until(run, lambda notice: notice.ready)
    assert notice.ready is not None
    assert notice.ready.uid == NOBODY
    read, write = os.pipe()
    other = told.control.spawn(
        load, "send", "READY=1", uid=1, gid=1, env={"NOTIFY_SOCKET": address}, fds=(None, write, None)
    ).run
    os.close(write)
    told.control.end(other)
    assert os.read(read, 100).startswith(b"cannot send: Permission denied")
    os.close(read)
    sockets.close(7)
    sockets.remove()
    assert os.listdir(folder) == []
    os.rmdir(folder)


# --- descriptors ---


def test_descriptors_that_come_along_are_closed_and_a_barrier_returns(pid1: Callable[..., Pid1], load: str) -> None:
    daemon = pid1()
    told = Told(daemon.attached())
    idle = told.start(load, "stay")
    told.settled(idle)
    before = os.listdir(f"/proc/{the_logger(daemon)}/fd")
    read, write = os.pipe()
    run = told.start(load, "fds", "200", "barrier", "send", "READY=1", "barrier", "stay", fds=(None, write, None))
    os.close(write)
    told.until(run, lambda notice: notice.ready)
    got = b""
    while got.count(b"\n") < 2:
        assert select.select([read], [], [], LIMIT)[0], got
        got += os.read(read, 100)
    assert got == b"passed\npassed\n"
    os.close(read)
    assert len(os.listdir(f"/proc/{the_logger(daemon)}/fd")) == len(before) + 1, "the socket of the second run"
    assert told.until(run, lambda notice: notice.taken == 203)
    told.control.stop(run)
    daemon.until(lambda: len(os.listdir(f"/proc/{the_logger(daemon)}/fd")) == len(before), "the socket to be closed")
    told.close()


def test_systemd_notify_is_heard_and_its_barrier_returns(need: Callable[..., None], told: Told) -> None:
    need("systemd-notify")
    run = told.start(
        "/bin/sh", "-c", "systemd-notify --ready --status='serving 5' && systemd-notify STOPPING=1 WATCHDOG=1; exit $?"
    )  # fmt: skip
    begun = time.monotonic()
    assert told.control.exited(run).exit_code == 0
    assert time.monotonic() - begun < 5, "it waits 5 s for a barrier that does not come"
    told.control.gone(run)
    notice = told.board.read(run)
    assert notice is not None
    assert (notice.ready is not None, notice.stopping is not None, notice.status) == (True, True, "serving 5")
    assert notice.forged == 0


# --- floods, stalls, kills ---


def memory(pid: int) -> int:
    """Resident bytes that are its own."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024


@pytest.mark.parametrize("gap", [5000, 50], ids=["200 a second", "20,000 a second"])
def test_a_flood_disturbs_nobody_while_stdout_is_stalled_and_nobody_reads(
    pid1: Callable[..., Pid1], load: str, gap: int
) -> None:
    read, write = os.pipe()  # that nobody reads
    daemon = pid1(stdout=write)
    os.close(write)
    told = Told(daemon.attached())
    out, into = os.pipe()
    loud = told.control.spawn("/bin/sh", "-c", "exec yes > /proc/1/fd/1")
    before = memory(the_logger(daemon))
    null = os.open("/dev/null", os.O_WRONLY)  # what it prints at its end would wait, too
    count = 3_000_000 // gap
    flood = told.start(load, "send", "READY=1", "flood", str(count), str(gap), "stay", fds=(None, into, None))
    for _ in range(5):
        time.sleep(0.2)
        begun = time.monotonic()
        other = told.start(load, "send", "READY=1", "stay", fds=(None, null, None))
        told.until(other, lambda notice: notice.ready)
        assert time.monotonic() - begun < 2
        told.control.stop(other)
    notice = told.until(flood, lambda notice: notice.taken == count + 1)
    assert notice.ready is not None
    assert notice.ready.seq == notice.ready_again.seq  # type: ignore[union-attr]
    assert (notice.status, notice.forged) == (str((count + 1) // 2), 0)
    assert memory(the_logger(daemon)) - before < 1 << 20
    told.control.send(wire.stop(flood))
    os.close(into)
    longest = int(os.read(out, 100).split()[1].rstrip(b","))
    assert longest < 1_000_000
    print(f"{count} datagrams, the longest took {longest} us")
    os.close(out)
    told.control.stop(loud.run)
    os.close(read)
    os.close(null)
    told.close()


def test_a_sender_waits_no_longer_than_the_replacement_of_a_hung_logger_takes(
    pid1: Callable[..., Pid1], load: str
) -> None:
    daemon = pid1()
    told = Told(daemon.attached())
    out, into = os.pipe()
    run = told.start(load, "send", "READY=1", "stay")
    told.settled(run)
    stopped = the_logger(daemon)
    os.kill(stopped, signal.SIGSTOP)
    run = told.start(load, "flood", "1000", "100", "send", "READY=1", "stay", fds=(None, into, None))
    os.close(into)
    frozen = told.board.drained_ns()
    time.sleep(0.7)
    assert told.board.drained_ns() == frozen, "who judges the silence of services must see that nobody listens"
    notice = told.until(run, lambda notice: notice.ready)
    assert notice.taken == 1001
    assert the_logger(daemon) != stopped
    told.control.send(wire.stop(run))
    longest = int(os.read(out, 100).split()[1].rstrip(b","))
    assert 100_000 < longest < 4_000_000
    os.close(out)
    told.close()


@pytest.mark.chaos
def test_kills_of_logger_and_control_lose_and_double_nothing(pid1: Callable[..., Pid1], load: str) -> None:
    """Under 5 services that notify 25,000 times a second together, and runs that come and go.

    Kills come 0 to 30 ms after the last, of logger three times in four: one in ten hits it between the two halves of
    taking a datagram.
    """
    print(f"VIGIL_SEED={SEED}")
    chance = random.Random(SEED)
    kills = KILLS or 240
    daemon = pid1()
    told = Told(daemon.attached())
    floods: dict[m.Run, int] = {}
    for _ in range(5):
        out, into = os.pipe()
        run = told.start(load, "send", "READY=1", "flood", "100000000", "200", "stay", fds=(None, into, None))
        os.close(into)
        floods[run] = out
    short: dict[m.Run, str] = {}
    killed = {"logger": 0, "control": 0}
    number = 0
    while sum(killed.values()) < kills:
        run = told.start(load, "send", f"READY=1\\nSTATUS={number}", *(["stay"] if number % 2 else []))
        short[run] = str(number)
        number += 1
        time.sleep(chance.uniform(0, 0.03))
        if chance.random() < 0.25:
            killed["control"] += 1
            daemon.kill_control(told.control)
            told.close()
            told = Told(daemon.attached())
            # What was said before is all there, with each run's own text.
            for notice in told.board.changed():
                if notice.run in short and notice.status_mark:
                    assert notice.status == short[notice.run]
        elif logger := logger_of(daemon):
            killed["logger"] += 1
            os.kill(logger, signal.SIGKILL)
        if len(short) > 8:
            run = chance.choice(list(short))
            text = short.pop(run)
            notice = told.until(run, lambda notice: notice.ready)
            assert (notice.status, notice.taken, notice.forged) == (text, 1, 0)
            told.control.send(wire.stop(run))
    for run, text in short.items():
        notice = told.until(run, lambda notice: notice.ready)
        assert (notice.status, notice.taken, notice.forged, notice.senseless) == (text, 1, 0, 0)
    total = 0
    for run, out in floods.items():
        told.control.send(wire.stop(run))
        sent = int(os.read(out, 100).split()[3])
        notice = told.until(run, lambda notice, sent=sent: notice.taken >= sent)  # type: ignore[misc]
        time.sleep(0.05)
        assert told.board.read(run) == notice, "none comes twice"
        assert (notice.taken, notice.forged, notice.senseless) == (sent, 0, 0)
        assert notice.ready == notice.ready_again
        total += sent
        os.close(out)
    print(f"killed: {killed}, {number} short runs, {total} datagrams")
    told.close()


class Played:
    """logger without PID 1, and one service: the test itself, whose own limit is taken for the tag."""

    def __init__(self, folder: Path) -> None:
        self.out = os.pipe()
        self.play = Play(build(folder)[0], (self.out[1], self.out[1]))
        self.tag = resource.prlimit(0, LOCKS)[0] & (1 << 64) - 1
        self.board = Board(self.play.board, os.dup(self.play.wake))
        self.sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addresses: dict[m.Run, str] = {}

    def begin(self, slot: int, generation: int = 1, tag: int | None = None) -> m.Run:
        """A run."""
        run = m.Run(slot, generation)
        self.addresses[run] = self.play.notify(slot, generation, tag=self.tag if tag is None else tag)
        return run

    def say(self, run: m.Run, text: str) -> None:
        """A datagram."""
        self.sender.sendto(text.encode(), "\0" + self.addresses[run][1:])

    def until(self, run: m.Run, taken: int) -> Notice:
        """Its notice, once so many were taken."""
        end = time.monotonic() + LIMIT
        while (notice := self.board.read(run)) is None or notice.taken + notice.forged < taken:
            assert self.play.ping(7)
            assert time.monotonic() < end, notice
        return notice

    def woken(self) -> bool:
        """Whether control was woken by what has been taken until now."""
        now = time.monotonic_ns()
        while self.board.drained_ns() < now:  # a turn that has begun since has ended
            assert self.play.ping(8)
        return bool(select.select([self.play.wake], [], [], 0)[0]) and bool(os.eventfd_read(self.play.wake))

    def close(self) -> None:
        self.sender.close()
        self.board.close()
        self.play.close()
        for fd in self.out:
            os.close(fd)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    made = Played(tmp_path)
    yield made
    made.close()


def test_only_what_is_new_wakes_and_keepalives_never_do(played: Played) -> None:
    played.play.start()
    run = played.begin(1)
    assert played.woken(), "a logger that has just begun does not know whom its predecessor woke"
    said = [
        ("READY=1", True), ("WATCHDOG=1", False), ("STATUS=a", True), ("STATUS=a", False), ("STATUS=ab", True),
        ("WATCHDOG=1\nSTATUS=ab", False), ("STATUS=", True), ("STATUS=", False), ("RELOADING=1", True),
        ("READY=1", True), ("X=1", False), ("WATCHDOG=trigger", True), ("WATCHDOG_USEC=1", True),
        ("EXTEND_TIMEOUT_USEC=1", True), ("STOPPING=1", True), ("WATCHDOG=1\nREADY=1", True), ("MAINPID=1", False),
    ]  # fmt: skip
    for taken, (text, wakes) in enumerate(said, 1):
        played.say(run, text)
        played.until(run, taken)
        assert played.woken() is wakes, text


def test_what_is_in_the_socket_when_the_run_ends_is_taken_first(played: Played) -> None:
    played.play.start()
    run = played.begin(1)
    played.say(run, "READY=1")
    played.until(run, 1)
    assert played.play.process
    for text in ("STATUS=a", "STATUS=last"):
        played.play.process.send_signal(signal.SIGSTOP)
        if text == "STATUS=a":
            played.play.plain(PING, 3)
        else:
            played.play.forget(1)  # logger reads this first
        played.say(run, text)
        played.play.process.send_signal(signal.SIGCONT)
        assert played.play.expect(PONG if text == "STATUS=a" else DRAINED)
    notice = played.board.read(run)
    assert notice is not None
    assert (notice.taken, notice.status) == (3, "last")


def test_a_run_that_is_over_takes_nothing_from_the_one_that_has_its_slot_now(played: Played) -> None:
    """A new logger is told of both, in any order."""
    played.play.start()
    old, new = played.begin(1, 5), played.begin(1, 6)
    played.say(new, "READY=1\nSTATUS=new")
    notice = played.until(new, 1)
    for order in (1, -1):
        played.play.kill()
        played.say(old, "READY=1\nSTATUS=old")
        played.play.streams.sort(key=lambda stream, order=order: stream.run[1] * order)  # type: ignore[misc]
        played.play.start()
        played.say(old, "STATUS=older")
        played.say(new, "WATCHDOG=1")
        notice = played.until(new, notice.taken + 1)
        assert (notice.status, notice.ready is not None, notice.forged) == ("new", True, 0)
        assert played.board.read(old) is None


def test_a_logger_that_does_not_know_all_sockets_yet_claims_to_have_drained_none(played: Played) -> None:
    run = played.begin(1)
    tell = played.play.told
    played.play.told = lambda: None  # type: ignore[method-assign]
    played.play.start(wait=False)
    assert played.play.ping(1)
    assert played.play.ping(2)
    assert played.board.drained_ns() == 0
    now = time.monotonic_ns()
    tell()
    played.say(run, "READY=1")
    assert played.until(run, 1).ready
    assert played.play.ping(3)
    assert played.board.drained_ns() > now


# struct notify_intent: state, told, next, seq, real_ns, now_ns, run, tag, uid, taken, forged, senseless, name, control,
# text.
INTENT = struct.Struct("=IIQQQQIIQIxxxxQQQ136s32s4104s")
# struct vg_notice: where `told` is, and the pid in `ready`.
NOTICE_TOLD, NOTICE_READY_PID = 16, 72


def intent_of(journal: int, name: bytes) -> int:
    """Where in J the intent is whose last datagram was that service's."""
    at = 0
    while True:
        at = os.lseek(journal, at, os.SEEK_DATA)
        end = os.lseek(journal, at, os.SEEK_HOLE)
        found = os.pread(journal, end - at, at).find(name.ljust(136, b"\0"))
        if found >= 0:
            return at + found - (INTENT.size - 136 - 32 - 4104)
        at = end


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("text", ["STATUS=a", "READY=1"])
def test_what_a_killed_logger_had_done_is_done_again_and_comes_to_the_same(
    played: Played, text: str, own: bool, torn: bool
) -> None:
    """As after a kill between the last store on the board and the one that closes the intent, or in the middle."""
    played.play.start()
    run = played.begin(1, tag=None if own else 5)
    played.say(run, text)
    before = played.until(run, 1)
    assert (before.taken, before.forged) == ((1, 0) if own else (0, 1))
    said = list(played.board.changed())
    assert said == ([before] if own else [])
    played.board.close()
    played.play.kill()
    at = intent_of(played.play.journal, b"n1")
    intent = list(INTENT.unpack(os.pread(played.play.journal, INTENT.size, at)))
    assert intent[:4] == [0, 0, 2, 2]  # the second was asked for, and did not come
    assert intent[6:8] + intent[10:12] == [1, 1, before.taken, before.forged]
    sender = struct.pack("=Qiiiii", 28, socket.SOL_SOCKET, socket.SCM_CREDENTIALS, os.getpid(), os.getuid(), 0)
    mark = before.ready or before.status_mark
    times = [mark.real_ns, mark.monotonic_ns] if mark else [7, 7]
    intent[0], intent[3:6], intent[10:12], intent[14:] = 1, [1, *times], [0, 0], [sender, text.encode()]
    os.pwrite(played.play.journal, INTENT.pack(*intent), at)
    with mmap.mmap(played.play.board, 0) as memory:
        notice = lib.VG_BOARD_FIRST + 1024 * run.slot
        version = struct.unpack_from("=Q", memory, notice)[0]
        assert version % 2 == 0
        if torn:
            struct.pack_into("=Q", memory, notice, version + 1)
            struct.pack_into("=Q", memory, notice + NOTICE_TOLD, 0)
            if before.ready:
                struct.pack_into("=i", memory, notice + NOTICE_READY_PID, 0)
    played.board = Board(played.play.board, os.dup(played.play.wake))
    assert (played.board.read(run) is None) is torn
    played.play.start()
    assert played.until(run, 1) == before
    assert list(played.board.changed()) == said
    played.say(run, "WATCHDOG=1")
    assert played.until(run, 2).taken == (2 if own else 0)


@pytest.mark.chaos
@pytest.mark.skipif(SANITIZED, reason="counts instructions of the program as it is")
def test_no_instruction_is_one_after_which_a_kill_costs_a_notification(played: Played, tmp_path: Path) -> None:
    """logger is killed after each of its instructions in turn, from the datagram on until it sleeps again."""
    step = compile_c(tmp_path, "logger_step", ["tests/init/logger_step.c"])
    play, apart = played.play, STEP or 29
    play.start()
    steps, kills, busy = random.randrange(apart), 0, True
    sent = dict.fromkeys((played.begin(1), played.begin(2, tag=5)), 0)  # of the second every datagram is another's
    one, other = sent
    played.say(one, "READY=1")
    first = played.until(one, 1)
    sent[one] = 1
    assert list(played.board.changed()) == [first]
    while busy:
        assert play.process
        run = played.begin(3, kills) if kills % 3 == 2 else (one, other)[kills % 3]
        with subprocess.Popen(
            [step, str(play.process.pid), str(steps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as tracer:
            assert tracer.stdin
            assert tracer.stdout
            assert tracer.stdout.readline() == "stopped\n"
            played.say(run, f"STATUS={kills}" if run == one else "READY=1")
            sent[run] = sent.get(run, 0) + 1
            tracer.stdin.write("\n")
            tracer.stdin.flush()
            busy = bool(select.select([tracer.stdout], [], [], 1)[0])
            if not busy:
                play.process.kill()
            tracer.communicate()
        play.kill()
        kills += 1
        play.start()
        notice = played.until(run, sent[run])
        counts = (0, sent[run]) if run == other else (sent[run], 0)
        assert (notice.taken, notice.forged, notice.senseless) == (*counts, 0)
        assert notice.ready == (first.ready if run == one else None if run == other else notice.ready_again)
        assert notice.status == (str(kills - 1) if run == one else "")
        assert select.select([play.wake], [], [], LIMIT)[0], "control would not look"
        os.eventfd_read(play.wake)
        told = {notice.run for notice in played.board.changed()}
        assert told == {run} - {other}, "once, and only what is new"
        if run.slot == 3:
            play.forget(3, run.generation)
            assert play.expect(DRAINED)
        steps += apart
    print(f"{kills} kills, {steps} instructions")
    assert kills > 20, "it was followed through the whole of its work"


# --- poor surroundings ---

HIDDEN = {
    "root without rights": (("setpriv", "--bounding-set=-sys_resource,-sys_ptrace"), False),
    "hidepid": (
        (
            "/bin/sh",
            "-c",
            'mount -o remount,hidepid=2,gid=54321 /proc && exec setpriv --bounding-set=-sys_resource,-sys_ptrace "$@"',
            "sh",
        ),
        True,
    ),
    "no /proc": (
        (
            "/bin/sh",
            "-c",
            'mount -t tmpfs none /proc && exec setpriv --bounding-set=-sys_resource,-sys_ptrace "$@"',
            "sh",
        ),
        True,
    ),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_where_senders_cannot_be_looked_at_their_uid_counts_and_that_is_said(
    pid1: Callable[..., Pid1], need: Callable[..., None], load: str, root: None, where: str
) -> None:
    need("setpriv")
    prefix, blind = HIDDEN[where]
    daemon = pid1(prefix=prefix)
    told = Told(daemon.attached())
    run = told.start(load, "send", "READY=1", "stay", uid=NOBODY)
    victim = told.address
    told.until(run, lambda notice: notice.ready)
    for uid in (1, NOBODY):
        told.control.spawn(load, "send", "STOPPING=1", "stay", uid=uid, gid=uid, env={"NOTIFY_SOCKET": victim})
        notice = told.until(run, lambda notice, uid=uid: notice.taken + notice.forged == (2 if uid == 1 else 3))  # type: ignore[misc]
        assert (notice.stopping is not None) == (blind and uid == NOBODY)
    if blind:
        diagnosed(daemon, "cannot see who sends notifications here")
    else:
        assert daemon.err
        assert b"cannot see who" not in daemon.err.data
    told.close()
