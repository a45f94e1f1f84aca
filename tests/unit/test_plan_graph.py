"""Who waits for whom."""

from __future__ import annotations

import itertools
import random

from tests.unit.plan_world import plan
from vigil.plan import Plan, Service, graph


def test_needs_are_after_and_requires_and_the_reverse_of_before() -> None:
    made = plan("services: {a: {after: [b], requires: [c]}, b: {}, c: {}, d: {before: [a, b]}, e: {}}")
    assert graph.needs(made) == {
        "a": {"b", "c", "d"},
        "b": {"d"},
        "c": frozenset(),
        "d": frozenset(),
        "e": frozenset(),
    }


def test_rank_is_the_longest_path_to_who_waits_for_nobody() -> None:
    made = plan("services: {a: {after: [b, d]}, b: {after: [c]}, c: {after: [d]}, d: {}}")
    assert graph.order(graph.needs(made)) == {"a": (0, 3), "b": (0, 2), "c": (0, 1), "d": (0, 0)}


def test_services_that_have_nothing_to_do_with_each_other_are_in_different_components() -> None:
    made = plan("services: {a: {}, b: {after: [c]}, c: {}, d: {before: [c]}, e: {}}")
    order = graph.order(graph.needs(made))
    assert [order[name][0] for name in "abcde"] == [0, 1, 1, 1, 2]


def test_a_plan_without_services_has_no_order() -> None:
    assert graph.order(graph.needs(Plan())) == {}


def test_chains_of_thousands_are_ordered_without_recursion() -> None:
    count = 20_000
    services = {f"s{n}": Service(name=f"s{n}", after=(f"s{n - 1}",) if n else ()) for n in range(count)}
    made = Plan(services=services)
    assert graph.order(graph.needs(made))[f"s{count - 1}"] == (0, count - 1)
    assert graph.cycles(graph.needs(made)) == []
    waits = {**graph.needs(made), "s0": frozenset({f"s{count - 1}"})}
    (cycle,) = graph.cycles(waits)
    assert len(cycle) == count + 1


def test_a_cycle_is_closed_true_and_as_short_as_can_be() -> None:
    waits = {
        "a": frozenset("b"),
        "b": frozenset("cd"),
        "c": frozenset("d"),
        "d": frozenset("a"),
        "e": frozenset("a"),
    }
    assert graph.cycles(waits) == [("a", "b", "d", "a")]


def test_cycles_are_found_exactly_where_they_are() -> None:
    dice = random.Random(11)
    for _ in range(300):
        names = [f"n{n}" for n in range(dice.randrange(1, 9))]
        waits = {
            name: frozenset(dice.sample(names, dice.randrange(0, min(3, len(names) + 1)))) - {name} for name in names
        }
        reach = {name: set(waits[name]) for name in names}
        for _ in names:
            for name in names:
                reach[name] |= {far for near in reach[name] for far in reach[near]}
        in_cycles = {name for name in names if name in reach[name]}
        found = graph.cycles(waits)
        assert bool(found) == bool(in_cycles)
        for cycle in found:
            assert cycle[0] == cycle[-1]
            assert len(set(cycle)) == len(cycle) - 1
            assert all(later in waits[earlier] for earlier, later in itertools.pairwise(cycle))
        groups = {
            frozenset(other for other in in_cycles if other in reach[name] and name in reach[other])
            for name in in_cycles
        }
        assert len(found) == len(groups)
