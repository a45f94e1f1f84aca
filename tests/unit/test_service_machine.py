"""The service machine by itself: states, events, effects."""

from __future__ import annotations

import errno
import itertools
from typing import Any

import msgspec
import pytest

from vigil._native import lib
from vigil.model.states import ChangeStatus, ServiceState
from vigil.plan.types import Policy, Service
from vigil.service.events import (
    Around,
    Attached,
    Cascade,
    Closing,
    Command,
    Due,
    Effect,
    Emptied,
    Event,
    Go,
    Hold,
    Release,
    Say,
    Sent,
    Shutdown,
    Signal,
    Spawn,
    Stop,
    StopLater,
    StopNow,
    Wait,
    WorkBegan,
    WorkEnded,
)
from vigil.service.machine import step
from vigil.service.state import Next, Phase, State, Work, WorkKind, deadline, shown
from vigil.shim.messages import (
    NO_RUN,
    Exited,
    Refused,
    Run,
    RunPhase,
    RunState,
    SpawnFailed,
    Started,
    Step,
    StopCause,
    Stopping,
)

NOW = 5_000 * 10**9
RUN = Run(3, 8)
START = Work(1, WorkKind.START, "uid 0")
STOP = Work(2, WorkKind.STOP, "uid 0")
RESTART = Work(3, WorkKind.RESTART, "uid 0")


class Machine:
    """A machine with a state, and the effects of its last step."""

    def __init__(self, state: State | None = None, **keys: Any) -> None:
        self.service = Service(**{"name": "web", "command": ("/bin/web",), **keys})
        self.state = state or State()
        self.now = NOW
        self.closing = ""
        self.effects: tuple[Effect, ...] = ()

    def give(self, *events: Event) -> Machine:
        self.effects = ()
        for event in events:
            around = Around(self.service, self.now, self.now + 10**18, self.closing)
            self.state, effects = step(self.state, event, around)
            self.effects += effects
        return self

    def acts(self) -> list[Effect]:
        return [effect for effect in self.effects if not isinstance(effect, (Say, WorkBegan))]

    @property
    def phase(self) -> Phase:
        return self.state.phase


def started(token: int = 1, run: Run = RUN) -> Started:
    return Started(run=run, token=token, pid=77, keeper=76, started_real_ns=5)


def exited(code: int = 0, token: int = 1, flags: int = 0) -> Exited:
    return Exited(run=RUN, token=token, code=1, status=code, exited_real_ns=6, flags=flags)


def active(work: Work | None = None, **keys: Any) -> Machine:
    """Active for two seconds; ``work`` is the start that did it."""
    machine = Machine(**keys).give(Command(work or START), Go(1), started())
    machine.now += 2 * 10**9
    machine.give(Due())
    return machine


# --- a whole life ---


def test_a_start_goes_through_waiting_and_spawning_to_active_and_ends_after_a_second() -> None:
    machine = Machine().give(Command(START))
    assert (machine.phase, shown(machine.state), machine.acts()) == (Phase.WAITING, ServiceState.STARTING, [])
    machine.give(Go(1))
    assert (machine.phase, machine.acts(), machine.state.token) == (Phase.SPAWNING, [Spawn()], 1)
    machine.give(started())
    assert (machine.phase, machine.state.pid, machine.state.run) == (Phase.ACTIVE, 77, (3, 8))
    assert deadline(machine.state, oneshot=False) == NOW + 10**9
    machine.now += 10**9 - 1
    assert machine.give(Due()).acts() == []
    machine.now += 1
    begun = msgspec.structs.replace(START, begun=True)
    assert machine.give(Due()).acts() == [WorkEnded(begun, ChangeStatus.DONE)]
    assert deadline(machine.state, oneshot=False) is None


