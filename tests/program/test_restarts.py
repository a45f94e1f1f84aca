"""Restarts: the gaps of the formula, for ever or up to the limit, and a stop wins over all of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

from tests.daemon import Daemon


def failing(tmp_path: Path, **keys: str) -> str:
    """A service that notes when it starts (CLOCK_MONOTONIC, as /proc/uptime) and fails."""
    more = "".join(f"    {key.replace('_', '-')}: {value}\n" for key, value in keys.items())
    return (
        "services:\n  web:\n    startup: enabled\n"
        f"    command: [/bin/sh, -c, 'read up _ </proc/uptime; echo $up >>{tmp_path}/starts; exit 3']\n{more}"
    )


def starts(tmp_path: Path) -> list[float]:
    """Seconds at which it was started."""
    path = tmp_path / "starts"
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def test_gaps_follow_the_formula_at_the_limit_too(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = vigild(failing(tmp_path, backoff_delay="100ms", backoff_factor="2", backoff_limit="400ms"))
    daemon.until(lambda: len(starts(tmp_path)) >= 8, "eight starts")
    times = starts(tmp_path)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    wanted = [0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4]
    for gap, least in zip(gaps, wanted, strict=False):
        assert gap >= least - 0.011, f"{gaps}: too early (the clock of /proc/uptime has hundredths)"
    assert sorted(gaps)[len(gaps) // 2] < 0.4 + 0.3, f"{gaps}: too late"
    assert daemon.service("web")["restarts"] >= 7


def test_a_service_is_restarted_again_and_again_for_ever(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = vigild(failing(tmp_path, backoff_delay="1ms", backoff_factor="1", backoff_limit="1ms"))
    daemon.until(lambda: len(starts(tmp_path)) >= 200, "200 starts")
    assert daemon.service("web")["current"] in ("backoff", "starting", "active", "stopping")


def test_the_restart_limit_gives_up(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = vigild(failing(tmp_path, backoff_delay="1ms", restart_limit="3"))
    service = daemon.wait_state("web", "error")
    assert len(starts(tmp_path)) == 4
    assert service["restarts"] == 3
    assert service["exit"]["code"] == 3
    assert "given up after 3 restarts" in service["cause"]
    # A start by hand begins anew.
    daemon.cli("start", "web", check=False)
    daemon.until(lambda: len(starts(tmp_path)) == 8, "four more starts")
    daemon.wait_state("web", "error")


def test_a_stop_during_backoff_wins(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = vigild(failing(tmp_path, backoff_delay="300ms", backoff_factor="1"))
    daemon.wait_state("web", "backoff")
    daemon.cli("stop", "web")
    count = len(starts(tmp_path))
    time.sleep(0.8)  # more than two gaps in which it must not come back
    assert len(starts(tmp_path)) == count
    assert daemon.service("web")["current"] == "inactive"


def test_a_stop_during_a_start_wins(vigild: Callable[..., Daemon]) -> None:
    layers = """
services:
  slow: {type: oneshot, command: sleep 1000, startup: enabled}
  web: {command: sleep 1000, startup: enabled, after: [slow]}
"""
    daemon = vigild(layers).ready()
    daemon.until(lambda: daemon.named("sleep"), "the oneshot")
    assert daemon.service("web")["waiting-for"] == ["slow"]
    daemon.cli("stop", "web")
    daemon.cli("stop", "slow")
    assert {s["current"] for s in daemon.services().values()} == {"inactive"}
    assert not daemon.named("sleep")


def test_a_command_that_cannot_be_executed_is_told_with_its_reason(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild("services: {web: {command: /nope, startup: enabled, on-failure: ignore}}")
    service = daemon.wait_state("web", "inactive")
    daemon.until(lambda: daemon.service("web")["exit"], "the failure")
    service = daemon.service("web")
    assert service["exit"]["reason"] == "exec /nope: No such file or directory"
    assert service["exit"]["code"] == 127


def test_order_and_oneshots(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    note = f"echo $0 >>{tmp_path}/order"
    layers = f"""
