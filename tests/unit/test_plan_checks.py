"""Checks of a plan: every key, every kind, and what is said where they are wrong."""

from __future__ import annotations

import pytest

from tests.unit.plan_world import plan, problems, sources, warnings
from vigil.model.errors import PlanError
from vigil.plan import Account, Credentials, Sources, accounts, load
from vigil.plan.merge import merge
from vigil.plan.problems import Problems
from vigil.plan.services import outside_of
from vigil.plan.types import Check, ExecProbe, HttpProbe, TcpProbe

ROOT = accounts.Own(0, 0, may_set_uid=True, may_set_gid=True)
_TELLS = "accepted, but not acted upon"


def check(text: str, more: str = "") -> Check:
    """The check ``k`` with these keys, in flow style."""
    made = plan(f"checks: {{k: {text}}}\n{more}", check=True)
    assert [line for line in map(str, made.warnings) if _TELLS not in line] == []
    return made.checks["k"]


def problem(text: str) -> str:
    """The one problem of the check ``k``, which stands in line 1."""
    found = problems(f"checks: {{k: {text}}}")
    assert len(found) == 1, found
    assert found[0].startswith("/l/0.yaml:1:")
    return found[0]


def test_the_defaults_are_those_of_the_specification() -> None:
    made = check("{http: {url: 'http://localhost:8080/healthz'}}")
    assert made == Check(name="k", probe=HttpProbe(url="http://localhost:8080/healthz"))
    assert (made.level, made.startup, made.delay, made.period, made.timeout) == (None, "enabled", 3.0, 10.0, 3.0)
    assert (made.threshold, made.success_threshold) == (3, 1)
    probe = made.probe
    assert isinstance(probe, HttpProbe)
    assert (probe.method, probe.headers, sorted(probe.success_statuses)) == ("GET", {}, list(range(200, 300)))
    assert (probe.no_follow_redirects, probe.insecure, probe.insecure_proxy) == (True, False, False)
    assert (probe.ca, probe.proxy, probe.body_contains, probe.unix_socket) == (None, None, None, None)
    assert check("{tcp: {port: 5432}}").probe == TcpProbe(host="localhost", port=5432)
    assert check("{exec: {command: pg_isready -U 'a b'}}").probe == ExecProbe(command=("pg_isready", "-U", "a b"))


@pytest.mark.parametrize(
    ("keys", "attribute", "value"),
    [
        ("level: alive", "level", "alive"),
        ("level: ready", "level", "ready"),
        ("level: none", "level", None),
        ("startup: disabled", "startup", "disabled"),
        ("delay: 0", "delay", 0.0),
        ("delay: 40s", "delay", 40.0),
        ("period: 1m30s", "period", 90.0),
        ("period: 2s", "timeout", 2.0),
        ("period: 3s", "timeout", 3.0),
        ("period: 1m", "timeout", 3.0),
        ("period: 1m, timeout: 1m", "timeout", 60.0),
        ("timeout: 500ms", "timeout", 0.5),
        ("threshold: 1", "threshold", 1),
        ("success_threshold: 2", "success_threshold", 2),
        ("success-threshold: 2", "success_threshold", 2),
    ],
)
def test_a_right_value_is_taken(keys: str, attribute: str, value: object) -> None:
    assert getattr(check(f"{{tcp: {{port: 1}}, {keys}}}"), attribute) == value


@pytest.mark.parametrize(
    ("keys", "attribute", "value"),
    [
        ("headers: {Authorization: 'Bearer token', X-Empty: ''}", "headers", {"Authorization": "Bearer token"}),
        ("method: HEAD", "method", "HEAD"),
        ("success-statuses: 204", "success_statuses", {204}),
        ("success_statuses: [200, 404]", "success_statuses", {200, 404}),
        ("success-statuses: [3xx, 204]", "success_statuses", {204, *range(300, 400)}),
        ("no-follow-redirects: false", "no_follow_redirects", False),
        ("no_follow_redirects: true", "no_follow_redirects", True),
        ("insecure: true", "insecure", True),
        ("ca: /etc/vigil/certs/internal-ca.pem", "ca", "/etc/vigil/certs/internal-ca.pem"),
        ("proxy: 'http://corp-proxy:3128'", "proxy", "http://corp-proxy:3128"),
        ("insecure-proxy: true", "insecure_proxy", True),
        ("body-contains: 'pong: 1'", "body_contains", "pong: 1"),
        ("unix-socket: /run/app.sock", "unix_socket", "/run/app.sock"),
        ("ca: ~", "ca", None),
    ],
)
def test_a_right_value_of_an_http_check_is_taken(keys: str, attribute: str, value: object) -> None:
    found = getattr(check(f"{{http: {{url: 'https://h/', {keys}}}}}").probe, attribute)
    assert {key: text for key, text in found.items() if text} == value if isinstance(found, dict) else found == value


