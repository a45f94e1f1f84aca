"""Both worlds, one after the other."""

from __future__ import annotations

import pytest

from tests.channel.worlds import FakeWorld, RealWorld


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.pid1)])
def world(request, tmp_path_factory):
    if request.param == "fake":
        made = FakeWorld()
    else:
        made = RealWorld(request.getfixturevalue("vigild"), tmp_path_factory.mktemp("c"))
    yield made
    made.close()
