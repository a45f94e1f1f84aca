"""The merged plan as one layer: it loads to the same plan, and its secrets are masked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.unit.plan_world import sources
from tests.unit.test_plan_fuzz import random_sources
from vigil.model.errors import PlanError
from vigil.plan import Plan, Sources, load, read
from vigil.plan.secrets import looks_secret, masked_argv, masked_text, masked_url
from vigil.plan.show import merged


def shown(*layers: str, secrets: bool = True) -> dict[str, Any]:
    return merged(sources(*layers), secrets=secrets)


def _again(before: Sources, layer: dict[str, Any]) -> Sources:
    text = yaml.safe_dump(layer, sort_keys=False, allow_unicode=True).encode()
    return msgspec.structs.replace(before, layers=(("/l/0.yaml", text),))


def _bare(plan: Plan) -> Plan:
    return msgspec.structs.replace(plan, warnings=())


def test_all_layers_are_one_with_one_spelling_of_keys_and_the_text_of_scalars() -> None:
    assert shown(
        """
        summary: 1.50
        services:
          web:
            command: run # no part of it
            startup: enabled
            kill_delay: 1m
            umask: 022
            environment: {A: 12:30, B: no, C: 0x1F}
            after: [db]
            env_file: /e
            on_check_failure: {up: restart}
            limits: {RLIMIT_NOFILE: 5}
          db: &base {command: [a, "b c"], nice: 3}
          gone: {command: x}
          other: {<<: *base, nice: 4}
        checks:
          up: {http: {url: 'http://h', success_statuses: [200, 2xx], headers: {A: b}}}
        alerts:
          max_queue_depth: 5
          hook: {url: env:U, on_check: [up], send_info_fields: {a_b: c}, retry_backoff: [1s]}
        """,
        """
        services:
          web: {kill-delay: ~, after: [other], environment: {B: ~, D: ''}, env-file: [/f]}
          gone: ~
          db: {override: replace, command: y}
        checks: {up: {http: {url: 'http://i', insecure: ~, headers: {A: b, B: ~}}, level: alive}}
        identities: {me: {access: admin, local: {}, tls: {ca_cert: /c}}}
        """,
    ) == {
        "summary": "1.50",
        "services": {
            "web": {
                "command": "run",
                "startup": "enabled",
                "umask": "022",
                "environment": {"A": "12:30", "C": "0x1F", "D": ""},
                "after": ["db", "other"],
                "env-file": ["/e", "/f"],
                "on-check-failure": {"up": "restart"},
                "limits": {"RLIMIT_NOFILE": "5"},
            },
            "db": {"command": "y"},
            "other": {"command": ["a", "b c"], "nice": "4"},
        },
        "checks": {"up": {"http": {"url": "http://i", "headers": {"A": "b"}}, "level": "alive"}},
        "alerts": {
            "max-queue-depth": "5",
            "hook": {"url": "env:U", "on-check": ["up"], "send-info-fields": {"a_b": "c"}, "retry-backoff": ["1s"]},
        },
        "identities": {"me": {"access": "admin", "local": {}, "tls": {"ca-cert": "/c"}}},
    }


def test_an_empty_plan_is_shown_as_nothing() -> None:
    assert shown() == {}
    assert shown("services: {a: ~}") == {}


@pytest.mark.parametrize("seed", range(6))
def test_what_is_shown_loads_to_the_same_plan_and_is_shown_the_same_again(seed: int) -> None:
    dice = random.Random(seed)
    loaded = 0
    for _ in range(150):
        before = random_sources(dice, dice.choice((0.0, 0.05)))
        try:
            plan = load(before)
        except PlanError:
            continue
        loaded += 1
        layer = merged(before, secrets=True)
        again = _again(before, layer)
        assert _bare(load(again)) == _bare(plan), before.layers
        assert merged(again, secrets=True) == layer
    assert loaded > 20


def test_the_example_loads_to_the_same_plan() -> None:
    before = read(str(Path(__file__).parents[2] / "examples" / "quickstart" / "layers"))
    assert _bare(load(_again(before, merged(before, secrets=True)))) == _bare(load(before))
    assert merged(before, secrets=False) == merged(before, secrets=True)


HASH = "$6$saltsalt$" + "a" * 86


def test_hashes_of_passwords_are_never_shown() -> None:
    text = f"identities: {{me: {{access: read, basic: {{password_hash: {HASH}}}}}}}"
    for secrets in (True, False):
        assert shown(text, secrets=secrets)["identities"]["me"]["basic"] == {"password-hash": "*****"}


def test_what_looks_secret_is_masked_unless_asked_for() -> None:
    text = """
        services:
          web:
            summary: "login: password: hunter2"
            command: >-
              mysqld --password=hunter2 --token 'hunter2 x' -H "Authorization: Bearer hunter2" --port 80
            environment:
              DB_PASSWORD: hunter2
              API_KEY: hunter2
              DATABASE_URL: postgres://app:hunter2@db:5432/x?sslmode=off
              PASSWORD_FILE: /run/secrets/db
              PORT: 80
              EMPTY_TOKEN: ''
            on-check-failure: {check-auth: restart}
          list: {command: [x, --api-key, hunter2, --port, "80", "PGPASSWORD=hunter2"]}
        checks:
          check-auth:
            http: {url: 'http://u:hunter2@h/x', headers: {Authorization: hunter2, Accept: '*/*'}, proxy: 'http://u:hunter2@p:1'}
        alerts:
          slack:
            url: https://hooks.slack.com/services/hunter2?x=hunter2
            on-check: [check-auth]
            headers: {Authorization: 'Bearer env:TOKEN', X-Token: hunter2}
            labels: {secret: hunter2, team: web}
            proxy: 'http://u:hunter2@p:1'
        """
    assert str(shown(text)).count("hunter2") == 17
    masked = shown(text, secrets=False)
    assert "hunter2" not in str(masked)
    web = masked["services"]["web"]
    assert web["command"] == 'mysqld --password=***** --token ***** -H "Authorization: *****" --port 80'
    assert web["environment"] == {
        "DB_PASSWORD": "*****",
        "API_KEY": "*****",
        "DATABASE_URL": "postgres://*****@db:5432/x?sslmode=off",
        "PASSWORD_FILE": "/run/secrets/db",
        "PORT": "80",
        "EMPTY_TOKEN": "",
    }
    assert web["on-check-failure"] == {"check-auth": "restart"}
    assert masked["services"]["list"]["command"] == ["x", "--api-key", "*****", "--port", "80", "PGPASSWORD=*****"]
    assert masked["checks"]["check-auth"]["http"]["headers"] == {"Authorization": "*****", "Accept": "*/*"}
    slack = masked["alerts"]["slack"]
    assert (slack["url"], slack["proxy"]) == ("https://hooks.slack.com/*****", "http://*****@p:1")
    assert slack["headers"] == {"Authorization": "Bearer env:TOKEN", "X-Token": "*****"}
    assert slack["labels"] == {"secret": "*****", "team": "web"}


@pytest.mark.parametrize(
    "name",
    [
        *("password", "DB_PASSWORD", "PGPASSWORD", "MYSQL_ROOT_PASSWORD", "passwd", "pwd", "secret", "CLIENT_SECRET"),
        *("SECRET_KEY_BASE", "token", "GITHUB_TOKEN", "MYTOKEN", "api-key", "apikey", "API_KEY", "apiKey", "X-Api-Key"),
        *("AWS_SECRET_ACCESS_KEY", "credentials", "PRIVATE_KEY", "privateKey", "Authorization", "Cookie", "REDIS_AUTH"),
        *("password-hash", "SENTRY_DSN", "dbPassword", "--token", "ENCRYPTION_KEY", "Proxy-Authorization"),
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "PATH",
            "KEY",
            "public-key",
            "PUBLIC_KEY",
            "KEYCLOAK_URL",
            "monkey",
            "compass",
            "PASSENGER_COUNT",
            "author",
        ),
        *("AUTH_METHOD", "DB_PASSWORD_FILE", "token_path", "TOKENIZERS_PARALLELISM", "command", "kill-delay", "user"),
        *("keyboard", "bypass", "spawn", "tokyo"),
    ],
)
def test_innocent_names_are_let_through(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:hunter2@h/0", "redis://*****@h/0"),
        ("http://token@h", "http://*****@h"),
        ("amqp://u:hun@ter2@h", "amqp://*****@h"),
        ("amqp://u:hun/ter2@h/x", "amqp://*****@h/x"),
        ("http://h/a@b", "http://h/a@b"),
        ("curl http://h:80/x", "curl http://h:80/x"),
        ("--opt=password=x", "--opt=password=*****"),
        ("login: password: x y", "login: password: *****"),
        ("A_TOKEN=x;B=y", "A_TOKEN=*****;B=y"),
        ("x --password 'a b' --port 3", "x --password ***** --port 3"),
        ("x --password --port 3", "x --password --port 3"),
        ("http://h/?token=abc&n=3", "http://h/?token=*****&n=3"),
    ],
)
def test_secrets_in_a_text_are_found_by_what_stands_before_them(text: str, masked: str) -> None:
    assert masked_text(text) == masked


@pytest.mark.timeout(10)
def test_a_long_value_is_looked_at_in_no_time() -> None:
    for text in ("x" * 1_000_000, "x " * 500_000, "a=" * 100_000, "://" * 100_000, "-" * 500_000):
        assert masked_text(text) == text


def test_in_a_list_the_word_behind_a_flag_is_its_value() -> None:
    assert masked_argv(["a", "--token", "b", "--token=c", "d", "--token", "--x"]) == (
        ["a", "--token", "*****", "--token=*****", "d", "--token", "--x"]
    )


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://h", "http://h"),
        ("http://h/", "http://h/"),
        ("http://h:1/a?b#c", "http://h:1/*****"),
        ("http://h?b", "http://h/*****"),
        ("https://u:p@h/x", "https://*****@h/*****"),
        ("env:URL", "env:URL"),
        ("no url", "*****"),
    ],
)
def test_of_the_url_of_an_alert_only_scheme_host_and_port_are_open(url: str, masked: str) -> None:
    assert masked_url(url) == masked


@pytest.mark.parametrize(
    "text",
    [
        "alerts: {a: {url: 'htps://hooks.example.org/hunter2', on-check: [c]}}",
        "alerts: {a: {url: 'https://hooks.example.org/hunter2', on-check: [c], format: x}}",
        "alerts: {a: {url: env:U, on-check: [c], proxy: 'http://u:hunter2@h:x'}}",
        'alerts: {a: {url: env:U, on-check: [c], headers: {Authorization: "hunter2\\n"}}}',
        "identities: {i: {access: read, basic: {password-hash: hunter2}}}",
        "checks: {c: {http: {url: 'http://h/?token=hunter2 x'}}}",
        "checks: {c: {http: {url: 'http://u:hunter2@h:x'}}}",
        'services: {w: {command: "curl -H \'Authorization: Bearer hunter2"}}',
        "services: {w: {command: 'curl -H \"Authorization: Bearer hunter2'}}",
        "services: {w: {environment: {API_KEY: [hunter2]}}}",
        "services: {w: {environment: {DB_PASSWORD: {hunter2: x}}}}",
        "services: {w: {environment: 'DB_PASSWORD=hunter2'}}",
        "services: {w: {environment: {'DB PASSWORD=hunter2': 1}}}",
        "services: {w: {environment: {DB_PASSWORD:hunter2}, startup: x}}",
        "services: {w: {environment: {DB_PASSWORD:\n  'hunter2' x}}}",
        "services: {w: 'run --token hunter2'}",
        "services: {w: 'PASSWORD = hunter2'}",
        "services: {PASSWORD: hunter2}",
        "{PASSWORD: hunter2, services: []}",
        "services: {w: {command: 'run --token hunter2 && x', startup: x}}",
        "services: {w: {command: 'TOKEN=hunter2 x', startup: x}}",
        "checks: {c: 'curl http://u:hunter2@h/'}",
        "checks: {c: {http: 'http://u:hunter2@h/'}}",
        "checks: {c: {exec: 'curl --password hunter2'}}",
        "alerts: {a: 'http://h/hunter2'}",
        "alerts: {a: {url: env:U, on-check: [c], headers: 'Authorization: hunter2'}}",
        "identities: {i: {access: read, basic: hunter2}}",
        "identities: {i: {access: read, basic: [hunter2]}}",
        "identities: {i: hunter2}",
    ],
)
def test_no_problem_tells_a_secret(text: str) -> None:
    with pytest.raises(PlanError) as caught:
        load(sources(text))
    assert caught.value.problems
    for one in (*caught.value.problems, *caught.value.warnings):
        assert "hunter2" not in f"{one.message} {one.excerpt}"
