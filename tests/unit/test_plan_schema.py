"""The JSON Schema takes what vigil takes, and refuses what a schema can."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.unit import test_plan_alerts, test_plan_checks, test_plan_services
from tests.unit.plan_world import layer, sources
from tests.unit.test_plan_corpus import NAMES, laid_out
from tests.unit.test_plan_fuzz import random_sources
from vigil.model.errors import PlanError
from vigil.plan import describe, load, read, tree
from vigil.plan.fields import KINDS, fields_of
from vigil.plan.problems import Problems
from vigil.plan.schema import schema
from vigil.plan.tree import Mapping, Node, Scalar

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = schema()
VALIDATOR = Draft7Validator(SCHEMA)

_INT, _OCTAL, _HEX = re.compile(r"[-+]?[0-9]+"), re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def _data(node: Node) -> Any:
    """A tree as an editor sees it, by the core schema of YAML 1.2."""
    if isinstance(node, Mapping):
        return {entry.key: _data(entry.value) for entry in node.entries}
    if not isinstance(node, Scalar):
        return [_data(item) for item in node.items]
    text = node.text
    if node.is_null:
        return None
    if not node.plain:
        return text
    if text.lower() in ("true", "false") and text in (text.lower(), text.upper(), text.capitalize()):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < 300:
        return int(text)
    if _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def refused(text: str | bytes) -> list[str]:
    """Where the schema refuses a layer, and why."""
    problems = Problems()
    root = tree.parse("/l", text.encode() if isinstance(text, str) else text, problems)
    assert not problems.broken, text
    found = VALIDATOR.iter_errors(_data(root) if root is not None else None)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def test_it_is_a_json_schema_that_json_can_hold() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert '"enum": []' not in json.dumps(SCHEMA)  # yaml-language-server refuses the whole schema for it


def test_every_key_is_described_and_nothing_else() -> None:
    names = {"services": "service", "checks": "check", "alerts": "alert", "identities": "identity"}
    for kind in KINDS:
        assert set(describe.KEYS[names[kind]]) == set(fields_of(kind))
    for name, keys in describe.KEYS.items():
        shown = SCHEMA if name == "layer" else SCHEMA["definitions"][name]
        assert set(shown["properties"]) == set(keys)
        assert all(len(shape["description"]) > 10 for shape in shown["properties"].values())


def test_nothing_unknown_is_let_through() -> None:
    assert all(shape["additionalProperties"] is False for name, shape in SCHEMA["definitions"].items())
    assert refused("servces: {}")
    assert refused(layer("kil-delay: 3s"))
    assert refused("checks: {c: {http: {url: 'http://h', metod: GET}}}")
    assert refused("identities: {i: {local: {uid: 1}}}")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (layer("depends_on: [db]"), "write requires"),
        (layer("autostart: true"), "write startup: enabled"),
        (layer("stop-grace-period: 3s"), "write kill-delay"),
        ("checks: {c: {interval: 3s}}", "write period: 10s"),
        ("programs: {}", "write services:, below it names, and below those their keys"),
    ],
)
def test_words_of_other_supervisors_are_refused_with_the_right_one(text: str, advice: str) -> None:
    root = tree.parse("/l", text.encode(), Problems())
    assert root is not None
    (found,) = VALIDATOR.iter_errors(_data(root))
    assert found.schema["errorMessage"] == advice


def test_defaults_are_those_that_a_plan_gets() -> None:
    service, check = SCHEMA["definitions"]["service"]["properties"], SCHEMA["definitions"]["check"]["properties"]
    shown = {key: shape["default"] for key, shape in {**check, **service}.items() if "default" in shape}
    assert shown == {
        "startup": "disabled",
        "working-dir": "/",
        "stop-signal": "SIGTERM",
        "kill-delay": "5s",
        "forward-signals": ["HUP", "USR1", "USR2", "WINCH"],
        "on-success": "restart",
        "on-failure": "restart",
        "success-exit-codes": [0],
        "backoff-delay": "500ms",
        "backoff-factor": 2.0,
        "backoff-limit": "30s",
        "ready-timeout": "1m",
        "watchdog": "off",
        "type": "simple",
        "logs-forward": "enabled",
        "logs-push-format": "ndjson",
        "stdin": "null",
        "delay": "3s",
        "period": "10s",
        "threshold": 3,
        "success-threshold": 1,
    }
    assert service["kill-delay"]["description"].endswith(" Default: 5s.")
    http, alert = SCHEMA["definitions"]["http"]["properties"], SCHEMA["definitions"]["alert"]["properties"]
    assert (http["method"]["default"], http["success-statuses"]["default"]) == ("GET", "2xx")
    assert (http["no-follow-redirects"]["default"], http["insecure"]["default"]) == (True, False)
    assert (alert["retry-backoff"]["default"], alert["format"]["default"]) == (["1s", "2s"], "webhook")


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/**/*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_are_taken(path: Path) -> None:
    assert refused(path.read_bytes()) == []


def test_the_plans_of_the_documentation_are_taken() -> None:
    taken = 0
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            if not any(f"{kind}:" in block for kind in KINDS):
                continue
            try:
                load(sources(block), check=True)
            except PlanError:
                continue  # it shows what is wrong, or names what another layer has
            assert refused(block) == [], block
            taken += 1
    assert taken > 0


def _cases(test: Any, count: int) -> list[tuple[Any, ...]]:
    """What a parametrized test is given."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    cases: list[tuple[Any, ...]] = [case if isinstance(case, tuple) else (case,) for case in mark.args[1]]
    assert len(cases) >= count
    return cases


