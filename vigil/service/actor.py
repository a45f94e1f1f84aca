"""Does what the machine of one service decides. The overlord writes the states to the journal in between.

``take`` changes the state and remembers the acts; when the state is in the journal, ``act`` does them. A service has
one log (ring) for its whole life: it is made and parked before the first SPAWN that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from vigil.model import say
from vigil.model.errors import StartError
from vigil.plan.types import Service
from vigil.service import machine, spec
from vigil.service.events import (
    Around,
    Emptied,
    Event,
    Release,
    Report,
    Say,
    Sent,
    Shutdown,
    Signal,
    Spawn,
    Stop,
    Update,
    WorkBegan,
    WorkEnded,
)
from vigil.service.state import LEAVING, LIVE, State, deadline
from vigil.shim.messages import NO_RUN, Format, Gone, Run, Shim, SpawnFailed, Step

OUTPUT_LINES = 5
"""So many of a run's last lines are kept with its exit."""

_OUTPUT_LINE_MAX = 500  # characters; they are in the journal with every state
_SAY = {"info": say.info, "warn": say.warn, "error": say.error}

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(State).decode


class Logs(Protocol):
    """What the brain needs of the log store."""

    def make(self, name: str) -> int:
        """A new log; the descriptor is to be parked, and stays the store's."""

    def adopt(self, name: str, fd: int) -> None:
        """The log of that name, made by an earlier control."""

    def names(self) -> Sequence[str]:
        """All logs there are."""

    def drop(self, name: str) -> None:
        """Forget the log of that name."""

    def last_lines(self, name: str, n: int, run_started_real_ns: int) -> Sequence[str]:
        """The last lines that the run which started then has written."""


class Outside(msgspec.Struct, frozen=True):
    """What all actors act upon."""

    shim: Shim
    logs: Logs
    environment: Mapping[bytes, bytes]  # what services see of vigild's own
    forward_format: Format
    parked: set[str]  # names of the logs that PID 1 has


class Actor:
    """One service."""

    __slots__ = ("_acts", "_outdated", "_outside", "dirty", "name", "order", "removed", "service", "state")

    def __init__(self, service: Service, order: tuple[int, int], outside: Outside, record: bytes | None) -> None:
        """``record``: its state in the journal, None where it has none yet."""
        self.name = service.name
        self.service = service
        self.order = order
        self.state = State() if record is None else _read(service.name, record)
        self.removed = False  # the plan in force does not have it: it is forgotten when nothing of it is left
        self.dirty = False
        self._outside = outside
        self._outdated = False  # PID 1 may know something else of the live run than ``service`` and ``order``
        self._acts: list[Spawn | Stop | Release | Signal | Update | Say] = []

    def take(self, event: Event, monotonic_ns: int, real_ns: int, closing: str) -> list[Report]:
        """Change the state; the acts wait for ``act``, the reports belong into the same write as the state."""
        before = self.state
        around = Around(self.service, monotonic_ns, real_ns, closing)
        self.state, effects = machine.step(before, event, around)
        if self.state is not before and self.state != before:
            self.dirty = True
        reports: list[Report] = []
        for effect in effects:
            if isinstance(effect, (WorkBegan, WorkEnded, Shutdown)):
                reports.append(effect)
            else:
                self._acts.append(effect)
        if self._outdated and (self.state.phase not in LIVE or self.state.run is not None):
            self._outdated = False
            if self.state.phase in LIVE and self.state.run is not None:
                self._acts.append(Update(Run(*self.state.run)))
        return reports

    def become(self, service: Service, order: tuple[int, int], *, removed: bool) -> None:
        """Be what another plan says; with the next event a live run is told, if that is news to PID 1."""
        self._outdated |= (_told(self.service), self.order) != (_told(service), order)
        self.service, self.order, self.removed = service, order, removed

    def tell_again(self) -> None:
        """Nobody knows whether PID 1 was told of the plan in force: with the next event a live run is."""
        self._outdated = True

    def record(self) -> bytes:
        """The state, as it goes into the journal."""
        return _encode(self.state)

    def deadline(self) -> int | None:
        """When ``Due`` is to be given; None is never."""
        return deadline(self.state, oneshot=self.service.type == "oneshot")

    def act(self) -> list[Event]:
        """Do what the state in the journal wants done. What comes of it at once is to be taken next."""
        acts, self._acts = self._acts, []
        events: list[Event] = []
        shim = self._outside.shim
        for effect in acts:
            match effect:
                case Spawn():
                    failed = self._spawn()
                    if failed is not None:
                        events.append(failed)
                case Stop():
                    shim.stop(effect.run, effect.token)
                case Release():
                    shim.release(effect.run)
                case Signal():
                    shim.signal(effect.run, effect.number)
                    events.append(Sent())
                case Update():
                    self._update(effect.run)
                case Say():
                    fields = {"pid": effect.pid} if effect.pid else {}
                    _SAY[effect.level]("vigil.service", f"{self.name}: {effect.message}", **fields)
        return events

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it runs and nothing is asked of it."""
        return self.state.phase not in LIVE and self.state.task is None and not self.state.queue

    @property
    def acting(self) -> bool:
        """Whether something is to be done."""
        return bool(self._acts)

    def emptied(self, gone: Gone) -> Emptied:
        """What GONE means to the machine, with the last lines of output that logger has taken by now."""
        return Emptied(gone.run, self.last_lines(self.state.started_real_ns), gone.keeper_lost, gone.left_over)

    def last_lines(self, started_real_ns: int) -> tuple[str, ...]:
        """The last lines of the run that started then."""
        if not started_real_ns or self.name not in self._outside.parked:
            return ()
        lines = self._outside.logs.last_lines(self.name, OUTPUT_LINES, started_real_ns)
        return tuple(line if len(line) <= _OUTPUT_LINE_MAX else line[:_OUTPUT_LINE_MAX] + "..." for line in lines)

    def _update(self, run: Run) -> None:
        # What is on its way out keeps the stop signal and delay that belong to the command it was started with.
        service, leaving = self.service, self.state.phase in LEAVING
        self._outside.shim.update(
            run,
            stop=None if leaving else (service.stop_signal, service.kill_delay),
            order=self.order,
            forward=service.forward_signals,
            log_mode=spec.log_mode(service) if spec.captured(service) else None,
        )

    def _spawn(self) -> SpawnFailed | None:
        outside, token = self._outside, self.state.token
        try:
            if spec.captured(self.service) and self.name not in outside.parked:
                outside.shim.park(f"log/{self.name}", outside.logs.make(self.name))
                outside.parked.add(self.name)
        except (
            OSError
        ) as error:  # no memory or descriptors for the log: as little the service's failure as a failed fork
            return SpawnFailed(run=NO_RUN, token=token, step=Step.PIPE, error=error.errno or 0)
        outside.shim.spawn(spec.spawn(self.service, token, self.order, outside.environment, outside.forward_format))
        return None


def _told(service: Service) -> tuple[object, ...]:
    """What PID 1 can be told of a run that lives."""
    return service.stop_signal, service.kill_delay, service.forward_signals, service.logs_forward


def _read(name: str, record: bytes) -> State:
    try:
        return _decode(record)
    except msgspec.MsgspecError as error:
        raise StartError(f"cannot read the state of {name} in the journal: {error}") from error
