"""Short programs of control's own, run by the built PID 1: their end, their output, their time, and nothing left."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time

import pytest

from tests.channel.worlds import LIMIT
from vigil.shim.messages import SpawnSpec
from vigil.shim.program import Programs

pytestmark = pytest.mark.pid1


class Bench:
    """A control that runs programs."""

    def __init__(self, real):
        self.daemon = real.daemon
        self.control = real.attach()
        self.link = self.control.link
        self.programs = Programs(self.link, itertools.count(1).__next__)
        self.others = []
        self.link.listen(self.control.loop, self._hear)

    def _hear(self, message):
        if not self.programs.handle(message):
            self.others.append(message)

    def spec(self, *argv, seconds=LIMIT, **more):
        env = {"PATH": os.environ["PATH"]}
        deadline = time.monotonic_ns() + int(seconds * 1e9)
        return SpawnSpec(**({"token": 0, "name": "probe", "argv": argv, "env": env, "deadline": deadline} | more))

    def run(self, *argv, keep=1000, last=False, stderr=True, **more):
        running = self.programs.run(self.spec(*argv, **more), keep=keep, last=last, stderr=stderr)
        return self.control.loop.run_until_complete(asyncio.wait_for(running, LIMIT))

    def left(self):
        """Processes that are neither vigild's own nor a control that only waits."""
        return [p.args for p in self.daemon.processes().values() if p.comm in ("sh", "sleep", "vigil-keeper", "yes")]


@pytest.fixture
def bench(real):
    before = set(os.listdir("/proc/self/fd"))
    made = Bench(real)
    yield made
    made.control.loop.run_until_complete(asyncio.sleep(0))
    made.control.until(lambda: not made.programs.running, "the end of all programs")
    # All that is left of programs is descriptors of the link and of the loop.
    pipes = [fd for fd in set(os.listdir("/proc/self/fd")) - before if _link(fd).startswith("pipe:")]
    assert pipes == []
    made.control.until(lambda: made.left() == [], "an empty machine")


def _link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_its_code_its_end_in_words_and_all_that_it_wrote(bench):
    ended = bench.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ended.code, ended.reason, ended.overdue) == (3, "exited with code 3", False)
    assert (ended.output, ended.cut) == (b"out\nerr\n", False)
    assert bench.run("sh", "-c", "kill -9 $$").reason == "killed by SIGKILL"
    assert bench.run("sh", "-c", "echo out; echo err >&2", stderr=False).output == b"out\n"
    assert bench.others == []


def test_what_cannot_be_executed_says_why(bench):
    ended = bench.run("/nope")
    assert (ended.code, ended.reason) == (None, "exec /nope: No such file or directory")
    assert "working-dir" in bench.run("true", cwd="/nope").reason


def test_at_its_deadline_it_is_killed_with_its_tree_whatever_it_does_about_signals(bench):
    began = time.monotonic()
    ended = bench.run("sh", "-c", "trap '' TERM; setsid sleep 98 & echo begun; sleep 99", seconds=0.5)
    assert (ended.code, ended.overdue, ended.output) == (137, True, b"begun\n")
    assert 0.4 < time.monotonic() - began < 8


def test_a_child_that_stays_is_killed_with_the_end_and_holds_nothing_up(bench):
    began = time.monotonic()
    ended = bench.run("sh", "-c", "trap '' TERM; setsid sleep 97 & exit 0", seconds=20)
    assert (ended.code, ended.overdue) == (0, False)
    assert time.monotonic() - began < 8


def test_the_first_bytes_and_then_the_pipe_is_closed_on_it(bench):
    ended = bench.run("yes", "0123456789", keep=25)
    assert (ended.output, ended.cut, ended.reason) == (b"0123456789\n0123456789\n012", True, "killed by SIGPIPE")


def test_the_last_bytes_and_it_may_write_on(bench):
    ended = bench.run("sh", "-c", "yes | head -c 1000000; echo the end", keep=8, last=True)
    assert (ended.output, ended.cut, ended.code) == (b"the end\n", True, 0)


def test_who_writes_without_end_is_made_to_wait_and_control_goes_on(bench):
    worst, turns = 0.0, 0

    async def watched():
        nonlocal worst, turns
        running = asyncio.ensure_future(bench.programs.run(bench.spec("yes", seconds=1.5), keep=100, last=True))
        spent = time.process_time()
        while not running.done():
            await asyncio.sleep(0.005)
            turns += 1
        return await running, time.process_time() - spent

    ended, cpu = bench.control.loop.run_until_complete(asyncio.wait_for(watched(), LIMIT))
    assert (ended.overdue, ended.output, ended.cut) == (True, b"y\n" * 50, True)
    assert turns > 50
    assert cpu < 0.75, "reading without a pause takes the whole time"


def test_cancelled_it_is_killed_and_nobody_waits_for_it(bench):
    async def cancelled():
        running = asyncio.ensure_future(bench.programs.run(bench.spec("sleep", "96", seconds=300), keep=10))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    bench.control.loop.run_until_complete(asyncio.wait_for(cancelled(), LIMIT))


def test_cancelled_before_it_began_it_is_killed_too(bench):
    async def cancelled():
        running = asyncio.ensure_future(bench.programs.run(bench.spec("sleep", "95", seconds=300), keep=10))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    bench.control.loop.run_until_complete(asyncio.wait_for(cancelled(), LIMIT))


def test_descriptor_0_is_the_callers(bench):
    fd = os.memfd_create("test")
    os.write(fd, b"hello")
    os.lseek(fd, 0, os.SEEK_SET)
    assert bench.run("cat", fds=(fd, None, None)).output == b"hello"
    os.close(fd)


def test_memory_can_be_limited(bench):
    import resource

    limit = (int(resource.RLIMIT_AS), 64 << 20, 64 << 20)
    ended = bench.run(sys.executable, "-I", "-S", "-c", "print(1); b'x' * (1 << 30)", limits=(limit,), keep=5000)
    assert ended.code == 1
    assert b"MemoryError" in ended.output


def test_many_at_once(bench):
    async def many():
        specs = [bench.spec("sh", "-c", f"echo {n}; exit {n}") for n in range(40)]
        return await asyncio.gather(*(bench.programs.run(spec, keep=100) for spec in specs))

    ended = bench.control.loop.run_until_complete(asyncio.wait_for(many(), LIMIT))
    assert [e.code for e in ended] == list(range(40))
    assert [e.output for e in ended] == [f"{n}\n".encode() for n in range(40)]


def test_vigild_forgets_those_that_ended_and_those_that_never_began(real):
    bench = Bench(real)
    bench.link.ready()  # or vigild would end with it
    assert bench.run("true").code == 0
    assert bench.run("/nope").code is None
    real.die(bench.control)
    assert real.attach().snapshot.runs == ()
