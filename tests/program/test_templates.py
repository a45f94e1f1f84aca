"""Body-templates that do not parse are told once services run, and nobody waits for the telling."""

from __future__ import annotations

from collections.abc import Callable

from tests.daemon import Daemon

LAYER = """\
services: {web: {command: sleep 1000, startup: enabled}}
checks: {up: {tcp: {port: 1}}}
alerts:
  chat:
    url: env:CHAT_URL
    on-check: [up]
    body-template: "%s"
"""
FAULT = "alerts.chat.body-template: does not parse: "


def test_a_wrong_template_is_warned_of_after_the_services_have_started(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(LAYER % "{{ check").ready()
    daemon.until(lambda: FAULT in daemon.stderr, "the warning")
    told = daemon.stderr
    assert told.index("web: started") < told.index(FAULT)
    assert "WARN vigil.plan " in told
    assert told.count(FAULT) == 1
    assert told.count("accepted, but not acted upon") == 1  # what was told at the start is not told again
    assert daemon.service("web")["current"] == "active"


def test_a_control_that_goes_on_does_not_tell_it_again(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(LAYER % "{{ check").ready()
    daemon.until(lambda: FAULT in daemon.stderr, "the warning")
    first = daemon.only("vigil-control").pid
    daemon.kill(first)
    daemon.until(lambda: "control goes on" in daemon.stderr, "the next control")
    daemon.ready()
    assert daemon.stop() == 0
    assert daemon.stderr.count(FAULT) == 1


def test_a_replan_warns_of_a_wrong_template(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(LAYER % "{{ check }}").ready()
    (daemon.layers / "10-test.yaml").write_text(LAYER % "{% fi %}")
    _, answer = daemon.api("POST", "/v1/replan", {})
    assert [FAULT in f"{one['field']}: {one['message']}" for one in answer["result"]["warnings"]].count(True) == 1
    assert daemon.service("web")["current"] == "active"
