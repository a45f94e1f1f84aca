"""Stop means empty: nothing of a run is left, however it forks, changes session or ignores signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.init.pid1 import PYTHON, Control, Pid1, m, wire

TIMES = 100
IMPORTS = "import os, signal, sys, time\n"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"

# Each prints a line when it stands, since a stop before that would meet another tree.
DAEMON = (
    IMPORTS
    + DEAF
    + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"stands\\n")
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"""
)
POLITE_LEADER = (
    IMPORTS
    + """
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"stands\\n")
    time.sleep(1000)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(1000)
"""
)
GENERATIONS = (
    IMPORTS
    + DEAF
    + """
ready, write = os.pipe()
def grow(depth):
    if depth == 3:
        os.write(write, b".")
        time.sleep(1000)
    for _ in range((8, 4, 5)[depth]):
        if os.fork() == 0:
            grow(depth + 1)
    os.write(write, b".")
    time.sleep(1000)
if os.fork() == 0:
    grow(0)
count = 0
while count < 1 + 8 + 32 + 160:
    count += len(os.read(ready, 4096))
os.write(1, b"stands\\n")
time.sleep(1000)
"""
)
REPARENTED = (
    IMPORTS
    + """
if os.fork() == 0:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        os.write(1, b"stands\\n")
        time.sleep(1000)
    time.sleep(1000)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(1000)
"""
)
TREES = {
    "a deaf daemon in a session of its own": DAEMON,
    "a deaf child of a polite leader": POLITE_LEADER,
    "200 descendants three generations deep": GENERATIONS,
    "a child reparented during the stop": REPARENTED,
}


def stands(control: Control, script: str, **more: object) -> m.Run:
    """Start a tree, and return once it stands."""
    read, write = os.pipe()
    try:
        run = control.spawn(PYTHON, "-IS", "-c", script, fds=(None, write, None), **more).run
        os.close(write)
        write = -1
        assert os.read(read, 100) == b"stands\n"
        return run
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


