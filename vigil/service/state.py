"""The whole state of a service: what the journal keeps, and what a restarted control goes on from.

A record may be read by a newer control than the one that wrote it: fields are only ever added, each with a default.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from vigil.model.states import ServiceState


class Phase(Enum):
    """Where a service is. Users see less: ``shown``."""

    INACTIVE = "inactive"
    HELD = "held"  # wanted, but one that it requires is down and nobody starts that
    WAITING = "waiting"  # wanted: to be started when those it waits for are active
    SPAWNING = "spawning"  # SPAWN is journaled, STARTED has not come
    ACTIVE = "active"
    STOP_WAIT = "stop-wait"  # to be stopped when those that need it have been
    STOPPING = "stopping"  # STOP is journaled (with no run yet: it is sent as soon as the run is known)
    ENDING = "ending"  # its main process ended by itself, something may be left
    BACKOFF = "backoff"
    ERROR = "error"  # given up
    EXITED = "exited"  # a oneshot that is done


class Next(Enum):
    """What a service becomes when nothing of its run is left."""

    DOWN = "down"
    START = "start"
    BACKOFF = "backoff"
    ERROR = "error"
    EXITED = "exited"


class WorkKind(Enum):
    """What a change asks of a service."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    SIGNAL = "signal"


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """One service's part of a change: current, or queued behind others."""

    change: int
    kind: WorkKind
    cause: str  # who asked
    signal: int = 0
    keep: bool = False  # STOP: only because one that it requires stops; it comes back with that one
    removed: bool = False  # STOP: the plan does not have it any more
    begun: bool = False  # START, RESTART: the run it asked for is under way; SIGNAL: sent
    verdict: str = ""  # START, RESTART: that run ended too soon; told when nothing of it is left


class LastExit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the last run ended, or why there was none."""

    code: int  # as a shell has it: N, or 128+S, 127 and 126 for a command that was not executed
    signal: int  # 0: none
    reason: str
    real_ns: int
    output: tuple[str, ...] = ()


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything about one service that must outlive control. Times named ``*_ns`` are on CLOCK_MONOTONIC."""

    phase: Phase = Phase.INACTIVE
    cause: str = "not started yet"
    since_real_ns: int = 0  # of the state that is shown
    stopped: bool = False  # the last that was asked for by hand is a stop
    token: int = 0  # of the latest SPAWN
    definition: str = ""  # digest of what the live run was started with, where the plan has changed since
    run: tuple[int, int] | None = None  # slot and generation of the run with that token, once known
    pid: int = 0
    keeper: int = 0
    active_ns: int = 0  # when the command was executed
    started_real_ns: int = 0
    ended: bool = False  # the exit of the main process has been dealt with
    next: Next = Next.DOWN  # STOP_WAIT, STOPPING, ENDING
    attempt: int = 0  # restarts since the last healthy run
    shortages: int = 0  # starts in a row that failed for want of memory, processes or descriptors
    short: bool = False  # BACKOFF: because of a shortage
    deadline_ns: int = 0  # BACKOFF, or ENDING with BACKOFF to come: start again then
    restarts: int = 0
    exit: LastExit | None = None
    waiting_for: tuple[str, ...] = ()  # HELD, WAITING, STOP_WAIT
    postponed: bool = False  # WAITING: for one that failed and is in backoff
    warned: tuple[str, ...] = ()  # those that are down and that it did not wait for
    task: Work | None = None
    queue: tuple[Work, ...] = ()


_SHOWN = {
    Phase.INACTIVE: ServiceState.INACTIVE,
    Phase.HELD: ServiceState.INACTIVE,
    Phase.WAITING: ServiceState.STARTING,
    Phase.SPAWNING: ServiceState.STARTING,
    Phase.ACTIVE: ServiceState.ACTIVE,
    Phase.STOP_WAIT: ServiceState.STOPPING,
    Phase.STOPPING: ServiceState.STOPPING,
    Phase.ENDING: ServiceState.STOPPING,
    Phase.BACKOFF: ServiceState.BACKOFF,
    Phase.ERROR: ServiceState.ERROR,
    Phase.EXITED: ServiceState.EXITED,
}


def described(state: State) -> str:
    """The state that users see, to come after "it is"."""
    return f"in {shown(state).value}" if state.phase in (Phase.BACKOFF, Phase.ERROR) else shown(state).value


LIVE = frozenset((Phase.SPAWNING, Phase.ACTIVE, Phase.STOP_WAIT, Phase.STOPPING, Phase.ENDING))
"""Phases with a run, or with a SPAWN that may have become one."""

LEAVING = frozenset((Phase.STOP_WAIT, Phase.STOPPING, Phase.ENDING))
"""Phases in which a run is on its way out."""

SETTLED_NS = 1_000_000_000
"""A start is done when the service has been active for so long."""


def shown(state: State) -> ServiceState:
    """The state that users see."""
    return _SHOWN[state.phase]


def deadline(state: State, *, oneshot: bool) -> int | None:
    """When time by itself changes something about the service; None is never."""
    if state.phase is Phase.BACKOFF:
        return state.deadline_ns
    if state.phase is Phase.ACTIVE and not oneshot and settling(state.task):
        return state.active_ns + SETTLED_NS
    return None


def settling(task: Work | None) -> bool:
    """Whether ``task`` is a start whose run is under way."""
    return task is not None and task.begun and task.kind in (WorkKind.START, WorkKind.RESTART)