@pytest.mark.parametrize(
    "url",
    [
        *("http://h", "HTTPS://h/", "http://h:1", "http://h:65535/x?y=%20#z", "http://127.0.0.1:9091/healthz"),
        *(
            "http://[::1]:80/",
            "http://[fe80::1%25eth0]/",
            "http://user:pa:ss@h/",
            "http://my_host.local./",
            "http://ü.de/",
        ),
    ],
)
def test_a_good_url_is_taken(url: str) -> None:
    probe = check(f"{{http: {{url: '{url}'}}}}").probe
    assert isinstance(probe, HttpProbe)
    assert probe.url == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8080/healthz", "begin with http:// or https://: write http://localhost:8080/healthz)"),
        ("ftp://h/", '"ftp://h/" is not a URL (it does not begin with http:// or https://)'),
        ("http:/h/", '"http:/h/" is not a URL'),
        ("http://", '"http://" is not a URL ("" is no host)'),
        ("http:///path", '"" is no host'),
        ("http://h:/", '"" is no port'),
        ("http://h:0/", '"0" is no port'),
        ("http://h:65536/", '"65536" is no port'),
        ("http://h:http/", '"http" is no port'),
        ("http://a b/", "(it holds a blank or a control character: write %20)"),
        ("http://h/a b", "it holds a blank"),
        ("http://[::1/", "is no host"),
        ("http://[abc]/", "is no host"),
        ("http://u:hunter2@h:x/", '"http://*****@h:x/" is not a URL ("x" is no port)'),
        ("", '"" is not a URL (it does not begin with http:// or https://)'),
        ("env:URL", '"env:URL" is not a URL'),
    ],
)
def test_a_bad_url_is_an_error(url: str, message: str) -> None:
    found = problem(f"{{http: {{url: '{url}'}}}}")
    assert found.split(": ")[1] == "checks.k.http.url"
    assert message in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{http: {url: 'http://h', insecure: yes}}", 'http.insecure: "yes" is not true or false (write true)'),
        ("{http: {url: 'http://h'}, tcp: {port: 1}}", "checks.k: has http and tcp, and a check has one of them"),
        ("{level: alive}", "checks.k: has none of http, tcp and exec"),
        ("{http: {method: GET}}", "checks.k.http.url: is missing"),
        ("{http: {url: ~}}", "checks.k.http.url: is missing"),
        ("{http: 'http://h'}", '"http://h" is not a mapping'),
        ("{http: {url: 'http://h', method: get}}", '"get" is not GET, HEAD, POST, PUT'),
        ("{http: {url: 'http://h', method: get}}", '(did you mean "GET"?)'),
        ("{http: {url: 'http://h', success-statuses: 20}}", '"20" is not a status code (write 200 or 2xx)'),
        ("{http: {url: 'http://h', success-statuses: [600]}}", '"600" is not a status code'),
        ("{http: {url: 'http://h', success-statuses: []}}", "is an empty list"),
        ("{http: {url: 'http://h', headers: [a]}}", "http.headers: is a list, not a mapping"),
        ("{http: {url: 'http://h', headers: {'A B': c}}}", '"A B" cannot be the name of a header'),
        ("{http: {url: 'http://h', headers: {a: b, A: c}}}", 'duplicate header "A"'),
        ('{http: {url: "http://h", headers: {A: "b\\nc"}}}', "headers.A: holds a character that no header can"),
        ("{http: {url: 'http://h', headers: {A: '☃'}}}", "headers.A: holds a character that no header can"),
        ("{http: {url: 'http://h', ca: ca.pem}}", '"ca.pem" is not an absolute path'),
        ("{http: {url: 'http://h', unix-socket: run.sock}}", '"run.sock" is not an absolute path'),
        (
            "{http: {url: 'http://h', proxy: 'corp:3128'}}",
            '"corp:3128" is not a URL (it does not begin with http:// or https://: write',
        ),
        ("{tcp: {port: 0}}", 'tcp.port: "0" is out of range (it must be from 1 to 65535)'),
        ("{tcp: {host: h}}", "tcp.port: is missing"),
        ("{tcp: 80}", '"80" is not a mapping'),
        ("{tcp: {host: 'localhost:80', port: 80}}", '"localhost:80" is not a host'),
        ("{tcp: {host: 'http://h', port: 80}}", "is not a host"),
        ("{exec: {environment: {A: b}}}", "exec.command: is missing"),
        ('{exec: {command: "a \'b"}}', "exec.command: has a ' that is not closed"),
        ("{exec: {command: x, environment: [A=1]}}", "exec.environment: is a list, not a mapping"),
        ("{exec: {command: x, working-dir: tmp}}", '"tmp" is not an absolute path'),
        ("{exec: {command: x, service-context: web}}", 'exec.service-context: there is no service "web"'),
        ("{exec: {command: x, user-id: root}}", '"root" is not a whole number'),
        ("{tcp: {port: 1}, period: x}", 'checks.k.period: "x" is not a duration'),
        ("{tcp: {port: 1}, period: 0}", "(it must be more than 0)"),
        ("{tcp: {port: 1}, timeout: 0}", "(it must be more than 0)"),
        ("{tcp: {port: 1}, threshold: 0}", '"0" is out of range (it must be from 1 to'),
        ("{tcp: {port: 1}, success-threshold: -1}", "is out of range"),
        ("{tcp: {port: 1}, level: live}", '"live" is not alive, ready or none (write alive)'),
        ("{tcp: {port: 1}, startup: on}", "(write enabled)"),
        ("[tcp]", "is a list, not a mapping"),
    ],
)
def test_a_wrong_value_is_an_error(text: str, message: str) -> None:
    assert message in problem(text)


