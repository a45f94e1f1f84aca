"""What people get wrong, and what they are told: every plan of tests/plans/bad, through the real loader.

``NAME.yaml``, or a folder NAME where it takes several layers, is a plan with one mistake (or one habit of another
supervisor); ``NAME.expected`` is what ``vigild --check`` prints about it, less the last line. Where a plan must name a
file by its absolute path it says ``{FOLDER}``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from vigil.model.api import Problem
from vigil.model.errors import PlanError
from vigil.plan import load, read, tree
from vigil.plan.problems import shown

BAD = Path(__file__).parents[1] / "plans" / "bad"
NAMES = sorted(path.stem for path in BAD.glob("*.expected"))

# One of each kind goes through the program too: no YAML, wrong values, unknown keys, several layers, an env-file,
# what is only a warning.
THROUGH_THE_PROGRAM = (
    *("tab-indents", "duration-sec", "supervisord", "compose", "cycle-of-three", "env-file-bad-lines", "command-and"),
    *("password-comment", "utf-16", "typographic-quotes"),
)


def laid_out(name: str, folder: Path) -> Path:
    """A folder of layers with that plan."""
    source = BAD / name if (BAD / name).is_dir() else BAD / f"{name}.yaml"
    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        (folder / path.name).write_bytes(path.read_bytes().replace(b"{FOLDER}", str(folder).encode()))
    return folder


def told(problems: Sequence[Problem], warnings: Sequence[Problem]) -> str:
    lines = [*(f"warning: {shown(one)}" for one in warnings), *map(shown, problems)]
    return "".join(f"{line}\n" for line in lines)


def expected(name: str, folder: Path) -> str:
    return (BAD / f"{name}.expected").read_text(encoding="utf-8").replace("{FOLDER}", str(folder))


@pytest.mark.parametrize("parser", ["libyaml", "python"])
@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_told_where_it_was_made(
    name: str, parser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parser == "python":
        monkeypatch.setattr(tree, "_parser", tree._python_parser)
    folder = laid_out(name, tmp_path)
    try:
        plan = load(read(str(folder), check=True), check=True)
    except PlanError as error:
        found = told(error.problems, error.warnings)
    else:
        found = told((), plan.warnings)
    assert found == expected(name, folder)


def test_every_plan_of_the_corpus_has_its_messages_and_the_other_way_round() -> None:
    plans = {path.stem for path in BAD.iterdir() if path.suffix != ".expected"}
    assert plans == set(NAMES)
    assert len(NAMES) >= 150


@pytest.mark.parametrize("name", NAMES)
def test_a_message_says_what_to_do(name: str) -> None:
    """In brackets, at its end."""
    lines = [line for line in expected(name, Path("/f")).splitlines() if line.startswith(("/f/", "warning: /f/"))]
    assert lines
    assert all(line.endswith((")", "more")) for line in lines), lines


@pytest.mark.parametrize("name", THROUGH_THE_PROGRAM)
def test_check_prints_the_same_and_exits_1_where_there_is_an_error(name: str, tmp_path: Path) -> None:
    folder = laid_out(name, tmp_path)
    words = [sys.executable, "-m", "vigil.daemon", "--check", "--layers-dir", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=False, timeout=60)
    messages = expected(name, folder)
    errors = [line for line in messages.splitlines() if line.startswith(str(folder))]
    count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
    last = f"vigild: cannot load the plan: {count}\n" if errors else ""
    assert (done.returncode, done.stderr) == (1 if errors else 0, messages + last)
