"""PID 1, keepers and logger under valgrind's memory checker: an ordinary day, with helpers and keepers killed.

The checker makes a fork of each vfork, so a command that cannot be executed is not part of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, SANITIZE
from tests.init.pid1 import Pid1, m, wire
from tests.init.test_stop import DAEMON, stands


@pytest.mark.skipif(SANITIZE, reason="one checker of memory at a time")
def test_valgrind_finds_nothing(need: Callable[..., None], pid1: Callable[..., Pid1], tmp_path: Path) -> None:
    need("valgrind", "cc")
    objects = tmp_path / "objects"
    subprocess.run([sys.executable, str(ROOT / "build.py"), "objects", "--out", str(objects)], check=True, text=True)
    # Linked dynamically: a static C library does at its start what the checker cannot follow.
    subprocess.run(["cc", "-pthread", "-o", str(tmp_path / "vigild"), *map(str, objects.glob("*.o"))], check=True)
    daemon = pid1(
        prefix=(
            "/bin/sh", "-c", f'shift; exec valgrind -q --log-file={tmp_path}/log.%p {tmp_path}/vigild "$@"', "sh"
        )
    )  # fmt: skip
    control = daemon.attached()
    control.send(wire.park("log/web"), [control.parked["log/vigild"]])
    for code in range(5):
        run = control.sh(f"echo {code}; exit {code}", log_mode=m.LogMode.ENABLED, log="web", prefix="[web] ").run
        assert control.end(run).exit_code == code
    for _ in range(3):
        control.stop(stands(control, DAEMON, kill_delay=0.1))
    run = stands(control, DAEMON)
    os.kill(daemon.host_pid(daemon.only("vigil-keeper").pid), signal.SIGKILL)
    assert control.end(run).keeper_lost
    before = [p.pid for p in daemon.named("vigil-logger")]
    os.kill(daemon.host_pid(before[0]), signal.SIGKILL)
    daemon.until(lambda: [p.pid for p in daemon.named("vigil-logger")] not in ([], before), "the next logger")
    kept = control.spawn("sleep", "1000").run
    daemon.kill_control(control)
    second = daemon.attached()
    second.stop(kept)
    second.send(wire.shutdown(0, True))
    third = daemon.attached()
    assert third.end(third.sh("exit 3").run).exit_code == 3
    assert daemon.stop() == 0
    found = {log.name: log.read_text() for log in tmp_path.glob("log.*")}
    assert found, "the checker ran"
    assert "".join(found.values()) == ""