def test_a_stop_waits_for_its_turn_then_sends_stop_and_releases_when_all_is_gone() -> None:
    machine = active().give(Command(STOP))
    assert (machine.phase, machine.acts()) == (Phase.STOP_WAIT, [])
    machine.give(StopLater(("other",)))
    assert (machine.phase, machine.state.waiting_for) == (Phase.STOP_WAIT, ("other",))
    assert machine.give(StopNow()).acts() == [Stop(RUN)]
    assert (machine.phase, machine.state.waiting_for) == (Phase.STOPPING, ())
    assert machine.give(exited(0, flags=lib.VG_IS_ASKED)).acts() == []
    assert machine.give(Emptied(RUN, ("bye",))).acts() == [Release(RUN), WorkEnded(STOP, ChangeStatus.DONE)]
    assert machine.phase is Phase.INACTIVE
    assert machine.state.exit is not None
    assert machine.state.exit.output == ("bye",)


def test_the_state_survives_its_way_through_the_journal_at_every_step() -> None:
    machine = Machine(restart_limit=3)
    events: list[Event] = [
        Command(START),
        Command(RESTART),
        Wait(("db",), "db"),
        Go(1, ("x",)),
        started(),
        exited(9),
        Emptied(RUN, ("a",)),
        Hold(("db",), "it requires db"),
        Command(STOP),
        Closing(),
    ]
    for event in events:
        machine.give(event)
        record = msgspec.msgpack.encode(machine.state)
        assert msgspec.msgpack.decode(record, type=State) == machine.state


def test_a_record_of_a_newer_control_with_more_fields_can_be_read() -> None:
    record = msgspec.msgpack.encode({**msgspec.to_builtins(active().state), "brand-new": 1})
    assert msgspec.msgpack.decode(record, type=State) == active().state


def test_no_event_breaks_any_phase() -> None:
    """Whatever comes whenever: a state that can be journaled, and at most one thing sent to each run."""
    events: list[Event] = [
        started(),
        SpawnFailed(run=RUN, token=1, step=Step.EXEC, error=errno.ENOENT),
        SpawnFailed(run=NO_RUN, token=1, step=Step.FORK, error=errno.EAGAIN),
        SpawnFailed(run=NO_RUN, token=1, step=Step.STOPPING),
        Refused(run=NO_RUN, token=1, kind=lib.VG_SPAWN, error=38),
        Refused(run=RUN, token=0, kind=lib.VG_STOP, error=3),
        exited(1),
        exited(0),
        Emptied(RUN),
        Attached(None),
        Stopping(run=RUN, token=1, cause=StopCause.WHOLE),
        Stopping(run=RUN, token=1, cause=StopCause.ENDED),
        Due(),
        Sent(),
        Command(START),
        Command(STOP),
        Command(RESTART),
        Command(Work(4, WorkKind.SIGNAL, "x", 1)),
        Command(Work(5, WorkKind.STOP, "x", keep=True)),
        Closing(),
        Go(1),
        Wait(("db",)),
        Wait(("db",), "db"),
        Hold(("db",), "why"),
        Cascade("why"),
        StopNow(),
        StopLater(("x",)),
        *(Attached(RunState(run=RUN, token=1, state=phase)) for phase in RunPhase),
    ]
    reached = set()
    restarted = active(restart_limit=1).give(exited(1), Emptied(RUN))
    restarted.now += 10**9
    frontier = [State(), restarted.give(Due(), Go(1), started()).state]
    seen = set(frontier)
    for _ in range(4):
        following = []
        for state, event in itertools.product(frontier, events):
            machine = Machine(state, type="simple", restart_limit=1).give(event)
            reached.add(machine.phase)
            sent = [e for e in machine.effects if isinstance(e, (Spawn, Stop, Release, Signal))]
            assert len(sent) == len(set(map(str, sent))), f"{state} {event} does something twice"
            assert sum(isinstance(e, Stop) for e in sent) <= 1
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(machine.state), type=State) == machine.state
            if machine.state not in seen and len(machine.state.queue) < 2:
                seen.add(machine.state)
                following.append(machine.state)
        frontier = following
    assert reached == set(Phase) - {Phase.EXITED}


@pytest.mark.parametrize("message", [started(9), exited(1, token=9), SpawnFailed(run=RUN, token=9, step=Step.EXEC)])
def test_what_another_token_is_told_of_is_not_ours(message: Event) -> None:
    for machine in (Machine(), active()):
        before = machine.state
        machine.give(message)
        assert (machine.state, machine.effects) == (before, ())


