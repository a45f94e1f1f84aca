"""Fixtures of tests/init: a vigild whose control is the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.daemon import namespaces_work
from tests.init.pid1 import Pid1


@pytest.fixture
def pid1(vigild_binary: Path, native: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pid1]]:
    """``pid1()`` starts one; ``pid1().attached()`` is its control."""
    started: list[Pid1] = []

    def start(**more: Any) -> Pid1:
        if more.get("pid1", True) and not namespaces_work():
            missing("PID namespaces cannot be made here")
        daemon = Pid1(vigild_binary, tmp_path_factory.mktemp("p"), **more)
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.end()
        print(daemon.report())
