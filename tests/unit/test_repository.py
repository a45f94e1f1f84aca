"""What the repository offers beside the code does what it says: build.py, the example."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vigil import plan

ROOT = Path(__file__).resolve().parents[2]


def run_build(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "build.py"), *words],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("part", ["vigild", "ext", "testmod"])
def test_a_missing_compiler_is_one_sentence_that_names_it(part: str, tmp_path: Path) -> None:
    done = run_build(part, "--out", str(tmp_path / "out"), CC="no-such-compiler -x")
    assert done.returncode == 1
    assert done.stderr.startswith("build.py: cannot find the C compiler no-such-compiler -x: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compiled_leaves_the_old_result_alone(tmp_path: Path) -> None:
    old = tmp_path / "vigild"
    old.write_text("old")
    done = run_build("vigild", "--out", str(old), CFLAGS="-include no-such-header.h")
    assert done.returncode == 1
    assert "no-such-header.h" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("build.py: cannot compile: ")
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_the_example_has_a_plan_without_a_problem_or_a_warning() -> None:
    loaded = plan.load(plan.read(str(ROOT / "examples" / "quickstart" / "layers")), check=True)
    assert loaded.warnings == ()
    assert len(loaded.services) == 4
    assert {service.command[0] for service in loaded.services.values() if service.command} == {"/bin/sh"}