@pytest.mark.parametrize("name", ["'a,b'", "' a'", "'a '", "''", '"a\\n"'])
def test_a_bad_name_is_an_error(name: str) -> None:
    assert "cannot be a name (printable, without commas" in problems(f"checks: {{{name}: {{tcp: {{port: 1}}}}}}")[0]


def test_a_check_that_says_what_only_a_bad_period_does_not_hide_the_other_problems() -> None:
    found = problems("checks: {k: {tcp: {port: x}, period: y, timeout: z}, l: {}, m: {http: {url: a}}}")
    assert [line.split(": ")[1] for line in found] == [
        *("checks.k.tcp.port", "checks.k.period", "checks.k.timeout", "checks.l", "checks.m.http.url")
    ]


def test_an_unknown_key_in_a_probe_is_a_warning_and_an_error_under_check() -> None:
    text = "checks: {k: {http: {url: 'http://h', follow-redirects: true}}}"
    (found, _) = sorted(warnings(text), key=lambda line: _TELLS in line)
    assert 'checks.k.http.follow-redirects: unknown key "follow-redirects"' in found
    assert problems(text, check=True) == (found,)


def test_a_timeout_longer_than_the_period_is_a_warning_and_stays() -> None:
    made = plan("checks:\n  k:\n    tcp: {port: 1}\n    period: 2s\n    timeout: 1m\n")
    (found,) = [line for line in map(str, made.warnings) if _TELLS not in line]
    assert found == (
        "/l/0.yaml:5:14: checks.k.timeout: 1m is longer than the period (2s): probes never overlap, so the period "
        "stretches"
    )
    assert (made.checks["k"].period, made.checks["k"].timeout) == (2.0, 60.0)


def test_a_later_layer_may_shorten_the_period_and_the_default_of_the_timeout_follows() -> None:
    made = plan("checks: {k: {tcp: {port: 1}, period: 1m}}", "checks: {k: {period: 1s}}")
    assert made.checks["k"].timeout == 1.0