# --- the end of a run ---


def test_an_exit_is_decided_once_at_once_and_followed_when_all_is_gone() -> None:
    machine = active().give(exited(7))
    assert (machine.phase, shown(machine.state), machine.state.next) == (
        Phase.ENDING,
        ServiceState.STOPPING,
        Next.BACKOFF,
    )
    assert machine.state.deadline_ns == machine.now + 500_000_000
    again = machine.state
    assert machine.give(exited(7)).state == again
    machine.now += 100_000_000
    assert machine.give(Emptied(RUN)).acts() == [Release(RUN)]
    assert (machine.phase, deadline(machine.state, oneshot=False)) == (Phase.BACKOFF, NOW + 2_500_000_000)
    machine.now += 400_000_000
    machine.give(Due())
    assert (machine.phase, machine.state.restarts, machine.state.cause) == (
        Phase.WAITING,
        1,
        "restarted: exited with code 7",
    )


def test_a_shutdown_is_asked_for_at_the_exit() -> None:
    machine = active(on_failure=Policy.SHUTDOWN).give(exited(7))
    assert machine.acts() == [Shutdown(7, "exited with code 7; on-failure is shutdown")]
    assert machine.give(Emptied(RUN)).acts() == [Release(RUN)]
    assert machine.phase is Phase.INACTIVE


def test_an_exit_while_vigild_stops_decides_nothing() -> None:
    machine = active(on_failure=Policy.SHUTDOWN)
    machine.closing = "vigild is stopping"
    assert machine.give(Closing(), exited(7)).acts() == []
    machine.give(Emptied(RUN))
    assert machine.phase is Phase.INACTIVE


def test_a_run_that_somebody_else_stopped_is_no_failure() -> None:
    machine = active(on_failure=Policy.SHUTDOWN).give(exited(143, flags=lib.VG_IS_ASKED))
    assert (machine.phase, machine.acts()) == (Phase.STOPPING, [])


def test_gone_without_an_exit_counts_as_a_failure() -> None:
    machine = active().give(Emptied(RUN, keeper_lost=True))
    assert machine.phase is Phase.BACKOFF
    assert machine.state.exit is not None
    assert machine.state.exit.reason == "ended unseen"


def test_what_even_sigkill_does_not_end_is_said() -> None:
    effects = active().give(Command(STOP), StopNow(), exited(), Emptied(RUN, left_over=True)).effects
    assert [effect.message for effect in effects if isinstance(effect, Say) and effect.level == "error"] == [
        "something of it is left that even SIGKILL does not end (state D)"
    ]


# --- a failed start ---


def test_a_failed_start_is_released_and_its_reason_kept() -> None:
    machine = Machine().give(Command(START), Go(1))
    machine.give(SpawnFailed(run=RUN, token=1, step=Step.EXEC, error=errno.ENOENT))
    ended = [effect for effect in machine.effects if isinstance(effect, WorkEnded)]
    assert Release(RUN) in machine.effects
    assert [(e.status, e.err) for e in ended] == [(ChangeStatus.ERROR, "exec /bin/web: No such file or directory")]
    assert (machine.phase, machine.state.exit and machine.state.exit.code) == (Phase.BACKOFF, 127)


def test_what_this_vigild_refuses_to_spawn_is_a_failure() -> None:
    machine = Machine(on_failure=Policy.IGNORE).give(Command(START), Go(1))
    machine.give(Refused(run=NO_RUN, token=1, kind=lib.VG_SPAWN, error=errno.ENOSYS))
    assert (machine.phase, machine.state.exit and machine.state.exit.code) == (Phase.INACTIVE, 126)


def test_a_shortage_keeps_the_start_going_even_with_no_delay_in_the_plan() -> None:
    machine = Machine(backoff_delay=0.0).give(Command(START), Go(1))
    machine.give(SpawnFailed(run=NO_RUN, token=1, step=Step.KEEPER, error=0))
    assert (machine.phase, machine.state.attempt, machine.state.task) == (Phase.BACKOFF, 0, START)
    assert machine.state.deadline_ns == NOW + 100_000_000, "not at once: that would be a busy loop"


