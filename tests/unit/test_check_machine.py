"""The machine of a check: when it probes, what counts, what is told, and what a restarted control goes on with."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from vigil.check import schedule
from vigil.check.events import (
    Around,
    Attached,
    Cancel,
    Closing,
    Due,
    Effect,
    Event,
    Probe,
    Refresh,
    Replanned,
    Reported,
    Result,
    Say,
    Start,
    Stop,
)
from vigil.check.machine import step
from vigil.check.state import CheckState, Outcome, Status, deadline
from vigil.plan.types import Check, TcpProbe

S = 1_000_000_000
NOW = 1_000 * S
REAL = 1_700_000_000 * S
PROBE = TcpProbe(port=80)


class Machine:
    """A state, a clock that jumps, and what was wanted. Every state goes through the journal's form."""

    def __init__(self, **check: Any) -> None:
        self.check = Check(**({"name": "web", "probe": PROBE} | check))
        self.state = CheckState()
        self.now = NOW
        self.closing = False
        self.effects: list[Effect] = []
        self.place, self.count = 0, 1

    def give(self, event: Event) -> Machine:
        around = Around(self.check, self.now, REAL, self.place, self.count, self.closing)
        self.state, effects = step(self.state, event, around)
        self.state = msgspec.msgpack.decode(msgspec.msgpack.encode(self.state), type=CheckState)
        self.effects += effects
        return self

    def took(self, kind: type | tuple[type, ...] = object) -> list[Any]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return [effect for effect in effects if isinstance(effect, kind)]

    @property
    def due(self) -> int | None:
        return deadline(self.state)

    def wait(self) -> Machine:
        """Time passes until it is due, and it is told."""
        assert self.due is not None
        self.now = max(self.now, self.due)
        return self.give(Due())

    def probed(self, ok: bool, reason: str = "", after: float = 0.001, **more: Any) -> Machine:
        """It is due, probes, and so it ends."""
        self.wait()
        assert self.state.began_ns
        return self.result(ok, reason, after, **more)

    def result(self, ok: bool, reason: str = "", after: float = 0.001, **more: Any) -> Machine:
        self.now += round(after * S)
        return self.give(Result(self.state.number, ok, reason, **more))


def begun(**check: Any) -> Machine:
    """Attached for the first time."""
    return Machine(**check).give(Attached())


# --- when ---


def test_it_waits_its_delay_then_runs_every_period_from_start_to_start() -> None:
    machine = begun(delay=3.0, period=10.0)
    starts = []
    for took in (0.001, 2.9, 0.5):
        machine.wait()
        starts.append(machine.now - NOW)
        assert machine.took(Probe) == [Probe(len(starts))]
        machine.result(True, after=took)
    assert starts == [3 * S, 13 * S, 23 * S]


def test_a_due_that_comes_too_early_or_for_one_that_runs_already_changes_nothing() -> None:
    machine = begun()
    machine.give(Due())
    assert machine.took() == []
    machine.wait()
    before = machine.state
    machine.now += 100 * S
    machine.give(Due())
    assert machine.state == before
    assert machine.due is None


def test_probes_never_overlap_the_period_stretches() -> None:
    machine = begun(delay=0.0, period=1.0, timeout=5.0)
    machine.wait()
    machine.result(False, "slow", after=2.5)
    assert machine.due == machine.now
    machine.wait().result(True, after=0.1)
    assert machine.due == NOW + round(3.5 * S)


def test_checks_that_begin_together_run_one_after_another_and_keep_their_distance() -> None:
    def starts(count: int, period: float) -> list[int]:
        found = []
        for place in range(count):
            machine = Machine(delay=1.0, period=period)
            machine.place, machine.count = place, count
            machine.give(Attached())
            for _ in range(3):
                machine.probed(True)
            found.append(machine.state.next_ns - NOW - S)
        return found

    few = starts(3, 10.0)
    assert few == [30 * S, 30 * S + 10_000_000, 30 * S + 20_000_000]
    many = starts(500, 1.0)
    assert max(many) < 4 * S
    assert sorted(set(many)) == many
    assert {after - before for before, after in itertools.pairwise(many)} == {2_000_000}


def test_a_clock_that_jumps_makes_no_burst() -> None:
    machines = []
    for place in range(100):
        machine = Machine(delay=0.0, period=10.0)
        machine.place, machine.count = place, 100
        machines.append(machine.give(Attached()).probed(True))
    late = NOW + 3600 * S + 5 * S
    for machine in machines:
        machine.took()
        machine.now = late
        machine.give(Due())
    now = sum(bool(machine.took(Probe)) for machine in machines)
    assert now == 0
    due = [machine.due for machine in machines]
    assert all(when is not None and late < when <= late + 10 * S for when in due)
    assert len(set(due)) == 100


