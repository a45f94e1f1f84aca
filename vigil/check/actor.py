"""Does what the machine of one check decides. The overlord writes the states to the journal in between.

``take`` changes the state and remembers the acts; when the state is in the journal, ``act`` does them. A probe runs as
a task of its own, and what comes of it is told as the event ``Result``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from vigil.check import machine
from vigil.check.events import Around, Cancel, Event, Probe, Replanned, Reported, Result, Say
from vigil.check.state import CheckState, deadline
from vigil.model import say
from vigil.model.errors import StartError
from vigil.plan.types import Check

if TYPE_CHECKING:
    import asyncio

    from vigil.check.probes import Probes

_SAY = {"info": say.info, "warn": say.warn}

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(CheckState).decode


class Outside(msgspec.Struct, frozen=True):
    """What all actors act upon."""

    probes: Probes
    soon: Callable[[Callable[[], None]], None]  # has a call made in the next turn of the loop, once there is one
    tell: Callable[[Actor, Event], None]  # has an event taken in the overlord's next turn


class Actor:
    """One check."""

    __slots__ = ("_acts", "_outside", "_task", "check", "count", "dirty", "name", "place", "removed", "state")

    def __init__(self, check: Check, place: int, count: int, outside: Outside, record: bytes | None) -> None:
        """``place`` of ``count``: among the plan's checks. ``record``: its state in the journal, None: none yet."""
        self.name = check.name
        self.check = check
        self.place, self.count = place, count
        self.state = CheckState() if record is None else _read(check.name, record)
        self.removed = False  # the plan in force does not have it: after Stop it is forgotten
        self.dirty = False
        self._outside = outside
        self._task: asyncio.Task[None] | None = None
        self._acts: list[Probe | Cancel | Say] = []

    def take(self, event: Event, monotonic_ns: int, real_ns: int, *, closing: bool) -> list[Reported]:
        """Change the state; the acts wait for ``act``, the reports belong into the same write as the state."""
        before = self.state
        around = Around(self.check, monotonic_ns, real_ns, self.place, self.count, closing)
        self.state, effects = machine.step(before, event, around)
        if self.state != before:
            self.dirty = True
        reports: list[Reported] = []
        for effect in effects:
            if isinstance(effect, Reported):
                reports.append(effect)
            else:
                self._acts.append(effect)
        return reports

    def become(self, check: Check, place: int, count: int) -> Replanned:
        """Be what another plan says; the event is to be taken next."""
        before, self.check = self.check, check
        self.place, self.count = place, count
        return Replanned(before)

    def record(self) -> bytes:
        """The state, as it goes into the journal."""
        return _encode(self.state)

    def deadline(self) -> int | None:
        """When ``Due`` is to be given; None is never."""
        return deadline(self.state)

    @property
    def acting(self) -> bool:
        """Whether something is to be done."""
        return bool(self._acts)

    def act(self) -> None:
        """Do what the state in the journal wants done."""
        acts, self._acts = self._acts, []
        for effect in acts:
            match effect:
                case Probe():
                    self._outside.soon(lambda number=effect.number: self._begin(number))  # type: ignore[misc]
                case Cancel():
                    if self._task is not None:
                        self._task.cancel()
                        self._task = None
                case Say():
                    _SAY[effect.level]("vigil.check", f"{self.name}: {effect.message}")

    def _begin(self, number: int) -> None:
        if number != self.state.number or not self.state.began_ns:
            return  # ended before it began
        import asyncio

        self._task = asyncio.get_running_loop().create_task(self._probe(self.check, number))

    async def _probe(self, check: Check, number: int) -> None:
        try:
            probed = await self._outside.probes.run(check)
        except Exception as error:  # what the other side can make a library do must not end control
            say.error("vigil.check", f"{check.name}: cannot be probed: {type(error).__name__}: {error}")
            self._outside.tell(self, Result(number, False, f"cannot be probed: {type(error).__name__}: {error}"))
        else:
            self._outside.tell(self, Result(number, probed.ok, probed.reason, probed.short))


def _read(name: str, record: bytes) -> CheckState:
    try:
        return _decode(record)
    except msgspec.MsgspecError as error:
        raise StartError(f"cannot read the state of check {name} in the journal: {error}") from error
