"""The whole state of an alert: what the journal keeps, and what a restarted control goes on from.

In the journal an alert is ``alert/NAME``, and each job that is not over is ``alert/NAME/NUMBER``: so a queue may be
long, and is not written again with each of its steps. Both are in one record, with what caused them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

from vigil.model.errors import StartError
from vigil.plan.types import AlertSettings

PREFIX = "alert/"

Status = Literal["down", "up"]


class Job(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change of a check that is to be told. Its number is its own for as long as the alert is in the plan."""

    number: int
    check: str
    status: Status
    real_ns: int  # when it changed
    fired_ns: int  # when it went down: of an ``up`` the earlier change, else the same
    queued_ns: int  # CLOCK_MONOTONIC
    attempts: int = 0  # that ended, all in failure
    begun: int = 0  # attempts without an end: those that the death of control cut off, and the present one
    test: str = ""  # whose test it is; empty: it is none


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the alert knows of a check, and so has told, or has in its queue."""

    status: Status
    fired_ns: int = 0  # real time of the change to ``down``


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the latest attempt ended, or why a job was dropped without one."""

    real_ns: int
    check: str
    status: Status
    ok: bool
    error: str = ""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything about one alert that must outlive control."""

    seen: dict[str, Seen] = {}
    jobs: tuple[Job, ...] = ()  # oldest first; kept apart in the journal
    number: int = 0  # of the latest job
    sending: bool = False  # the first job is under way
    due_ns: int = 0  # CLOCK_MONOTONIC: the first job is not tried again before
    last: Delivery | None = None
    queued: int = 0  # jobs, in all
    dropped: int = 0  # of these, never delivered

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs that are not under way."""
        return self.jobs[1:] if self.sending else self.jobs


def status(state: State) -> Literal["unknown", "down", "up"]:
    """What users see of the checks that the alert watches."""
    if not state.seen:
        return "unknown"
    return "down" if any(seen.status == "down" for seen in state.seen.values()) else "up"


def deadline(state: State, settings: AlertSettings) -> int | None:
    """When time by itself changes something about the alert; None is never."""
    waiting = state.waiting
    if not waiting:
        return None
    too_old = waiting[0].queued_ns + round(settings.max_queue_time * 1e9)
    return too_old if state.sending else min(too_old, state.due_ns)


def writes(name: str, before: State | None, after: State | None) -> dict[str, bytes | None]:
    """What must become of the journal's keys so that it has ``after`` where it had ``before``; None: no alert."""
    changes: dict[str, bytes | None] = {}
    old = {job.number: job for job in before.jobs} if before is not None else {}
    new = {job.number: job for job in after.jobs} if after is not None else {}
    for number in old:
        if number not in new:
            changes[_key(name, number)] = None
    for number, job in new.items():
        if old.get(number) != job:
            changes[_key(name, number)] = _encode(job)
    if after is None:
        if before is not None:
            changes[PREFIX + name] = None
    else:
        record = _encode(replace(after, jobs=()))
        if before is None or record != _encode(replace(before, jobs=())):
            changes[PREFIX + name] = record
    return changes


def load(items: Iterable[tuple[str, bytes]]) -> dict[str, State]:
    """All alerts of the journal, from its keys that begin with ``PREFIX``. StartError: they cannot be read."""
    states: dict[str, State] = {}
    jobs: dict[str, list[Job]] = {}
    for key, record in items:
        name, separator, _ = key.removeprefix(PREFIX).partition("/")
        try:
            if separator:
                jobs.setdefault(name, []).append(_job(record))
            else:
                states[name] = _state(record)
        except msgspec.MsgspecError as error:
            raise StartError(f"cannot read the state of alert {name} in the journal: {error}") from error
    for name, found in jobs.items():
        if name in states:
            states[name] = replace(states[name], jobs=tuple(sorted(found, key=lambda job: job.number)))
    return states


def _key(name: str, number: int) -> str:
    return f"{PREFIX}{name}/{number}"


_encode = msgspec.msgpack.encode
_job = msgspec.msgpack.Decoder(Job).decode
_state = msgspec.msgpack.Decoder(State).decode