services:
  prepare: {{type: oneshot, startup: enabled, command: [/bin/sh, -c, "sleep 0.3; {note}", prepare]}}
  db: {{startup: enabled, requires: [prepare], command: [/bin/sh, -c, "{note}; exec sleep 1000", db]}}
  web: {{startup: enabled, after: [db], command: [/bin/sh, -c, "{note}; exec sleep 1000", web]}}
  first: {{startup: enabled, before: [prepare], command: [/bin/sh, -c, "{note}; exec sleep 1000", first]}}
"""
    daemon = vigild(layers)
    daemon.wait_state("web", "active")
    assert daemon.until(
        lambda: (names := (tmp_path / "order").read_text().split())[-1:] == ["web"] and names, "all"
    ) == ["first", "prepare", "db", "web"]
    assert daemon.service("prepare")["current"] == "exited"
    daemon.cli("stop", "db")
    assert daemon.service("web")["current"] == "active", "after is no requires"
    assert daemon.stop() == 0


def test_a_start_that_ends_within_a_second_is_the_changes_error(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild("services: {web: {command: [/bin/sh, -c, 'echo last words; exit 3'], on-failure: ignore}}").ready()
    done = daemon.cli("start", "web", check=False)
    assert done.returncode == 1
    assert "exited with code 3" in done.stderr
    assert "last words" in done.stderr


def test_300_services_start_and_stop_in_order(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    lines = ["services:"]
    for i in range(300):
        before = f", after: [s{i - 1}]" if i % 10 else ""
        script = f"trap 'echo {i} >>{tmp_path}/stopped; exit 0' TERM; echo; while :; do sleep 1000 & wait; done"
        lines.append(f'  s{i}: {{startup: enabled, command: [/bin/sh, -c, "{script}"]{before}}}')
    daemon = vigild("\n".join(lines)).ready()
    daemon.until(lambda: {s["current"] for s in daemon.services().values()} == {"active"}, "all of them")
    # Each has its trap once it has written its line.
    daemon.until(lambda: daemon.stdout.count("\n") == 300, "all traps")
    assert daemon.stop() == 0
    started = [line for line in daemon.stderr.splitlines() if ": started pid=" in line]
    orders = {
        "started": [int(line.partition(" vigil.service s")[2].partition(":")[0]) for line in started],
        # From the services themselves: what control says of a fast stop it may say late.
        "stopped": [int(word) for word in (tmp_path / "stopped").read_text().split()],
    }
    for what, order in orders.items():
        assert sorted(order) == list(range(300)), what
        for ten in range(30):
            chain = [i for i in order if i // 10 == ten]
            assert chain == sorted(chain, reverse=what == "stopped"), what


def test_50_services_that_exit_at_once_are_each_restarted_once_for_each_exit(
    vigild: Callable[..., Daemon], tmp_path: Path
) -> None:
    lines = ["services:"]
    lines.extend(
        f"  s{i}: {{startup: enabled, backoff-delay: 1ms, backoff-limit: 1ms, command: [/bin/sh, -c,"
        f" 'echo x >>{tmp_path}/s{i}; exit {i + 1}']}}"
        for i in range(50)
    )
    daemon = vigild("\n".join(lines), args=["--log-level", "error"])
    daemon.ready()
    daemon.until(lambda: sum(s["restarts"] for s in daemon.services().values()) >= 10_000, "10,000 exits", timeout=240)
    for i in range(50):
        daemon.cli("stop", f"s{i}")
    for name, service in daemon.services().items():
        begun = (tmp_path / name).read_text().count("x")
        # Each start but the first is a counted restart; the last may have been stopped before its first instruction.
        assert begun <= service["restarts"] + 1 <= begun + 1, name
        assert service["exit"]["code"] in (int(name[1:]) + 1, None), name
