"""docs/architecture.md ends in the list of files: all of them, each with what it is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def listed() -> dict[str, str]:
    """Path and words of each row."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Files\n")[2]
    return dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE))


def test_every_file_of_the_repository_is_listed_and_no_other() -> None:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = {line for line in done.stdout.splitlines() if not line.endswith("__init__.py") and (ROOT / line).exists()}
    folders = tuple(path for path in listed() if path.endswith("/"))  # of which each file is like the others
    assert all(any(file.startswith(folder) for file in files) for folder in folders)
    assert {file for file in files if not file.startswith(folders)} | set(folders) == set(listed())


def test_every_row_says_something() -> None:
    assert [path for path, words in listed().items() if len(words) < 8] == []
