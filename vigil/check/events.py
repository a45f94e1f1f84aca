"""What can happen to a check, and what a machine wants done about it."""

from __future__ import annotations

import msgspec

from vigil.check.state import Status
from vigil.plan.types import Check


class Around(msgspec.Struct, frozen=True):
    """What a machine may look at besides its state and the event."""

    check: Check
    monotonic_ns: int
    real_ns: int
    place: int = 0  # among all checks of the plan, from 0: they begin one after another
    count: int = 1  # all checks of the plan
    closing: bool = False  # vigild is stopping: nothing is probed any more


# --- events ---


class Attached(msgspec.Struct, frozen=True):
    """A new control has attached. A probe of the last one's is lost."""


class Replanned(msgspec.Struct, frozen=True):
    """Another plan is in force, with ``Around.check``. ``before``: what the old one had; None: nothing."""

    before: Check | None


class Due(msgspec.Struct, frozen=True):
    """The state's deadline has come."""


class Result(msgspec.Struct, frozen=True):
    """Probe ``number`` has ended. ``short``: it could not be made, which says nothing about what is checked."""

    number: int
    ok: bool
    reason: str = ""
    short: bool = False


class Start(msgspec.Struct, frozen=True):
    """On command: run by itself. Nothing changes where it does."""


class Stop(msgspec.Struct, frozen=True):
    """On command, or because the plan has it no more."""


class Refresh(msgspec.Struct, frozen=True):
    """On command: a probe now. Of a stopped check it is shown, and changes nothing else."""


class Closing(msgspec.Struct, frozen=True):
    """vigild is stopping."""


Event = Attached | Replanned | Due | Result | Start | Stop | Refresh | Closing


# --- effects: done after the new state is in the journal ---


class Probe(msgspec.Struct, frozen=True):
    """Probe now, and give ``Result`` with this number."""

    number: int


class Cancel(msgspec.Struct, frozen=True):
    """End the probe under way; no result is wanted."""


class Say(msgspec.Struct, frozen=True):
    """A diagnostic. ``level``: info or warn."""

    level: str
    message: str


# --- effects: for the overlord, part of the same write to the journal ---


class Reported(msgspec.Struct, frozen=True):
    """A probe ended. Where ``before`` and ``after`` differ it changed what the check says."""

    ok: bool
    reason: str
    began_ns: int  # CLOCK_MONOTONIC
    real_ns: int  # when it ended
    before: Status
    after: Status


Act = Probe | Cancel | Say
Effect = Act | Reported
