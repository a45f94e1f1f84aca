"""What a check does next: ``step(state, event, around) -> (state, effects)``, and nothing else. Pure.

The state that comes out is complete: a control that reads it from the journal goes on with ``Attached``, which begins
a probe that was under way again.
"""

from __future__ import annotations

from typing import Any, assert_never

from msgspec.structs import replace

from vigil.check import schedule
from vigil.check.events import (
    Around,
    Attached,
    Cancel,
    Closing,
    Due,
    Effect,
    Event,
    Probe,
    Refresh,
    Replanned,
    Reported,
    Result,
    Say,
    Start,
    Stop,
)
from vigil.check.state import CheckState, Outcome, Status

HELD_UP_NS = 1_000_000_000
"""A probe that fails so much later than its timeout was held up with everything else, and is made once more."""

_SHORT_FIRST, _SHORT_LAST = 0.5, 30.0  # seconds between two tries while the machine is short of something


def step(state: CheckState, event: Event, around: Around) -> tuple[CheckState, tuple[Effect, ...]]:
    """The state after ``event``, and what is to be done once it is in the journal."""
    machine = _Machine(state, around)
    machine.handle(event)
    return machine.state, tuple(machine.effects)


class _Machine:
    def __init__(self, state: CheckState, around: Around) -> None:
        self.state, self.around, self.check, self.now = state, around, around.check, around.monotonic_ns
        self.effects: list[Effect] = []

    def set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def handle(self, event: Event) -> None:
        match event:
            case Attached():
                self._attached()
            case Replanned():
                self._replanned(event)
            case Due():
                self._due()
            case Result():
                if self.state.began_ns and event.number == self.state.number:
                    self._result(event)
            case Start():
                if not self.state.enabled:
                    self._start()
            case Stop():
                self._stop()
            case Refresh():
                if self.state.began_ns:
                    self.set(again=True)  # what runs may have looked before that was put right which is to be seen
                else:
                    self._begin()
            case Closing():
                self._cancel()
                self.set(next_ns=0, again=False)
            case _:
                assert_never(event)

    # --- its life ---

    def _attached(self) -> None:
        if not self.state.planned:
            self._follow_plan()
        elif self.state.began_ns:
            self._realign()
            self._begin()

    def _replanned(self, event: Replanned) -> None:
        if not self.state.planned or event.before is None or event.before.startup != self.check.startup:
            self._follow_plan()
        elif event.before != self.check and self.state.enabled:
            self._start()

    def _follow_plan(self) -> None:
        if self.check.startup == "enabled":
            self._start()
        else:
            self._stop()
        self.set(planned=True)

    def _start(self) -> None:
        self._stop()
        if not self.around.closing:
            due = schedule.first(self.check, self.around.place, self.around.count, self.now)
            self.set(enabled=True, next_ns=due)

    def _stop(self) -> None:
        self._cancel()
        self.set(enabled=False, status=Status.UNKNOWN, failures=0, successes=0, last=None, next_ns=0)
        self.set(again=False, excused=False, shortages=0, trouble="")

    def _cancel(self) -> None:
        if self.state.began_ns:
            self.set(began_ns=0)
            self.effects.append(Cancel())

    # --- probes ---

    def _due(self) -> None:
        state = self.state
        if not state.enabled or state.began_ns or not state.next_ns or self.now < state.next_ns:
            return
        self.set(next_ns=schedule.following(self.check, state.next_ns, self.now))
        if not schedule.skips(self.check, state.next_ns, self.now):
            self._begin()

    def _realign(self) -> None:
        """All were held up together: what was due meanwhile is left out, or they would now all run twice."""
        if self.state.enabled and self.state.next_ns <= self.now:
            self.set(next_ns=schedule.following(self.check, self.state.next_ns, self.now))

    def _begin(self) -> None:
        if self.around.closing:
            self.set(began_ns=0)
            return
        self.set(number=self.state.number + 1, began_ns=self.now)
        self.effects.append(Probe(self.state.number))

    def _result(self, result: Result) -> None:
        began = self.state.began_ns
        self.set(began_ns=0)
        if result.short:
            self._short(result.reason)
        elif self._held_up(result, began):
            self.set(excused=True)
            self._realign()
            self._begin()
            return
        else:
            self._count(result, began)
        if self.state.enabled and self.state.next_ns < self.now:
            self.set(next_ns=self.now)  # probes never overlap: the period stretches
        if self.state.again:
            self.set(again=False)
            self._begin()

    def _held_up(self, result: Result, began: int) -> bool:
        late = began + schedule.nanoseconds(self.check.timeout) + HELD_UP_NS
        return not result.ok and self.now > late and not self.state.excused and not self.around.closing

    def _short(self, reason: str) -> None:
        if not self.state.shortages:
            self.effects.append(Say("warn", f"cannot be probed for now: {reason}"))
        wait = min(_SHORT_FIRST * 2 ** min(self.state.shortages, 10), _SHORT_LAST)
        self.set(shortages=self.state.shortages + 1, trouble=f"cannot be probed for now: {reason}")
        if self.state.enabled:
            self.set(next_ns=self.now + schedule.nanoseconds(wait))

    def _count(self, result: Result, began: int) -> None:
        state, real = self.state, self.around.real_ns
        if state.shortages:
            self.effects.append(Say("info", "can be probed again"))
        self.set(
            last=Outcome(result.ok, real, result.reason),
            excused=False,
            shortages=0,
            trouble="",
            passed=state.passed + result.ok,
            failed=state.failed + (not result.ok),
        )
        before = state.status
        if state.enabled:
            self._judge(result)
        self.effects.append(Reported(result.ok, result.reason, began, real, before, self.state.status))

    def _judge(self, result: Result) -> None:
        state = self.state
        if result.ok:
            self.set(successes=state.successes + 1, failures=0)
            if state.status is not Status.UP and self.state.successes >= self.check.success_threshold:
                if state.status is Status.DOWN:
                    self.effects.append(Say("info", "up again"))
                self.set(status=Status.UP)
        else:
            self.set(failures=state.failures + 1, successes=0)
            if state.status is not Status.DOWN and self.state.failures >= self.check.threshold:
                self.set(status=Status.DOWN)
                times = f" ({self.state.failures} times in a row)" if self.state.failures > 1 else ""
                self.effects.append(Say("warn", f"down: {result.reason}{times}"))
