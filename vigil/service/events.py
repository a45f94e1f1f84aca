"""What can happen to a service, and what a machine wants done about it."""

from __future__ import annotations

import msgspec

from vigil.model.states import ChangeStatus
from vigil.plan.types import Service
from vigil.service.state import Work
from vigil.shim.messages import Exited, Refused, Run, RunState, SpawnFailed, Started, Stopping


class Around(msgspec.Struct, frozen=True):
    """What a machine may look at besides its state and the event."""

    service: Service
    monotonic_ns: int
    real_ns: int
    closing: str = ""  # vigild is stopping, and why: nothing is started any more


# --- events: from PID 1 (Started, SpawnFailed, Refused, Exited, Stopping are its messages as they are) ---


class Emptied(msgspec.Struct, frozen=True):
    """Gone: nothing of the run is left. ``output``: its last lines."""

    run: Run
    output: tuple[str, ...] = ()
    keeper_lost: bool = False
    left_over: bool = False


class Attached(msgspec.Struct, frozen=True):
    """A new control has attached. ``run``: the one with the state's token, as PID 1 knows it; None: it knows none."""

    run: RunState | None
    output: tuple[str, ...] = ()


class Adopted(msgspec.Struct, frozen=True):
    """A live run of this service that the journal does not know."""

    run: RunState


# --- events: from time and the overlord ---


class Replanned(msgspec.Struct, frozen=True):
    """``Around.service`` is of another plan. ``definition``: digest of the old one, where the new has another."""

    definition: str = ""


class Due(msgspec.Struct, frozen=True):
    """The state's deadline has come."""


class Sent(msgspec.Struct, frozen=True):
    """The signal of the current task has been sent."""


class Command(msgspec.Struct, frozen=True):
    """A change asks for something."""

    work: Work


class Closing(msgspec.Struct, frozen=True):
    """vigild is stopping (``Around.closing`` says why)."""


class Go(msgspec.Struct, frozen=True):
    """WAITING: all it waits for are active. ``down``: those that it did not wait for, since nobody starts them."""

    token: int
    down: tuple[str, ...] = ()


class Wait(msgspec.Struct, frozen=True):
    """WAITING, HELD: those in ``blockers`` are on their way. ``postponed``: one of them failed and is in backoff."""

    blockers: tuple[str, ...]
    postponed: str = ""


class Hold(msgspec.Struct, frozen=True):
    """WAITING, HELD, BACKOFF: ``blockers`` are required, down, and nobody starts them. ``why`` names one."""

    blockers: tuple[str, ...]
    why: str


class Cascade(msgspec.Struct, frozen=True):
    """SPAWNING, ACTIVE: one that it requires is down, or about to be stopped. It comes back with that one."""

    why: str


class StopNow(msgspec.Struct, frozen=True):
    """STOP_WAIT: nothing that needs it is left."""


class StopLater(msgspec.Struct, frozen=True):
    """STOP_WAIT: ``blockers`` stop first."""

    blockers: tuple[str, ...]


Event = (
    Started | SpawnFailed | Refused | Exited | Stopping | Emptied | Attached | Adopted
    | Replanned | Due | Sent | Command | Closing | Go | Wait | Hold | Cascade | StopNow | StopLater
)  # fmt: skip


# --- effects: done after the new state is in the journal ---


class Spawn(msgspec.Struct, frozen=True):
    """Send SPAWN with the state's token."""


class Stop(msgspec.Struct, frozen=True):
    """Send STOP; to NO_RUN it is for the run of ``token``, which is not known yet."""

    run: Run
    token: int = 0


class Release(msgspec.Struct, frozen=True):
    """Send RELEASE."""

    run: Run


class Signal(msgspec.Struct, frozen=True):
    """Send SIGNAL to the main process, then tell Sent."""

    run: Run
    number: int


class Update(msgspec.Struct, frozen=True):
    """Send UPDATE: the run was told something that the plan no longer says."""

    run: Run


class Say(msgspec.Struct, frozen=True):
    """A diagnostic. ``level``: info, warn or error."""

    level: str
    message: str
    pid: int = 0


# --- effects: for the overlord, part of the same write to the journal ---


class WorkBegan(msgspec.Struct, frozen=True):
    """A stop or restart of a running service began: what requires it goes along."""

    work: Work


class WorkEnded(msgspec.Struct, frozen=True):
    """A task of a change is over."""

    work: Work
    status: ChangeStatus
    err: str = ""
    output: tuple[str, ...] = ()


class Shutdown(msgspec.Struct, frozen=True):
    """The service's policy asks for a shutdown with this code."""

    code: int
    cause: str


Act = Spawn | Stop | Release | Signal | Update | Say
Report = WorkBegan | WorkEnded | Shutdown
Effect = Act | Report
