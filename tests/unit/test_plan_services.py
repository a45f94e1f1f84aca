"""Every key of a service: what it may be, what it is by default, and what is said where it is wrong."""

from __future__ import annotations

import resource
import signal

import pytest

from tests.unit.plan_world import layer, plan, problem, problems, service, warning, warnings
from vigil.plan import Policy, Service
from vigil.plan.types import RLIM_INFINITY, ReadyCheck


def test_the_defaults_are_those_of_the_specification() -> None:
    web = service()
    assert web == Service(name="web", command=("run",))
    assert (web.startup, web.after, web.before, web.requires, web.environment) == ("disabled", (), (), (), {})
    assert (web.user, web.working_dir, web.stop_signal, web.kill_delay) == (None, "/", signal.SIGTERM, 5.0)
    assert web.forward_signals == {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
    assert (web.on_success, web.on_failure, web.success_exit_codes) == (Policy.RESTART, Policy.RESTART, {0})
    assert (web.backoff_delay, web.backoff_factor, web.backoff_limit, web.restart_limit) == (0.5, 2.0, 30.0, None)
    assert (web.type, web.logs_forward, web.limits, web.stdin) == ("simple", "enabled", (), "null")
    assert (web.nice, web.umask, web.oom_score_adj) == (None, None, None)


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("summary: some # text", "summary", "some"),
        ("description: |\n      two\n      lines", "description", "two\nlines\n"),
        ("startup: enabled", "startup", "enabled"),
        ("working-dir: /srv/x y", "working_dir", "/srv/x y"),
        ("stop-signal: SIGUSR1", "stop_signal", signal.SIGUSR1),
        ("stop-signal: usr1", "stop_signal", signal.SIGUSR1),
        ("stop-signal: 10", "stop_signal", 10),
        ("stop-signal: SIGRTMIN+3", "stop_signal", signal.SIGRTMIN + 3),
        ("stop-signal: KILL", "stop_signal", signal.SIGKILL),
        ("kill-delay: 1m30s", "kill_delay", 90.0),
        ("kill-delay: 0", "kill_delay", 0.0),
        ("kill-delay: infinity", "kill_delay", None),
        ("forward-signals: none", "forward_signals", frozenset()),
        ("forward-signals: []", "forward_signals", frozenset()),
        ("forward-signals: [HUP, SIGUSR1, 10]", "forward_signals", {signal.SIGHUP, signal.SIGUSR1}),
        ("on-success: success-shutdown", "on_success", Policy.SUCCESS_SHUTDOWN),
        ("on-success: ignore", "on_success", Policy.IGNORE),
        ("on-failure: failure-shutdown", "on_failure", Policy.FAILURE_SHUTDOWN),
        ("on-failure: shutdown", "on_failure", Policy.SHUTDOWN),
        ("success-exit-codes: [0, 3, 255]", "success_exit_codes", {0, 3, 255}),
        ("success-exit-codes: []", "success_exit_codes", frozenset()),
        ("backoff-delay: 1ms", "backoff_delay", 0.001),
        ("backoff-factor: 1", "backoff_factor", 1.0),
        ("backoff-factor: 1.5", "backoff_factor", 1.5),
        ("backoff-limit: 1h", "backoff_limit", 3600.0),
        ("restart-limit: 0", "restart_limit", 0),
        ("restart-limit: '5'", "restart_limit", 5),
        ("logs-forward: passthrough", "logs_forward", "passthrough"),
        ("logs-forward: disabled", "logs_forward", "disabled"),
        ("nice: -20", "nice", -20),
        ("nice: +19", "nice", 19),
        ("umask: 022", "umask", 0o22),
        ("umask: 0o27", "umask", 0o27),
        ("umask: 0", "umask", 0),
        ("umask: 0777", "umask", 0o777),
        ("oom-score-adj: -1000", "oom_score_adj", -1000),
        ("stdin: inherit", "stdin", "inherit"),
        ("stdin: 'null'", "stdin", "null"),
        ("stdin: null", "stdin", "null"),
        ("limits: {nofile: 1024}", "limits", ((resource.RLIMIT_NOFILE, 1024, 1024),)),
        ("limits: {RLIMIT_NOFILE: 1024:4096}", "limits", ((resource.RLIMIT_NOFILE, 1024, 4096),)),
        ("limits: {core: 0:unlimited}", "limits", ((resource.RLIMIT_CORE, 0, RLIM_INFINITY),)),
        ("limits: {AS: infinity}", "limits", ((resource.RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY),)),
        ("limits: {}", "limits", ()),
    ],
)
def test_a_right_value_is_taken(line: str, attribute: str, value: object) -> None:
    assert getattr(service(line), attribute) == value


