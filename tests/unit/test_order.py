"""The order by itself: from the states of neighbours to what follows."""

from __future__ import annotations

import pytest

from vigil.overlord.order import Neighbours, Standing, graph_of, standing
from vigil.plan.types import Service
from vigil.service.events import Cascade, Go, Hold, StopLater, StopNow, Wait
from vigil.service.state import Next, Phase, State, Work, WorkKind

START = Work(1, WorkKind.START, "x")


def neighbours(services: list[Service], **states: State) -> Neighbours:
    named = {service.name: service for service in services}
    return Neighbours(graph_of(named), lambda name: (states.get(name, State()), named[name]))


def decide(services: list[Service], name: str, **states: State) -> object:
    return neighbours(services, **states).decide(name, lambda: 7)


def s(name: str, **keys: object) -> Service:
    return Service(name=name, command=("x",), **keys)  # type: ignore[arg-type]


def p(phase: Phase, **keys: object) -> State:
    return State(phase, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (p(Phase.INACTIVE), Standing.DOWN),
        (p(Phase.HELD), Standing.DOWN),
        (p(Phase.ERROR), Standing.DOWN),
        (p(Phase.WAITING), Standing.COMING),
        (p(Phase.SPAWNING), Standing.COMING),
        (p(Phase.BACKOFF), Standing.COMING),
        (p(Phase.ACTIVE), Standing.UP),
        (p(Phase.ENDING, next=Next.BACKOFF), Standing.COMING),
        (p(Phase.ENDING, next=Next.DOWN), Standing.GOING),
        (p(Phase.ENDING, next=Next.ERROR), Standing.GOING),
        (p(Phase.STOPPING, next=Next.START), Standing.COMING),
        (p(Phase.STOPPING, next=Next.DOWN), Standing.GOING),
        (p(Phase.STOPPING, next=Next.DOWN, queue=(START,)), Standing.COMING),
    ],
)
def test_what_a_service_is_to_one_that_needs_it(state: State, expected: Standing) -> None:
    assert standing(state, s("db")) is expected


def test_a_oneshot_is_up_only_when_it_is_done() -> None:
    once = s("once", type="oneshot")
    assert standing(p(Phase.ACTIVE), once) is Standing.COMING
    assert standing(p(Phase.ENDING, next=Next.EXITED), once) is Standing.COMING
    assert standing(p(Phase.EXITED), once) is Standing.UP


WAITING = p(Phase.WAITING)
AFTER = [s("db"), s("web", after=("db",))]
BEFORE = [s("db", before=("web",)), s("web")]
REQUIRES = [s("db"), s("web", requires=("db",))]


@pytest.mark.parametrize("plan", [AFTER, BEFORE, REQUIRES])
def test_it_waits_for_one_on_its_way_and_goes_when_that_is_up(plan: list[Service]) -> None:
    assert decide(plan, "web", web=WAITING, db=WAITING) == Wait(("db",))
    assert decide(plan, "web", web=WAITING, db=p(Phase.ACTIVE)) == Go(7)


@pytest.mark.parametrize("phase", [Phase.INACTIVE, Phase.ERROR, Phase.HELD])
def test_one_that_nobody_starts_holds_up_only_what_requires_it(phase: Phase) -> None:
    assert decide(AFTER, "web", web=WAITING, db=p(phase)) == Go(7, ("db",))
    assert decide(BEFORE, "web", web=WAITING, db=p(phase)) == Go(7, ("db",))
    held = decide(REQUIRES, "web", web=WAITING, db=p(phase, cause="why", waiting_for=("x",)))
    assert isinstance(held, Hold)
    assert held.blockers == ("db",)


def test_one_on_its_way_down_does_not_hold_up_after_but_requires() -> None:
    going = p(Phase.STOPPING)
    assert decide(AFTER, "web", web=WAITING, db=going) == Go(7, ("db",))
    assert decide(REQUIRES, "web", web=WAITING, db=going) == Wait(("db",))


def test_waiting_for_one_that_failed_is_told_apart_from_a_shortage() -> None:
    failed = decide(AFTER, "web", web=WAITING, db=p(Phase.BACKOFF, cause="exited"))
    assert failed == Wait(("db",), "db, which is in backoff (exited)")
    assert decide(AFTER, "web", web=WAITING, db=p(Phase.BACKOFF, short=True)) == Wait(("db",))
    chain = [*AFTER, s("front", after=("web",))]
    postponed = p(Phase.WAITING, postponed=True, waiting_for=("db",))
    assert decide(chain, "front", front=WAITING, web=postponed) == Wait(("web",), "web, which waits for db")


