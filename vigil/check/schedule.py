"""When a check runs: after its delay, then every period from start to start. Pure.

Checks that begin together begin one after another, a gap apart, and keep that distance. What is late by more than half
a period was held up together with all others (a frozen container, a control that was away): it is left out, so that
they do not all run at once, and the check goes on where it would have been.
"""

from __future__ import annotations

from vigil.plan.types import Check

_GAP_NS = 10_000_000  # between two that begin together, where their period has room for it


def nanoseconds(seconds: float) -> int:
    """The same as whole nanoseconds."""
    return round(seconds * 1e9)


def first(check: Check, place: int, count: int, now_ns: int) -> int:
    """When it runs first. ``place`` (from 0) among all ``count`` checks."""
    return now_ns + nanoseconds(check.delay) + place * min(_GAP_NS, nanoseconds(check.period) // max(1, count))


def skips(check: Check, due_ns: int, now_ns: int) -> bool:
    """Whether a run that was due then is left out now."""
    return now_ns - due_ns > nanoseconds(check.period) // 2


def following(check: Check, due_ns: int, now_ns: int) -> int:
    """The first time after ``now_ns`` that is whole periods after ``due_ns``."""
    period = max(1, nanoseconds(check.period))
    return due_ns + max(1, (now_ns - due_ns) // period + 1) * period
