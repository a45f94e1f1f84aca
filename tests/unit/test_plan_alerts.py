"""Alerts of a plan: every key, references to variables, body-templates."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.unit.plan_world import plan, problems, sources, warnings
from vigil.plan import load
from vigil.plan.types import Alert, AlertSettings

CHECKS = "checks: {up: {tcp: {port: 1}}, db: {tcp: {port: 2}}}\n"
_TELLS = "accepted, but not acted upon"


def alert(keys: str) -> Alert:
    """The alert ``a`` with these keys more than it must have, in flow style."""
    made = plan(f"alerts: {{a: {{url: 'http://h/x', on-check: [up]{keys}}}}}\n{CHECKS}", check=True)
    assert [line for line in map(str, made.warnings) if _TELLS not in line] == []
    return made.alerts["a"]


def problem(text: str) -> str:
    """The one problem of the block of alerts, which stands in line 1."""
    found = problems(f"alerts: {{{text}}}\n{CHECKS}")
    assert len(found) == 1, found
    assert found[0].startswith("/l/0.yaml:1:")
    return found[0]


def test_the_defaults_are_those_of_the_specification() -> None:
    made = alert("")
    assert made == Alert(name="a", url="http://h/x", on_check=("up",))
    assert (made.format, made.headers, made.labels, made.send_info_fields) == ("webhook", {}, {}, {})
    assert (made.tls_insecure, made.tls_ca, made.proxy, made.proxy_ca, made.no_proxy) == (False, None, None, None, None)
    assert (made.retry_attempts, made.retry_backoff, made.timeout, made.body_template) == (3, (1.0, 2.0), 10.0, None)
    assert plan("alerts: {}").alert_settings == AlertSettings(max_queue_depth=256, max_queue_time=60.0)


def test_settings_of_the_block_are_no_alerts_and_merge_like_other_keys() -> None:
    first = "alerts: {max_queue_depth: 5, max-queue-time: 2m}"
    made = plan(first, "alerts: {max-queue-depth: 6}")
    assert (made.alerts, made.alert_settings) == ({}, AlertSettings(max_queue_depth=6, max_queue_time=120.0))
    assert plan(first, "alerts: {max-queue-depth: ~}").alert_settings == AlertSettings(max_queue_time=120.0)
    assert plan(first, "alerts: ~").alert_settings == AlertSettings()


@pytest.mark.parametrize(
    ("keys", "attribute", "value"),
    [
        *((f"format: {word}", "format", word) for word in ("webhook", "alertmanager", "cloud-events", "otlp-logs")),
        ("headers: {Authorization: 'Bearer env:TOKEN'}", "headers", {"Authorization": "Bearer env:TOKEN"}),
        (
            "labels: {severity: critical, cluster: env:CLUSTER}",
            "labels",
            {"severity": "critical", "cluster": "env:CLUSTER"},
        ),
        ("send_info_fields: {runbook: 'https://w/r'}", "send_info_fields", {"runbook": "https://w/r"}),
        ("send-info-fields: {note: 'env: see there'}", "send_info_fields", {"note": "env: see there"}),
        ("tls_insecure: true", "tls_insecure", True),
        ("tls_ca: /c.pem", "tls_ca", "/c.pem"),
        ("tls-ca: env:CA", "tls_ca", "env:CA"),
        ("proxy: 'http://corp-proxy:3128'", "proxy", "http://corp-proxy:3128"),
        ("proxy: env:PROXY", "proxy", "env:PROXY"),
        ("proxy_ca: /c.pem", "proxy_ca", "/c.pem"),
        ('no_proxy: "localhost, .internal"', "no_proxy", "localhost, .internal"),
        ("no-proxy: env:NO_PROXY", "no_proxy", "env:NO_PROXY"),
        ("retry_attempts: 5", "retry_attempts", 5),
        ("retry-attempts: 0", "retry_attempts", 0),
        ('retry_backoff: ["1s", "2s", "5s", "10s"]', "retry_backoff", (1.0, 2.0, 5.0, 10.0)),
        ("timeout: 1m", "timeout", 60.0),
        ("body-template: '{{ check }} # {{ info.x }}'", "body_template", "{{ check }} # {{ info.x }}"),
        ("on_check: ~", "on_check", ("up",)),
    ],
)
def test_a_right_value_is_taken(keys: str, attribute: str, value: object) -> None:
    if keys.startswith("on_check"):
        assert plan(f"alerts: {{a: {{url: env:U, on_check: [up, up]}}}}\n{CHECKS}").alerts["a"].on_check == value
    else:
        assert getattr(alert(f", {keys}"), attribute) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {on-check: [up]}", "alerts.a.url: is missing"),
        ("a: {url: ~, on-check: [up]}", "alerts.a.url: is missing"),
        ("a: {url: env:U}", "alerts.a.on-check: is missing"),
        ("a: {url: env:U, on-check: []}", "alerts.a.on-check: is an empty list"),
        ("a: {url: env:U, on-check: up}", '"up" is not a list (write [up])'),
        ("a: {url: env:U, on-check: [upp]}", 'alerts.a.on-check: there is no check "upp" (did you mean "up"?)'),
        ("a: {url: 'hooks.example.com/x', on-check: [up]}", "is not a URL"),
        ("a: {url: 'env:MY-URL', on-check: [up]}", '"env:MY-URL" is not a reference to a variable (write env:NAME'),
        ("a: {url: 'env:', on-check: [up]}", '"env:" is not a reference'),
        ("a: {url: 'env:1X', on-check: [up]}", '"env:1X" is not a reference'),
        ("a: {url: 'env:${X}', on-check: [up]}", "is not a reference"),
        ("a: {url: 'env:X/path', on-check: [up]}", "is not a reference"),
        (
            "a: {url: env:U, on-check: [up], format: slack}",
            '"slack" is not webhook, alertmanager, cloud-events or otlp-logs',
        ),
        ("a: {url: env:U, on-check: [up], labels: [a]}", "labels: is a list, not a mapping"),
        ("a: {url: env:U, on-check: [up], labels: {a: [b]}}", "labels.a: is a list, not a text"),
        ("a: {url: env:U, on-check: [up], labels: {a: 'env:a-b'}}", "labels.a: "),
        ("a: {url: env:U, on-check: [up], headers: {'a:': b}}", '"a:" cannot be the name of a header'),
        ("a: {url: env:U, on-check: [up], headers: {a: b, A: c}}", 'duplicate key "A"'),
        ("a: {url: env:U, on-check: [up], tls-ca: ca.pem}", '"ca.pem" is not an absolute path'),
        (
            "a: {url: env:U, on-check: [up], proxy: 'corp:80'}",
            '"corp:80" is not a URL (it does not begin with http:// or https://: write http://corp:80)',
        ),
        ("a: {url: env:U, on-check: [up], retry-backoff: 1s}", '"1s" is not a list'),
        ("a: {url: env:U, on-check: [up], retry-backoff: [1]}", '"1" has no unit'),
        ("a: {url: env:U, on-check: [up], retry-backoff: []}", "is an empty list (write [1s])"),
        ("a: {url: env:U, on-check: [up], retry-attempts: -1}", "is out of range"),
        ("a: {url: env:U, on-check: [up], timeout: 0}", "(it must be more than 0)"),
        ("a: {url: env:U, on-check: [up], tls-insecure: yes}", "(write true)"),
        ("max_queue_depth: 0", 'alerts.max-queue-depth: "0" is out of range'),
        ("max_queue_depth: x", "alerts.max-queue-depth: "),
        ("max-queue-time: 5", "alerts.max-queue-time: "),
        ("max-queue-time: 0", "(it must be more than 0)"),
        ("max-queue-depth: 5, max_queue_depth: 6", "duplicate key"),
        ("a: hook", "is a text, not a mapping"),
    ],
)
def test_a_wrong_value_is_an_error(text: str, message: str) -> None:
    assert message in problem(text)


def test_a_bad_url_is_not_told_beyond_its_host() -> None:
    for url in (
        "http://u:hunter2@h:x/hunter2",
        "https://h:x/hunter2?hunter2",
        "hooks.example.com/hunter2",
        "http://h/ hunter2",
    ):
        assert "hunter2" not in problem(f"a: {{url: '{url}', on-check: [up]}}")


def test_maps_union_names_append_and_headers_are_the_same_whatever_their_case() -> None:
    made = plan(
        "alerts: {a: {url: env:U, on-check: [up], headers: {X-A: '1', X-B: '2'}, labels: {a: '1', b: '2'}}}\n" + CHECKS,
        "alerts: {a: {on_check: [db, up], headers: {x-a: '3'}, labels: {b: ~, c: '3'}}}",
    ).alerts["a"]
    assert made.on_check == ("up", "db")
    assert made.headers == {"X-B": "2", "x-a": "3"}
    assert made.labels == {"a": "1", "c": "3"}


def test_a_later_layer_may_give_what_an_earlier_one_left_out() -> None:
    made = plan("alerts: {a: {url: env:U}}", "alerts: {a: {on-check: [up]}}", CHECKS)
    assert made.alerts["a"].on_check == ("up",)


TEMPLATE = """
    alerts:
      a:
        url: env:U
        on-check: [up]
        body-template: >-
          %s
    """


def _body(template: str, *, templates: bool = False) -> tuple[str, ...]:
    found = load(sources(textwrap.dedent(TEMPLATE % template) + CHECKS), templates=templates).warnings
    return tuple(line for line in map(str, found) if _TELLS not in line)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ check", "does not parse: "),
        ("{% if status %}", "does not parse: "),
        ("{% fi %}", "does not parse: Encountered unknown tag 'fi'"),
        ("{{ check|jsonify }}", 'does not parse: there is no filter "jsonify"'),
        ("{% if check is nice %}x{% endif %}", 'does not parse: there is no test "nice"'),
        ("{% include 'x' %}", "cannot be rendered: there are no other templates to take in"),
        ("{{ " + "(" * 3000 + ")" * 3000 + " }}", "does not parse: "),
    ],
)
def test_a_wrong_template_is_a_warning_where_asked_for_and_an_error_under_check(template: str, message: str) -> None:
    assert _body(template) == ()
    (found,) = _body(template, templates=True)
    assert found.startswith("/l/0.yaml:6:20: alerts.a.body-template: ")
    assert message in found
    assert problems(textwrap.dedent(TEMPLATE % template) + CHECKS, check=True) == (found,)


@pytest.mark.parametrize(
    "template",
    [
        """{"text": ":{% if status == 'down' %}red{% else %}green{% endif %} *{{ check }}* on {{ labels.x }}"}""",
        "{{ info.runbook | default('none') | tojson }}",
        "no template at all",
        "{{ 9**9**9**9 }} {{ 'a' * 10**12 }}",  # looked at, not computed
    ],
)
def test_a_right_template_has_no_warning(template: str) -> None:
    assert _body(template, templates=True) == ()


def test_a_template_on_another_format_is_a_warning_and_an_error_under_check() -> None:
    text = f"alerts: {{a: {{url: env:U, on-check: [up], format: otlp-logs, body-template: x}}}}\n{CHECKS}"
    (found, _) = sorted(warnings(text), key=lambda line: _TELLS in line)
    assert found.startswith("/l/0.yaml:1:76: alerts.a.body-template: is not used with format otlp-logs (only a webhook")
    assert problems(text, check=True) == (found,)


def test_jinja_and_the_rooms_of_checks_alerts_and_identities_are_entered_only_where_a_plan_asks_for_them() -> None:
    """In a process of its own: here they have been imported long since."""
    code = """
        import sys
        from tests.unit.plan_world import sources
        from tests.unit.test_plan_alerts import TEMPLATE, CHECKS
        from vigil.plan import load
        import textwrap
        rooms = {"vigil.plan." + name for name in ("checks", "alerts", "identities", "web", "show", "schema")}
        for name in rooms:
            sys.modules.pop(name, None)
        load(sources("services: {a: {command: x}}"))
        assert not rooms & set(sys.modules), rooms & set(sys.modules)
        load(sources(textwrap.dedent(TEMPLATE % "{{ check") + CHECKS))
        assert "vigil.plan.alerts" in sys.modules
        assert "jinja2" not in sys.modules
        load(sources(textwrap.dedent(TEMPLATE % "{{ check") + CHECKS), templates=True)
        assert "jinja2" in sys.modules
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