# --- tasks ---


def test_a_start_in_every_phase_ends_up_or_queues() -> None:
    assert active().give(Command(START)).acts() == [
        WorkEnded(msgspec.structs.replace(START, begun=True), ChangeStatus.DONE)
    ]
    machine = active().give(exited(1), Command(START), Emptied(RUN))
    assert (machine.phase, machine.state.restarts, machine.state.attempt) == (Phase.WAITING, 0, 0)
    machine = active().give(Command(STOP), Command(START))
    assert (machine.phase, machine.state.queue) == (Phase.STOP_WAIT, (START,))


@pytest.mark.parametrize(
    "before", [(), (Command(START),), (Command(START), Wait(("db",))), (Command(START), Hold(("db",), "x"))]
)
def test_a_stop_of_what_has_no_run_is_done_at_once(before: tuple[Event, ...]) -> None:
    machine = Machine().give(*before).give(Command(STOP))
    assert machine.acts()[-1] == WorkEnded(STOP, ChangeStatus.DONE)
    assert machine.phase is Phase.INACTIVE


def test_a_stop_for_the_sake_of_a_required_one_keeps_the_wish() -> None:
    along = Work(2, WorkKind.STOP, "uid 0", keep=True)
    machine = active().give(Command(along), StopNow(), exited(), Emptied(RUN))
    assert (machine.phase, machine.acts()[-1]) == (Phase.WAITING, WorkEnded(along, ChangeStatus.DONE))
    assert machine.state.restarts == 0


def test_a_stop_by_hand_after_one_for_the_sake_of_another_ends_the_wish() -> None:
    along = Work(2, WorkKind.STOP, "uid 0", keep=True)
    machine = active().give(Command(along), StopNow(), Command(STOP), exited(), Emptied(RUN))
    assert machine.phase is Phase.INACTIVE
    assert [e.work for e in machine.effects if isinstance(e, WorkEnded)] == [along, STOP]


def test_a_signal_is_sent_first_and_done_in_the_next_step() -> None:
    hup = Work(4, WorkKind.SIGNAL, "uid 0", 1)
    machine = active().give(Command(hup))
    assert machine.acts() == [Signal(RUN, 1)]
    assert machine.state.task is not None
    machine.give(Sent())
    assert [e.status for e in machine.effects if isinstance(e, WorkEnded)] == [ChangeStatus.DONE]


def test_a_signal_to_what_does_not_run_is_an_error() -> None:
    ended = Machine().give(Command(Work(4, WorkKind.SIGNAL, "uid 0", 1))).acts()
    assert isinstance(ended[0], WorkEnded)
    assert (ended[0].status, ended[0].err) == (ChangeStatus.ERROR, "it is inactive")


def test_a_signal_that_may_have_been_sent_by_a_dead_control_is_not_sent_again() -> None:
    machine = active().give(Command(Work(4, WorkKind.SIGNAL, "uid 0", 1)))
    machine.give(Attached(RunState(run=RUN, token=1, state=RunPhase.RUNNING)))
    assert [(type(e), e.status) for e in machine.effects if isinstance(e, WorkEnded)] == [
        (WorkEnded, ChangeStatus.ERROR)
    ]
    assert not [e for e in machine.effects if isinstance(e, Signal)]


# --- a new control ---


def test_a_spawn_that_never_took_effect_is_done_again_with_a_new_token() -> None:
    machine = Machine().give(Command(START), Go(1)).give(Attached(None))
    assert (machine.phase, machine.acts()) == (Phase.WAITING, [])
    machine.give(Go(2))
    assert (machine.acts(), machine.state.token) == ([Spawn()], 2)


