"""CPU and memory of trees, from a /proc of our own and from the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vigil.overlord.tree import Tree

TICK, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def process(
    proc: Path, pid: int, parent: int, *, own: int = 0, waited: int = 0, pages: int = 0, comm: str = "x"
) -> None:
    fields = ["S", str(parent), *["0"] * 9, str(own), "0", str(waited), "0", *["0"] * 6, str(pages), "0", "0"]
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self").symlink_to(str(os.getpid()))
    (tmp_path / "uptime").write_text("1 1\n")
    process(tmp_path, 1, 0, own=1000)
    process(tmp_path, 50, 1, own=7, waited=30, pages=999, comm="vigil-keeper")
    process(tmp_path, 51, 50, own=100, waited=20, pages=10, comm="a) S 1 (b")
    process(tmp_path, 52, 51, own=3, pages=5)
    process(tmp_path, 53, 50, own=1, pages=2)  # an orphan
    process(tmp_path, 60, 1, pages=1)
    process(tmp_path, 61, 60, own=9, pages=4)
    return tmp_path


def test_a_tree_is_all_below_its_keeper_and_what_that_has_waited_for(proc: Path) -> None:
    found = Tree(str(proc)).look({"web": (51, 50), "db": (61, 0)})
    assert found["web"].cpu == (30 + 100 + 20 + 3 + 1) / TICK
    assert found["web"].memory == (10 + 5 + 2) * PAGE
    assert found["db"].memory == 4 * PAGE, "the keeper is found through the main process"


def test_what_is_not_there_is_left_out_and_pid_1_is_nobodys_keeper(proc: Path) -> None:
    assert Tree(str(proc)).look({"gone": (77, 76), "odd": (60, 0), "none": (0, 0)}) == {}


def test_a_proc_of_another_namespace_or_none_tells_nothing(proc: Path, tmp_path: Path) -> None:
    (proc / "self").unlink()
    (proc / "self").symlink_to("123456")
    assert Tree(str(proc)).look({"web": (51, 50)}) == {}
    assert Tree(str(tmp_path / "missing")).look({"web": (51, 50)}) == {}


def test_the_real_proc_is_understood() -> None:
    parent = os.getppid()
    if parent <= 1:
        pytest.skip("this process is a child of PID 1")
    use = Tree().look({"me": (os.getpid(), parent)}).get("me")
    assert use is not None
    assert use.memory > 1_000_000
    assert use.cpu > 0
