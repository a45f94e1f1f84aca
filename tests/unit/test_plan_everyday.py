"""Plans of the kind that people write on their first days: every key in them is known, under --check too."""

from __future__ import annotations

import pytest

from tests.unit.plan_world import plan
from vigil.plan import Plan, Policy
from vigil.plan.types import ExecProbe, HttpProbe, TcpProbe


def checked(text: str) -> Plan:
    """A plan that --check has nothing against; the one warning names what this version does not act upon."""
    made = plan(text, check=True)
    assert [str(one) for one in made.warnings if "accepted, but not acted upon" not in str(one)] == []
    assert len(made.warnings) <= 1
    return made


def test_a_web_application_with_its_database_and_checks_of_all_three_kinds() -> None:
    made = checked("""
        summary: The shop
        description: Application and database in one container.
        services:
          shop:
            summary: Web application
            command: /usr/bin/shop --config /etc/shop.toml
            startup: enabled
            after: [postgres]
            requires:
              - postgres
            environment:
              PORT: "8080"
              DEBUG: no
            working-dir: /srv/shop
            stop-signal: SIGTERM
            kill-delay: 10s
            on-success: restart
            on-failure: restart
            on-check-failure:
              shop-alive: restart
              shop-ready: failure-shutdown
            backoff-delay: 500ms
            backoff-factor: 2.0
            backoff-limit: 30s
          postgres: {command: postgres -D /data, startup: enabled, before: [shop], stop-signal: SIGINT}
        checks:
          shop-alive:
            level: alive
            startup: enabled
            delay: 3s   # before the first one
            period: 10s
            timeout: 3s
            threshold: 3
            http:
              url: https://localhost:8080/healthz
              headers:
                Authorization: "Bearer letmein"
                Content-Type: "application/json"
              insecure: false
              ca: /etc/vigil/certs/internal-ca.pem
          shop-ready:
            level: ready
            exec:
              command: pg_isready -U postgres
              service-context: postgres
          port:
            tcp:
              host: localhost
              port: 5432
        """)
    assert made.services["shop"].environment == {"PORT": "8080", "DEBUG": "no"}
    assert made.services["shop"].on_check_failure == {
        "shop-alive": Policy.RESTART,
        "shop-ready": Policy.FAILURE_SHUTDOWN,
    }
    assert [type(check.probe) for check in made.checks.values()] == [HttpProbe, ExecProbe, TcpProbe]


def test_alerts_to_an_alertmanager_and_a_collector_of_logs() -> None:
    made = checked("""
        alerts:
          pager:
            url: "env:PAGER_URL"          # looked up when it is sent
            format: alertmanager
            on-check: [alive, db]
            headers:
              Authorization: "Bearer env:PAGER_TOKEN"
            labels:
              severity: critical
              cluster: "env:CLUSTER"
            send_info_fields:
              runbook: "https://wiki.example.org/runbooks/alive"
            retry_attempts: 5
            retry_backoff: ["1s", "2s", "5s", "10s"]
          collector:
            url: http://collector:4318/v1/logs
            format: otlp-logs
            on-check: [alive]
            proxy: "http://proxy.example.org:3128"
            no_proxy: "localhost, .internal"
            tls_insecure: false
            tls_ca: /etc/ssl/ours.pem
            proxy_ca: /etc/ssl/ours.pem
          events: {url: "https://events.example.org", format: cloud-events, on_check: [db]}
        checks:
          alive: {http: {url: http://127.0.0.1:9091/healthz}}
          db: {tcp: {port: 5432}}
        """)
    assert made.alerts["pager"].retry_backoff == (1.0, 2.0, 5.0, 10.0)
    assert made.alerts["pager"].send_info_fields == {"runbook": "https://wiki.example.org/runbooks/alive"}
    assert made.alerts["collector"].no_proxy == "localhost, .internal"


@pytest.mark.parametrize(
    "template",
    [
        """>-
              {"text": ":{% if status == 'down' %}fire{% else %}ok{% endif %}: *{{ check }}* is *{{ status }}* on
              `{{ labels.cluster }}`"}""",
        """|
              {
                "@type": "Card",
                "color": "{% if status == 'down' %}FF0000{% else %}00CC00{% endif %}",
                "title": "{{ check }} at {{ timestamp }}",
                "actions": [{"targets": [{"uri": "{{ info.runbook }}"}]}]
              }""",
    ],
)
def test_webhooks_of_chats_with_a_body_of_their_own(template: str) -> None:
    made = checked(f"""
        alerts:
          chat:
            url: "env:CHAT_URL"
            format: webhook
            on-check: [site]
            labels:
              cluster: "env:CLUSTER"
            send_info_fields:
              runbook: "https://wiki.example.org/site"
            body-template: {template}
        checks: {{site: {{level: alive, http: {{url: 'https://example.org'}}}}}}
        """)
    assert made.alerts["chat"].body_template is not None


def test_a_proxy_that_drains_with_a_controller_behind_it() -> None:
    made = checked("""
        services:

          haproxy:
            command: /usr/local/bin/run-haproxy
            startup: enabled
            stop-signal: SIGUSR1   # finish what is there, take nothing new
            kill-delay: 30s
            on-success: restart
            on-failure: restart
            on-check-failure:
              haproxy-alive: restart

          controller:
            command: /usr/local/bin/run-controller
            startup: enabled
            after:
              - haproxy            # once it is active
            on-success: restart
            on-failure: restart

        checks:
          haproxy-alive:
            level: alive
            startup: enabled
            delay: 3s
            period: 10s
            timeout: 5s
            threshold: 3
            exec:
              command: >
                curl -sf --unix-socket /run/haproxy/health.sock
                http://localhost/stats?csv
        """)
    probe = made.checks["haproxy-alive"].probe
    assert isinstance(probe, ExecProbe)
    assert probe.command == (
        *("curl", "-sf", "--unix-socket", "/run/haproxy/health.sock", "http://localhost/stats?csv"),
    )


def test_collectors_of_logs_with_every_way_to_forward_and_push() -> None:
    made = checked("""
        services:
          app: {command: /usr/local/bin/app, logs-forward: enabled}
          access: {command: /usr/local/bin/access, logs-forward: disabled}
          pushed:
            command: /usr/local/bin/app
            logs-forward: disabled
            logs-push-socket: /run/collector/input.sock
            logs-push-format: ndjson
          pushed-too: {command: /usr/local/bin/app, logs-push-addr: 127.0.0.1:5170}
          collector:
            command: >-
              sh -c 'mkdir -p /tmp/data && filebeat run
              --strict.perms=false --path.data /tmp/data
              -c /etc/filebeat.yml 2>/dev/null'
            startup: enabled
            after:
              - app
            on-failure: restart
            backoff-delay: 2s
            backoff-factor: 2.0
            backoff-limit: 30s
            logs-forward: passthrough   # straight to the container's stdout
        """)
    collector = made.services["collector"]
    assert collector.command is not None
    assert collector.command[:2] == ("sh", "-c")
    assert (collector.logs_forward, made.services["pushed"].logs_push_socket) == (
        "passthrough",
        "/run/collector/input.sock",
    )


def test_pebble_s_spellings_are_understood() -> None:
    made = checked("""
        services:
          web:
            override: replace
            command: run --port 80 [ --mode default ]
            startup: enabled
          db: {override-mode: merge, command: "[ -e /x ]"}
        checks:
          up: {override: merge, level: ready, tcp: {port: 80}}
        """)
    assert made.services["web"].command == ("run", "--port", "80", "--mode", "default")
    assert made.services["db"].command == ("[", "-e", "/x", "]")
