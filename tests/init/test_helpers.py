"""control and logger are started, watched, and started again; services notice nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.init.pid1 import Pid1, m, wire


def test_a_control_that_fails_before_it_was_ready_ends_vigild_with_its_code(pid1: Callable[..., Pid1]) -> None:
    for number, code in ((signal.SIGKILL, 1), (signal.SIGTERM, 1)):
        daemon = pid1()
        daemon.kill_control(daemon.control(), number)
        assert daemon.wait() == code


def test_the_output_and_code_of_a_control_that_ends_come_through(pid1: Callable[..., Pid1]) -> None:
    script = "#!/bin/sh\necho out; echo err >&2; exit 3\n"
    daemon = pid1(prefix=("/bin/sh", "-c", (f"printf '{script}' > $VIGIL_PYTHON.own; chmod 755 $VIGIL_PYTHON.own;"
                          ' VIGIL_PYTHON=$VIGIL_PYTHON.own exec "$@"'), "sh"))  # fmt: skip
    assert daemon.wait() == 3
    assert (daemon.stdout, daemon.stderr) == ("out\n", "err\n")


def test_a_control_that_was_ready_is_replaced_after_100_ms_for_ever(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    started = control.spawn("sleep", "1000")
    for _ in range(10):
        began = time.monotonic()
        daemon.kill_control(control)
        control = daemon.attached()
        assert time.monotonic() - began >= 0.09
        assert [state.pid for state in control.runs] == [started.pid]


def test_only_lives_that_were_never_ready_double_the_wait(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    control.spawn("sleep", "1000")
    daemon.kill_control(control)
    gaps = []
    for _ in range(4):
        control = daemon.control()
        began = time.monotonic()
        daemon.kill_control(control)
        control = daemon.control()
        gaps.append(time.monotonic() - began)
        daemon.kill_control(control)
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.4, "two lives later the wait is four times as long"


def test_a_hung_control_is_found_and_replaced(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached(m.Settings(watchdog=1.0))
    started = control.spawn("sleep", "1000")
    second = daemon.attached()  # the first one answers no PING, since nobody receives it
    assert second.runs[0].pid == started.pid
    assert daemon.err
    daemon.err.wait_for("control is hung")


def test_a_logger_that_is_killed_or_hung_is_replaced(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    for signo in (signal.SIGKILL, signal.SIGSTOP):
        logger = daemon.only("vigil-logger")
        os.kill(daemon.host_pid(logger.pid), signo)
        daemon.until(
            lambda old=logger: [p.pid for p in daemon.named("vigil-logger")] not in ([], [old.pid]), "another logger"
        )
    assert control.end(control.sh("exit 5").run).exit_code == 5


def test_a_freeze_of_everything_is_no_hang(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached(m.Settings(watchdog=3.0))
    control.spawn("sleep", "1000")
    pids = [daemon.host_pid(p.pid) for p in daemon.processes().values()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert control.silent(m.Gone, 0.5)  # answers PINGs
    assert daemon.named("vigil-logger")
    assert "hung" not in daemon.stderr


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_each_ending_signal_ends_with_0(pid1: Callable[..., Pid1], signo: int) -> None:
    daemon = pid1()
    control = daemon.attached()
    control.spawn("sleep", "1000")
    daemon.signal(signo)
    assert daemon.wait() == 0


def test_no_signal_but_those_ends_vigild(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    for signo in range(1, 65):
        if signo in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, 32, 33):
            continue
        if signo in (
            signal.SIGSEGV,
            signal.SIGBUS,
            signal.SIGFPE,
            signal.SIGILL,
            signal.SIGABRT,
            signal.SIGTRAP,
            signal.SIGSYS,
        ):
            continue  # from an ancestor namespace these kill, since a fault of its own must end it with a core
        daemon.signal(signo)
    assert control.end(control.sh("exit 6").run).exit_code == 6


def test_a_restart_keeps_pid_and_parked_descriptors_and_starts_afresh(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    first = daemon.attached()
    read, write = os.pipe()
    first.send(wire.park("listener/unix"), [read])
    first.send(wire.park("log/web"), [write])
    first.spawn("sleep", "1000")
    first.send(wire.shutdown(0, True))
    second = daemon.attached()
    assert second.welcome.restarted
    assert (second.welcome.control_restarts, second.welcome.logger_restarts) == (0, 0), "it was meant to"
    assert second.runs == ()
    assert sorted(second.parked) == ["listener/unix", "log/vigild", "notify/board", "notify/wake"]
    assert second.end(second.sh("exit 8").run).exit_code == 8
    second.send(wire.shutdown(0, True))
    third = daemon.attached()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert third.welcome.pid == 1
    os.close(read)
    os.close(write)


def test_not_pid_1_it_is_subreaper_and_leaves_nothing_behind_when_it_is_killed(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1(pid1=False)
    control = daemon.attached()
    started = control.sh("trap '' TERM; setsid sleep 1000 & while :; do sleep 0.1; done", kill_delay=0.2)
    daemon.until(lambda: len(daemon.named("sleep")) >= 1, "the tree")
    tree = [p.pid for p in daemon.processes().values() if p.pid != daemon.pid]
    os.kill(daemon.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while [pid for pid in (*tree, started.keeper) if alive(pid)]:
        assert time.monotonic() < end, "something is left"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether this process runs."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@pytest.mark.plain  # a minute, which sanitizers have nothing to find in
def test_a_control_that_says_nothing_is_replaced_after_a_minute(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    first = daemon.attached()
    started = first.spawn("sleep", "1000")
    daemon.kill_control(first)
    silent = daemon.control()
    began = time.monotonic()
    third = daemon.control(timeout=150)
    assert time.monotonic() - began >= 59
    assert third.attach().runs[0].pid == started.pid
    assert silent.pid != third.pid
    assert daemon.err
    daemon.err.wait_for("no HELLO for 60 s")
