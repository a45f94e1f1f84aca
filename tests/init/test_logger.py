"""Logger: what it keeps and forwards, and what it does beside a stdout that takes nothing. The test is its PID 1."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.init.logger_play import (
    DISABLED,
    DRAINED,
    ENABLED,
    JSON,
    NO_SLOT,
    TIMESTAMP,
    Play,
    build,
    pipe,
    read_ring,
    records,
)

LIMIT = 10.0
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("logger"))


class Out:
    """The read end of a stdout."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.data = b""

    def until(self, wanted: bytes | int, timeout: float = LIMIT) -> bytes:
        """All that came, once it contains or counts (bytes) what is wanted."""
        end = time.monotonic() + timeout
        while len(self.data) < wanted if isinstance(wanted, int) else wanted not in self.data:
            left = end - time.monotonic()
            assert left > 0, f"{wanted!r} did not come, but {self.data[-500:]!r}"
            if select.select([self.fd], [], [], left)[0]:
                self.data += os.read(self.fd, 1 << 20)
        return self.data

    def rest(self) -> bytes:
        """All that came, and what comes in a moment."""
        while select.select([self.fd], [], [], 0.15)[0]:
            data = os.read(self.fd, 1 << 20)
            if not data:
                break
            self.data += data
        return self.data


class World:
    """A logger between pipes."""

    def __init__(self, programs: tuple[Path, Path]) -> None:
        self.programs = programs
        self.plays: list[Play] = []
        self.fds: list[int] = []

    def pipe(self, size: int | None = None) -> tuple[Out, int]:
        read, write = pipe(size)
        self.fds += [read, write]
        return Out(read), write

    def play(self, stdout: int, stderr: int | None = None, **more: int | str) -> Play:
        play = Play(self.programs[0], (stdout, stdout if stderr is None else stderr), **more)  # type: ignore[arg-type]
        self.plays.append(play)
        play.start()
        return play


