"""control and logger die; services, commands, exits, backoff and the API's clients do not notice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.daemon import LIMIT, Daemon


def kill_control(daemon: Daemon) -> None:
    """SIGKILL, and wait for the next one."""
    control = daemon.only("vigil-control").pid
    daemon.kill(control)
    daemon.until(lambda: [p.pid for p in daemon.named("vigil-control")] not in ([], [control]), "the next control")
    daemon.ready()


def test_services_keep_their_pids_and_states_over_control(vigild: Callable[..., Daemon]) -> None:
    layers = """
services:
  web: {command: sleep 1000, startup: enabled}
  off: {command: sleep 1000}
  once: {type: oneshot, command: "true", startup: enabled}
  bad: {command: "false", startup: enabled, backoff-delay: 1ms, restart-limit: 2}
"""
    daemon = vigild(layers)
    daemon.wait_state("bad", "error")
    daemon.wait_state("once", "exited")
    before = daemon.services()
    info = daemon.api("GET", "/v1/system-info")[1]["result"]
    for n in range(1, 4):
        kill_control(daemon)
        assert daemon.services() == before
        after = daemon.api("GET", "/v1/system-info")[1]["result"]
        assert after["boot-id"] == info["boot-id"]
        assert after["control-restarts"] == n


def test_an_exit_while_control_is_away_is_acted_upon_once(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    layers = f"""
services:
  web: {{startup: enabled, backoff-delay: 1ms, command: [/bin/sh, -c, "echo x >>{tmp_path}/starts; exec sleep 1000"]}}
