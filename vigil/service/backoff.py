"""How long a service waits before it is started again, and when it is given up.

Delay n is min(backoff-delay * factor^n, backoff-limit), for ever unless there is a restart-limit. A run that was active
for longer than max(backoff-limit, 10 s) was healthy: counting starts anew after it.
"""

from __future__ import annotations

from vigil.plan.types import Service

HEALTHY_AT_LEAST = 10.0
"""Seconds; with a short backoff-limit a run must last at least so long to count as healthy."""


def delay(service: Service, attempt: int) -> float:
    """Seconds before restart number ``attempt`` (from 0) since the last healthy run."""
    try:
        grown = service.backoff_delay * service.backoff_factor**attempt
    except OverflowError:  # a float ends at 1e308: after some 1,000 restarts in a row
        grown = service.backoff_limit if service.backoff_delay else 0.0
    return min(grown, service.backoff_limit)


def healthy(service: Service, active_ns: int) -> bool:
    """Whether a run that was active for ``active_ns`` nanoseconds makes the count start anew."""
    return active_ns > max(service.backoff_limit, HEALTHY_AT_LEAST) * 1e9


def exhausted(service: Service, attempt: int) -> bool:
    """Whether ``attempt`` restarts since the last healthy run are all that the plan allows."""
    return service.restart_limit is not None and attempt >= service.restart_limit