_DURATION = "is not a duration (write 500ms, 3s, 1m30s, 1h)"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("startup: yes", '"yes" is not enabled or disabled (write enabled)'),
        ("startup: false", '"false" is not enabled or disabled (write disabled)'),
        ("startup: enable", '"enable" is not enabled or disabled (did you mean "enabled"?)'),
        ("startup: [enabled]", "is a list, not enabled or disabled"),
        ("working-dir: srv", '"srv" is not an absolute path (it must begin with /)'),
        ("stop-signal: SIGFOO", '"SIGFOO" is not a signal (write SIGTERM, TERM, 15 or SIGRTMIN+3)'),
        ("stop-signal: 0", '"0" is not a signal'),
        ("stop-signal: 99", '"99" is not a signal'),
        ("stop-signal: SIGRTMAX+1", '"SIGRTMAX+1" is not a signal'),
        ("stop-signal: ''", '"" is not a signal'),
        ('stop-signal: "TERM\\nKILL"', '"TERM\\nKILL" is not a signal'),
        ("kill-delay: 5 parsecs", '"5 parsecs" ' + _DURATION),
        ("kill-delay: 5", '"5" has no unit (write 5s, 5ms or 5m)'),
        ("kill-delay: -5s", '"-5s" is negative'),
        ("kill-delay: [3s]", "is a list, not a duration"),
        ("backoff-delay: infinity", '"infinity" is not a duration (it must end: write 1h, or leave it out)'),
        ("kill-delay: forever", '"forever" is not a duration (write infinity)'),
        ("backoff-limit: x", '"x" ' + _DURATION),
        ("backoff-factor: 0.9", '"0.9" is out of range (it must be 1.0 or more)'),
        ("backoff-factor: -2", '"-2" is out of range'),
        ("backoff-factor: .inf", '".inf" is not a number'),
        ("backoff-factor: inf", '"inf" is not a number'),
        ("backoff-factor: nan", '"nan" is not a number'),
        ("backoff-factor: 1e999", '"1e999" is out of range'),
        ("backoff-factor: 1_0", '"1_0" is not a number'),
        ("restart-limit: -1", '"-1" is out of range'),
        ("restart-limit: 1.5", '"1.5" is not a whole number'),
        ("restart-limit: none", '"none" is not a whole number'),
        ("restart-limit: " + "9" * 5000, "is out of range"),
        ("restart-limit: ٣", "is not a whole number"),
        ("on-success: reboot", '"reboot" is not restart, ignore, shutdown, failure-shutdown or success-shutdown'),
        ("on-failure: ignored", '(did you mean "ignore"?)'),
        ("success-exit-codes: [256]", '"256" is out of range (it must be from 0 to 255)'),
        ("success-exit-codes: 3", '"3" is not a list'),
        ("forward-signals: all", '"all" is not a list of signals (write [HUP, USR1] or none)'),
        ("forward-signals: [FOO]", '"FOO" is not a signal'),
        ("forward-signals: [HUP, TERM]", "SIGTERM cannot be forwarded"),
        ("forward-signals: [KILL]", "SIGKILL cannot be forwarded"),
        ("forward-signals: [PIPE]", "SIGPIPE cannot be forwarded"),
        ("forward-signals: [SEGV]", "SIGSEGV cannot be forwarded"),
        ("type: forking", '"forking" is not simple or oneshot'),
        ("logs-forward: on", '"on" is not enabled, disabled or passthrough (write enabled)'),
        ("nice: 20", '"20" is out of range (it must be from -20 to 19)'),
        ("nice: -21", '"-21" is out of range'),
        ("umask: 8", '"8" is not an octal mask (write 022; 0777 at most)'),
        ("umask: 1000", '"1000" is not an octal mask'),
        ("umask: -1", '"-1" is not an octal mask'),
        ("oom-score-adj: 1001", '"1001" is out of range (it must be from -1000 to 1000)'),
        ("stdin: tty", '"tty" is not null or inherit'),
        ("limits: 5", '"5" is not a mapping'),
        ("limits: {locks: 3}", '"locks" is kept for vigil' + "'s own use and limits nothing"),
        ("limits: {nofil: 5}", '"nofil" is not a limit (did you mean "nofile"?)'),
        ("limits: {nofile: 5:3}", '"5:3" has a soft limit above the hard one'),
        ("limits: {nofile: unlimited:3}", "has a soft limit above the hard one"),
        ("limits: {nofile: -1}", '"-1" is not a limit (write unlimited)'),
        ("limits: {nofile: '1:2:3'}", '"1:2:3" is not a limit'),
        ("limits: {nofile: 99999999999999999999}", "is not a limit"),
        ("limits: {nofile: 1, RLIMIT_NOFILE: 2}", 'duplicate key "RLIMIT_NOFILE"'),
        ("environment: [A=1]", "is a list, not a mapping (write NAME: value, without dashes)"),
        ("environment: {A: [b]}", "is a list, not a text"),
        ("environment: {'A=B': c}", '"A=B" cannot be a variable\'s name'),
        ("environment: {'': c}", '"" cannot be a variable\'s name'),
        ("after: db", '"db" is not a list (write [db])'),
        ("after: [~]", "an item is empty"),
        ("after: {db: 1}", "is a mapping, not a list"),
        ("summary: {a: b}", "is a mapping, not a text"),
        ("user-id: -1", '"-1" is out of range'),
        ("user-id: 4294967295", "is out of range"),
        ("group-id: root", '"root" is not a whole number'),
        ("env-file: relative.env", '"relative.env" is not an absolute path'),
        ("ready: soon", '"soon" is neither notify nor a check (write notify, or check: NAME)'),
        ("ready: [notify]", "a list is neither notify nor a check"),
        ("ready: {check: ''}", 'there is no check ""'),
        ("ready: {check: ~}", "services.web.ready.check: is missing"),
        ("ready-timeout: x", '"x" ' + _DURATION),
        ("watchdog: x", '"x" ' + _DURATION),
        ("logs-push-socket: x", '"x" is not an absolute path'),
        ("logs-push-addr: x", '"x" is not an address (write HOST:PORT, IPv6 in brackets)'),
        ("logs-push-addr: '::1:80'", "is not an address"),
        ("logs-push-addr: 'a:0'", '"a:0" is not an address (a port is from 1 to 65535)'),
        ("logs-push-addr: 'a:65536'", "a port is from 1 to 65535"),
        ("ready-timeout: 0", '"0" is out of range (it must be more than 0)'),
        ("logs-push-format: xml", '"xml" is not ndjson'),
        ("on-check-failure: restart", '"restart" is not a mapping'),
    ],
)
def test_a_wrong_value_is_an_error_with_file_line_column_field_and_remedy(line: str, message: str) -> None:
    found = problem(line)
    key = line.partition(":")[0]
    assert found.startswith("/l/0.yaml:4:")
    assert f": services.web.{key}" in found
    assert message in found
    assert len(found) < 250


