"""Changes: their ends, what is written, who waits."""

from __future__ import annotations

import asyncio

import pytest

from vigil.model import api
from vigil.model.errors import NotFound
from vigil.model.states import ChangeStatus
from vigil.overlord.changes import KEPT, TASKS_KEPT, Changes, view

DONE, ERROR, HOLD = ChangeStatus.DONE, ChangeStatus.ERROR, ChangeStatus.HOLD


def begun(*services: str) -> Changes:
    changes = Changes((), None)
    change = changes.new("start", "start things", "uid 0", "key", 1)
    for service in services:
        assert changes.add(change.id, service, "start")
    return changes


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((DONE, DONE), DONE), ((DONE, HOLD), HOLD), ((HOLD, ERROR), ERROR), ((ERROR, DONE), ERROR), ((HOLD, HOLD), HOLD)],
)
def test_a_change_ends_with_its_last_task_and_is_as_bad_as_the_worst(
    ends: tuple[ChangeStatus, ChangeStatus], expected: ChangeStatus
) -> None:
    changes = begun("a", "b")
    changes.end_task(1, "a", ends[0], "", (), 5)
    assert changes.get("1").status is ChangeStatus.DOING
    changes.end_task(1, "b", ends[1], "", (), 6)
    assert (changes.get("1").status, changes.get("1").ready_real_ns) == (expected, 6)


def test_a_replan_is_done_however_its_services_fared_and_names_those_that_failed() -> None:
    changes = Changes((), None)
    change = changes.new("replan", "replan: start a, b", "uid 0", None, 1)
    assert changes.add(change.id, "a", "start")
    assert changes.add(change.id, "b", "start")
    changes.end_task(change.id, "a", ERROR, "exited with code 1 at once", (), 5)
    changes.end_task(change.id, "b", HOLD, "it waits for a", (), 5)
    shown = view(changes.get("1"))
    assert (shown.status, shown.err) == (DONE, "a: exited with code 1 at once\nb: it waits for a")
    assert [task.status for task in shown.tasks] == [ERROR, HOLD]


