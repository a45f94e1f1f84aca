"""The examples' plans load without a problem, wherever they are looked at: the users of an image need not be here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from vigil import plan
from vigil.plan.types import Account, Credentials, Service, Sources

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLANS = sorted(folder.parent.name for folder in EXAMPLES.glob("*/layers"))


def read(example: str) -> Sources:
    """The example's layers, as on a machine that has all their users."""
    sources = plan.read(str(EXAMPLES / example / "layers"))
    found = [
        account
        if account.credentials
        else Account(account.user, account.user_id, account.group, account.group_id, credentials=SOMEBODY)
        for account in sources.accounts
    ]
    return msgspec.structs.replace(sources, accounts=tuple(found))


SOMEBODY = Credentials(uid=1000, gid=1000, groups=(1000,), home="/", name="somebody")


def test_there_are_examples() -> None:
    assert {"quickstart", "hug", "php-fpm-nginx", "migrate-from-supervisord"} <= set(PLANS)


@pytest.mark.parametrize("example", PLANS)
def test_the_plan_loads_as_under_check(example: str) -> None:
    loaded = plan.load(read(example), check=True)
    assert loaded.services
    # What this version accepts and does not act upon is said in one warning; nothing else may be wrong.
    assert [warning.message for warning in loaded.warnings if "not acted upon" not in warning.message] == []


@pytest.mark.parametrize("example", [name for name in PLANS if (EXAMPLES / name / "Containerfile").exists()])
def test_every_service_of_an_image_says_which_signals_it_wants(example: str) -> None:
    """HUP, USR1, USR2 and WINCH are forwarded where nothing is said, and most programs die of one of them."""
    unsaid = Service(name="unsaid").forward_signals
    services = plan.load(read(example)).services.values()
    assert [
        service.name for service in services if service.type == "simple" and service.forward_signals == unsaid
    ] == []