@pytest.mark.parametrize("case", _cases(test_plan_services.test_a_right_value_is_taken, 40))
def test_right_values_of_services_are_taken(case: tuple[str, ...]) -> None:
    assert refused(layer(case[0])) == []


@pytest.mark.parametrize("case", _cases(test_plan_checks.test_a_right_value_is_taken, 10))
def test_right_values_of_checks_are_taken(case: tuple[str, ...]) -> None:
    assert refused(f"checks: {{k: {{tcp: {{port: 1}}, {case[0]}}}}}") == []


@pytest.mark.parametrize("case", _cases(test_plan_checks.test_a_right_value_of_an_http_check_is_taken, 10))
def test_right_values_of_http_checks_are_taken(case: tuple[str, ...]) -> None:
    assert refused(f"checks: {{k: {{http: {{url: 'http://h', {case[0]}}}}}}}") == []


@pytest.mark.parametrize("case", _cases(test_plan_checks.test_a_good_url_is_taken, 5))
def test_good_urls_are_taken(case: tuple[str, ...]) -> None:
    assert refused(f"checks: {{k: {{http: {{url: '{case[0]}'}}}}}}") == []


@pytest.mark.parametrize("case", _cases(test_plan_alerts.test_a_right_value_is_taken, 15))
def test_right_values_of_alerts_are_taken(case: tuple[str, ...]) -> None:
    assert refused(f"alerts: {{a: {{url: env:U, {case[0]}}}}}") == []


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_of_a_plan_without_unknown_keys_is_taken(seed: int) -> None:
    dice = random.Random(seed)
    taken = 0
    for _ in range(400):
        found = random_sources(dice, dice.choice((0.0, 0.02)))
        try:
            load(found, check=True)
        except PlanError:
            continue
        for _, content in found.layers:
            assert refused(content) == [], content.decode()
            taken += 1
    assert taken > 20


def test_null_is_taken_wherever_something_can_be_removed() -> None:
    for name, shape in SCHEMA["definitions"].items():
        validator = Draft7Validator({"$ref": f"#/definitions/{name}", "definitions": SCHEMA["definitions"]})
        for key in shape["properties"]:
            if not any(key in str(rule) for rule in shape.get("allOf", ()) if "not" not in rule):
                others = {"url": "http://h", "port": 1, "command": "x", "ca-cert": "/c"}
                whole = {**{other: value for other, value in others.items() if other in shape["properties"]}, key: None}
                assert not list(validator.iter_errors(whole)), (name, key)
    assert refused("services: ~\nchecks:\nalerts: null\nidentities: ~\nsummary:") == []
    assert refused("services: {web: ~}\nchecks: {c: ~}\nalerts: {a: ~, max-queue-depth: ~}\nidentities: {i: ~}") == []
    assert refused("") == []


@pytest.mark.parametrize(
    "text",
    [
        layer("kill_delay: 1s", "on_check_failure: {c: restart}", "override_mode: replace", "override-mode: merge"),
        "checks: {c: {success_threshold: 2, http: {url: 'http://h', no_follow-redirects: false}}}",
        "alerts: {max_queue_time: 5s, a: {send_info-fields: {a_b: c}}}",
        "identities: {i: {basic: {password_hash: '$6$ab$" + "a" * 86 + "'}, local: {user_id: 5}}}",
    ],
)
def test_both_spellings_of_a_key_are_taken(text: str) -> None:
    assert refused(text) == []


@pytest.mark.parametrize("key", ["kill-delay", "kill_delay", "backoff-limit", "backoff_limit"])
def test_both_spellings_of_a_key_are_judged(key: str) -> None:
    assert refused(layer(f"{key}: 1s")) == []
    for wrong in ("5", "5 parsecs", "[1s]", "-1s", "1.2.3s", "1s1m", "."):
        assert refused(layer(f"{key}: {wrong}")), wrong