@pytest.mark.parametrize("phase", [Phase.SPAWNING, Phase.ACTIVE])
def test_what_runs_goes_when_a_required_one_is_down_or_about_to_be_stopped(phase: Phase) -> None:
    for db in (p(Phase.INACTIVE), p(Phase.ERROR), p(Phase.STOP_WAIT), p(Phase.STOP_WAIT, next=Next.START)):
        assert isinstance(decide(REQUIRES, "web", web=p(phase), db=db), Cascade)
        assert decide(AFTER, "web", web=p(phase), db=db) is None
    for db in (p(Phase.ACTIVE), p(Phase.BACKOFF), p(Phase.WAITING), p(Phase.ENDING, next=Next.DOWN)):
        assert decide(REQUIRES, "web", web=p(phase), db=db) is None


def test_in_backoff_it_is_held_when_a_required_one_is_down() -> None:
    assert isinstance(decide(REQUIRES, "web", web=p(Phase.BACKOFF), db=p(Phase.ERROR)), Hold)
    assert decide(REQUIRES, "web", web=p(Phase.BACKOFF), db=p(Phase.BACKOFF)) is None
    assert decide(AFTER, "web", web=p(Phase.BACKOFF), db=p(Phase.ERROR)) is None


def test_a_stop_waits_for_those_that_need_it_and_stop_too() -> None:
    stop = p(Phase.STOP_WAIT)
    for plan in (AFTER, BEFORE, REQUIRES):
        for web in (p(Phase.STOP_WAIT), p(Phase.STOPPING), p(Phase.ENDING)):
            assert decide(plan, "db", db=stop, web=web) == StopLater(("web",))
        assert decide(plan, "db", db=stop, web=p(Phase.INACTIVE)) == StopNow()
    assert decide(AFTER, "db", db=stop, web=p(Phase.ACTIVE)) == StopNow()
    assert decide(REQUIRES, "db", db=stop, web=p(Phase.ACTIVE)) == StopLater(("web",)), "it is told to go in this turn"


def test_a_change_of_one_matters_to_those_that_need_it_and_to_those_that_wait_to_stop() -> None:
    plan = [s("a"), s("b", after=("a",)), s("c", after=("b",)), s("d")]
    assert neighbours(plan).affected("b") == ["b", "c"]
    assert neighbours(plan, a=p(Phase.STOP_WAIT)).affected("b") == ["b", "c", "a"]


def test_what_a_start_starts_is_in_order_of_need_and_says_for_whom() -> None:
    plan = [s("d", requires=("b", "c")), s("b", requires=("a",)), s("c", requires=("a",)), s("a"), s("e", after=("d",))]
    assert neighbours(plan).to_start(["d"]) == {"a": "b", "b": "d", "c": "d", "d": None}
    assert neighbours(plan).to_start(["e"]) == {"e": None}
    up = p(Phase.ACTIVE)
    assert neighbours(plan, b=up, a=up).to_start(["d"]) == {"c": "d", "d": None}
    assert neighbours(plan, a=p(Phase.BACKOFF), b=up, c=up).to_start(["d", "a"]) == {"d": None, "a": None}


def test_what_no_plan_has_any_more_stops_in_order_and_holds_up_nobody() -> None:
    """``old`` waited for db, and web waited for it."""
    named = {
        "db": Service(name="db"),
        "web": Service(name="web"),
        "old": Service(name="old", after=("db",), before=("web",)),
    }
    states = {name: State(phase=Phase.STOP_WAIT) for name in named}
    neighbours = Neighbours(graph_of(named, {"old"}), lambda name: (states[name], named[name]))
    assert neighbours.decide("db", lambda: 1) == StopLater(("old",))
    assert neighbours.decide("old", lambda: 1) == StopLater(("web",))
    assert neighbours.decide("web", lambda: 1) == StopNow()
    states["web"] = State(phase=Phase.WAITING)
    assert neighbours.decide("web", lambda: 1) == Go(1), "without a word about one that it cannot wait for"
    without = neighbours.graph.without({"old"})
    assert (without.needs, without.needed_by) == ({"db": (), "web": ()}, {"db": (), "web": ()})
    assert without.places == neighbours.graph.places, "what lives was told of these"


def test_a_oneshot_that_was_done_is_nothing_to_others_once_it_is_none() -> None:
    assert standing(State(phase=Phase.EXITED), Service(name="x", type="oneshot")) is Standing.UP
    assert standing(State(phase=Phase.EXITED), Service(name="x")) is Standing.DOWN


def test_a_long_chain_needs_no_recursion() -> None:
    plan = [s("s0"), *(s(f"s{n}", requires=(f"s{n - 1}",)) for n in range(1, 3000))]
    assert len(neighbours(plan).to_start(["s2999"])) == 3000
