"""Exit statuses: exact, once, whoever is there to hear them."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.init.pid1 import Pid1, m, wire


@pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 128, 255])
def test_an_exit_code_arrives_as_it_is(pid1: Callable[..., Pid1], code: int) -> None:
    control = pid1().attached()
    run = control.sh(f"exit {code}").run
    exited = control.end(run)
    assert (exited.signal, exited.exit_code) == (None, code)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "ABRT"])
def test_a_death_by_signal_arrives_as_that_signal(pid1: Callable[..., Pid1], name: str) -> None:
    control = pid1().attached()
    exited = control.end(control.sh(f"ulimit -c 0; kill -{name} $$").run)
    number = int(getattr(signal, "SIG" + name))
    assert (exited.signal, exited.exit_code) == (number, 128 + number)


def test_a_command_that_is_not_there_fails_at_exec(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    for argv, step, code in (
        (("/nope",), m.Step.EXEC, 127),
        (("nope-nowhere",), m.Step.EXEC, 127),
        (("/etc/passwd",), m.Step.EXEC, 126),
        (("/",), m.Step.EXEC, 126),
    ):
        spec = control.ask(control.spec(*argv))
        failed = control.expect(m.SpawnFailed)
        assert (failed.token, failed.step, failed.exit_code) == (spec.token, step, code)
        control.send(wire.release(failed.run))
    spec = control.ask(control.spec("/bin/true", cwd="/nowhere"))
    assert control.expect(m.SpawnFailed).step is m.Step.CHDIR


def test_an_exit_is_kept_until_it_is_released(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    first = daemon.attached()
    run = first.sh("exit 7").run
    first.exited(run)
    daemon.kill_control(first)
    second = daemon.attached()
    (state,) = second.runs
    assert (state.run, state.exit_code) == (run, 7)
    second.send(wire.release(run))
    daemon.kill_control(second)
    assert daemon.attached().runs == ()