# What a schema of one layer cannot see: numbers of signals, order of limits, names of the machine and of other things.
_BEYOND = re.compile(
    r"^(stop-signal: SIGRTMAX|limits: \{nofile: (5:3|unlimited:3|9{20}|1, R)"
    r"|limits: \{nofile: 1, |ready: \{check: ''\}|umask: 8$|backoff-factor: 1e999|after: \[db"
    r"|logs-push-addr: 'a:(0|65536)')"
)


@pytest.mark.parametrize(
    "case", _cases(test_plan_services.test_a_wrong_value_is_an_error_with_file_line_column_field_and_remedy, 60)
)
def test_wrong_values_of_services_are_refused(case: tuple[str, ...]) -> None:
    assert bool(refused(layer(case[0]))) != bool(_BEYOND.match(case[0]))


@pytest.mark.parametrize("case", _cases(test_plan_services.test_a_bad_name_is_an_error, 5))
def test_bad_names_are_refused(case: tuple[str, ...]) -> None:
    assert refused(layer("command: run", name=case[0]))


_BEYOND_CHECKS = re.compile(r"\{level: alive\}|headers: \{a: b, A|service-context: web|command: \"a 'b\"")


@pytest.mark.parametrize("case", _cases(test_plan_checks.test_a_wrong_value_is_an_error, 30))
def test_wrong_checks_are_refused(case: tuple[str, ...]) -> None:
    assert bool(refused(f"checks: {{k: {case[0]}}}")) != bool(_BEYOND_CHECKS.search(case[0]))


_BEYOND_ALERTS = re.compile(
    r"^a: \{on-check: \[up\]\}|url: ~|^a: \{url: env:U\}|\[upp\]|headers: \{a: b, A|max-queue-depth: 5, max_|: \[\]\}"
)


@pytest.mark.parametrize("case", _cases(test_plan_alerts.test_a_wrong_value_is_an_error, 25))
def test_wrong_alerts_are_refused(case: tuple[str, ...]) -> None:
    assert bool(refused(f"alerts: {{{case[0]}}}")) != bool(_BEYOND_ALERTS.search(case[0]))


@pytest.mark.parametrize(
    "text",
    [
        layer("command: x", "logs-push-socket: /x", "logs_push_addr: 'a:1'"),
        layer("command: x", "type: oneshot", "on_success: restart"),
        layer("command: x", "type: oneshot", "on-success: restart"),
        "checks: {c: {http: {url: 'http://h'}, exec: {command: x}}}",
        "identities: {a: {access: root}}",
        "identities: {a: {basic: {password-hash: hunter2}}}",
        "identities: {a: {tls: {ca-cert: ca.pem}}}",
        "identities: {a: {tls: {}}}",
        "services: [web]",
        "[]",
        "text",
    ],
)
def test_what_contradicts_itself_in_one_layer_is_refused(text: str) -> None:
    assert refused(text)


def test_what_only_looks_like_a_contradiction_is_taken() -> None:
    assert refused(layer("logs-push-socket: ~", "logs-push-addr: 'a:1'")) == []
    assert refused("checks: {c: {http: ~, tcp: {port: 1}}}") == []
    assert refused(layer("type: oneshot", "on-success: ~", "on-failure: restart")) == []


# What the corpus of mistakes has and a schema cannot see: names, the machine, other layers, the words of a command.
_UNSEEN = re.compile(
    r"there (is|are) no|names itself|cycle|is missing|has none of|duplicate key|is not closed|has brackets other"
    r"|nothing but a comment|is too long|cannot read|/[a-z]+\.env:|above the hard one|not in the user database|\"5\.0\""
)


def test_of_the_mistakes_that_people_make_those_are_refused_that_a_schema_can_see(tmp_path: Path) -> None:
    seen = taken = 0
    for name in NAMES:
        (tmp_path / name).mkdir()
        folder = laid_out(name, tmp_path / name)
        problems = Problems()
        trees = [tree.parse(str(path), path.read_bytes(), problems) for path in sorted(folder.glob("*.y*ml"))]
        if problems.broken or not problems.right:
            continue  # no YAML, of which editors say so
        found = [error for root in trees if root is not None for error in VALIDATOR.iter_errors(_data(root))]
        wrong = ""
        try:
            load(read(str(folder), check=True), check=True)
        except PlanError as error:
            wrong = str(error.problems[0])
        assert bool(found) == bool(wrong) or _UNSEEN.search(wrong), name
        seen += bool(found)
        taken += not wrong
    assert seen > 130
    assert taken > 10
