"""All alerts: what their machines decide is written by the overlord, and then done here.

Within a turn ``changed``, ``replan``, ``test`` and ``due`` change states and remember what is to be done; ``writes`` is
what belongs into the turn's record; ``act`` is for when that is written. An attempt runs in a task of its own, at most
one for each alert, so that none waits for another; its end begins a turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from vigil.alert import machine, state, words
from vigil.alert.delivery import Courier
from vigil.alert.machine import (
    Around,
    Attached,
    Attempted,
    Changed,
    Deliver,
    Due,
    Effect,
    Event,
    Replanned,
    Say,
    Tried,
)
from vigil.alert.state import Job, State, Status
from vigil.model import say
from vigil.model.errors import NotFound
from vigil.plan.types import Alert, AlertSettings
from vigil.shim.program import Programs

if TYPE_CHECKING:
    import asyncio

_SAY = {"info": say.info, "warn": say.warn, "error": say.error}


class Clock(Protocol):
    """What alerts need of time and of the loop."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""

    def realtime_ns(self) -> int:
        """Nanoseconds since the epoch: to show, never to decide by."""

    def soon(self, call: Callable[[], None]) -> None:
        """Have ``call`` called in the next turn of the loop, once there is one."""


class Outside(msgspec.Struct, frozen=True):
    """What alerts act upon."""

    clock: Clock
    turn: Callable[[Callable[[], None]], None]  # begins a turn of the overlord with that call
    programs: Programs
    environment: Mapping[bytes, bytes]  # vigild's own
    boot_id: str


class _Actor:
    """One alert."""

    __slots__ = ("alert", "body", "effects", "state", "task", "written")

    def __init__(self, alert: Alert, known: State | None) -> None:
        self.alert = alert
        self.state = known or State()
        self.written = known  # as the journal has it
        self.effects: list[Effect] = []
        self.task: asyncio.Task[None] | None = None
        self.body: tuple[int, bytes] | None = None  # of the job with that number


