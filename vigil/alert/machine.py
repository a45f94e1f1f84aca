"""What an alert does next: ``step(state, event, around) -> (state, effects)``, and nothing else. Pure.

| the check was | and is  |                                                        |
|---------------|---------|--------------------------------------------------------|
| never seen    | up      | nothing: starting up is no news                        |
| never seen    | down    | a job: it fires                                        |
| up            | down    | a job: it fires                                        |
| down          | up      | a job: it is resolved, and says when it fired          |
| the same      | as ever | nothing                                                |

The jobs of an alert are delivered one after the other, in order: while one is tried again those behind it wait. The
state is in the journal before an attempt begins (``begun``), so a control that comes after one which died in the middle
of it knows, tries it again (under the same id: a receiver that has had it can tell), and drops it where that has
happened three times, since it may be the delivery that kills control.

What a check was is kept for as long as the alert watches it, whatever becomes of check, alert and control: a check that
a replan starts anew is not down for the first time again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, assert_never

import msgspec
from msgspec.structs import replace

from vigil.alert.state import Delivery, Job, Seen, State, Status
from vigil.model import duration
from vigil.plan.types import Alert, AlertSettings

BEGUN_MOST = 3
"""A delivery that was begun so often, and each time control died before it had ended, is not begun again."""

TEST_CHECK = "vigil-test"
"""What the check is called in the messages of a test."""


class Around(msgspec.Struct, frozen=True):
    """What the machine may look at besides its state and the event."""

    alert: Alert
    settings: AlertSettings
    monotonic_ns: int
    real_ns: int


# --- events ---


class Changed(msgspec.Struct, frozen=True):
    """A check has this status. Told again it means nothing, so it may be told at every result."""

    check: str
    status: Status


class Attempted(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt at the first job has ended."""

    number: int
    ok: bool
    error: str = ""  # a reason for people, without secrets
    again: bool = False  # it may be tried again
    after: float = 0.0  # but the receiver wants to be left alone for so many seconds
    ours: bool = False  # the mistake is on this side, in the plan or the environment


class Due(msgspec.Struct, frozen=True):
    """The state's deadline has come."""


class Attached(msgspec.Struct, frozen=True):
    """A new control: nothing that the last one began goes on."""


class Replanned(msgspec.Struct, frozen=True):
    """``Around`` has another plan. Also the first event of an alert that is new in the plan."""

    statuses: Mapping[str, Status]  # of all checks that have one by now
    changed: bool = False  # the alert itself is another one


class Try(msgspec.Struct, frozen=True):
    """Somebody wants to see whether messages arrive."""

    token: str  # not empty; comes back in Tried


Event = Changed | Attempted | Due | Attached | Replanned | Try


# --- effects: done after the new state is in the journal ---


class Deliver(msgspec.Struct, frozen=True):
    """Begin an attempt."""

    job: Job


class Say(msgspec.Struct, frozen=True):
    """A line of diagnostics, with the fields ``alert``, ``check`` and ``status``."""

    level: Literal["info", "warn", "error"]
    message: str
    job: Job


class Tried(msgspec.Struct, frozen=True):
    """A test is over: both of its messages were taken, or why not."""

    token: str
    ok: bool
    error: str = ""


Effect = Deliver | Say | Tried


def step(state: State, event: Event, around: Around) -> tuple[State, tuple[Effect, ...]]:
    """The state after ``event``, and what is to be done once it is in the journal."""
    machine = _Machine(state, around)
    machine.handle(event)
    return machine.state, tuple(machine.effects)


