"""Bad input is refused with file, line and field, all of it at once, with exit code 1, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon

BAD: dict[str, tuple[str, list[str]]] = {
    "a dependency cycle": (
        "services:\n  a: {command: x, after: [b]}\n  b: {command: x, after: [a]}\n",
        [":2:", "cycle", "a", "b"],
    ),
    "an unknown name": ("services:\n  a:\n    command: x\n    after: [bb]\n", [":4:", "services.a.after", "bb"]),
    "a bad duration": (
        "services:\n  a:\n    command: x\n    kill-delay: 5 parsecs\n",
        [":4:17: services.a.kill-delay", "5 parsecs"],
    ),
    "a duplicate key": ("services:\n  a:\n    command: x\n    command: y\n", [":4:5:", "duplicate"]),
    "a tab": ("services:\n\ta: {}\n", [":2:", "tab"]),
    "an unterminated quote": ("services:\n  a:\n    command: echo 'x\n", [":3:", "services.a.command", "not closed"]),
    "an unterminated YAML quote": ('services:\n  a:\n    command: "echo\n', [":3:"]),
    "a comment-only command": ("services:\n  a:\n    command: '# nothing'\n", [":3:", "services.a.command"]),
    "a reserved name": ("services:\n  vigild: {command: x}\n", [":2:3: services.vigild", "reserved"]),
    "an unknown policy": ("services:\n  a:\n    command: x\n    on-failure: reboot\n", [":4:", "reboot", "shutdown"]),
    "an unknown user": ("services:\n  a: {command: x, user: no-such-user}\n", [":2:", "no-such-user"]),
    "a bad signal": ("services:\n  a: {command: x, stop-signal: SIGNOPE}\n", [":2:", "SIGNOPE"]),
    "no command": ("services:\n  a: {startup: enabled}\n", [":2:", "services.a", "command"]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_it_is_refused(vigild: Callable[..., Daemon], tmp_path: Path, what: str) -> None:
    text, words = BAD[what]
    marker = tmp_path / "started"
    layers = {
        "00-good.yaml": f"services: {{good: {{command: touch {marker}, startup: enabled}}}}",
        "10-bad.yaml": text,
        "20-bad-too.yaml": "services: {other: {command: x, umask: nonsense}}",
    }
    daemon = vigild(layers)
    assert daemon.wait() == 1
    assert str(daemon.layers / "10-bad.yaml") in daemon.stderr
    for word in (*words, "20-bad-too.yaml:1:", "services.other.umask"):
        assert word in daemon.stderr, daemon.stderr
    assert "Traceback" not in daemon.stderr
    assert not marker.exists()
    checked = vigild(layers, args=["--check"])
    assert checked.wait() == 1
    for word in words:
        assert word in checked.stderr + checked.stdout


def test_warnings_are_told_beside_the_problems(vigild: Callable[..., Daemon]) -> None:
    layers = "services:\n  a:\n    command: echo a # b\n    nice: x\n    nicer: 1\n"
    for args in ((), ("--check",)):
        daemon = vigild(layers, args=args)
        assert daemon.wait() == 1
        lines = daemon.stderr.splitlines()
        assert [line for line in lines if line.startswith("warning: ") and ":3:" in line and '"# b"' in line]
        assert [line for line in lines if not line.startswith("warning: ") and ":4:" in line and "nice" in line]
        assert [line for line in lines if line.startswith("warning: ") is not bool(args) and ":5:" in line]


def before_exec(script: str) -> tuple[str, ...]:
    """Prefix of vigild that changes its folder of layers first."""
    return ("/bin/sh", "-c", f'cd "${{VIGIL_SOCKET%/*}}"; {script}; exec "$@"', "sh")


def test_a_directory_instead_of_a_file_is_refused(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild({"10-good.yaml": "services: {}"}, prefix=before_exec("mkdir layers/x.yaml"))
    assert daemon.wait() == 1
    assert str(daemon.layers / "x.yaml") in daemon.stderr
    assert "directory" in daemon.stderr
    assert "Traceback" not in daemon.stderr


def test_a_layers_dir_that_is_a_file_is_refused(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(prefix=before_exec("rm -r layers; touch layers"))
    assert daemon.wait() == 1
    assert str(daemon.layers) in daemon.stderr


def test_a_plan_with_later_keys_loads_with_one_warning_that_names_them(vigild: Callable[..., Daemon]) -> None:
    layers = """
services:
  web: {command: sleep 1000, startup: enabled, watchdog: 5s, on-check-failure: {up: restart}}
checks:
  up: {tcp: {port: 80}}
"""
    daemon = vigild(layers)
    daemon.wait_state("web", "active")
    warnings = [line for line in daemon.stderr.splitlines() if " WARN " in line]
    assert len(warnings) == 1
    for word in ("watchdog", "on-check-failure", "checks"):
        assert word in warnings[0]


def test_a_live_daemon_on_the_socket_is_refused(vigild: Callable[..., Daemon]) -> None:
    first = vigild("services: {}").ready()
    second = vigild("services: {}", args=["--socket", str(first.socket)])
    assert second.wait() == 1
    assert str(first.socket) in second.stderr
    assert first.ready()


def test_a_stale_socket_is_replaced(vigild: Callable[..., Daemon]) -> None:
    import socket

    daemon = vigild("services: {}")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(daemon.folder / "stale"))
    second = vigild("services: {}", args=["--socket", str(daemon.folder / "stale")])
    second.socket = daemon.folder / "stale"
    assert second.ready()
