from __future__ import annotations

import pytest

from vigil.plan.types import Service
from vigil.service import backoff


def test_the_delay_grows_by_the_factor_up_to_the_limit() -> None:
    service = Service(name="web")
    assert [backoff.delay(service, n) for n in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_the_delay_never_overflows() -> None:
    assert backoff.delay(Service(name="web"), 100_000) == 30.0
    assert backoff.delay(Service(name="web", backoff_delay=0.0), 100_000) == 0.0
    assert backoff.delay(Service(name="web", backoff_factor=1.0), 100_000) == 0.5


def test_a_delay_above_the_limit_is_the_limit() -> None:
    assert backoff.delay(Service(name="web", backoff_delay=60.0), 0) == 30.0


@pytest.mark.parametrize(
    ("limit", "seconds", "expected"), [(30.0, 30.0, False), (30.0, 30.1, True), (1.0, 10.0, False), (1.0, 10.1, True)]
)
def test_a_run_is_healthy_after_the_limit_and_ten_seconds(limit: float, seconds: float, expected: bool) -> None:
    assert backoff.healthy(Service(name="web", backoff_limit=limit), round(seconds * 1e9)) is expected


def test_the_restart_limit_is_how_many_restarts_there_may_be() -> None:
    assert [backoff.exhausted(Service(name="web", restart_limit=2), n) for n in range(4)] == [False, False, True, True]
    assert not backoff.exhausted(Service(name="web"), 10**6)
