"""The clock: what is asked of it before there is a loop comes first, and one alarm replaces another."""

from __future__ import annotations

import asyncio
import time

from vigil.service.clock import LoopClock


def test_what_was_asked_before_the_loop_is_called_in_it() -> None:
    calls: list[str] = []

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()
        clock = LoopClock()
        clock.soon(lambda: calls.append("soon"))
        begun = clock.monotonic_ns()
        clock.alarm(begun + 10_000_000, lambda: calls.append("replaced"))
        clock.alarm(begun + 20_000_000, rung.set)
        assert calls == []
        clock.bind(loop)
        await rung.wait()
        assert time.monotonic_ns() >= begun + 20_000_000
        assert calls == ["soon"]

    asyncio.run(scene())


def test_an_alarm_that_is_overdue_rings_in_the_next_turn_and_none_is_never() -> None:
    async def scene() -> None:
        clock = LoopClock()
        clock.bind(asyncio.get_running_loop())
        rung = asyncio.Event()
        clock.alarm(1, rung.set)
        await asyncio.wait_for(rung.wait(), 10)
        rung.clear()
        clock.alarm(clock.monotonic_ns() + 1_000_000, rung.set)
        clock.alarm(None, rung.set)
        await asyncio.sleep(0.02)
        assert not rung.is_set()
        clock.soon(rung.set)
        await asyncio.wait_for(rung.wait(), 10)

    asyncio.run(scene())
