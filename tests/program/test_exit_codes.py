"""vigild exits with exactly the code that decided the shutdown."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.daemon import Daemon


def plan(command: str, **keys: str) -> str:
    """One enabled service beside one that only sleeps."""
    more = "".join(f"    {key.replace('_', '-')}: {value}\n" for key, value in keys.items())
    return (
        "services:\n  bystander: {command: sleep 1000, startup: enabled}\n"
        f"  web:\n    command: {command}\n    startup: enabled\n{more}"
    )


@pytest.mark.parametrize(
    ("command", "policy", "code"),
    [
        ("/bin/sh -c 'exit 0'", {"on_success": "shutdown"}, 0),
        ("/bin/sh -c 'exit 7'", {"on_failure": "shutdown"}, 7),
        ("/bin/sh -c 'exit 255'", {"on_failure": "shutdown"}, 255),
        ("/bin/sh -c 'kill -KILL $$'", {"on_failure": "shutdown"}, 137),
        ("/bin/sh -c 'ulimit -c 0; kill -SEGV $$'", {"on_failure": "shutdown"}, 139),
        ("/no/such/command", {"on_failure": "shutdown"}, 127),
        ("no-such-command", {"on_failure": "shutdown"}, 127),
        ("/etc/passwd", {"on_failure": "shutdown"}, 126),
        ("/bin/sh -c 'exit 0'", {"on_success": "failure-shutdown"}, 10),
        ("/bin/sh -c 'exit 7'", {"on_failure": "failure-shutdown"}, 7),
        ("/bin/sh -c 'exit 7'", {"on_failure": "success-shutdown"}, 0),
        ("/bin/sh -c 'exit 7'", {"on_success": "shutdown", "success_exit_codes": "[0, 7]"}, 7),
    ],
)  # fmt: skip
def test_the_code_of_the_service_that_decided(
    vigild: Callable[..., Daemon], command: str, policy: dict[str, str], code: int
) -> None:
    assert vigild(plan(command, **policy)).wait() == code


def test_the_first_shutdown_decides(vigild: Callable[..., Daemon]) -> None:
    layers = """
services:
  late:
    command: [/bin/sh, -c, "trap 'exit 9' TERM; while :; do sleep 0.05; done"]
    startup: enabled
    on-failure: shutdown
  first:
    command: [/bin/sh, -c, "sleep 0.3; exit 7"]
    startup: enabled
    after: [late]
    on-failure: shutdown
"""
    assert vigild(layers).wait() == 7


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_with_0(vigild: Callable[..., Daemon], signo: int) -> None:
    daemon = vigild(plan("sleep 1000"))
    daemon.wait_state("web", "active")
    daemon.signal(signo)
    assert daemon.wait() == 0


def test_a_stop_over_the_api_ends_with_0(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plan("sleep 1000")).ready()
    assert daemon.cli("vigild", "stop").stdout == "Daemon stop initiated.\n"
    assert daemon.wait() == 0
    assert not daemon.socket.exists()


def test_a_sigterm_right_after_exec_starts_nothing(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild("services: {web: {command: echo started, startup: enabled}}")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert "started" not in daemon.stdout


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["--help"], 0, "Usage:", ""),
        (["--version"], 0, "vigild 0.1.0\n", ""),
        (["--no-such-flag"], 2, "", "--no-such-flag"),
        (["--layer-dir", "/x"], 2, "", "--layers-dir"),
    ],
)
def test_help_and_usage_errors(vigild: Callable[..., Daemon], words: list[str], code: int, out: str, err: str) -> None:
    daemon = vigild(args=words)
    assert daemon.wait() == code
    assert out in daemon.stdout
    assert err in daemon.stderr
    assert "Traceback" not in daemon.stderr
