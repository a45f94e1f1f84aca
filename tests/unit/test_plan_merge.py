"""Layers become one plan."""

from __future__ import annotations

import pytest

from tests.unit.plan_world import layer, plan, problems, sources
from vigil.plan.merge import merge
from vigil.plan.problems import Problems
from vigil.plan.tree import Mapping


def test_scalars_of_a_later_layer_replace() -> None:
    made = plan(
        "summary: one\ndescription: first\n" + layer("command: old", "kill-delay: 1s", "nice: 1"),
        "summary: two\n" + layer("command: [new, b]", "kill_delay: 2s"),
    )
    web = made.services["web"]
    assert (made.summary, made.description) == ("two", "first")
    assert (web.command, web.kill_delay, web.nice) == (("new", "b"), 2.0, 1)


def test_an_absent_key_resets_nothing() -> None:
    first = layer("command: run", "startup: enabled", "environment: {A: 1}", "after: [db]") + "  db: {command: x}\n"
    assert plan(first, layer("summary: more")).services["web"].startup == "enabled"
    assert plan(first, "services: {web: {}}").services == plan(first).services


def test_lists_of_names_append_what_is_missing() -> None:
    base = "services: {a: {command: x}, b: {command: x}, c: {command: x}, d: {command: x}}"
    web = plan(
        base, layer("after: [a, b]", "requires: [a]"), layer("after: [b, c]", "before: [d]", "requires: []")
    ).services["web"]
    assert (web.after, web.before, web.requires) == (("a", "b", "c"), ("d",), ("a",))


def test_a_name_that_a_list_has_twice_counts_once() -> None:
    assert plan("services: {web: {after: [a, a]}, a: {}}").services["web"].after == ("a",)


def test_other_lists_replace() -> None:
    web = plan(
        layer("command: [a, b]", "success-exit-codes: [0, 3]", "forward-signals: [HUP, USR1]"),
        layer("command: [c]", "success-exit-codes: [4]", "forward-signals: [USR2]"),
    ).services["web"]
    assert (web.command, web.success_exit_codes, len(web.forward_signals)) == (("c",), frozenset({4}), 1)


def test_maps_union_and_the_later_value_wins() -> None:
    web = plan(
        layer("environment: {A: 1, B: 2}", "limits: {nofile: 1, core: 2}"),
        layer("environment: {B: 3, C: 4}", "limits: {RLIMIT_NOFILE: 5}"),
    ).services["web"]
    assert web.environment == {"A": "1", "B": "3", "C": "4"}
    assert sorted(soft for _, soft, _ in web.limits) == [2, 5]


@pytest.mark.parametrize("null", ["~", "null", "NULL", "", "!!null x"])
def test_null_removes_what_an_earlier_layer_set(null: str) -> None:
    first = "summary: s\n" + layer("command: run", "kill-delay: 1s", "after: [db]", "environment: {A: 1, B: 2}")
    first += "  db: {command: x}\n"
    made = plan(first, layer(f"kill-delay: {null}", f"after: {null}", "environment: {A: ~}") + f"  db: {null}\n")
    web = made.services["web"]
    assert list(made.services) == ["web"]
    assert (web.command, web.kill_delay, web.after, web.environment) == (("run",), 5.0, (), {"B": "2"})
    assert plan(first, f"summary: {null}").summary == ""
    assert plan(first, f"services: {null}").services == {}


def test_what_null_removed_can_be_set_again() -> None:
    web = plan(layer("command: a"), layer("command: ~"), layer("command: b", "startup: enabled")).services["web"]
    assert web.command == ("b",)


@pytest.mark.parametrize("key", ["override", "override-mode", "override_mode"])
def test_override_replace_forgets_the_earlier_entry(key: str) -> None:
    made = plan(
        layer("command: a", "nice: 3", "environment: {A: 1}") + "  other: {command: x}\n",
        layer(f"{key}: replace", "command: b"),
    )
    web = made.services["web"]
    assert (web.command, web.nice, web.environment) == (("b",), None, {})
    assert made.services["other"].command == ("x",)


def test_override_merge_is_the_default() -> None:
    first = layer("command: a", "nice: 3")
    assert plan(first, layer("override: merge", "umask: 077")) == plan(first, layer("umask: 077"))


@pytest.mark.parametrize("word", ["sometimes", "Replace", "[replace]", "true"])
def test_an_unknown_way_to_override_is_an_error(word: str) -> None:
    assert problems(layer(f"override: {word}"))[0].startswith("/l/0.yaml:3:15: services.web.override: ")


def test_services_are_in_the_order_in_which_the_layers_name_them() -> None:
    made = plan("services: {b: {}, a: {}}", "services: {c: {}, a: {nice: 1}}")
    assert list(made.services) == ["b", "a", "c"]


def test_a_problem_after_merging_names_the_file_that_the_value_came_from() -> None:
    assert problems(
        layer("command: x", "after: [b]") + "  b: {}\n",
        layer("nice: 3", "after: [nobody]"),
        layer("umask: 077"),
    ) == ('/l/1.yaml:4:13: services.web.after: there is no service "nobody"',)


def test_a_wrong_value_is_reported_even_where_a_later_layer_replaces_or_removes_it() -> None:
    found = problems(
        layer("command: x", "kill-delay: soon", "nice: 99", "environment: {A: [b]}") + "  b: {umask: 9}\n",
        layer("kill-delay: 3s", "nice: ~", "environment: {A: c}") + "  b: ~\n",
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["/l/0.yaml:4:17", "services.web.kill-delay"],
        ["/l/0.yaml:5:11", "services.web.nice"],
        ["/l/0.yaml:6:22", "services.web.environment.A"],
        ["/l/0.yaml:7:14", "services.b.umask"],
    ]


def test_every_problem_of_all_files_is_reported_at_once_in_the_order_of_files_and_lines() -> None:
    found = problems(
        layer("command: x", "kill-delay: 5 parsecs", "kill-delay: 3s", "stop-signal: FOO"),
        "a: b: c",
        layer("nice: 99", name="db"),
        b"\xff",
    )
    assert [line.split(": ")[0] for line in found] == [
        "/l/0.yaml:4:17",
        "/l/0.yaml:5:5",
        "/l/0.yaml:6:18",
        "/l/1.yaml:1:5",
        "/l/2.yaml:3:11",
        "/l/3.yaml:1:1",
    ]
    assert found[0].endswith('services.web.kill-delay: "5 parsecs" is not a duration (write 500ms, 3s, 1m30s, 1h)')


def test_names_are_not_judged_where_a_layer_could_not_be_read() -> None:
    assert len(problems(layer("after: [db]"), "services:\n\tdb: {}\n")) == 1


def test_a_check_kind_is_replaced_whole() -> None:
    layers = sources("checks: {c: {tcp: {host: a, port: 1}}}", "checks: {c: {tcp: {port: 2}}}").layers
    block = merge(layers, Problems()).kinds["checks"]["c"].fields["tcp"]
    assert isinstance(block, Mapping)
    assert [entry.key for entry in block.entries] == ["port"]
