"""What PID 1 promises control, asked of the fake and the real one alike: so tests with the fake are worth something."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from tests.channel.worlds import gone, start
from vigil._native import lib
from vigil.shim import notify
from vigil.shim.messages import (
    NO_RUN,
    Exited,
    Gone,
    LogMode,
    Refused,
    Run,
    RunKind,
    RunPhase,
    Settings,
    Signalled,
    SpawnFailed,
    Started,
    Step,
    StopCause,
    Stopping,
)


def memfd(content):
    fd = os.memfd_create("test")
    os.write(fd, content)
    return fd


def test_the_first_control_is_welcomed_as_the_first(world):
    control = world.attach()
    welcome = control.welcome
    assert (welcome.pid, welcome.is_pid1, welcome.again, welcome.restarted) == (1, True, False, False)
    assert (welcome.control_restarts, welcome.program) == (0, "0.1.0")
    assert welcome.runs_max > 100
    assert control.snapshot.runs == ()
    assert set(control.snapshot.parked) <= {"log/vigild", "notify/board", "notify/wake"}


@pytest.mark.parametrize("code", [0, 7, 255])
def test_a_run_starts_exits_with_its_code_and_is_gone(world, code):
    control = world.attach()
    run = start(world, control, world.service(41))
    world.exit(control, run, code=code)
    last = gone(control, run)
    told = [message for message in control.messages if getattr(message, "token", None) == 41]
    assert [type(message) for message in told] == [Started, Exited, Gone]
    assert {message.run for message in told} == {run}
    assert told[0].pid > 1
    assert (told[1].exit_code, told[1].signal, told[1].asked, told[1].stopping) == (code, None, False, True)
    assert (last.escalated, last.asked, last.left_over) == (False, False, False)


def test_a_death_by_signal_says_which(world):
    control = world.attach()
    run = start(world, control, world.service(1))
    world.exit(control, run, signo=signal.SIGKILL)
    gone(control, run)
    exited = control.told(Exited)
    assert (exited.signal, exited.exit_code) == (9, 137)


def test_what_is_left_behind_is_stopped_and_killed(world):
    control = world.attach()
    run = start(world, control, world.service(1, kill_delay=0.3))
    world.exit(control, run, code=3, leaves=True)
    last = gone(control, run)
    assert last.escalated
    assert not last.asked
    assert control.told(Exited).exit_code == 3


def test_released_runs_are_forgotten_and_others_are_not(world):
    control = world.attach()
    runs = {}
    for token, name in ((1, "a"), (2, "b"), (3, "c")):
        runs[name] = start(world, control, world.service(token, name))
    for name in ("a", "b"):
        world.exit(control, runs[name], name, code=5)
        gone(control, runs[name])
    control.link.release(runs["a"])
    world.die(control)
    control = world.attach()
    assert control.welcome.again
    assert control.welcome.control_restarts == 1
    states = {state.run: state for state in control.snapshot.runs}
    assert set(states) == {runs["b"], runs["c"]}
    ended = states[runs["b"]]
    assert (ended.state, ended.token, ended.exited().exit_code) == (RunPhase.GONE, 2, 5)
    assert ended.released is False
    assert (states[runs["c"]].state, states[runs["c"]].pid > 1) == (RunPhase.RUNNING, True)
    control.link.release(runs["b"])
    world.die(control)
    assert [state.run for state in world.attach().snapshot.runs] == [runs["c"]]


def test_a_release_before_the_end_is_refused_and_so_is_one_of_nothing(world):
    control = world.attach()
    run = start(world, control, world.service(1))
    control.link.release(run)
    refused = control.told(Refused)
    assert (refused.run, refused.kind, refused.error) == (run, lib.VG_RELEASE, errno.EBUSY)
    control.messages.clear()
    for ask, kind in (
        (control.link.release, lib.VG_RELEASE),
        (control.link.stop, lib.VG_STOP),
        (lambda nobody: control.link.signal(nobody, 15), lib.VG_SIGNAL),
        (lambda nobody: control.link.update(nobody, order=(1, 1)), lib.VG_UPDATE),
    ):
        ask(Run(run.slot, run.generation + 1))
        refused = control.told(Refused)
        assert (refused.kind, refused.error) == (kind, errno.ESRCH)
        control.messages.clear()


def test_a_released_run_that_is_not_gone_yet_is_forgotten_when_it_is(world):
    control = world.attach()
    keep = start(world, control, world.service(1, "keep"))
    run = start(world, control, world.service(2, "web", kill_delay=0.3))
    if world.real:
        world.exit(control, run, leaves=True)
        control.told(Exited, 2)
        control.link.release(run)
    else:
        with world.peer.table() as pid1:
            pid1.exit(run)
        control.told(Exited, 2)
        control.link.release(run)
        world.peer.wait(lambda pid1: pid1.calls[-1] == ("release", run))
        with world.peer.table() as pid1:
            pid1.go(run)
    gone(control, run)
    world.die(control)
    assert [state.run for state in world.attach().snapshot.runs] == [keep]


def test_a_stop_ends_with_the_stop_signal_and_says_that_it_was_asked_for(world):
    control = world.attach()
    run = start(world, control, world.service(1, stop_signal=int(signal.SIGINT)))
    control.link.stop(run)
    if not world.real:
        control.told(Stopping)
        world.exit(control, run, signo=signal.SIGINT)
    last = gone(control, run)
    assert control.told(Stopping).cause is StopCause.ASKED
    assert control.told(Exited).signal == signal.SIGINT
    assert control.told(Exited).asked
    assert last.asked
    assert not last.escalated


def test_a_stop_by_token_needs_no_answer_to_the_spawn(world):
    control = world.attach()
    control.link.spawn(world.service(1))
    control.link.stop(NO_RUN, 1)
    stopping = control.told(Stopping)
    assert (stopping.token, stopping.cause) == (1, StopCause.ASKED)
    if not world.real:
        with world.peer.table() as pid1:
            pid1.exit(stopping.run, signo=signal.SIGTERM)
            pid1.go(stopping.run)
    assert gone(control, stopping.run).asked
    assert control.told(Exited).asked
    control.link.stop(NO_RUN, 77)
    refused = control.told(Refused)
    assert (refused.kind, refused.error, refused.token) == (lib.VG_STOP, errno.ESRCH, 77)


def test_a_command_that_cannot_be_executed_is_kept_until_it_is_released(world):
    control = world.attach()
    keep = start(world, control, world.service(1, "keep"))
    control.link.spawn(world.service(2, argv=["/nope/command"]))
    if not world.real:
        world.peer.wait(lambda pid1: len(pid1.runs) == 2)
        with world.peer.table() as pid1:
            pid1.fail("web", Step.EXEC, errno.ENOENT)
    failed = control.told(SpawnFailed)
    assert (failed.token, failed.step, failed.error, failed.exit_code) == (2, Step.EXEC, errno.ENOENT, 127)
    assert failed.run != NO_RUN
    world.die(control)
    control = world.attach()
    (state,) = [state for state in control.snapshot.runs if state.run != keep]
    assert (state.run, state.token, state.state) == (failed.run, 2, RunPhase.FAILED)
    assert state.failed() == failed
    control.link.release(state.run)
    world.die(control)
    assert [state.run for state in world.attach().snapshot.runs] == [keep]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"ctty": True}, errno.ENOSYS),
        ({"log_mode": LogMode.ENABLED, "log": "never-parked"}, errno.ENOENT),
        ({"log_mode": LogMode.ENABLED}, errno.ENOENT),
        ({"argv": []}, errno.EINVAL),
    ],
)
def test_a_spawn_that_cannot_be_is_refused_with_its_token(world, wrong, error):
    control = world.attach()
    control.link.spawn(world.service(77, **wrong))
    refused = control.told(Refused)
    assert (refused.token, refused.kind, refused.error, refused.run) == (77, lib.VG_SPAWN, error, NO_RUN)


def test_what_is_parked_comes_back_and_a_used_name_swaps(world):
    control = world.attach()
    start(world, control, world.service(1, "keep"))
    for name, content in (("a", b"first"), ("b", b"bee"), ("a", b"second"), ("listener/unix", b"x"), ("gone", b"y")):
        fd = memfd(content)
        control.link.park(name, fd)
        os.close(fd)
    control.link.unpark("gone")
    control.link.unpark("never there")
    refused = control.told(Refused)
    assert refused.kind == lib.VG_UNPARK
    world.die(control)
    parked = world.attach().snapshot.parked
    own = ("log/", "notify/")
    assert {name: os.pread(fd, 100, 0) for name, fd in parked.items() if not name.startswith(own)} == {
        "a": b"second",
        "b": b"bee",
        "listener/unix": b"x",
    }


def test_the_next_control_finds_everything_that_was_under_way(world):
    control = world.attach()
    stopping = start(world, control, world.service(1, "stopping", kill_delay=None, note=b"n1"))
    ended = start(world, control, world.service(2, "ended", note=b"n2"))
    probe = start(world, control, world.service(3, "probe", kind=RunKind.PROBE))
    mayfly = start(world, control, world.service(4, "mayfly", kind=RunKind.PROBE, ephemeral=True))
    world.exit(control, ended, "ended", code=9)
    gone(control, ended)
    if world.real:
        world.do("stopping", "trap '' TERM; echo > " + str(world.folder / "trapped"))
        world.daemon.until((world.folder / "trapped").exists, "the trap")
    control.link.stop(stopping)
    control.told(Stopping, 1)
    control.link.spawn(world.service(5, "in-flight", note=b"n5" * 128))
    world.die(control)
    control = world.attach()
    states = {state.token: state for state in control.snapshot.runs}
    assert set(states) == {1, 2, 3, 4, 5}
    assert (states[1].run, states[1].stopping, states[1].asked, states[1].note) == (stopping, True, True, b"n1")
    assert (states[2].run, states[2].state, states[2].exited().exit_code) == (ended, RunPhase.GONE, 9)
    assert (states[3].run, states[3].state, states[3].kind) == (probe, RunPhase.RUNNING, RunKind.PROBE)
    assert (states[4].run, states[4].ephemeral) == (mayfly, True)
    assert states[4].stopping  # its control is gone
    assert (states[5].note, states[5].kind) == (b"n5" * 128, RunKind.SERVICE)
    world.started(5)
    if states[5].state is RunPhase.STARTING:
        control.told(Started, 5)


def test_all_that_a_dead_control_had_sent_is_done_before_the_next_attaches(world):
    control = world.attach()
    run = start(world, control, world.service(1))
    fd = memfd(b"kept")
    for number in range(60):
        control.link.park(f"p{number}", fd)
    control.link.spawn(world.service(2, "late"))
    control.link.unpark("p0")
    control.link.stop(run)
    os.close(fd)
    world.die(control)  # nobody has read an answer
    control = world.attach()
    assert {name for name in control.snapshot.parked if name.startswith("p")} == {f"p{n}" for n in range(1, 60)}
    states = {state.token: state for state in control.snapshot.runs}
    assert states[1].stopping
    assert 2 in states


def test_many_spawns_at_once_are_answered_each(world):
    control = world.attach()
    count = 150
    before = len(os.listdir("/proc/self/fd"))
    for token in range(1, count + 1):
        control.link.spawn(world.service(token, f"s{token}", argv=["/bin/sh", "-c", "exit 4"], env={}))
    if not world.real:
        for token in range(1, count + 1):
            world.started(token)
            with world.peer.table() as pid1:
                pid1.end(f"s{token}", 4)
    control.until(lambda: sum(isinstance(message, Gone) for message in control.messages) == count, "all Gone")
    exits = [message for message in control.messages if isinstance(message, Exited)]
    assert sorted(message.token for message in exits) == list(range(1, count + 1))
    assert {message.exit_code for message in exits} == {4}
    for message in exits:
        control.link.release(message.run)
    control.until(lambda: control.link.idle)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_signal_to_vigild_is_told_and_forwarded_to_those_who_want_it(world):
    control = world.attach()
    wants = start(world, control, world.service(1, "wants", forward=frozenset({int(signal.SIGHUP)})))
    start(world, control, world.service(2, "not"))
    if world.real:
        world.do("wants", "trap 'exit 9' HUP; echo ready > " + str(world.folder / "trapped"))
        world.do("not", "trap 'exit 1' HUP; echo ready > " + str(world.folder / "trapped2"))
        world.daemon.until(
            lambda: (world.folder / "trapped").exists() and (world.folder / "trapped2").exists(), "traps"
        )
    world.signal(signal.SIGHUP)
    assert control.told(Signalled).numbers == {signal.SIGHUP}
    if world.real:
        assert control.told(Exited).run == wants
        assert control.told(Exited).exit_code == 9
    else:
        assert [name for name in ("wants", "not") if world.peer.pid1.find(name).signals] == ["wants"]


def test_a_shutdown_stops_all_starts_nothing_more_and_the_first_code_stays(world):
    control = world.attach()
    runs = [start(world, control, world.service(token, f"s{token}", kill_delay=2.0)) for token in (1, 2)]
    if world.real:
        world.do("s1", "trap '' TERM; echo > " + str(world.folder / "trapped"))
        world.daemon.until((world.folder / "trapped").exists, "the trap")
    control.link.shutdown(7, False)
    control.link.shutdown(3, False)
    control.link.spawn(world.service(9, "late"))
    failed = control.told(SpawnFailed)
    assert (failed.token, failed.step, failed.run) == (9, Step.STOPPING, NO_RUN)
    for token, run in enumerate(runs, 1):
        assert control.told(Stopping, token).cause is StopCause.WHOLE
        if not world.real:
            world.exit(control, run, f"s{token}", signo=signal.SIGTERM)
    for run in runs:
        assert gone(control, run).asked
    if world.real:  # then control is told to end; a script has no handler for SIGTERM
        assert control.told(Gone, 1).escalated
    assert world.ends() == 7


def test_a_ping_is_answered_by_the_link_itself(world):
    control = world.attach(Settings(watchdog=2.0))
    start(world, control, world.service(1, "keep"))
    if world.real:  # longer than the watchdog allows without an answer
        control.turn(4.0)
        assert control.lost == []
    else:
        world.peer.ping(5)
        control.until(lambda: world.peer.pongs == [5])


@pytest.mark.pid1
def test_a_control_that_answers_no_ping_is_replaced(real):
    control = real.attach(Settings(watchdog=1.0))
    run = start(real, control, real.service(1, "keep"))
    begun = time.monotonic()
    again = real.attach()
    assert 1.0 <= time.monotonic() - begun < 10
    assert [state.run for state in again.snapshot.runs] == [run]
    control.until(lambda: control.lost)


@pytest.mark.pid1
def test_garbage_costs_control_its_life_and_services_nothing(real):
    control = real.attach()
    run = start(real, control, real.service(1, "keep"))
    control.link._socket.send(b"\x10\0\0\0\xff\xff\0\0" + bytes(8))
    control.until(lambda: control.lost)
    again = real.attach()
    assert [(state.run, state.state) for state in again.snapshot.runs] == [(run, RunPhase.RUNNING)]


def test_what_a_run_says_is_on_the_board_for_this_control_and_the_next(world):
    control = world.attach()
    board = world.board(control)
    fd, address = notify.make(None, None)
    run = start(world, control, world.service(1, "web", notify=fd, env={**os.environ, "NOTIFY_SOCKET": address}))
    os.close(fd)
    control.until(lambda: board.read(run), "logger")
    world.notify(run, "web", "READY=1\nSTATUS=up")
    notice = control.until(lambda: next(board.changed(), None), "the notification")
    assert (notice.run, notice.ready is not None, notice.status, notice.taken) == (run, True, "up", 1)
    control.until(lambda: board.drained_ns() >= notice.ready.monotonic_ns, "logger to look again")
    world.die(control)
    control = world.attach()
    again = world.board(control)
    assert again.read(run) == notice
    assert list(again.changed()) == [notice], "it is not known what the last control did with it"
    control.link.stop(run)
    if not world.real:
        world.exit(control, run, signo=signal.SIGTERM)
    gone(control, run)
    second = start(world, control, world.service(2, "web"))
    assert again.read(second) is None
    board.close()
    again.close()