def test_a_kind_is_replaced_whole_and_another_kind_takes_null_for_the_first() -> None:
    first = "checks: {k: {http: {url: 'http://h', insecure: true}}}"
    assert plan(first, "checks: {k: {http: {url: 'http://i'}}}").checks["k"].probe == HttpProbe(url="http://i")
    assert plan(first, "checks: {k: {http: ~, tcp: {port: 1}}}").checks["k"].probe == TcpProbe(port=1)
    assert "has http and tcp" in problems(first, "checks: {k: {tcp: {port: 1}}}")[0]
    assert "http.url: is missing" in problems(first, "checks: {k: {http: {insecure: false}}}")[0]


def test_checks_that_a_layer_removed_cannot_be_named() -> None:
    first = "services: {a: {ready: {check: k}}}\nchecks: {k: {tcp: {port: 1}}}"
    assert 'there is no check "k"' in problems(first, "checks: {k: ~}")[0]
    assert 'there is no check "k"' in problems(first, "checks: ~")[0]


def _with_accounts(text: str) -> Sources:
    made = sources(text)
    wanted = outside_of(merge(made.layers, Problems()))
    return Sources("/l", made.layers, accounts=accounts.resolve(wanted.accounts, ROOT))


def _probe(text: str) -> ExecProbe:
    probe = load(_with_accounts(text)).checks["k"].probe
    assert isinstance(probe, ExecProbe)
    return probe


_WEB = """
services:
  web: {command: x, environment: {A: web, B: web}, working-dir: /srv, user-id: 4000, group-id: 4001}
checks:
  k:
    exec: {command: y, service-context: web%s}
"""


def test_a_service_context_brings_environment_user_and_directory_and_own_fields_win() -> None:
    probe = _probe(_WEB % "")
    assert (probe.environment, probe.working_dir) == ({"A": "web", "B": "web"}, "/srv")
    assert probe.user == Credentials(4000, 4001, (4001,), "/", None)
    assert probe.service_context == "web"
    probe = _probe(_WEB % ", environment: {B: own, C: own}, working-dir: /tmp")
    assert (probe.environment, probe.working_dir) == ({"A": "web", "B": "own", "C": "own"}, "/tmp")


def test_an_own_user_keeps_the_group_of_the_context_and_an_own_group_its_user() -> None:
    assert _probe(_WEB % ", user-id: 5000").user == Credentials(5000, 4001, (4001,), "/", None)
    assert _probe(_WEB % ", group-id: 5001").user == Credentials(4000, 5001, (5001,), "/", None)
    root = _probe(_WEB % ", user: root").user
    assert root is not None
    assert (root.uid, root.gid, root.name) == (0, 4001, "root")


def test_env_files_of_the_context_are_part_of_its_environment() -> None:
    text = (
        "services: {web: {env-file: /e, environment: {B: 2}}}\nchecks: {k: {exec: {command: y, service-context: web}}}"
    )
    probe = load(sources(text, env_files=(("/e", b"A=1\nB=1"),))).checks["k"].probe
    assert isinstance(probe, ExecProbe)
    assert probe.environment == {"A": "1", "B": "2"}


def test_an_unknown_user_of_a_check_is_an_error_at_the_check() -> None:
    with pytest.raises(PlanError) as caught:
        load(_with_accounts("checks: {k: {exec: {command: x, user: nobody-at-all}}}"))
    assert str(caught.value) == (
        '/l/0.yaml:1:39: checks.k.exec.user: there is no user "nobody-at-all"'
        " (make it in the image, or write user-id and group-id)"
    )


def test_a_wrong_user_of_the_context_is_told_once_where_it_stands() -> None:
    text = "services: {web: {user: nobody-at-all}}\nchecks: {k: {exec: {command: x, service-context: web}}}"
    with pytest.raises(PlanError) as caught:
        load(_with_accounts(text))
    assert [problem.field for problem in caught.value.problems] == ["services.web.user"]


def test_what_a_check_needs_from_outside_is_asked_once() -> None:
    wanted = outside_of(
        merge(
            sources("checks: {a: {exec: {command: x, user: root}}, b: {exec: {command: x, user: root}}}").layers,
            Problems(),
        )
    )
    assert [request.user for request in wanted.accounts] == ["root"]
    account = Account("root", None, None, None, Credentials(0, 0, (0,), "/root", "root"))
    made = load(
        Sources("/l", sources("checks: {a: {exec: {command: x, user: root}}}").layers, accounts=(account,))
    ).checks["a"]
    assert isinstance(made.probe, ExecProbe)
    assert made.probe.user == account.credentials