def test_who_is_only_a_little_late_runs_at_once_and_keeps_its_place() -> None:
    machine = begun(delay=0.0, period=10.0).probed(True)
    machine.now = NOW + 14 * S
    machine.give(Due())
    assert machine.took(Probe)[-1] == Probe(2)
    machine.result(True)
    assert machine.due == NOW + 20 * S


@pytest.mark.parametrize("period", [0.000001, 0.001, 1.0])
def test_the_following_time_is_always_ahead(period: float) -> None:
    check = Check(name="web", probe=PROBE, period=period)
    for late in (0, 1, 999, S, 123_456_789_012):
        assert 0 < schedule.following(check, NOW, NOW + late) - NOW - late <= max(1, schedule.nanoseconds(period))


# --- what counts ---


def test_down_after_threshold_failures_in_a_row_up_after_success_threshold_successes() -> None:
    machine = begun(threshold=3, success_threshold=2)
    told = []
    for ok in (True, False, True, True, False, False, True, False, False, False, True, False, True, True):
        machine.probed(ok, "" if ok else "refused")
        told.append(machine.state.status.value[:2])
    assert " ".join(told) == "un un un up up up up up up do do do do up"
    changes = [(e.before.value, e.after.value) for e in machine.took(Reported) if e.before is not e.after]
    assert changes == [("unknown", "up"), ("up", "down"), ("down", "up")]


def test_it_is_unknown_until_a_threshold_is_reached() -> None:
    machine = begun(threshold=3)
    for count in (1, 2):
        machine.probed(False, "refused")
        assert (machine.state.status, machine.state.failures) == (Status.UNKNOWN, count)
    machine.probed(False, "refused")
    assert machine.state.status is Status.DOWN
    assert machine.state.last == Outcome(False, REAL, "refused")
    assert machine.took(Say) == [Say("warn", "down: refused (3 times in a row)")]
    machine.probed(True)
    assert (machine.state.status, machine.state.last) == (Status.UP, Outcome(True, REAL))
    assert machine.took(Say) == [Say("info", "up again")]
    assert (machine.state.passed, machine.state.failed) == (1, 3)


def test_each_result_is_reported_with_the_time_its_probe_began() -> None:
    machine = begun(delay=3.0)
    machine.probed(False, "no answer", after=1.0)
    [report] = machine.took(Reported)
    assert report == Reported(False, "no answer", NOW + 3 * S, REAL, Status.UNKNOWN, Status.UNKNOWN)


def test_a_result_of_another_probe_is_nobodys() -> None:
    machine = begun().wait()
    old = machine.state.number
    machine.give(Stop()).give(Start()).wait()
    machine.took()
    machine.give(Result(old, False, "old"))
    assert machine.took() == []
    assert machine.state.last is None


def test_a_shortage_is_not_the_checks_failure_it_is_said_once_and_tried_again() -> None:
    machine = begun(delay=0.0, period=10.0, threshold=1)
    waits = []
    for _ in range(4):
        machine.wait().result(False, "no socket can be made: Too many open files", short=True)
        assert machine.due is not None
        waits.append((machine.due - machine.now) / S)
    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert machine.state.status is Status.UNKNOWN
    assert (machine.state.last, machine.state.failed) == (None, 0)
    assert machine.state.trouble == "cannot be probed for now: no socket can be made: Too many open files"
    assert machine.took((Say, Reported)) == [Say("warn", machine.state.trouble)]
    machine.probed(True)
    assert (machine.state.status, machine.state.trouble) == (Status.UP, "")
    assert machine.took(Say) == [Say("info", "can be probed again")]


def test_a_probe_that_a_frozen_container_held_up_is_made_once_more_before_it_counts() -> None:
    machine = begun(delay=0.0, period=1.0, timeout=1.0, threshold=1).wait()
    machine.took()
    machine.result(False, "no answer within 1s", after=3600.4)
    assert machine.took() == [Probe(2)]
    assert machine.state.next_ns == NOW + 3601 * S
    machine.result(False, "no answer within 1s", after=1.0)
    assert machine.state.status is Status.DOWN
    machine.wait().result(True, after=500.0)
    assert machine.state.status is Status.UP


def test_a_machine_that_is_always_slow_does_not_hide_a_failure() -> None:
    machine = begun(delay=0.0, timeout=1.0, threshold=2).wait()
    results = 0
    while machine.state.status is Status.UNKNOWN:
        machine.result(False, "no answer", after=5.0)
        results += 1
        if not machine.state.began_ns:
            machine.wait()
    assert (results, machine.state.status) == (4, Status.DOWN)


# --- commands ---