"""
    daemon = vigild(layers)
    daemon.wait_state("web", "active")
    for n in range(1, 6):
        control, pid = daemon.only("vigil-control").pid, daemon.service("web")["pid"]
        daemon.kill(control, signal.SIGSTOP)
        daemon.kill(pid)
        daemon.until(lambda pid=pid: pid not in daemon.processes(), "its death")
        daemon.kill(control)
        daemon.until(
            lambda c=control: [p.pid for p in daemon.named("vigil-control")] not in ([], [c]), "the next control"
        )
        service = daemon.wait_state("web", "active")
        daemon.until(lambda n=n: daemon.service("web")["restarts"] == n, "the restart")
        assert service["pid"] != pid or daemon.service("web")["pid"] != pid
        daemon.until(lambda n=n: (tmp_path / "starts").read_text().count("x") == n + 1, "one start more")


def test_a_shutdown_that_a_service_decides_is_not_lost_with_control(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild("services: {web: {command: sleep 1000, startup: enabled, on-failure: shutdown}}")
    pid = daemon.wait_state("web", "active")["pid"]
    control = daemon.only("vigil-control").pid
    daemon.kill(control, signal.SIGSTOP)
    daemon.kill(pid)
    daemon.kill(control)
    assert daemon.wait() == 137


def test_backoff_goes_on_where_it_was(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    layers = f"""
services:
  web: {{startup: enabled, backoff-delay: 4s, backoff-factor: 1, \
command: [/bin/sh, -c, "echo x >>{tmp_path}/starts; exit 1"]}}
"""
    daemon = vigild(layers)
    daemon.wait_state("web", "backoff")
    began = time.monotonic()
    time.sleep(2.5)  # most of the wait: one that began anew would end at 6.5 s or later
    kill_control(daemon)
    assert daemon.service("web")["current"] == "backoff"
    daemon.until(lambda: (tmp_path / "starts").read_text().count("x") == 2, "the second start")
    assert time.monotonic() - began < 6.4, "the wait did not begin anew"


def test_sigterm_while_control_is_dead_stops_everything_in_order(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    lines = ["services:"]
    lines.extend(
        f"  s{i}: {{startup: enabled, {f'after: [s{i - 1}], ' if i else ''}command: [/bin/sh, -c,"
        f" \"trap 'echo s{i} >>{tmp_path}/order; exit 0' TERM; echo stands; while :; do sleep 0.02; done\"]}}"
        for i in range(4)
    )
    daemon = vigild("\n".join(lines))
    daemon.wait_state("s3", "active")
    assert daemon.out
    for i in range(4):  # a shell says so once its trap is set
        daemon.out.wait_for(f"[s{i}] stands\n")
    daemon.kill(daemon.only("vigil-control").pid)
    assert daemon.stop() == 0
    assert (tmp_path / "order").read_text().split() == ["s3", "s2", "s1", "s0"]


def test_a_client_waits_in_the_backlog_while_control_is_replaced(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild("services: {web: {command: sleep 1000, startup: enabled}}")
    daemon.wait_state("web", "active")
    daemon.kill(daemon.only("vigil-control").pid)
    assert daemon.api("GET", "/v1/system-info", timeout=LIMIT)[0] == 200


def test_a_command_of_the_cli_survives_control(vigild: Callable[..., Daemon]) -> None:
    layers = (
        "services: {web: {command: [/bin/sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done'],"
        " kill-delay: 1s, startup: enabled}}"
    )
    daemon = vigild(layers)
    pid = daemon.wait_state("web", "active")["pid"]
    done: list[subprocess.CompletedProcess[str]] = []
    asking = threading.Thread(target=lambda: done.append(daemon.cli("restart", "web", check=False)))
    asking.start()
    daemon.wait_state("web", "stopping")
    kill_control(daemon)
    asking.join(LIMIT)
    assert done[0].returncode == 0, done[0].stderr
    service = daemon.service("web")
    assert service["pid"] != pid
    assert service["restarts"] == 0


def test_vigild_restart_starts_from_scratch_in_the_same_pid_1(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild("services: {web: {command: sleep 1000, startup: enabled}}")
    before = daemon.wait_state("web", "active"), daemon.api("GET", "/v1/system-info")[1]["result"]
    assert daemon.cli("vigild", "restart").stdout == "Daemon restart initiated.\n"
    daemon.until(
        lambda: (
            daemon._answers() and daemon.api("GET", "/v1/system-info")[1]["result"]["boot-id"] != before[1]["boot-id"]
        ),
        "a new boot",
    )
    assert daemon.wait_state("web", "active")["pid"] != before[0]["pid"]
    assert daemon.pid
    assert [c["id"] for c in daemon.api("GET", "/v1/changes")[1]["result"]] == ["1"]
    assert daemon.stop() == 0


def test_a_follower_goes_on_when_control_is_replaced(vigild: Callable[..., Daemon]) -> None:
    layers = (
        "services: {count: {startup: enabled,"
        " command: [/bin/sh, -c, 'i=0; while i=$((i+1)); do echo $i; sleep 0.01; done']}}"
    )
    daemon = vigild(layers)
    daemon.wait_state("count", "active")
    follow = subprocess.Popen(
        [sys.executable, "-m", "vigil.cli", "logs", "-f", "-n", "1000", "count"],
        env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follow.stdout
    numbers: list[int] = []
    try:
        while len(numbers) < 50:
            numbers.append(int(follow.stdout.readline().rsplit(" ", 1)[1]))
        kill_control(daemon)
        while len(numbers) < 400:
            numbers.append(int(follow.stdout.readline().rsplit(" ", 1)[1]))
    finally:
        follow.terminate()
        follow.communicate(timeout=LIMIT)
    assert numbers == list(range(1, 401))


def test_pid_1_frees_what_it_had_when_the_logger_is_killed_again_and_again(vigild: Callable[..., Daemon]) -> None:
    layers = (
        "services: {count: {startup: enabled,"
        " command: [/bin/sh, -c, 'i=0; while i=$((i+1)); do echo $i; sleep 0.001; done']}}"
    )
    daemon = vigild(layers)
    daemon.wait_state("count", "active")
    for _ in range(20):
        logger = daemon.only("vigil-logger").pid
        daemon.kill(logger)
        daemon.until(
            lambda old=logger: [p.pid for p in daemon.named("vigil-logger")] not in ([], [old]), "the next logger"
        )
    assert daemon.stop() == 0
    numbers = [int(line.split()[1]) for line in daemon.stdout.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