def test_an_unknown_key_is_a_warning_and_an_error_under_check_with_the_nearest_known_one() -> None:
    line = '/l/0.yaml:4:5: services.web.kil-delay: unknown key "kil-delay" (did you mean "kill-delay"?)'
    assert warning("kil-delay: 3s") == line
    assert problems(layer("command: run", "kil-delay: 3s"), check=True) == (line,)
    assert "(did you mean" not in warning("completely-else: 3s")


def test_an_unknown_top_level_key_is_a_warning_with_the_nearest_known_one() -> None:
    text = '/l/0.yaml:1:1: servces: unknown key "servces" (did you mean "services"?)'
    assert warnings("servces: {web: {}}") == (text,)
    assert problems("servces: {web: {}}", check=True) == (text,)


def test_unknown_keys_do_not_hide_errors_nor_come_with_them_unless_checked() -> None:
    text = layer("command: run", "foo: 1", "nice: 99")
    assert len(problems(text)) == 1
    assert len(problems(text, check=True)) == 2


@pytest.mark.parametrize("name", ["a", "A", "9", "a.b", "a-b_c", "a" * 128, "vigildx", "vigil"])
def test_a_good_name_is_taken(name: str) -> None:
    assert list(plan(layer("command: run", name=name)).services) == [name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vigild", "is reserved"),
        ("-a", "cannot be the name of a service"),
        (".a", "cannot be the name of a service"),
        ("a b", "cannot be the name of a service"),
        ("a/b", "cannot be the name of a service"),
        ("ä", "cannot be the name of a service"),
        ("''", "cannot be the name of a service"),
        ("a" * 129, "129 characters long (128 at most)"),
    ],
)
def test_a_bad_name_is_an_error(name: str, message: str) -> None:
    (found,) = problems(layer("command: run", name=name))
    assert found.startswith("/l/0.yaml:2:3: services.")
    assert message in found