@pytest.mark.parametrize(("flags", "again"), [(0, [Stop(RUN)]), (lib.VG_IS_STOPPING | lib.VG_IS_ASKED, [])])
def test_a_stop_that_was_not_sent_is_sent_again(flags: int, again: list[Effect]) -> None:
    machine = active().give(Command(STOP), StopNow())
    run = RunState(run=RUN, token=1, state=RunPhase.RUNNING, flags=flags)
    assert machine.give(Attached(run)).acts() == again


def test_a_stop_before_the_run_was_known_is_sent_at_attach() -> None:
    machine = Machine().give(Command(START), Go(1), Command(STOP), StopNow())
    assert machine.acts()[-1:] == [Stop(NO_RUN, 1)], "an exec that hangs would never tell which run it is"
    for phase in (RunPhase.STARTING, RunPhase.RUNNING):
        found = Machine(machine.state).give(Attached(RunState(run=RUN, token=1, state=phase)))
        assert found.acts() == [Stop(RUN)]
    assert Machine(machine.state).give(started()).acts() == []


def test_an_exit_that_the_journal_knows_is_not_acted_upon_again() -> None:
    machine = active(on_failure=Policy.SHUTDOWN).give(exited(7))
    machine.closing = "vigild is stopping"
    gone = RunState(run=RUN, token=1, state=RunPhase.GONE, code=1, status=7)
    assert machine.give(Attached(gone, ("last",))).acts() == [Release(RUN)]
    assert (machine.phase, machine.state.exit and machine.state.exit.output) == (Phase.INACTIVE, ("last",))


def test_an_exit_that_the_journal_does_not_know_is_acted_upon() -> None:
    machine = active(on_failure=Policy.SHUTDOWN)
    gone = RunState(run=RUN, token=1, state=RunPhase.GONE, code=2, status=9)
    assert machine.give(Attached(gone)).acts() == [
        Shutdown(137, "killed by SIGKILL; on-failure is shutdown"),
        Release(RUN),
    ]


def test_a_failed_start_that_the_journal_does_not_know_is_acted_upon() -> None:
    machine = Machine().give(Command(START), Go(1))
    failed = RunState(run=RUN, token=1, state=RunPhase.FAILED, step=Step.CHDIR, error=errno.ENOENT)
    machine.give(Attached(failed))
    assert Release(RUN) in machine.effects
    assert (machine.phase, machine.state.exit and machine.state.exit.reason) == (
        Phase.BACKOFF,
        "working-dir /: No such file or directory",
    )


def test_a_start_whose_spawn_never_took_effect_can_still_be_put_on_hold() -> None:
    machine = Machine().give(Command(START), Go(1), Attached(None), Wait(("db",), "db, which is in backoff"))
    assert machine.acts()[-1] == WorkEnded(START, ChangeStatus.HOLD, "it waits for db, which is in backoff")


def test_a_wall_clock_that_was_set_back_makes_no_run_shorter() -> None:
    machine = active(restart_limit=0, on_failure=Policy.RESTART)
    machine.state = msgspec.structs.replace(machine.state, attempt=4)
    machine.service = msgspec.structs.replace(machine.service, restart_limit=4)
    machine.now += 60 * 10**9
    gone = RunState(
        run=RUN, token=1, state=RunPhase.GONE, code=1, status=7, started_real_ns=9 * 10**18, exited_real_ns=8 * 10**18
    )
    machine.give(Attached(gone))
    assert (machine.phase, machine.state.attempt) == (Phase.BACKOFF, 1), "62 s are a healthy run"


def test_a_restart_that_stops_the_service_anyway_is_not_overtaken_by_a_stop_for_the_sake_of_another() -> None:
    along = Work(2, WorkKind.STOP, "uid 0", keep=True)
    machine = active().give(Command(RESTART), StopNow(), Command(along))
    assert machine.acts() == [Stop(RUN)]
    assert (machine.state.task, machine.state.queue) == (RESTART, (along,))
    machine.give(exited(), Emptied(RUN), Hold(("db",), "it requires db, which is inactive"))
    assert [(e.work, e.status) for e in machine.effects if isinstance(e, WorkEnded)] == [
        (RESTART, ChangeStatus.ERROR),
        (along, ChangeStatus.DONE),
    ]
    assert machine.phase is Phase.HELD
