"""Layers become one plan."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.plan_world import layer, plan, problems, sources
from vigil.plan.merge import merge
from vigil.plan.problems import Problems
from vigil.plan.tree import Mapping
from vigil.plan.types import AlertSettings, HttpProbe


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
    ) == ('/l/1.yaml:4:13: services.web.after: there is no service "nobody" (there is b, web)',)


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


def test_null_removes_a_whole_kind_and_the_settings_with_it() -> None:
    first = "checks: {c: {tcp: {port: 1}}}\nalerts: {max-queue-depth: 3, a: {url: env:U, on-check: [c]}}\n"
    first += "identities: {i: {access: read, local: {}}}"
    made = plan(first, "checks: ~\nalerts: null\nidentities:")
    assert (made.checks, made.alerts, made.identities) == ({}, {}, {})
    assert made.alert_settings == AlertSettings()


def test_what_null_removed_of_a_kind_is_judged_all_the_same() -> None:
    (found,) = problems("alerts: {max-queue-depth: no}", "alerts: ~")
    assert found.startswith("/l/0.yaml:1:27: alerts.max-queue-depth: ")


def test_null_in_the_same_layer_and_where_nothing_was_set_is_no_error() -> None:
    assert plan(layer("command: x", "nice: ~", "after: ~")) == plan(layer("command: x"))


@pytest.mark.parametrize("kind", ["checks", "alerts", "identities"])
def test_override_replace_works_for_every_kind(kind: str) -> None:
    base = "checks: {c: {tcp: {port: 1}}}\n"
    item = {
        "checks": ("{tcp: {port: 1}, threshold: 9}", "{override_mode: replace, http: {url: 'http://h'}}"),
        "alerts": ("{url: env:U, on-check: [c], timeout: 9s}", "{override: replace, url: env:V, on-check: [c]}"),
        "identities": ("{access: admin, local: {}}", "{override-mode: replace, access: read, local: {user-id: 1}}"),
    }[kind]
    name = "other" if kind == "checks" else "a"
    made = plan(
        base if kind != "checks" else "summary: x", f"{kind}: {{{name}: {item[0]}}}", f"{kind}: {{{name}: {item[1]}}}"
    )
    only = plan(base if kind != "checks" else "summary: x", f"{kind}: {{{name}: {item[1]}}}")
    assert getattr(made, kind) == getattr(only, kind)
    assert getattr(made, kind)[name] != getattr(plan(base, f"{kind}: {{{name}: {item[0]}}}"), kind)[name]


def test_override_replace_in_the_first_layer_and_twice_is_the_last_word() -> None:
    made = plan(
        layer("override: replace", "command: a", "nice: 1"),
        layer("override: replace", "command: b", "umask: 077"),
        layer("kill-delay: 1s"),
        layer("override: replace", "command: c"),
    )
    assert made.services == plan(layer("command: c")).services


def test_a_name_that_override_replace_forgot_may_be_missing() -> None:
    assert plan(layer("after: [gone]"), layer("override: replace", "command: x")).services["web"].after == ()


def test_anchors_aliases_and_merge_keys_hold_within_a_layer() -> None:
    made = plan("""
        services:
          base: &base
            command: run
            kill_delay: 9s
            environment: &env {A: 1, B: 2}
            after: &needs [db]
          web:
            <<: *base
            environment:
              <<: *env
              B: 3
          worker:
            <<: [*base, {nice: 5, kill-delay: 1s}]
            kill-delay: 7s
            requires: *needs
          db: {command: x}
        checks:
          up: {http: &http {url: 'http://h', headers: {A: b}}}
          slow: {http: {<<: *http, method: HEAD}, period: 1m}
        """)
    web, worker = made.services["web"], made.services["worker"]
    assert (web.command, web.kill_delay, web.environment, web.after) == (("run",), 9.0, {"A": "1", "B": "3"}, ("db",))
    assert (worker.kill_delay, worker.nice, worker.requires) == (7.0, 5, ("db",))
    assert made.checks["slow"].probe == HttpProbe(url="http://h", headers={"A": "b"}, method="HEAD")


def test_an_alias_does_not_reach_into_another_layer() -> None:
    (found,) = problems("services: {a: &a {command: x}}", "services: {b: *a}")
    assert found.startswith('/l/1.yaml:1:15: services.b: alias "*a" has no anchor')


def test_what_came_through_an_anchor_is_merged_by_value_and_leaves_the_other_alone() -> None:
    first = "services: {a: &a {command: x, environment: {A: 1}}, b: *a}"
    made = plan(first, "services: {b: {environment: {A: 2}, command: y}}")
    assert (made.services["a"].environment, made.services["b"].environment) == ({"A": "1"}, {"A": "2"})


@pytest.mark.parametrize(
    "text",
    [
        *("0755", "12:30", "no", "1.50", "0x1F", "1e3", "1_000", "+5", "2026-11-25", "Null ", ".inf", "y", "0o17"),
        *("true", "08", "1:30:00", "=", "yes # c"),
    ],
)
def test_a_text_is_the_source_text_of_its_scalar_whatever_yaml_makes_of_it(text: str) -> None:
    made = plan(f"summary: {text}\n" + layer("command: x", "environment:", f"  A: {text}"))
    written = text.partition(" #")[0].strip()
    expected = "" if written == "Null" else written
    assert (made.summary, made.services["web"].environment.get("A", "")) == (expected, expected)


def test_kebab_case_and_snake_case_are_the_same_key_at_every_level() -> None:
    kebab = """
        services: {w: {command: x, kill-delay: 1s, on-check-failure: {c: restart}, override-mode: merge}}
        checks: {c: {success-threshold: 2, http: {url: 'http://h', body-contains: x, no-follow-redirects: false}}}
        alerts: {max-queue-depth: 1, a: {url: env:U, on-check: [c], send-info-fields: {x-y: z}, retry-attempts: 1}}
        identities: {i: {access: read, local: {user-id: 1}}}
        """
    snake = kebab
    for key in (
        *(
            "kill-delay",
            "on-check-failure",
            "override-mode",
            "success-threshold",
            "body-contains",
            "no-follow-redirects",
        ),
        *("max-queue-depth", "on-check:", "send-info-fields", "retry-attempts", "user-id"),
    ):
        snake = snake.replace(key, key.replace("-", "_"))
    bare = [msgspec.structs.replace(plan(text), warnings=()) for text in (kebab, snake)]
    assert bare[0] == bare[1]
    assert "_" in snake
    assert bare[0].alerts["a"].send_info_fields == {"x-y": "z"}  # a name of the user's is left alone


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("services: {w: {command: x, kill-delay: 1s, kill_delay: 2s}}", "1:44: services.w.kill-delay"),
        (
            "checks: {c: {http: {url: 'http://h', body-contains: a, body_contains: b}}}",
            "1:56: checks.c.http.body-contains",
        ),
        ("identities: {i: {access: read, access: read, local: {}}}", "1:32: identities.i.access"),
    ],
)
def test_a_key_under_both_spellings_in_one_layer_is_a_duplicate(text: str, place: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"/l/0.yaml:{place}: duplicate key")
