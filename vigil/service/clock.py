"""Time and the event loop, as the brain of control sees them: two clocks, one alarm, "soon".

control attaches and starts its first services before asyncio is imported, so the clock is there before the loop is:
what is asked of it until ``bind`` is kept. Durations and deadlines are on CLOCK_MONOTONIC only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """What the brain needs; tests have one that jumps."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC, which a deadline in the journal is measured on: it outlives control."""

    def realtime_ns(self) -> int:
        """Nanoseconds since the epoch: to show, never to decide by."""

    def soon(self, call: Callable[[], None]) -> None:
        """Have ``call`` called in the next turn of the loop."""

    def alarm(self, deadline_ns: int | None, call: Callable[[], None]) -> None:
        """Have ``call`` called once CLOCK_MONOTONIC has reached ``deadline_ns``; None is never.

        There is one alarm: setting it again replaces it.
        """


class LoopClock:
    """The clock of real life."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early: list[Callable[[], None]] = []
        self._wanted: tuple[int, Callable[[], None]] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on there is a loop: what was asked for until now comes first."""
        self._loop = loop
        for call in self._early:
            loop.call_soon(call)
        self._early.clear()
        if self._wanted is not None:
            self.alarm(*self._wanted)

    def monotonic_ns(self) -> int:
        """See Clock."""
        return time.monotonic_ns()

    def realtime_ns(self) -> int:
        """See Clock."""
        return time.time_ns()

    def soon(self, call: Callable[[], None]) -> None:
        """See Clock."""
        if self._loop is None:
            self._early.append(call)
        else:
            self._loop.call_soon(call)

    def alarm(self, deadline_ns: int | None, call: Callable[[], None]) -> None:
        """See Clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wanted = None if deadline_ns is None else (deadline_ns, call)
        if self._loop is not None and deadline_ns is not None:
            # asyncio's loop.time() is CLOCK_MONOTONIC in seconds on Linux, but only by custom: ask both for "now".
            ahead = (deadline_ns - time.monotonic_ns()) / 1e9
            self._timer = self._loop.call_at(self._loop.time() + max(0.0, ahead), call)