def test_stop_ends_the_probe_and_forgets_start_begins_anew() -> None:
    machine = begun(threshold=1).probed(False, "x").wait()
    machine.took()
    machine.give(Stop())
    assert machine.took() == [Cancel()]
    assert (machine.state.status, machine.state.failures, machine.state.last, machine.due) == (
        Status.UNKNOWN,
        0,
        None,
        None,
    )
    assert machine.state.failed == 1
    machine.give(Stop())
    assert machine.took() == []
    machine.give(Start())
    assert machine.due == machine.now + 3 * S
    before = machine.state
    machine.now += S
    machine.give(Start())
    assert machine.state == before


def test_refresh_probes_now_and_keeps_the_times_of_the_others() -> None:
    machine = begun(delay=0.0, period=10.0).probed(True)
    machine.took()
    machine.now += 4 * S
    machine.give(Refresh())
    assert machine.took(Probe) == [Probe(2)]
    machine.result(True)
    assert machine.due == NOW + 10 * S


def test_refresh_while_a_probe_is_under_way_probes_once_more_after_it() -> None:
    machine = begun().wait().give(Refresh()).give(Refresh())
    machine.took()
    machine.result(False, "as it was")
    assert machine.took(Probe) == [Probe(2)]
    machine.result(True)
    assert machine.took(Probe) == []
    assert machine.state.successes == 1


def test_refresh_of_a_stopped_check_shows_one_result_and_changes_nothing_else() -> None:
    machine = begun(startup="disabled", threshold=1)
    assert machine.due is None
    machine.give(Refresh())
    assert machine.took() == [Probe(1)]
    machine.result(False, "refused")
    [report] = machine.took()
    assert (report.ok, report.before, report.after) == (False, Status.UNKNOWN, Status.UNKNOWN)
    assert machine.state.last == Outcome(False, REAL, "refused")
    assert (machine.state.failures, machine.due) == (0, None)


def test_nothing_is_probed_any_more_while_vigild_stops() -> None:
    machine = begun().wait()
    machine.took()
    machine.closing = True
    machine.give(Closing())
    assert machine.took() == [Cancel()]
    for event in (Refresh(), Due(), Start(), Attached()):
        machine.give(event)
    assert machine.took() == []
    assert machine.due is None


# --- another plan ---


def replan(machine: Machine, **check: Any) -> Machine:
    before, machine.check = machine.check, Check(**({"name": "web", "probe": PROBE} | check))
    machine.took()
    return machine.give(Replanned(before))


def test_what_a_replan_does_not_change_goes_on() -> None:
    machine = begun(threshold=1).probed(False, "x").wait()
    before = machine.state
    assert replan(machine, threshold=1).state == before
    machine.give(Stop())
    assert not replan(machine, threshold=1).state.enabled


def test_what_it_changes_begins_anew() -> None:
    machine = begun(threshold=1).probed(False, "x").wait()
    replan(machine, threshold=2)
    assert machine.took() == [Cancel()]
    assert (machine.state.status, machine.state.last, machine.due) == (Status.UNKNOWN, None, machine.now + 3 * S)


def test_a_stopped_one_stays_stopped_unless_startup_is_what_changed() -> None:
    machine = begun().give(Stop())
    assert not replan(machine, threshold=2).state.enabled
    assert not replan(machine, startup="disabled").state.enabled
    assert replan(machine, startup="enabled").state.enabled
    assert not replan(machine, startup="disabled").state.enabled


def test_one_that_was_started_by_hand_goes_on_with_its_new_definition() -> None:
    machine = begun(startup="disabled").give(Start())
    assert replan(machine, startup="disabled", period=5.0).state.enabled


# --- another control ---


def test_a_new_control_begins_a_probe_that_was_under_way_again() -> None:
    machine = begun(delay=0.0, period=10.0).wait()
    machine.took()
    machine.now += S
    machine.give(Attached())
    assert machine.took() == [Probe(2)]
    machine.give(Result(1, False, "of the last control's"))
    assert machine.state.last is None
    machine.result(True)
    assert (machine.state.status, machine.due) == (Status.UP, NOW + 10 * S)


def test_a_new_control_that_comes_late_leaves_out_what_was_due_meanwhile() -> None:
    running, waiting = begun(delay=0.0, period=10.0).wait(), begun(delay=0.0, period=10.0).probed(True)
    for machine in (running, waiting):
        machine.took()
        machine.now = NOW + 47 * S
        machine.give(Attached())
    assert running.took(Probe) == [Probe(2)]
    assert running.state.next_ns == NOW + 50 * S
    waiting.give(Due())
    assert waiting.took(Probe) == []
    assert waiting.due == NOW + 50 * S


def test_a_new_control_does_not_start_what_was_stopped() -> None:
    machine = begun().give(Stop())
    machine.took()
    assert machine.give(Attached()).due is None
    assert machine.took() == []


def test_a_refresh_of_a_stopped_check_survives_the_loss_of_control() -> None:
    machine = begun(startup="disabled").give(Refresh())
    machine.took()
    assert machine.give(Attached()).took() == [Probe(2)]
