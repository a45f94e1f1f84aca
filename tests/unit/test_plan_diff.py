"""What changed between two plans, in which class of change, and in words that tell no secret."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.plan_world import plan
from vigil.plan.diff import Changed, diff, digest
from vigil.plan.types import Credentials, Plan, Policy, ReadyCheck, Service

WEB = Service(name="web", command=("run",), environment={"A": "1", "B": "2"})
ALICE = Credentials(uid=1000, gid=1000, groups=(1000,), home="/home/alice", name="alice")

DEFINITION: dict[str, Any] = {
    "command": ("run", "fast"),
    "environment": {"A": "1"},
    "user": ALICE,
    "working_dir": "/srv",
    "type": "oneshot",
    "logs_forward": "passthrough",
    "limits": ((7, 1024, 4096),),
    "nice": 5,
    "umask": 0o27,
    "oom_score_adj": 100,
    "stdin": "inherit",
    "ready": "notify",
    "watchdog": 5.0,
}
IN_PLACE: dict[str, Any] = {
    "summary": "a web",
    "description": "of things",
    "startup": "enabled",
    "after": ("db",),
    "before": ("db",),
    "requires": ("db",),
    "stop_signal": 10,
    "kill_delay": None,
    "forward_signals": frozenset({1}),
    "on_success": Policy.IGNORE,
    "on_failure": Policy.SHUTDOWN,
    "success_exit_codes": frozenset({0, 3}),
    "backoff_delay": 1.0,
    "backoff_factor": 1.0,
    "backoff_limit": 60.0,
    "restart_limit": 3,
    "on_check_failure": {"c": Policy.RESTART},
    "ready_timeout": 5.0,
    "logs_push_socket": "/run/x",
    "logs_push_addr": "127.0.0.1:9",
    "logs_push_format": "other",
}


def of(*services: Service) -> Plan:
    return Plan(services={service.name: service for service in services})


def change(old: Service, new: Service) -> Changed:
    found = diff(of(old), of(new))
    assert found.added == found.removed == ()
    return found.changed[old.name]


def test_every_key_of_a_service_is_of_one_class() -> None:
    assert DEFINITION.keys() | IN_PLACE.keys() == set(Service.__struct_fields__) - {"name"}
    assert not DEFINITION.keys() & IN_PLACE.keys()


@pytest.mark.parametrize("field", DEFINITION)
def test_what_a_start_carries_is_the_definition(field: str) -> None:
    new = replace(WEB, **{field: DEFINITION[field]})
    found = change(WEB, new)
    assert (len(found.definition), found.in_place) == (1, ())
    assert found.definition[0].startswith(f"{field.replace('_', '-')} changed")
    assert digest(new) != digest(WEB)


@pytest.mark.parametrize("field", IN_PLACE)
def test_all_else_changes_in_place(field: str) -> None:
    new = replace(WEB, **{field: IN_PLACE[field]})
    assert change(WEB, new) == Changed(in_place=(f"{field.replace('_', '-')} changed",))
    assert digest(new) == digest(WEB)


def test_what_is_the_same_is_in_no_list() -> None:
    found = diff(of(WEB), of(replace(WEB, environment={"B": "2", "A": "1"})))
    assert (found.added, found.removed, found.changed) == ((), (), {})


def test_services_come_and_go_in_the_order_of_their_plans() -> None:
    a, b, c, d = (Service(name=name) for name in "abcd")
    found = diff(of(b, WEB, a), of(d, WEB, c))
    assert (found.added, found.removed, found.changed) == (("d", "c"), ("b", "a"), {})


def test_variables_are_named_and_their_values_are_not() -> None:
    old = replace(WEB, environment={"KEEP": "1", "TOKEN": "old-secret", "GONE": "x"})
    new = replace(WEB, environment={"TOKEN": "new-secret", "KEEP": "1", "NEW": "y"})
    assert change(old, new).definition == ("environment changed (TOKEN, GONE, NEW)",)


def test_many_variables_are_counted() -> None:
    new = replace(WEB, environment={f"V{n}": "1" for n in range(9)})
    assert change(replace(WEB, environment={}), new).definition == ("environment changed (V0, V1, V2, V3, V4, 4 more)",)


def test_forwarded_or_not_is_told_to_a_live_run_and_passthrough_is_not() -> None:
    assert change(WEB, replace(WEB, logs_forward="disabled")) == Changed(in_place=("logs-forward changed",))
    passed = replace(WEB, logs_forward="passthrough")
    assert change(passed, replace(WEB, logs_forward="disabled")) == Changed(definition=("logs-forward changed",))


def test_which_check_makes_it_ready_is_nothing_to_its_process() -> None:
    one, other = replace(WEB, ready=ReadyCheck("a")), replace(WEB, ready=ReadyCheck("b"))
    assert change(one, other) == change(WEB, one) == Changed(in_place=("ready changed",))
    assert change(one, replace(WEB, ready="notify")) == Changed(definition=("ready changed",))


def test_a_user_that_is_another_number_now_and_another_group() -> None:
    old = replace(WEB, user=ALICE)
    assert change(old, replace(WEB, user=replace(ALICE, uid=1001))).definition == ("user changed",)
    assert change(old, replace(WEB, user=replace(ALICE, groups=(1000, 27)))).definition == ("group changed",)
    assert change(old, WEB).definition == ("user changed",)


def test_an_env_file_counts_by_what_is_in_it() -> None:
    from tests.unit.plan_world import sources
    from vigil.plan import load

    text = "services: {web: {command: run, env-file: [/e]}}"
    old = load(sources(text, env_files=(("/e", b"A=1\n"),)))
    same = load(sources(text, env_files=(("/e", b"# a comment\nA=1\n"),)))
    new = load(sources(text, env_files=(("/e", b"A=2\n"),)))
    assert diff(old, same).changed == {}
    assert diff(old, new).changed["web"].definition == ("environment changed (A)",)


def test_how_a_layer_is_written_is_no_change() -> None:
    old = plan("services: {web: {command: run it, kill-delay: 90s}}")
    new = plan("# a comment\nservices:\n  web:\n    command: [run, it]\n", "services: {web: {kill_delay: 1m30s}}")
    assert diff(old, new).changed == {}


def test_a_digest_is_the_same_in_whatever_order_variables_come_and_for_any_bytes() -> None:
    one = replace(WEB, environment={"A": "\udcff", "B": "2"})
    assert digest(one) == digest(replace(WEB, environment={"B": "2", "A": "\udcff"}))
    assert digest(one) != digest(WEB)
    assert digest(Service(name="a")) == digest(Service(name="b"))
