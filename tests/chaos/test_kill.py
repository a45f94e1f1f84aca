"""A short run of what ``python -m tests.chaos.kill`` does at length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos import kill


@pytest.mark.timeout(600)
def test_nothing_is_lost_while_logger_and_control_are_killed_under_load(
    vigild_binary: Path, native: Any, tmp_path: Path
) -> None:
    figures = kill.run(tmp_path, vigild_binary, kills=40, seed=20260321, tell=print)
    assert figures["MB/s"] > 1
    assert figures["commands"] == 12