def test_the_steps_of_a_replan_are_kept_with_it_and_count() -> None:
    changes = Changes((), None)
    steps = tuple(api.Step(service=f"s{n}", action="update", why=["summary changed"]) for n in range(TASKS_KEPT // 2))
    for number in range(3):
        change = changes.new("replan", "replan", "uid 0", None, number)
        change.steps = steps
        changes.settle(change, number)
    writes = {key: value for key, value in changes.writes().items() if value is not None}
    assert [change.id for change in changes.all()] == [2, 3]
    again = Changes(((key, value) for key, value in writes.items() if key.startswith("change/")), b"3")
    assert again.get("3").steps == steps


def test_a_task_ends_once() -> None:
    changes = begun("a", "b")
    changes.end_task(1, "a", ERROR, "why", ("x", "y"), 5)
    changes.end_task(1, "a", DONE, "", (), 6)
    changes.end_task(9, "a", DONE, "", (), 6)
    assert changes.get("1").tasks["a"].status is ERROR
    assert view(changes.get("1")).err == "a: why; its last lines:\n  x\n  y"


def test_no_task_is_added_twice_or_to_what_is_over() -> None:
    changes = begun("a")
    assert not changes.add(1, "a", "stop")
    changes.end_task(1, "a", DONE, "", (), 5)
    assert not changes.add(1, "b", "stop")
    assert not changes.add(7, "b", "stop")


def test_what_is_written_is_all_that_is_needed_to_go_on() -> None:
    changes = begun("a", "b")
    changes.end_task(1, "a", ERROR, "why", (), 5)
    written = changes.writes()
    changes.committed()
    assert changes.writes() == {}
    values = {key: value for key, value in written.items() if value is not None}
    again = Changes.load(lambda prefix: [(k, v) for k, v in values.items() if k.startswith(prefix)], values.get)
    assert [view(change) for change in again.all()] == [view(change) for change in changes.all()]
    assert again.of_key("key") is again.get("1")
    assert again.of_key(None) is None
    assert again.new("stop", "", "", None, 7).id == 2


def test_a_task_that_ends_is_written_alone_until_the_change_is_over() -> None:
    names = [f"service-{number}" for number in range(300)]
    changes = begun(*names)
    values: dict[str, bytes] = {}
    sizes = []
    for name in [None, *names]:
        if name is not None:
            changes.end_task(1, name, ERROR if name == names[7] else DONE, "", (), 5)
        written = changes.writes()
        changes.committed()
        sizes.append(sum(len(key) + len(value or b"") for key, value in written.items()))
        values.update((key, value) for key, value in written.items() if value is not None)
        for key in [key for key, value in written.items() if value is None]:
            del values[key]
        items = list(values.items())  # in whatever order: the store keeps the oldest key first
        again = Changes.load(
            lambda prefix, items=items: [i for i in items[::-1] if i[0].startswith(prefix)], values.get
        )
        assert view(again.get("1")) == view(changes.get("1"))
        if name == names[20]:
            changes = again  # the next control
            assert changes.add(1, "late", "start")
            changes.end_task(1, "late", DONE, "", (), 5)
    assert changes.get("1").status is ERROR
    assert max(sizes[1:22] + sizes[23:-1]) < 100
    assert sorted(values) == ["change/1", "counter/change"]


def test_a_change_that_is_dropped_in_the_turn_it_ends_in_takes_its_tasks_along() -> None:
    changes = begun("a", "b")
    changes.end_task(1, "a", DONE, "", (), 5)
    changes.end_task(1, "b", DONE, "", (), 0)
    changes.committed()
    begins = changes.new("start", "", "", None, 1)
    assert changes.add(begins.id, "a", "start")
    assert changes.add(begins.id, "b", "start")
    changes.writes()
    changes.committed()
    changes.end_task(begins.id, "a", DONE, "", (), 5)
    assert set(changes.writes()) == {"change/2/a"}
    changes.committed()
    changes.end_task(begins.id, "b", DONE, "", (), 6)
    for number in range(KEPT):
        changes.settle(changes.new("stop", "", "", None, number), 7)
    written = changes.writes()
    assert {key for key, value in written.items() if value is None} == {"change/1", "change/2", "change/2/a"}
    changes.committed()
    assert changes.writes() == {}


def test_the_oldest_that_ended_go_and_their_keys_with_them() -> None:
    changes = begun("a")
    for number in range(KEPT):
        changes.settle(changes.new("stop", "", "", f"key{number}", number), number)
    assert changes.writes()["counter/change"] == str(KEPT + 1).encode()
    changes.committed()
    changes.settle(changes.new("stop", "", "", None, 9), KEPT)
    assert changes.writes()["change/2"] is None
    assert changes.of_key("key0") is None
    with pytest.raises(NotFound):
        changes.get("2")
    assert changes.get("1").status is ChangeStatus.DOING, "what goes on is never dropped"


def test_fewer_are_kept_of_those_with_many_tasks() -> None:
    changes = Changes((), None)
    values: dict[str, bytes] = {}
    for number in range(9):
        if number == 5:
            records = [(key, value) for key, value in values.items() if key.startswith("change/")]
            changes = Changes(records, values["counter/change"])  # the next control counts the same
        change = changes.new("stop", "", "", None, number)
        for name in range(TASKS_KEPT // 4):
            changes.add(change.id, f"s{name}", "stop")
        for task in change.tasks.values():
            task.status = DONE
        changes.settle(change, number)
        for key, value in changes.writes().items():
            if value is not None:
                values[key] = value
            else:
                del values[key]
        changes.committed()
        assert [kept.id for kept in changes.all()] == list(range(max(1, number - 2), number + 2))
    assert sorted(values) == ["change/6", "change/7", "change/8", "change/9", "counter/change"]
    huge = changes.new("stop", "", "", None, 9)
    for name in range(TASKS_KEPT + 1):
        changes.add(huge.id, f"s{name}", "stop")
    for task in huge.tasks.values():
        task.status = DONE
    changes.settle(huge, 9)
    assert [kept.id for kept in changes.all()] == [huge.id], "the last one always is"


def test_who_waits_is_told_only_what_is_in_the_journal() -> None:
    async def scene() -> None:
        changes = begun("a")
        waiting = asyncio.create_task(changes.wait("1", None))
        await asyncio.sleep(0)
        changes.end_task(1, "a", DONE, "", (), 5)
        await asyncio.sleep(0)
        assert not waiting.done()
        changes.committed()
        assert (await waiting).status is DONE
        assert (await changes.wait("1", None)).status is DONE

    asyncio.run(scene())


def test_who_waits_is_told_even_where_the_change_is_dropped_in_the_turn_it_ends_in() -> None:
    async def scene() -> None:
        changes = begun("a")
        waiting = asyncio.create_task(changes.wait("1", 10))
        await asyncio.sleep(0)
        changes.end_task(1, "a", DONE, "", (), 5)
        for number in range(KEPT):
            changes.settle(changes.new("stop", "", "", None, number), 6)
        changes.writes()
        changes.committed()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert waiting.done()
        assert (await waiting).status is DONE

    asyncio.run(scene())


def test_a_wait_ends_at_its_timeout_with_the_change_as_it_is_and_leaves_nothing_behind() -> None:
    async def scene() -> None:
        changes = begun("a")
        assert (await changes.wait("1", 0.01)).status is ChangeStatus.DOING
        assert (await changes.wait("1", 0)).status is ChangeStatus.DOING
        gone = asyncio.create_task(changes.wait("1", None))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert not changes._waiters
        with pytest.raises(NotFound):
            await changes.wait("2", 0)

    asyncio.run(scene())