def others(daemon: Pid1, control: Control) -> list[str]:
    """Processes that are neither vigild nor its helpers."""
    return [p.comm for p in daemon.processes().values() if p.pid not in (1, control.pid) and p.comm != "vigil-logger"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tree", TREES)
def test_a_stop_leaves_nothing_of(pid1: Callable[..., Pid1], tree: str) -> None:
    daemon = pid1()
    control = daemon.attached()
    for _ in range(TIMES):
        run = stands(control, TREES[tree], kill_delay=0.02)
        control.stop(run)
        assert others(daemon, control) == []


def test_a_fork_bomb_of_sessions_under_an_unprivileged_user_is_emptied(pid1: Callable[..., Pid1], root: None) -> None:
    bomb = (
        IMPORTS
        + """
for s in range(1, 32):
    if s not in (9, 17, 19): signal.signal(s, signal.SIG_IGN)
told = False
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            told = True
    except BlockingIOError:
        if not told:
            os.write(1, b"stands\\n")
            told = True
"""
    )
    daemon = pid1()
    control = daemon.attached()
    run = stands(control, bomb, kill_delay=0.01, uid=61234, gid=61234, groups=(), limits=((6, 500, 500),))
    began = time.monotonic()
    control.stop(run)
    assert others(daemon, control) == []
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("tree", TREES)
def test_a_run_whose_keeper_was_killed_is_ended_whole(pid1: Callable[..., Pid1], tree: str) -> None:
    daemon = pid1()
    control = daemon.attached()
    bystander = control.spawn("sleep", "1000", name="bystander")
    for _ in range(10):
        run = stands(control, TREES[tree], kill_delay=1000)
        keeper = next(p for p in daemon.named("vigil-keeper") if p.pid != bystander.keeper)
        os.kill(daemon.host_pid(keeper.pid), signal.SIGKILL)
        exited = control.exited(run)
        assert exited.keeper_lost
        assert exited.signal == signal.SIGKILL
        control.gone(run)
        control.send(wire.release(run))
        assert sorted(others(daemon, control)) == ["sleep", "vigil-keeper"]
    control.stop(bystander.run)


def test_a_stopped_keeper_does_not_hold_up_a_stop(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    started = control.sh("trap '' TERM; while :; do sleep 1; done", kill_delay=0.1)
    os.kill(daemon.host_pid(started.keeper), signal.SIGSTOP)
    assert control.stop(started.run).keeper_lost
    assert others(daemon, control) == []


def test_the_kill_delay_is_waited_for_and_then_kept(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    run = stands(control, IMPORTS + DEAF + "os.write(1, b'stands\\n')\ntime.sleep(1000)", kill_delay=0.5)
    began = time.monotonic()
    exited = control.stop(run)
    assert time.monotonic() - began >= 0.5
    assert exited.escalated
    assert exited.signal == signal.SIGKILL


def test_a_stopped_process_gets_its_stop_signal(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    run = control.sh("kill -STOP $$; exit 9", kill_delay=None).run
    assert control.stop(run).signal == signal.SIGTERM


def test_the_stop_signal_is_the_one_asked_for(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    read, write = os.pipe()
    run = control.spawn(
        PYTHON, "-IS", "-c",
        IMPORTS + "signal.signal(signal.SIGUSR1, lambda *_: os._exit(42))\nos.write(1, b'x')\ntime.sleep(1000)",
        fds=(None, write, None), stop_signal=signal.SIGUSR1, kill_delay=None,
    ).run  # fmt: skip
    os.read(read, 1)
    assert control.stop(run).exit_code == 42
    os.close(read)
    os.close(write)


def test_orphans_that_are_nobodys_are_reaped(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    storm = (
        IMPORTS
        + """
for _ in range(3000):
    while True:
        try:
            pid = os.fork()
            break
        except BlockingIOError:
            time.sleep(0.01)
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
os.write(1, b"stands\\n")
time.sleep(1000)
"""
    )
    run = stands(control, storm)
    daemon.until(lambda: not [p for p in daemon.processes().values() if p.state == "Z"], "no zombie")
    control.stop(run)


def whole_stop(daemon: Pid1, control: Control) -> list[int]:
    """Tokens in the order in which they were gone, after SIGTERM."""
    daemon.signal(signal.SIGTERM)
    order = []
    while True:
        try:
            message = control.receive()
        except (ConnectionError, TimeoutError):
            return order
        if isinstance(message, m.Gone):
            order.append(message.token)


def test_a_whole_stop_goes_by_rank_within_each_component(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    tokens = {}
    for component in (1, 2):
        for rank in (0, 1, 2):
            # The higher the rank, the slower: only order can make the lowest come last.
            run = control.sh(
                f"trap 'sleep 0.{rank}; exit 0' TERM; while :; do sleep 0.02; done", component=component, rank=rank
            )
            tokens[run.token] = (component, rank)
    time_up = time.monotonic() + 20
    order = [tokens[token] for token in whole_stop(daemon, control)]
    assert time.monotonic() < time_up
    for component in (1, 2):
        assert [rank for c, rank in order if c == component] == [2, 1, 0]
    assert daemon.wait() == 0


def test_a_stop_goes_on_when_control_dies(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    run = stands(control, DAEMON, kill_delay=0.5)
    control.send(wire.stop(run))
    control.expect(m.Stopping)
    daemon.kill_control(control)
    second = daemon.attached()
    if second.runs[0].state is not m.RunPhase.GONE:
        second.gone(run)
    assert others(daemon, second) == []


def test_sigterm_with_control_dead_stops_everything(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    for i in range(5):
        stands(control, DAEMON, kill_delay=0.1, rank=i)
    daemon.kill_control(control)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_sigterm_before_control_attached_ends_with_0(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    daemon.control()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_a_second_sigterm_hurries_and_a_third_kills(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    for rank in range(3):
        stands(control, DAEMON, kill_delay=None, component=1, rank=rank)
    daemon.signal(signal.SIGTERM)
    control.expect(m.Stopping)
    assert control.silent(m.Stopping, 0.3)
    daemon.signal(signal.SIGTERM)
    control.expect(m.Stopping)
    control.expect(m.Stopping)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_the_budget_of_a_stop_is_kept(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached(m.Settings(stop_budget=2.0))
    for rank in range(3):
        stands(control, DAEMON, kill_delay=None, component=1, rank=rank)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    control.expect(m.Stopping)
    control.expect(m.Stopping)
    assert time.monotonic() - began >= 1.4
    assert daemon.wait() == 0
    assert 1.9 <= time.monotonic() - began < 20


def test_shutdown_ends_with_its_code_and_the_first_decides(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    control.spawn("sleep", "1000")
    control.send(wire.shutdown(7, False))
    control.send(wire.shutdown(9, False))
    assert daemon.wait() == 7


def test_nothing_is_started_during_a_whole_stop(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    stands(control, DAEMON, kill_delay=0.5)
    control.send(wire.shutdown(0, False))
    control.ask(control.spec("/bin/true"))
    failed = control.expect(m.SpawnFailed)
    assert (failed.step, failed.run) == (m.Step.STOPPING, m.NO_RUN)
    assert daemon.wait() == 0


def test_300_runs_start_and_stop_in_order(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    tokens = {}
    for rank in range(300):
        tokens[control.spawn("sleep", "1000", rank=rank, component=1, name=f"s{rank}").token] = rank
    assert [tokens[token] for token in whole_stop(daemon, control)] == list(range(299, -1, -1))
    assert daemon.wait() == 0


def test_word_of_every_end_is_given_before_control_is_told_to_end(pid1: Callable[..., Pid1]) -> None:
    """A control that reads late: its socket is full of the ends of 1,000 runs, and all of them still come."""
    daemon = pid1()
    control = daemon.attached()
    tokens = {control.spawn("sleep", "1000", component=i).token for i in range(1000)}
    daemon.signal(signal.SIGTERM)
    daemon.until(lambda: not daemon.named("sleep"), "the end of all")
    gone = set()
    while True:
        try:
            message = control.receive()
        except ConnectionError:
            break
        if isinstance(message, m.Gone):
            gone.add(message.token)
    assert gone == tokens
    assert daemon.wait() == 0