@pytest.fixture
def world(programs: tuple[Path, Path]) -> Iterator[World]:
    made = World(programs)
    yield made
    for play in made.plays:
        play.close()
    for fd in made.fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def wait(condition: Callable[[], bool], timeout: float = LIMIT) -> None:
    """Until it holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.01)


def end(play: Play, run: int) -> None:
    """FORGET, DRAINED."""
    play.forget(run)
    while any(owed[0] == run for owed in play.owed):
        assert play.expect(DRAINED)


def cpu(play: Play) -> float:
    """Seconds of CPU logger has used."""
    assert play.process
    fields = Path(f"/proc/{play.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- lines ---


def test_lines_are_kept_as_captured_and_forwarded_with_their_prefix(world: World) -> None:
    out, stdout = world.pipe()
    err, stderr = world.pipe()
    play = world.play(stdout, stderr)
    one, two = play.stream(1, 1, "web"), play.stream(1, 2, "web")
    os.write(one, b"hello\r\nnul \0 bad \xff\n\n")
    out.until(b"[web] \n")
    os.write(two, b"oops\n")
    err.until(b"\n")
    assert out.data == b"[web] hello\n[web] nul \0 bad \xff\n[web] \n"
    assert err.data == b"[web] oops\n"
    assert [(flags & 1, message) for _, _, _, flags, message in records(play.rings["web"])] == [
        (0, b"hello"),
        (0, b"nul \0 bad \xff"),
        (0, b""),
        (1, b"oops"),
    ]


def test_formats_of_what_is_forwarded(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    os.write(play.stream(1, 1, "t", format=TIMESTAMP), b"line\n")
    out.until(b"line\n")
    os.write(play.stream(2, 2, "j", format=JSON), b'say "hi"\n' + b"x" * 17000 + b"\n")
    out.until(b'x"}\n')
    stamped, entry, first, second = out.data.decode().splitlines()
    assert re.fullmatch(STAMP + r" \[t\] line", stamped)
    assert json.loads(entry)["message"] == 'say "hi"'
    assert {"seq", "timestamp", "service", "stream"} < json.loads(entry).keys()
    assert [len(json.loads(part)["message"]) for part in (first, second)] == [16384, 616]
    assert [json.loads(part).get("partial") for part in (first, second)] == [True, None]


def test_a_disabled_stream_is_kept_and_not_forwarded_until_the_mode_changes(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    write = play.stream(1, 1, "web", mode=DISABLED)
    os.write(write, b"hidden\n")
    wait(lambda: len(records(play.rings["web"])) == 1)
    play.streams[-1].mode = ENABLED
    play.tell(play.streams[-1])
    assert play.ping(1)
    os.write(write, b"shown\n")
    out.until(b"shown\n")
    play.streams[-1].mode = DISABLED
    play.tell(play.streams[-1])
    assert play.ping(2)
    os.write(write, b"hidden again\n")
    wait(lambda: len(records(play.rings["web"])) == 3)
    assert out.rest() == b"[web] shown\n"


def test_an_unterminated_line_waits_for_its_end_and_the_end_of_the_run_is_one(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    write = play.stream(1, 1, "web")
    os.write(write, b"half")
    assert play.ping(1)
    assert out.rest() == b""
    os.write(write, b" done\nlast")
    out.until(b"half done\n")
    end(play, 1)
    assert out.until(b"last\n") == b"[web] half done\n[web] last\n"


def test_a_very_long_line_is_one_line_on_stdout_beside_other_writers(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    long, short = play.stream(1, 1, "long"), play.stream(2, 1, "short")
    line = bytes(range(32, 127)) * 3200
    at = 0
    while at < len(line):  # cut by lines of another service all the time
        at += os.write(long, line[at : at + 20_000])
        os.write(short, b"between\n")
        assert play.ping(at)
    os.write(long, b"\n")
    out.until(b"[long] " + line + b"\n")
    assert set(out.data.splitlines()) == {b"[long] " + line, b"[short] between"}
    kept = records(play.rings["long"])
    assert b"".join(message for *_, message in kept) == line
    assert [flags & 2 for *_, flags, _ in kept] == [2] * (len(kept) - 1) + [0]


def test_a_long_line_that_does_not_end_is_forwarded_after_a_second_and_holds_up_nobody(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    long, short = play.stream(1, 1, "long"), play.stream(2, 1, "short")
    os.write(long, b"x" * 20_000)
    assert play.ping(1)
    begin = time.monotonic()
    os.write(short, b"quick\n")
    out.until(b"[short] quick\n")
    assert time.monotonic() - begin < 0.8
    assert b"long" not in out.data
    out.until(b"[long] " + b"x" * 16384)
    os.write(short, b"later\n")
    out.until(b"\n[short] later\n")
    os.write(long, b"y\n")
    out.until(b"y\n")
    assert out.data == (
        b"[short] quick\n[long] " + b"x" * 16384 + b"\n[short] later\n[long] " + b"x" * (20_000 - 16384) + b"y\n"
    )


def test_lines_of_several_services_come_in_the_order_of_capture(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    writes = [play.stream(run, 1 + run % 2, f"s{run}") for run in range(1, 9)]
    for number in range(400):
        os.write(writes[number * 5 % 8], b"%d\n" % number)
        if number % 7 == 0:
            assert play.ping(number)
    out.until(b" 399\n")
    kept = {seq: message for ring in play.rings.values() for seq, _, _, _, message in records(ring)}
    assert [line.split()[1] for line in out.data.splitlines()] == [kept[seq] for seq in sorted(kept)]


def test_a_line_longer_than_the_private_pipe_comes_whole(world: World) -> None:
    out, stdout = world.pipe()
    play = Play(world.programs[0], (stdout, stdout))
    world.plays.append(play)
    for _read, write in play.private:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    play.start()
    write = play.stream(1, 1, "web", format=JSON)
    os.write(write, b"\1" * 16384 + b"\nshort\n")  # 98,304 bytes of JSON
    out.until(b"short")
    assert [json.loads(line)["message"] for line in out.rest().splitlines()] == ["\1" * 16384, "short"]


# --- ends of runs ---


def test_forget_takes_what_is_in_the_pipe_and_waits_for_nobody_who_holds_it(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    write = play.stream(1, 1, "web")
    other = play.stream(1, 2, "web")
    os.write(write, b"one\ntwo\nthree")
    os.write(other, b"err")
    end(play, 1)  # both write ends are still open
    out.until(b"[web] err\n")
    out.until(b"[web] three\n")
    assert [message for *_, message in records(play.rings["web"])].count(b"three") == 1
    assert out.rest().count(b"\n") == 4


def test_forget_of_a_run_that_logger_does_not_know_is_answered(world: World) -> None:
    _out, stdout = world.pipe()
    play = world.play(stdout)
    play.tell_forget((77, 3))
    assert play.expect(DRAINED) == (77, 3)


def test_the_end_of_one_run_comes_before_the_beginning_of_the_next(world: World) -> None:
    out, stdout = world.pipe(4096)
    play = world.play(stdout)
    play.ring("web", 1000, 1)
    first = play.stream(1, 1, "web")
    os.set_blocking(first, False)
    sent = 0
    with contextlib.suppress(BlockingIOError):  # until stdout, the log and the pipe are full
        while True:
            sent += os.write(first, b"first %06d\n" % (sent // 13))
            assert play.ping(sent)
    play.forget(1)
    second = play.stream(2, 1, "web")
    os.write(second, b"second\n")
    os.close(first)
    out.until(b"second\n")
    assert out.data == b"".join(b"[web] first %06d\n" % number for number in range(sent // 13)) + b"[web] second\n"
    assert play.expect(DRAINED) == (1, 1)


def test_the_last_lines_of_a_run_that_is_over_outlive_logger(world: World) -> None:
    """All that a new logger has of that log is what PID 1 tells it: a ring that no run feeds."""
    out, stdout = world.pipe(4096)
    play = world.play(stdout)
    write = play.stream(1, 1, "gone")
    for number in range(3000):
        os.write(write, b"%d\n" % number)
    os.close(write)
    end(play, 1)
    play.kill()
    play.start()
    out.until(b" 2999\n")
    assert out.data == b"".join(b"[gone] %d\n" % number for number in range(3000))


# --- sinks that do not take it ---


def fill(play: Play, write: int, line: bytes = b"x" * 100 + b"\n") -> int:
    """Writes lines until the pipe does not take more for a moment; how many."""
    os.set_blocking(write, False)
    count, quiet = 0, 0
    while quiet < 3:
        try:
            assert os.write(write, line) == len(line)
            count += 1
            quiet = 0
        except BlockingIOError:
            quiet += 1
            assert play.ping(count), "logger answers whatever stdout does"
            time.sleep(0.02)
    return count


def test_only_the_service_that_is_ahead_of_a_slow_stdout_waits_and_nothing_is_lost(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout, stall_ms=60_000)
    play.ring("ahead", 1000, 1)
    ahead, calm = play.stream(1, 1, "ahead"), play.stream(2, 1, "calm")
    sent = fill(play, ahead)
    before = cpu(play)
    os.write(calm, b"calm\n")
    wait(lambda: read_ring(play.rings["calm"]) == [("stdout", "calm")])
    time.sleep(0.3)
    assert cpu(play) - before < 0.1, "it does not spin"
    lines = out.until(b"calm\n").splitlines()
    while lines.count(b"[ahead] " + b"x" * 100) < sent:
        out.until(len(out.data) + 1)
        lines = out.data.splitlines()
    assert lines.count(b"[ahead] " + b"x" * 100) == sent
    assert sorted(set(lines)) == [b"[ahead] " + b"x" * 100, b"[calm] calm"]


def test_after_the_stall_lines_are_captured_and_counted_and_one_line_says_so(world: World) -> None:
    out, stdout = world.pipe()
    err, stderr = world.pipe()
    play = world.play(stdout, stderr, stall_ms=300)
    play.ring("web", 1000, 1)
    write, error = play.stream(1, 1, "web"), play.stream(1, 2, "web")
    total = 30_000
    for number in range(total):  # blocks until the stall is over, then never again
        os.write(write, b"%d " % number + b"x" * 90 + b"\n")
    wait(
        lambda: bool(records(play.rings["web"])) and records(play.rings["web"])[-1][4].startswith(b"%d " % (total - 1))
    )
    err.until(b"WARN vigil.logger stdout takes nothing: services go on")  # told while it stands, not only afterwards
    os.write(error, b"stderr moves\n")
    err.until(b"[web] stderr moves\n")
    out.until(b"] %d x" % (total - 1))
    numbers = [int(line.split()[1]) for line in out.rest().splitlines()]
    assert numbers == sorted(set(numbers)), "in order, none twice"
    missing = total - len(numbers)
    assert missing > 1000
    said = err.until(b"not forwarded").decode()
    assert said.count("stood still") == said.count("takes nothing") == 1
    assert f"{missing} lines were not forwarded: web {missing}" in said
    assert play.ping(3)
    os.write(write, b"goes on\n")
    out.until(b"[web] goes on\n")


def test_a_closed_stdout_is_like_one_that_stands_still(world: World) -> None:
    out, stdout = world.pipe()
    _err, stderr = world.pipe()
    play = world.play(stdout, stderr)
    write = play.stream(1, 1, "web")
    os.write(write, b"heard\n")
    out.until(b"heard\n")
    os.close(out.fd)
    for number in range(5000):
        os.write(write, b"%d\n" % number)
    wait(lambda: read_ring(play.rings["web"])[-1] == ("stdout", "4999"))
    assert play.ping(1)
    assert len(records(play.rings["web"])) == 1000
    begin = time.monotonic()
    assert play.finish()
    assert time.monotonic() - begin < 1.9, "nobody is waited for, as somebody who may come back is: 2 s"
    world.fds.remove(out.fd)
    assert play.process
    assert play.process.poll() is None


def test_a_fifo_that_gets_a_new_reader_goes_on(world: World, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stdout = os.open(path, os.O_WRONLY)
    err, stderr = world.pipe()
    world.fds.append(stdout)
    play = world.play(stdout, stderr)
    write = play.stream(1, 1, "web")
    os.close(reader)
    os.write(write, b"nobody\n")
    wait(lambda: read_ring(play.rings["web"])[-1:] == [("stdout", "nobody")])
    time.sleep(0.1)
    out = Out(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    world.fds.append(out.fd)
    os.write(write, b"somebody\n")
    out.until(b"[web] somebody\n")
    said = err.until(b"not forwarded").decode()
    assert "stdout stood still, 1 lines were not forwarded: web 1" in said


def test_at_the_end_a_stdout_that_takes_nothing_costs_two_seconds_and_the_count_is_said(world: World) -> None:
    _out, stdout = world.pipe()
    play = world.play(stdout, stall_ms=60_000)
    play.ring("web", 1000, 1)
    write = play.stream(1, 1, "web")
    sent = fill(play, write)
    begin = time.monotonic()
    assert play.finish()
    assert 1.9 < time.monotonic() - begin < 3
    last = records(play.rings["web"])[-1]
    assert last[1] == sent - 1, "all was captured"


def test_at_the_end_all_is_forwarded_however_slow_stdout_is(world: World) -> None:
    out, stdout = world.pipe(4096)
    play = world.play(stdout, stall_ms=60_000)
    write = play.stream(1, 1, "web")
    for number in range(4000):
        os.write(write, b"%d " % number + b"x" * 100 + b"\n")
    play.plain(68)
    words = None
    while words is None:
        out.data += os.read(out.fd, 4096)
        time.sleep(0.005)
        message = play.receive(0)
        words = message[1] if message and message[1][0] == NO_SLOT else None
    assert [int(line.split()[1]) for line in out.rest().splitlines()] == list(range(4000))


def test_stdout_and_stderr_closed_from_the_start_are_survived(world: World) -> None:
    play = Play(world.programs[0], (-1, -1))
    world.plays.append(play)
    play.start()
    write = play.stream(1, 1, "web")
    for number in range(3000):
        os.write(write, b"%d\n" % number)
    end(play, 1)
    assert read_ring(play.rings["web"])[-1] == ("stdout", "2999")
    assert play.finish()


@pytest.mark.parametrize("way", ["null", "full", "file", "append", "terminal", "inherited nonblocking"])
def test_every_kind_of_stdout(world: World, tmp_path: Path, way: str) -> None:
    lines = [b"%d " % number + b"y" * (number % 300) for number in range(20_000)]
    path = tmp_path / "out"
    out: Out | None = None
    match way:
        case "null" | "full":
            stdout = os.open(f"/dev/{way}", os.O_WRONLY)
        case "file":
            stdout = os.open(path, os.O_WRONLY | os.O_CREAT)
        case "append":
            path.write_bytes(b"before\n")
            stdout = os.open(path, os.O_WRONLY | os.O_APPEND)
        case "terminal":
            read, stdout = pty.openpty()
            tty.setraw(stdout, termios.TCSANOW)
            out = Out(read)
            world.fds.append(read)
        case _:
            out, stdout = world.pipe()
            os.set_blocking(stdout, False)
    world.fds.append(stdout)
    _err, stderr = world.pipe()
    play = world.play(stdout, stderr, stall_ms=300)
    play.ring("web", 200_000, 64 << 20)
    write = play.stream(1, 1, "web")
    pieces = b"".join(line + b"\n" for line in lines)
    expected = b"".join(b"[web] " + line + b"\n" for line in lines)
    os.set_blocking(write, False)
    at = 0
    while at < len(pieces):
        with contextlib.suppress(BlockingIOError):
            at += os.write(write, pieces[at : at + 65536])
        if out is not None and select.select([out.fd], [], [], 0)[0]:
            out.data += os.read(out.fd, 1 << 20)
    end(play, 1)
    if out is not None:
        assert out.until(len(expected)) == expected
    elif way in ("file", "append"):
        wanted = (b"before\n" if way == "append" else b"") + expected
        wait(lambda: path.stat().st_size >= len(wanted))
        assert path.read_bytes() == wanted
    assert [message for *_, message in records(play.rings["web"])] == lines
    assert play.ping(9)


# --- room, and what it costs ---


def test_a_thousand_runs_with_two_streams_each(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    ring = play.ring("many")
    runs, writes = 1024, []
    for run in range(1, runs + 1):
        writes += [play.stream(run, 1, "many"), play.stream(run, 2, "many")]
    assert play.rings["many"] == ring
    before = cpu(play)
    for write in writes:
        os.write(write, b"x\nhalf")
    wait(lambda: len(records(ring)) == 1000)
    for run in range(1, runs + 1):
        play.forget(run)
    while play.owed:
        assert play.expect(DRAINED)
        if select.select([out.fd], [], [], 0)[0]:
            out.data += os.read(out.fd, 1 << 20)
    while out.data.count(b"\n") < 4 * runs:
        out.until(len(out.data) + 1)
    assert out.data.count(b"[many] x\n") == 2 * runs
    assert out.data.count(b"[many] half\n") == 2 * runs
    assert cpu(play) - before < 2
    for write in writes:
        os.close(write)
    assert play.process
    kept = len(os.listdir(f"/proc/{play.process.pid}/fd"))
    assert kept < 30, "no descriptor of a run that is over is kept"


@pytest.mark.plain
def test_memory_and_pages_are_given_back(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    writes = [play.stream(run, 1, f"s{run}") for run in range(1, 21)]
    for _ in range(40):
        for write in writes:
            os.write(write, (b"x" * 99 + b"\n") * 300 + b"u" * 3000)
        while select.select([out.fd], [], [], 0.02)[0]:
            os.read(out.fd, 1 << 20)
    for write in writes:
        os.write(write, b"\n")

    def kept() -> int:
        return sum(os.fstat(ring).st_blocks * 512 for name, ring in play.rings.items() if name != "vigild")

    def drain() -> bool:
        while select.select([out.fd], [], [], 0)[0]:
            os.read(out.fd, 1 << 20)
        return kept() < 20 * 160_000

    wait(drain)
    assert os.fstat(play.journal).st_blocks * 512 < 2 << 20
    assert play.process
    rollup = Path(f"/proc/{play.process.pid}/smaps_rollup").read_text(encoding="ascii")
    private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    if os.environ.get("VIGIL_TEST_SANITIZE") != "1":  # which has shadow memory
        assert private * 1024 - kept() < 2 << 20, (
            "the logs themselves, which nobody else has mapped here, are not counted"
        )


def test_the_link_is_answered_while_everything_is_in_motion(world: World) -> None:
    out, stdout = world.pipe()
    play = world.play(stdout)
    writes = [play.stream(run, 1, f"s{run}") for run in range(1, 5)]
    for write in writes:
        os.set_blocking(write, False)
    slowest = 0.0
    for number in range(300):
        for write in writes:
            with contextlib.suppress(BlockingIOError):
                os.write(write, b"line\n" * 4000)
        if select.select([out.fd], [], [], 0)[0]:
            os.read(out.fd, 1 << 20)
        begin = time.monotonic()
        assert play.ping(number)
        slowest = max(slowest, time.monotonic() - begin)
    assert slowest < 1
