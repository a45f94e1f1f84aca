"""The table of PID 1: runs by slot and generation, and parked descriptors."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def table(testmod: ModuleType) -> Any:
    """A table of eight runs (each table_make is a new one)."""
    assert testmod.lib.table_make(8)
    return testmod.lib


def take(table: Any) -> Any:
    """A run in use, as spawn leaves it."""
    run = table.table_take()
    if run:
        run.state = 1
    return run


def identity(testmod: ModuleType, table: Any, run: Any) -> Any:
    return testmod.ffi.new("struct vg_run *", (table.table_slot(run), run.generation))[0]


def test_a_run_is_found_by_slot_and_generation_only(testmod: ModuleType, table: Any) -> None:
    run = take(table)
    name = identity(testmod, table, run)
    assert table.table_find(name) == run
    for slot, generation in (
        (name.slot, name.generation + 1),
        (name.slot + 1, name.generation),
        (0xFFFFFFFF, 0),
        (4096, 1),
    ):
        assert not table.table_find(testmod.ffi.new("struct vg_run *", (slot, generation))[0])
    table.table_free(run)
    assert not table.table_find(name)


def test_a_slot_used_again_has_another_generation(testmod: ModuleType, table: Any) -> None:
    run = take(table)
    old = identity(testmod, table, run)
    table.table_free(run)
    again = take(table)
    assert table.table_slot(again) == old.slot
    assert again.generation == old.generation + 1
    assert not table.table_find(old)


def test_a_generation_is_never_0(testmod: ModuleType, table: Any) -> None:
    run = take(table)
    run.generation = 0xFFFFFFFF
    table.table_free(run)
    assert take(table).generation == 1


def test_a_slot_whose_keeper_is_not_reaped_is_not_used_again(table: Any) -> None:
    run = take(table)
    run.keeper = 77
    table.table_free(run)
    other = take(table)
    assert other != run
    run.keeper = 0
    assert take(table) == run


def test_a_full_table_is_an_answer(table: Any) -> None:
    runs = [take(table) for _ in range(8)]
    assert all(runs)
    assert not take(table)
    assert table.table_end() == table.table_runs() == 8
    table.table_free(runs[3])
    assert take(table) == runs[3]


def test_a_new_run_begins_clean(testmod: ModuleType, table: Any) -> None:
    run = take(table)
    run.token, run.owed, run.flags, run.leader = 5, 31, 255, 99
    table.table_free(run)
    again = take(table)
    assert (again.token, again.owed, again.flags, again.leader) == (0, 0, 0, 0)
    assert again.timer == again.deadline == again.look == 2**64 - 1


def test_a_run_is_found_by_its_token_while_it_lives(table: Any) -> None:
    run = take(table)
    run.token = 42
    assert table.table_with(42) == run
    assert not table.table_with(43)
    table.table_free(run)
    assert not table.table_with(42)


def closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def test_parking_under_a_used_name_closes_the_old_descriptor(table: Any) -> None:
    first, second = os.memfd_create("first"), os.memfd_create("second")
    assert table.parked_put(b"journal", first) == 0
    assert table.parked_put(b"journal", second) == 0
    assert closed(first)
    assert table.parked_fd(b"journal") == second
    assert table.parked_drop(b"journal") == 0
    assert closed(second)
    assert table.parked_fd(b"journal") == -1
    assert table.parked_drop(b"journal") == 2


def test_names_that_are_no_names_are_refused(table: Any) -> None:
    fd = os.memfd_create("x")
    for name in (b"", b"x" * 161):
        assert table.parked_put(name, fd) == 22
    assert table.parked_put(b"x" * 160, fd) == 0
    assert table.parked_drop(b"x" * 160) == 0


def test_parked_places_are_used_again_and_run_out_with_an_answer(testmod: ModuleType, table: Any) -> None:
    most = testmod.lib.TABLE_PARKED
    fd = os.memfd_create("x")
    # The descriptor stands for all: nothing is closed before a drop, and dropping is not part of this.
    for i in range(most):
        assert table.parked_put(f"name/{i}".encode(), fd) == 0
    assert table.parked_put(b"one more", fd) == 28
    assert table.parked_end() == most
    assert table.parked_drop(b"name/7") == 0
    other = os.memfd_create("other")
    assert table.parked_put(b"one more", other) == 0
    assert table.parked_end() == most
    os.close(other)
