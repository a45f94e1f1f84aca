"""One image in surroundings of every sort: services run, a stop leaves nothing, codes are right, ``vigil`` works.

A cell is one container, started three times with another plan: the first is stopped from outside, in the others a
service decides the code.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.container.box import ACT, Box

PLAN = f"""
services:
  web:
    command: [{ACT}, web]
    startup: enabled
    kill-delay: 1s
  beside:
    command: [{ACT}, stay]
    startup: enabled
    after: [web]
  leaver:
    type: oneshot
    command: [{ACT}, leaver]
    startup: enabled
    kill-delay: 100ms
"""
ENDS = """
services:
  beside:
    command: [{act}, stay]
    startup: enabled
  last:
    command: [{act}, {words}]
    startup: enabled
    after: [beside]
    kill-delay: 500ms
    on-failure: shutdown
"""
HIDE = """
call("mount", b"none", b"/proc", b"tmpfs", 0, None)
"""
NO_MORE_MOUNTING = """
libc.prctl(24, 21, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_SYS_ADMIN: as in any other container
"""
HIDEPID = """
call("mount", b"proc", b"/proc", b"proc", 32, b"hidepid=2,gid=54321")  # MS_REMOUNT
"""
NO_SHELL = """
for folder in "/bin", "/usr/bin", "/usr/local/bin":
    for name in "sh", "dash", "bash", "busybox", "rbash", "perl":
        if os.path.lexists(f"{folder}/{name}"):
            os.unlink(f"{folder}/{name}")
"""
NO_CLIENT = """
if os.path.exists("/opt/vigil/bin/vigil"):
    os.unlink("/opt/vigil/bin/vigil")
"""


@dataclass(frozen=True)
class Cell:
    """Options of a container, what is done in it before vigild begins, and why ``podman exec C vigil`` cannot work."""

    options: tuple[str, ...] = ()
    first: str = ""
    why_not: str = ""


CELLS = {
    "root": Cell(),
    "random uid": Cell(("--user", "12345:0")),
    "random uid and gid": Cell(("--user", "12345:12345")),
    "read-only": Cell(("--read-only", "--read-only-tmpfs=false"), why_not="(nothing can be written there"),
    "read-only with tmpfs on run": Cell(("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/run")),
    "read-only with tmpfs on tmp": Cell(("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp")),
    "read-only and random uid": Cell(("--read-only", "--user", "12345:0")),
    "no capabilities": Cell(("--cap-drop=all",)),
    "no new privileges": Cell(("--security-opt", "no-new-privileges")),
    "everything at once": Cell(
        (
            "--read-only",
            "--user",
            "12345:0",
            "--cap-drop=all",
            "--security-opt",
            "no-new-privileges",
            "--pids-limit",
            "60",
        )
    ),
    "below an init": Cell(("--init", "--init-path", "/usr/bin/catatonit")),
    "pid namespace of the host": Cell(("--pid=host",)),
    "proc hidden": Cell(("--cap-add", "SYS_ADMIN"), HIDE + NO_MORE_MOUNTING, why_not="/proc/self/fd"),
    "proc hidepid": Cell(("--cap-add", "SYS_ADMIN"), HIDEPID + NO_MORE_MOUNTING),
    "few processes": Cell(("--pids-limit", "60")),
    "little memory": Cell(("--memory", "96m")),
    "no shell": Cell(first=NO_SHELL),
    "no client": Cell(first=NO_CLIENT, why_not="vigil"),
}


def client(box: Box, *words: str) -> subprocess.CompletedProcess[str]:
    """``vigil`` of this checkout, from outside of the container, at its socket."""
    socket = f"/proc/{box.pid}/root/run/vigil/vigild.sock"
    command = [sys.executable, "-P", "-m", "vigil.cli", "--socket", socket, *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", CELLS)
def test_cell(box: Callable[..., Box], image: str, need: Callable[..., None], name: str) -> None:
    cell = CELLS[name]
    if "--init" in cell.options:
        need("catatonit")
    container = box(image, cell.options, cell.first)

    # Services run, and who goes leaves nothing behind.
    container.start(PLAN)
    container.says("[web] web is up: ")
    container.until(lambda: container.acting() == ["deaf", "polite", "stay", "web"], "leaver's orphan to be gone")

    # It can be commanded, or there is a reason why not.
    asked = container.exec("vigil", "services", check=False)
    if cell.why_not:
        assert asked.returncode != 0
        assert cell.why_not in asked.stderr
        reason_is_told(container, name)
    else:
        assert asked.returncode == 0, asked.stderr
        assert {line.split()[0]: line.split()[2] for line in asked.stdout.splitlines()[1:]} == {
            "web": "active",
            "beside": "active",
            "leaver": "exited",
        }
        container.exec("vigil", "stop", "web")
        assert container.acting() == ["stay"]
        container.exec("vigil", "start", "web")

    # Signals reach it, and the end is one in order: orphans are told before they are killed.
    container.podman("kill", "--signal", "HUP", container.name)
    container.says("[web] web heard HUP")
    code, took = container.stop()
    assert code == 0
    assert took < 9
    assert container.processes() == {}
    assert "[web] web ends\n" in container.stdout
    assert "[web] polite ends\n" in container.stdout
    if name != "pid namespace of the host":  # there the engine sends its signals to every process, control too
        assert "ERROR" not in container.stderr

    # The code of the service that decides.
    for words, expected in (("exit, '7'", 7), ("signal, '12'", 140)):
        container.start(ENDS.format(act=ACT, words=words))
        assert container.wait() == expected
        assert container.processes() == {}
        assert "[last] polite ends\n" in container.stdout


def reason_is_told(container: Box, name: str) -> None:
    """Where the usual ``podman exec C vigil`` does not work: what is said of it, and what works instead."""
    if name == "read-only":
        assert "there is no place for the API's Unix socket, so there is no API" in container.stderr
        assert "/run/vigil/vigild.sock: Read-only file system" in container.stderr
        assert "mount a tmpfs on /run or /tmp" in container.stderr
    elif name == "proc hidden":  # the engine needs it to enter; what enters by itself does not
        assert "there is no /proc" in container.stderr
        inside = ("nsenter", "-t", str(container.pid), "-m", "-p", "-r", "-w")
        subprocess.run([*inside, "/opt/vigil/bin/vigil", "restart", "web"], check=True, timeout=60)
    else:  # no client in it: one from outside
        asked = client(container, "services")
        assert asked.returncode == 0, asked.stderr
        assert "web" in asked.stdout