class _Machine:
    __slots__ = ("around", "effects", "state")

    def __init__(self, state: State, around: Around) -> None:
        self.state, self.around = state, around
        self.effects: list[Effect] = []

    def handle(self, event: Event) -> None:
        match event:
            case Changed():
                self._changed(event.check, event.status)
            case Attempted():
                self._attempted(event)
            case Due():
                pass
            case Attached():
                self._set(sending=False)
            case Replanned():
                self._replanned(event)
            case Try():
                self._try(event.token)
            case _:
                assert_never(event)
        self._expire()
        self._begin()
        if self._make_room():
            self._begin()

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    # --- what is to be told ---

    def _changed(self, check: str, status: Status) -> None:
        seen = self.state.seen.get(check)
        if check not in self.around.alert.on_check or (seen is not None and seen.status == status):
            return
        now = self.around.real_ns
        fired = seen.fired_ns if status == "up" and seen is not None else now
        self._set(seen={**self.state.seen, check: Seen(status, fired if status == "down" else 0)})
        if status == "down" or seen is not None:
            self._queue(check, status, fired)

    def _replanned(self, event: Replanned) -> None:
        watched = self.around.alert.on_check
        if any(check not in watched for check in self.state.seen):
            self._set(seen={check: seen for check, seen in self.state.seen.items() if check in watched})
        if event.changed:  # whoever has put an alert right does not want to wait for what failed before
            self._set(due_ns=0, jobs=tuple(replace(job, attempts=0) for job in self.state.jobs))
        for check, status in event.statuses.items():
            self._changed(check, status)

    def _try(self, token: str) -> None:
        """Two jobs, of a check that is called so that nobody takes it for one of theirs: it goes down, and up again.

        Both, because one alone would leave something firing at every receiver that remembers.
        """
        if len(self.state.waiting) + 2 > max(2, self.around.settings.max_queue_depth):
            self.effects.append(Tried(token, False, "the queue is full"))
            return
        now = self.around.real_ns
        self._queue(TEST_CHECK, "down", now, token)
        self._queue(TEST_CHECK, "up", now, token)

    def _queue(self, check: str, status: Status, fired_ns: int, test: str = "") -> None:
        number = self.state.number + 1
        around = self.around
        job = Job(number, check, status, around.real_ns, fired_ns, around.monotonic_ns, test=test)
        self._set(jobs=(*self.state.jobs, job), number=number, queued=self.state.queued + 1)

    # --- what is not told ---

    def _make_room(self) -> bool:
        """Drop what is too much, and tell whether there was any. The job that is under way takes no room."""
        depth = self.around.settings.max_queue_depth
        full = len(self.state.waiting) > depth
        while len(self.state.waiting) > depth:
            self._drop(self.state.waiting[0], f"the queue is full (max-queue-depth {depth})")
        return full

    def _expire(self) -> None:
        limit = self.around.settings.max_queue_time
        while self.state.waiting:
            job = self.state.waiting[0]
            if self.around.monotonic_ns - job.queued_ns < limit * 1e9:
                return
            self._drop(job, f"it waited for longer than max-queue-time ({duration.spell(limit)})")

    def _drop(self, job: Job, why: str, *, level: Literal["warn", "error"] = "warn", error: str = "") -> None:
        """``job`` is not delivered. ``error``: how the attempt ended that decides it; else ``why`` is the reason."""
        if not error and job.attempts and job is self.state.jobs[0] and self.state.last is not None:
            error = self.state.last.error
            why += f"; its last attempt: {error}"
        self.effects.append(Say(level, f"drops a delivery: {why}", job))
        self._remove(job, Delivery(self.around.real_ns, job.check, job.status, False, error or why), dropped=1)
        if job.test:
            self.effects.append(Tried(job.test, False, why))
            for other in self.state.jobs:
                if other.test == job.test:  # of a test that has failed nothing more is to be seen
                    self._remove(other, self.state.last, dropped=1)

    def _remove(self, job: Job, last: Delivery | None, *, dropped: int = 0) -> None:
        state = self.state
        if job is state.jobs[0]:
            self._set(sending=False, due_ns=0)
        jobs = tuple(other for other in state.jobs if other is not job)
        self._set(jobs=jobs, last=last, dropped=state.dropped + dropped)

    # --- what is tried ---

    def _begin(self) -> None:
        while self.state.jobs and not self.state.sending and self.around.monotonic_ns >= self.state.due_ns:
            job = self.state.jobs[0]
            if job.begun < BEGUN_MOST:
                job = replace(job, begun=job.begun + 1)
                self._set(jobs=(job, *self.state.jobs[1:]), sending=True)
                self.effects.append(Deliver(job))
                return
            self._drop(job, f"control died {BEGUN_MOST} times while it was under way", level="error")

    def _attempted(self, event: Attempted) -> None:
        if not self.state.sending or event.number != self.state.jobs[0].number:
            return  # what it was about was given up
        around, job = self.around, replace(self.state.jobs[0], begun=0, attempts=self.state.jobs[0].attempts + 1)
        self._set(sending=False, jobs=(job, *self.state.jobs[1:]))
        last = Delivery(around.real_ns, job.check, job.status, event.ok, event.error)
        if event.ok:
            self.effects.append(Say("info", "delivered", job))
            self._remove(job, last)
            if job.test and job.status == "up":
                self.effects.append(Tried(job.test, True))
            return
        attempts = 1 if job.test else max(1, around.alert.retry_attempts)  # who tests wants to know now
        self._set(last=last)
        if not event.again:
            self._drop(job, event.error, level="error" if event.ours else "warn", error=event.error)
        elif job.attempts >= attempts:
            times = f" (attempt {job.attempts} of {attempts})" if attempts > 1 else ""
            self._drop(job, event.error + times, error=event.error)
        else:
            backoff = around.alert.retry_backoff
            wait = max(backoff[min(job.attempts, len(backoff)) - 1], event.after)
            self._set(due_ns=around.monotonic_ns + round(wait * 1e9))
            said = f"cannot deliver (attempt {job.attempts} of {attempts}, again in {duration.spell(round(wait, 3))})"
            self.effects.append(Say("warn", f"{said}: {event.error}", job))
