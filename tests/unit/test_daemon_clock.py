"""The clock's calls: in time, and never an error that is only logged."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from vigil.daemon.clock import GuardedClock

PROGRAM = """
import asyncio, time
from vigil.daemon.clock import GuardedClock
def fail():
    raise ArithmeticError("on purpose")
async def main():
    clock = GuardedClock()
    clock.bind(asyncio.get_running_loop())
    {call}
    await asyncio.sleep(20)
asyncio.run(main())
"""


@pytest.mark.parametrize("call", ["clock.soon(fail)", "clock.alarm(time.monotonic_ns(), fail)"])
def test_an_error_in_a_call_ends_the_process_with_its_traceback(call):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call)], capture_output=True, text=True, timeout=15, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("ArithmeticError: on purpose\n")


def test_what_is_asked_for_before_there_is_a_loop_comes_first():
    clock, seen = GuardedClock(), []
    rung = asyncio.Event()
    clock.soon(lambda: seen.append("early"))
    clock.alarm(time.monotonic_ns() + 5_000_000, rung.set)

    async def main():
        clock.bind(asyncio.get_running_loop())
        clock.soon(lambda: seen.append("late"))
        await asyncio.wait_for(rung.wait(), 10)

    asyncio.run(main())
    assert seen == ["early", "late"]


def test_there_is_one_alarm_and_none_is_never():
    clock, seen = GuardedClock(), []

    async def main():
        clock.bind(asyncio.get_running_loop())
        clock.alarm(time.monotonic_ns(), lambda: seen.append("first"))
        clock.alarm(time.monotonic_ns() + 1_000_000, lambda: seen.append("second"))
        await asyncio.sleep(0.02)
        clock.alarm(time.monotonic_ns(), lambda: seen.append("third"))
        clock.alarm(None, lambda: seen.append("never"))
        await asyncio.sleep(0.02)

    asyncio.run(main())
    assert seen == ["second"]
