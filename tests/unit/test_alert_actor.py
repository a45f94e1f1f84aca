"""Alerts against receivers that answer, fail, hang and pour, through replans and the death of control."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import time
import uuid

import pytest

from tests.unit.alert_world import LIMIT, Receiver, World
from vigil.alert.machine import Tried
from vigil.model.errors import NotFound
from vigil.plan.types import Alert


def alert(name, receiver, **keys):
    given = {"name": name, "url": receiver.url, "on_check": ("web", "db"), "retry_backoff": (0.02,), "timeout": 5.0}
    return Alert(**(given | keys))


@pytest.fixture
def worlds():
    made = []

    def begin(*alerts, **more):
        made.append(World(*alerts, **more))
        return made[-1]

    yield begin
    for world in made:
        world.close()


def test_the_table_against_a_receiver(worlds):
    with Receiver() as receiver:
        world = worlds(alert("a", receiver))
        world.changed(("web", "up"), ("db", "down"), ("web", "down"), ("db", "down"), ("web", "up"), ("web", "up"))
        world.quiet()
    assert receiver.told == [("db", "down"), ("web", "down"), ("web", "up")]
    assert world.alerts.shown("a")[1].last.ok


def test_500_then_200_is_delivered_once_and_404_is_not_tried_again(worlds):
    with Receiver("500 x", "429 x", "200 OK", "404 x", "200 OK") as receiver:
        world = worlds(alert("a", receiver, format="cloud-events"))
        world.changed(("web", "down"))
        world.quiet()
        world.changed(("db", "down"), ("web", "up"))
        world.quiet()
    ids = [body["id"] for body in receiver.bodies]
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids)) == 3
    assert all(str(uuid.UUID(one)) == one for one in ids)
    assert [(body["data"]["check"], body["data"]["status"]) for body in receiver.bodies[2:]] == [
        ("web", "down"),
        ("db", "down"),
        ("web", "up"),
    ]
    _, state = world.alerts.shown("a")
    assert (state.queued, state.dropped, state.last.ok) == (3, 1, True)


def test_those_who_hang_drip_pour_and_redirect_delay_nobody_and_lose_their_jobs(worlds, capfd):
    with Receiver() as good, Receiver() as hang, Receiver() as drip, Receiver() as pour, Receiver() as round_and_round:
        hang.answers, drip.answers = [hang.hang], [drip.drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")]
        pour.answers = [pour.pour(b"HTTP/1.1 500 x\r\nContent-Length: 10000000000\r\n\r\n")]
        round_and_round.answers = [f"302 Found\nLocation: {round_and_round.url}"]
        receivers = {"hang": hang, "drip": drip, "pour": pour, "redirect": round_and_round, "good": good}
        keys = {"timeout": 0.4, "retry_attempts": 1000}
        world = worlds(*(alert(name, there, **keys) for name, there in receivers.items()), max_queue_time=1.5)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        world.changed(("web", "down"), ("web", "up"))
        world.until(lambda: len(good.got) == 2, "the good one's messages")
        assert time.monotonic() - began < 1.4, "the others are still at it"
        world.quiet()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000
    assert good.told == [("web", "down"), ("web", "up")]
    assert len(round_and_round.got) == 2, "a redirect is no answer, and not tried again"
    assert len(hang.got) >= 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "max-queue-time" in line]
    for name in ("hang", "drip", "pour"):
        assert sum(f" alert={name} " in line and " WARN " in line for line in lines) == 2
        _, state = world.alerts.shown(name)
        assert (state.dropped, state.last.ok) == (2, False)


def test_an_empty_url_drops_the_alert_with_an_error(worlds, capfd):
    with Receiver() as receiver:
        world = worlds(alert("a", receiver, url="env:NOWHERE"))
        world.alerts.warn()
        world.changed(("web", "down"))
        world.quiet()
    lines = capfd.readouterr().err.splitlines()
    assert any(" WARN vigil.alert " in line and line.endswith("alert=a field=url env_var=NOWHERE") for line in lines)
    assert any(
        " ERROR vigil.alert drops a delivery: its url is empty (env:NOWHERE is not set) alert=a" in line
        for line in lines
    )


def test_an_error_of_our_own_costs_one_delivery_and_says_where_it_came_from(worlds, capfd, monkeypatch):
    with Receiver() as receiver:
        world = worlds(alert("a", receiver))

        async def broken(*_):
            raise RuntimeError("oh no")

        monkeypatch.setattr(type(world.alerts._courier), "body", broken)
        world.changed(("web", "down"))
        world.quiet()
        monkeypatch.undo()
        world.changed(("web", "up"))
        world.quiet()
    assert receiver.told == [("web", "up")]
    assert "oh no" in capfd.readouterr().err


# --- another plan ---


def test_what_is_queued_goes_where_the_new_plan_says(worlds):
    with Receiver("503 x") as old, Receiver() as new:
        world = worlds(alert("a", old, retry_backoff=(50.0,)))
        world.changed(("web", "down"), ("db", "down"))
        world.until(lambda: old.got and not world.alerts.shown("a")[1].sending, "the first failure")
        world.replan(alert("a", new, labels={"new": "yes"}))
        world.quiet()
    assert new.told == [("web", "down"), ("db", "down")]
    assert [body["labels"] for body in new.bodies] == [{"new": "yes"}] * 2


def test_an_alert_that_goes_breaks_off_and_leaves_nothing(worlds, capfd):
    with Receiver() as receiver, Receiver() as other:
        receiver.answers = [receiver.hang]
        world = worlds(alert("a", receiver, timeout=300.0), alert("b", other))
        world.changed(("web", "down"), ("web", "up"))
        world.until(lambda: receiver.got and len(other.got) == 2, "the requests")
        world.replan(alert("b", other))
        world.until(lambda: not asyncio.all_tasks(world.loop), "the end of the attempt")
        assert set(world.journal) == {"alert/b"}
        with pytest.raises(KeyError):
            world.alerts.shown("a")
        world.replan(alert("a", other), alert("b", other), statuses={"web": "down"})
        world.quiet()
    assert other.told == [("web", "down"), ("web", "up"), ("web", "down"), ("web", "down")]
    assert "its queue is dropped alert=a jobs=2" in capfd.readouterr().err


def test_a_journal_with_an_alert_that_the_plan_has_not_is_put_right(worlds):
    with Receiver("503 x") as receiver:
        world = worlds(alert("a", receiver, retry_backoff=(50.0,)))
        world.changed(("web", "down"))
        world.plan = {}
        world.kill()
        assert world.journal == {}


# --- tests ---


def test_a_test_tells_its_end(worlds):
    with Receiver() as receiver, Receiver("403 Forbidden") as closed:
        world = worlds(alert("good", receiver), alert("bad", closed))

        async def tried(name):
            return await asyncio.wait_for(world.turn(lambda: world.alerts.test(name)), LIMIT)

        assert world.loop.run_until_complete(tried("good")).ok
        assert receiver.told == [("vigil-test", "down"), ("vigil-test", "up")]
        ended = world.loop.run_until_complete(tried("bad"))
        assert (ended.ok, ended.error) == (False, f"127.0.0.1:{closed.port} answers 403 Forbidden")
        assert len(closed.got) == 1
        with pytest.raises(NotFound, match="cannot test nope: there is no alert of this name"):
            world.loop.run_until_complete(tried("nope"))


def test_a_test_of_an_alert_that_goes_ends(worlds):
    with Receiver() as receiver:
        receiver.answers = [receiver.hang]
        world = worlds(alert("a", receiver))

        async def tried():
            answer = world.turn(lambda: world.alerts.test("a"))
            world.replan()
            return await asyncio.wait_for(answer, LIMIT)

        assert isinstance(world.loop.run_until_complete(tried()), Tried)


# --- the end, and the loss of control ---


def test_the_end_waits_for_what_is_left_but_not_for_ever(worlds):
    with Receiver("503 x", "200 OK") as receiver, Receiver() as silent:
        silent.answers = [silent.hang]
        world = worlds(alert("a", receiver, retry_backoff=(0.0,)))
        world.changed(("web", "down"))
        assert world.loop.run_until_complete(world.alerts.flush(LIMIT))
        assert len(receiver.got) == 2
        assert world.loop.run_until_complete(world.alerts.flush(0.0))
        world.replan(alert("s", silent), statuses={"web": "down"})
        began = time.monotonic()
        assert not world.loop.run_until_complete(world.alerts.flush(0.2))
        assert time.monotonic() - began < 2


def test_a_control_that_died_in_an_attempt_is_followed_by_one_that_makes_the_same_again(worlds):
    with Receiver() as receiver:
        receiver.answers = [receiver.hang, "200 OK"]
        world = worlds(alert("a", receiver, format="cloud-events"))
        world.changed(("web", "down"), ("web", "up"))
        world.until(lambda: receiver.got, "the first request")
        world.kill()
        world.quiet()
    first, again, then = receiver.bodies
    assert first == again
    assert then["data"]["status"] == "up"


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_a_receiver_that_knows_ids_has_what_it_has_without_kills(worlds, seed):
    """control dies at any moment of the traffic, at about every second change; the receiver answers and fails."""
    dice = random.Random(seed)
    with Receiver() as receiver:
        receiver.answers = [dice.choice(["200 OK", "200 OK", "503 x"]) for _ in range(60)] + ["200 OK"]
        world = worlds(alert("a", receiver, format="cloud-events", retry_attempts=1000), max_queue_time=LIMIT)
        truth, told = {"web": None, "db": None}, []
        for _ in range(40):
            check, status = dice.choice(["web", "db"]), dice.choice(["up", "down"])
            if truth[check] != status and (truth[check] or status == "down"):
                told.append((check, status))
            truth[check] = status
            world.changed((check, status))
            for _ in range(dice.randrange(4)):
                world.turn_loop(dice.choice([0, 0.001, 0.003]))
            if dice.random() < 0.7:
                # One that is cut off three times in a row is given up: so after the second time it may end.
                world.until(lambda: all(job.begun < 3 for job in world.alerts.shown("a")[1].jobs), "its end")
                world.kill()
        world.quiet()
    seen = {body["id"]: (body["data"]["check"], body["data"]["status"]) for body in receiver.bodies}
    assert list(seen.values()) == told
    assert world.alerts.shown("a")[1].dropped == 0
    assert world.kills > 15


def test_nothing_is_left_open(worlds):
    with Receiver() as receiver:
        world = worlds(*(alert(f"a{n}", receiver) for n in range(20)))
        world.changed(("web", "down"))
        world.quiet()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            world.changed(("web", "up"), ("web", "down"))
            world.quiet()
        world.until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2, "closed descriptors")
    assert len(receiver.got) == 220
