"""The whole state of a check: what the journal keeps, and what a restarted control goes on from.

A record may be read by a newer control than the one that wrote it: fields are only ever added, each with a default.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Status(Enum):
    """What a check says. The values are what users see."""

    UNKNOWN = "unknown"  # not enough results yet, or stopped
    UP = "up"
    DOWN = "down"


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a probe ended."""

    ok: bool
    real_ns: int
    reason: str = ""  # why it failed


class CheckState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything about one check that must outlive control. Times named ``*_ns`` are on CLOCK_MONOTONIC."""

    planned: bool = False  # the plan's ``startup`` has been followed
    enabled: bool = False  # it runs by itself
    status: Status = Status.UNKNOWN
    failures: int = 0  # in a row
    successes: int = 0  # in a row
    last: Outcome | None = None
    next_ns: int = 0  # when it is to run next; while a probe is under way, the time after that one's
    number: int = 0  # of the latest probe
    began_ns: int = 0  # when that one began; 0: none is under way
    again: bool = False  # a refresh was asked for while it was under way
    excused: bool = False  # it is the second try of one that was held up
    shortages: int = 0  # probes in a row that could not be made
    trouble: str = ""  # and why
    passed: int = 0  # probes in all
    failed: int = 0


def deadline(state: CheckState) -> int | None:
    """When ``Due`` is to be given; None is never."""
    return state.next_ns if state.enabled and not state.began_ns and state.next_ns else None