def test_a_service_without_command_can_only_be_disabled() -> None:
    assert plan(layer("startup: disabled")).services["web"].command is None
    assert problems(layer("nice: 3", "startup: enabled")) == (
        "/l/0.yaml:4:14: services.web.command: is missing, and the service is enabled (write command: and what to run)",
    )


def test_the_command_may_come_from_another_layer_than_what_enables_it() -> None:
    assert plan(layer("startup: enabled"), layer("command: run")).services["web"].command == ("run",)


@pytest.mark.parametrize("key", ["after", "before", "requires"])
def test_an_unknown_name_is_an_error_with_the_nearest_known_one(key: str) -> None:
    (found,) = problems(layer(f"{key}: [databse]") + "  database: {command: x}\n")
    assert found.endswith(f'services.web.{key}: there is no service "databse" (did you mean "database"?)')


@pytest.mark.parametrize("key", ["after", "before", "requires"])
def test_a_service_that_names_itself_is_an_error(key: str) -> None:
    assert problems(layer(f"{key}: [web]"))[0].startswith(f"/l/0.yaml:3:{8 + len(key)}: services.web.{key}: ")


def test_a_cycle_is_an_error_that_prints_it_and_stands_where_a_file_makes_it() -> None:
    found = problems(
        "services:\n  a: {after: [b]}\n  b: {requires: [c]}\n  c: {}\n",
        "services:\n  a:\n    before:\n      - c\n",
    )
    assert found == ("/l/0.yaml:2:15: services.a.after: dependency cycle: a -> b -> c -> a (each waits for the next)",)


def test_a_cycle_through_before_stands_at_that_before() -> None:
    (found,) = problems("services: {x: {}, a: {before: [b]}, b: {before: [a]}}")
    assert found.startswith("/l/0.yaml:1:")
    assert ".before: dependency cycle: a -> b -> a" in found


def test_each_group_of_services_that_wait_for_each_other_is_a_problem() -> None:
    found = problems("services: {a: {after: [b]}, b: {after: [a]}, c: {after: [d]}, d: {after: [c, a]}}")
    assert [line.split("dependency cycle: ")[1].split(" (")[0] for line in found] == ["a -> b -> a", "c -> d -> c"]


def test_a_oneshot_ignores_its_success_by_default() -> None:
    assert service("type: oneshot").on_success is Policy.IGNORE
    assert service("type: oneshot").on_failure is Policy.RESTART
    assert service("type: oneshot", "on-success: shutdown").on_success is Policy.SHUTDOWN


def test_a_oneshot_that_restarts_after_success_is_an_error() -> None:
    (found,) = problems(layer("command: run", "type: oneshot", "on-success: restart"))
    assert found.startswith("/l/0.yaml:5:17: services.web.on-success: a oneshot that succeeded is done")


def test_a_variable_without_value_is_not_set_and_warned_about() -> None:
    made = plan(layer("command: run", "environment: {A: , B: ~, C: ''}"))
    assert made.services["web"].environment == {"C": ""}
    (found,) = map(str, made.warnings)
    assert found.startswith("/l/0.yaml:4:19: services.web.environment.A: is empty, so it is not set")


def test_a_service_without_keys_is_none_and_warned_about() -> None:
    made = plan("services:\n  web:\n  db: {command: x}\n")
    assert list(made.services) == ["db"]
    assert str(made.warnings[0]).startswith("/l/0.yaml:2:3: services.web: is empty")


