"""Both worlds, one after the other; or only the real one, for what a fake cannot show."""

from __future__ import annotations

import pytest

from tests.channel.worlds import FakeWorld, RealWorld


@pytest.fixture
def real(vigild, tmp_path_factory):
    made = RealWorld(vigild, tmp_path_factory.mktemp("c"))
    yield made
    made.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.pid1)])
def world(request):
    if request.param == "real":
        yield request.getfixturevalue("real")
        return
    made = FakeWorld()
    yield made
    made.close()
