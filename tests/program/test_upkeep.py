"""What runs for long stays as it was: no descriptor and no zombie is left of a thousand runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.daemon import LIMIT, Daemon

ORPHANS = 3000
HELPERS = ("vigild", "vigil-control", "vigil-logger")


def descriptors(daemon: Daemon) -> dict[str, Counter[str]]:
    """Of PID 1 and each helper: how many descriptors of which kind."""
    found = {}
    for name in HELPERS:
        kinds: Counter[str] = Counter()
        folder = Path(f"/proc/{daemon.host_pid(daemon.only(name).pid)}/fd")
        for fd in folder.iterdir():
            try:
                kinds[re.sub(r":\[\d+\]|/memfd:\S+", lambda m: m[0].split("[")[0], os.readlink(fd))] += 1
            except FileNotFoundError:
                continue  # closed meanwhile
        found[name] = kinds
    return found


def test_descriptors_of_pid_1_control_and_logger_are_the_same_after_1000_spawns(vigild: Callable[..., Daemon]) -> None:
    quick = "{command: [/bin/sh, -c, 'echo x; exit 3'], backoff-delay: 1ms, backoff-limit: 1ms, kill-delay: 1s}"
    daemon = vigild(f"services: {{quick: {quick}, other: {quick}, idle: {{command: sleep 1000, startup: enabled}}}}")
    daemon.wait_state("idle", "active")
    # Each has been there once, so that what is made with the first run is counted too.
    daemon.cli("start", "quick", "other", check=False)
    daemon.cli("stop", "quick", "other")
    daemon.cli("logs")
    before = descriptors(daemon)
    daemon.cli("start", "--no-wait", "quick", "other")
    daemon.until(lambda: sum(service["restarts"] for service in daemon.services().values()) >= 1000, "1,000 restarts")
    daemon.cli("logs")
    daemon.cli("stop", "quick", "other")
    # An answer's connection is closed a moment after it was read.
    after: dict[str, Counter[str]] = {}

    def as_before() -> bool:
        after.update(descriptors(daemon))
        return after == before

    try:
        daemon.until(as_before, "the descriptors of before", timeout=LIMIT)
    except AssertionError as error:
        raise AssertionError(f"before {before}, after {after}") from error


def test_orphans_that_come_to_pid_1_from_outside_are_reaped(
    vigild: Callable[..., Daemon], root: None, need: Callable[..., None]
) -> None:
    need("nsenter")
    daemon = vigild("services: {idle: {command: sleep 1000, startup: enabled}}")
    pid = daemon.wait_state("idle", "active")["pid"]
    # As `docker exec` does it: its processes have no keeper, so PID 1 itself is whom they come to.
    nsenter = shutil.which("nsenter") or ""
    script = (
        f"i=0; while [ $i -lt {ORPHANS} ]; do i=$((i+1)); (:&); done; (sh -c 'echo $PPID; sleep 0.2; echo $PPID' &)"
    )
    done = subprocess.run(
        [nsenter, f"--target={daemon.pid}", "--pid", "--mount", "/bin/sh", "-c", f"{script}; exit 3"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * LIMIT,
    )
    assert done.returncode == 3, done.stderr
    daemon.until(
        lambda: not [p for p in daemon.processes().values() if p.state == "Z" or p.comm == "sh"], "no zombie, no shell"
    )
    assert daemon.service("idle")["pid"] == pid
    assert daemon.stop() == 0