@pytest.mark.parametrize(
    ("text", "message"), [("text", '"text" is not a mapping'), ("[a]", "is a list, not a mapping")]
)
def test_a_service_that_is_no_mapping_is_an_error(text: str, message: str) -> None:
    assert message in problems(f"services: {{web: {text}}}")[0]
    assert "not a mapping" in problems("services: [web]")[0]


def test_what_is_not_acted_upon_yet_is_accepted_with_one_warning_that_names_it_all() -> None:
    made = plan("""
        services:
          web:
            command: run
            ready: notify
            ready-timeout: 30s
            watchdog: off
            on-check-failure: {alive: restart}
            logs-push-socket: /run/push.sock
            logs-push-format: ndjson
          db: {command: run, ready: {check: alive}, watchdog: 3s, logs_push_addr: '[::1]:80'}
        checks:
          alive: {http: {url: 'http://localhost', headers: {A: b}, insecure: true}, level: alive, threshold: 3}
          port: {tcp: {port: 80}}
          run: {exec: {command: "a 'b'", service-context: web}}
        alerts:
          max-queue-depth: 3
          hook: {url: 'env:URL', on-check: [alive], retry_backoff: [1s, 2s], send_info_fields: {a: b}}
        identities:
          me: {access: admin, local: {user-id: 0}}
        """)
    (found,) = map(str, made.warnings)
    assert found == (
        "/l: accepted, but not acted upon by this version: checks, alerts, identities, services.web.ready, "
        "services.web.ready-timeout, services.web.watchdog, services.web.on-check-failure, "
        "services.web.logs-push-socket, services.web.logs-push-format, services.db.ready, services.db.watchdog, "
        "services.db.logs-push-addr"
    )


def test_settings_of_alerts_are_named_among_what_is_not_acted_upon_yet_without_an_alert() -> None:
    assert warnings("alerts: {max-queue-depth: 3}") == ("/l: accepted, but not acted upon by this version: alerts",)


def test_the_keys_of_later_versions_have_their_values_and_defaults() -> None:
    made = plan("""
        services:
          a: {command: x}
          b:
            command: x
            ready: notify
            ready_timeout: 5m
            watchdog: 1.5s
            on_check_failure: {k: failure-shutdown}
            logs_push_addr: '[::1]:80'
            logs-push-format: ndjson
          c: {command: x, ready: {check: k}, watchdog: off, logs-push-socket: /run/s}
          d: {command: x, watchdog: 0}
        checks: {k: {tcp: {port: 1}}}
        """).services
    a, b, c, d = made["a"], made["b"], made["c"], made["d"]
    assert (a.ready, a.ready_timeout, a.watchdog, a.on_check_failure) == (None, 60.0, None, {})
    assert (a.logs_push_socket, a.logs_push_addr, a.logs_push_format) == (None, None, "ndjson")
    assert (b.ready, b.ready_timeout, b.watchdog) == ("notify", 300.0, 1.5)
    assert (b.on_check_failure, b.logs_push_addr) == ({"k": Policy.FAILURE_SHUTDOWN}, "[::1]:80")
    assert (c.ready, c.watchdog, c.logs_push_socket) == (ReadyCheck("k"), None, "/run/s")
    assert d.watchdog is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {a: {on-check-failure: {c: restart}}}", 'services.a.on-check-failure: there is no check "c"'),
        ("services: {a: {ready: {check: c}}}", 'services.a.ready: there is no check "c"'),
        ("services: {a: {on-check-failure: {c: x}}}\nchecks: {c: {tcp: {port: 1}}}", "on-check-failure.c: "),
        ("services: {a: {logs-push-addr: 'a:1', logs-push-socket: /x}}", "cannot go with logs-push-socket"),
    ],
)
def test_what_a_service_says_of_checks_and_of_pushing_is_judged(text: str, message: str) -> None:
    (found,) = problems(text)
    assert message in found


def test_both_places_to_push_logs_to_are_an_error_wherever_they_come_from() -> None:
    first, second = layer("command: x", "logs-push-socket: /x"), layer("logs_push_addr: 'a:1'")
    assert problems(first, second)[0].startswith("/l/1.yaml:3:21: services.web.logs-push-addr: cannot go with")
    assert plan(first, second, layer("logs-push-socket: ~")).services["web"].logs_push_addr == "a:1"