class Alerts:
    """All alerts of the plan in force."""

    def __init__(
        self,
        outside: Outside,
        alerts: Mapping[str, Alert],
        settings: AlertSettings,
        items: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """``items``: of the journal, all whose key begins with ``state.PREFIX``. StartError: they cannot be read."""
        self._outside, self._settings = outside, settings
        self._environment = words.decoded(outside.environment)
        self._courier = Courier(outside.boot_id, self._environment, outside.programs)
        known = state.load(items)
        self._actors = {name: _Actor(alert, known.pop(name, None)) for name, alert in alerts.items()}
        self._gone = known  # alerts that the journal has and the plan has not, as they are there
        self._dirty: dict[str, _Actor] = {}
        self._due: dict[str, int] = {}
        self._tests: dict[str, asyncio.Future[Tried]] = {}
        self._idle: asyncio.Event | None = None

    # --- in a turn ---

    def attach(self) -> None:
        """A new control: what the last one had under way is begun again."""
        for actor in self._actors.values():
            self._take(actor, Attached())

    def changed(self, check: str, status: Status) -> None:
        """A check has this status. May be told as often as one likes."""
        for actor in self._actors.values():
            if check in actor.alert.on_check:
                self._take(actor, Changed(check, status))

    def replan(self, alerts: Mapping[str, Alert], settings: AlertSettings, statuses: Mapping[str, Status]) -> None:
        """Another plan is in force. ``statuses``: of all its checks that have one.

        The queue of an alert that stays is delivered as the new plan says, the attempt under way as it began. That of
        an alert that goes is gone, and its attempt is broken off.
        """
        self._settings = settings
        for name in [name for name in self._actors if name not in alerts]:
            self._forget(name)
        before, self._actors = self._actors, {}
        for name, alert in alerts.items():
            actor = before.get(name)
            if actor is None:
                actor = _Actor(alert, None)
                actor.written = self._gone.pop(name, None)
            self._actors[name] = actor
            changed = actor.alert != alert
            if changed:
                actor.alert, actor.body = alert, None
            self._take(actor, Replanned(statuses, changed))

    def test(self, name: str) -> asyncio.Future[Tried]:
        """Send two messages of a check that does not exist, down and then up. Needs a loop. NotFound."""
        import asyncio

        if name not in self._actors:
            raise NotFound(f"cannot test {name}: there is no alert of this name")
        token = os.urandom(8).hex()
        self._tests[token] = answer = asyncio.get_running_loop().create_future()
        self._take(self._actors[name], machine.Try(token))
        return answer

    def due(self) -> None:
        """``deadline`` has come."""
        now = self._outside.clock.monotonic_ns()
        for name in [name for name, due in self._due.items() if due <= now]:
            self._take(self._actors[name], Due())

    def writes(self) -> dict[str, bytes | None]:
        """What belongs into this turn's record, once."""
        changes: dict[str, bytes | None] = {}
        for name, old in self._gone.items():
            changes.update(state.writes(name, old, None))
        for name, actor in self._dirty.items():
            changes.update(state.writes(name, actor.written, actor.state))
            actor.written = actor.state
        self._gone.clear()
        return changes

    def act(self) -> None:
        """Do what the states in the journal want done."""
        dirty, self._dirty = self._dirty, {}
        for name, actor in dirty.items():
            effects, actor.effects = actor.effects, []
            for effect in effects:
                match effect:
                    case Say():
                        job = effect.job
                        fields = {"alert": name, "check": job.check, "status": job.status}
                        _SAY[effect.level]("vigil.alert", effect.message, **fields)
                    case Deliver():
                        self._begin(actor, effect.job)
                    case Tried():
                        self._tried(effect)
        if dirty and self._idle is not None:
            self._idle.set()

    def deadline(self) -> int | None:
        """When ``due`` is to be called, on CLOCK_MONOTONIC; None is never."""
        return min(self._due.values(), default=None)

    # --- for others ---

    def warn(self) -> None:
        """Say which references to the environment are to nothing: at start, and at each replan."""
        words.warn((actor.alert for actor in self._actors.values()), self._environment)

    def shown(self, name: str) -> tuple[Alert, State]:
        """One alert as it is, for views. KeyError."""
        actor = self._actors[name]
        return actor.alert, actor.state

    def names(self) -> list[str]:
        """All alerts, in the order of the plan."""
        return list(self._actors)

    async def flush(self, seconds: float) -> bool:
        """Wait until nothing is left to be delivered, or for so long; whether nothing is left."""
        import asyncio

        self._idle = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                while any(actor.state.jobs for actor in self._actors.values()):
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        finally:
            self._idle = None
        return True

    def close(self) -> None:
        """Break off all attempts; the journal still has their jobs."""
        for actor in self._actors.values():
            if actor.task is not None:
                actor.task.cancel()

    # --- inner ---

    def _take(self, actor: _Actor, event: Event) -> None:
        name, clock = actor.alert.name, self._outside.clock
        around = Around(actor.alert, self._settings, clock.monotonic_ns(), clock.realtime_ns())
        actor.state, effects = machine.step(actor.state, event, around)
        actor.effects += effects
        jobs = actor.state.jobs
        if actor.body is not None and (not jobs or jobs[0].number != actor.body[0]):
            actor.body = None
        self._dirty[name] = actor
        due = state.deadline(actor.state, self._settings)
        if due is None:
            self._due.pop(name, None)
        else:
            self._due[name] = due

    def _forget(self, name: str) -> None:
        actor = self._actors.pop(name)
        self._dirty.pop(name, None)
        self._due.pop(name, None)
        if actor.written is not None:
            self._gone[name] = actor.written
        if actor.task is not None:
            actor.task.cancel()
        for job in actor.state.jobs:
            if job.test:
                self._tried(Tried(job.test, False, "the plan does not have the alert any more"))
        if actor.state.jobs:
            count = len(actor.state.jobs)
            say.warn("vigil.alert", "the plan does not have it any more: its queue is dropped", alert=name, jobs=count)

    def _tried(self, tested: Tried) -> None:
        answer = self._tests.pop(tested.token, None)
        if answer is not None and not answer.done():
            answer.set_result(tested)

    def _begin(self, actor: _Actor, job: Job) -> None:
        import asyncio

        def begin() -> None:  # there may be no loop yet: the first turn of a control comes before it
            if self._actors.get(actor.alert.name) is actor and actor.task is None:
                actor.task = asyncio.get_running_loop().create_task(self._attempt(actor, job))

        self._outside.clock.soon(begin)

    async def _attempt(self, actor: _Actor, job: Job) -> None:
        alert = actor.alert
        try:
            if actor.body is None or actor.body[0] != job.number:
                body = await self._courier.body(alert, job)
                if actor.alert is alert:
                    actor.body = (job.number, body)
            else:
                body = actor.body[1]
            ended = await self._courier.attempt(alert, job, body)
        except Exception as error:
            import traceback

            trace = "".join(traceback.format_exception(error))[-3000:]
            say.error("vigil.alert", "an attempt failed with an error of vigild's own", alert=alert.name, error=trace)
            ended = Attempted(number=job.number, ok=False, error="an error of vigild's own", ours=True)
        actor.task = None
        if self._actors.get(alert.name) is actor:
            self._outside.turn(lambda: self._take(actor, ended))
