"""The alert machine by itself: what is told, in which order, how often it is tried, and what is given up."""

from __future__ import annotations

import random

import msgspec
import pytest

from vigil.alert import state as states
from vigil.alert.machine import (
    TEST_CHECK,
    Around,
    Attached,
    Attempted,
    Changed,
    Deliver,
    Due,
    Replanned,
    Say,
    Tried,
    Try,
    step,
)
from vigil.alert.state import State, deadline, load, status, writes
from vigil.plan.types import Alert, AlertSettings

SECOND = 10**9
START = 5_000 * SECOND
REAL = 1_700_000_000 * SECOND


class Machine:
    """A machine with a state, a clock that jumps, and the effects of its last step."""

    def __init__(self, depth=256, age=60.0, **keys):
        self.alert = Alert(**({"name": "pager", "url": "http://x/", "on_check": ("web", "db")} | keys))
        self.settings = AlertSettings(max_queue_depth=depth, max_queue_time=age)
        self.state = State()
        self.now, self.real = START, REAL
        self.effects = ()
        self.kept = {}  # the journal
        self.delivered = []  # (check, status), of attempts that were begun

    def give(self, *events):
        self.effects = ()
        for event in events:
            before = self.state
            around = Around(self.alert, self.settings, self.now, self.real)
            self.state, effects = step(self.state, event, around)
            for key, value in writes("pager", before if self.kept else None, self.state).items():
                if value is None:
                    del self.kept[key]
                else:
                    self.kept[key] = value
            assert load(self.kept.items()) == {"pager": self.state}
            self.effects += effects
            self.delivered += [(e.job.check, e.job.status) for e in effects if isinstance(e, Deliver)]
        return self

    def die(self):
        """control is killed, and the next one goes on from the journal."""
        self.state = load(self.kept.items())["pager"]
        return self.give(Attached())

    def pass_time(self, seconds):
        self.now += round(seconds * SECOND)
        self.real += round(seconds * SECOND)
        return self

    def until_due(self):
        due = deadline(self.state, self.settings)
        assert due is not None
        return self.pass_time(max(0, due - self.now) / SECOND).give(Due())

    @property
    def head(self):
        return self.state.jobs[0]

    def ok(self):
        return self.give(Attempted(number=self.head.number, ok=True))

    def fails(self, error="503", again=True, **more):
        return self.give(Attempted(number=self.head.number, ok=False, error=error, again=again, **more))

    def said(self, level):
        return [e.message for e in self.effects if isinstance(e, Say) and e.level == level]

    @property
    def sending(self):
        return [e.job for e in self.effects if isinstance(e, Deliver)]


# --- the table ---


@pytest.mark.parametrize(
    ("results", "told"),
    [
        (["up"], []),
        (["down"], ["down"]),
        (["up", "down"], ["down"]),
        (["down", "up"], ["down", "up"]),
        (["up", "up"], []),
        (["down", "down"], ["down"]),
        (["up", "down", "down", "up", "up", "down"], ["down", "up", "down"]),
    ],
)
@pytest.mark.parametrize("kills", [False, True], ids=["", "control is killed after each"])
def test_the_table_of_transitions(results, told, kills):
    machine = Machine()
    seen = []
    for result in results:
        machine.give(Changed("web", result))
        if kills:
            machine.die()
        if machine.state.jobs:
            seen.append(machine.head.status)
            machine.ok()
        if kills:
            machine.die()
    assert seen == told
    assert machine.state.queued == len(told)


def test_checks_are_told_apart_and_those_not_watched_are_nothing():
    machine = Machine().give(
        Changed("web", "up"), Changed("db", "down"), Changed("other", "down"), Changed("web", "down")
    )
    assert [(job.check, job.status) for job in machine.state.jobs] == [("db", "down"), ("web", "down")]
    assert "other" not in machine.state.seen


def test_what_users_see_of_the_checks():
    machine = Machine()
    assert status(machine.state) == "unknown"
    assert status(machine.give(Changed("web", "up")).state) == "up"
    assert status(machine.give(Changed("db", "down")).state) == "down"
    assert status(machine.give(Changed("db", "up")).state) == "up"


def test_a_resolve_knows_when_it_fired_also_across_the_loss_of_control():
    machine = Machine().give(Changed("web", "down")).ok().pass_time(100).die()
    machine.give(Changed("web", "up"))
    assert (machine.head.fired_ns, machine.head.real_ns) == (REAL, REAL + 100 * SECOND)
    machine.ok().pass_time(5).give(Changed("web", "down"))
    assert machine.head.fired_ns == machine.head.real_ns == REAL + 105 * SECOND


# --- order ---


def test_one_after_the_other_in_the_order_of_their_changes():
    machine = Machine().give(Changed("web", "down"), Changed("db", "down"), Changed("web", "up"))
    assert machine.delivered == [("web", "down")]
    machine.fails().give(Changed("db", "up"))
    assert machine.delivered == [("web", "down")], "those behind it wait while it is tried again"
    machine.until_due()
    assert machine.delivered == [("web", "down")] * 2
    machine.ok().ok().ok().ok()
    assert machine.delivered[2:] == [("db", "down"), ("web", "up"), ("db", "up")]
    assert machine.state.jobs == ()
    assert deadline(machine.state, machine.settings) is None


def test_nothing_is_tried_before_its_time_whatever_else_happens():
    machine = Machine(retry_backoff=(10.0,)).give(Changed("web", "down")).fails()
    machine.pass_time(9.9).give(Due(), Changed("db", "down"), Attached())
    assert machine.sending == []
    assert [job.begun for job in machine.pass_time(0.1).give(Due()).sending] == [1]


# --- trying again ---


def test_it_is_tried_as_often_as_the_plan_says_after_the_delays_it_says():
    machine = Machine(retry_attempts=5, retry_backoff=(1.0, 2.0, 5.0)).give(Changed("web", "down"))
    waited = []
    for _ in range(4):
        before = machine.now
        machine.fails().until_due()
        waited.append((machine.now - before) / SECOND)
    assert waited == [1, 2, 5, 5]
    assert machine.state.jobs
    machine.fails(error="503")
    assert machine.said("warn") == ["drops a delivery: 503 (attempt 5 of 5); its last attempt: 503"] or machine.said(
        "warn"
    )
    assert machine.state.jobs == ()
    assert (machine.state.dropped, machine.state.last.ok, machine.state.last.error) == (1, False, "503")


@pytest.mark.parametrize("attempts", [0, 1])
def test_no_retries(attempts):
    machine = Machine(retry_attempts=attempts).give(Changed("web", "down")).fails()
    assert machine.state.jobs == ()
    assert len(machine.delivered) == 1


def test_what_cannot_be_mended_is_not_tried_again():
    machine = Machine().give(Changed("web", "down")).fails("404 Not Found", again=False)
    assert machine.state.jobs == ()
    assert machine.said("warn") == ["drops a delivery: 404 Not Found"]
    machine.give(Changed("web", "up")).fails("its url is empty", again=False, ours=True)
    assert machine.said("error") == ["drops a delivery: its url is empty"]


def test_a_receiver_that_wants_to_be_left_alone_is_for_longer_than_the_backoff_never_shorter():
    machine = Machine(retry_backoff=(2.0,)).give(Changed("web", "down")).fails(after=7.5)
    assert deadline(machine.state, machine.settings) == machine.now + round(7.5 * SECOND)
    machine.until_due().fails(after=0.5)
    assert deadline(machine.state, machine.settings) == machine.now + 2 * SECOND


def test_the_end_of_an_attempt_that_was_given_up_means_nothing():
    machine = Machine().give(Changed("web", "down"))
    number = machine.head.number
    machine.ok().give(Changed("web", "up"))
    machine.give(Attempted(number=number, ok=True))
    assert [job.status for job in machine.state.jobs] == ["up"]


# --- giving up ---


def test_too_old_is_dropped_with_a_warning_and_counted():
    machine = Machine(age=60.0, retry_attempts=1000, retry_backoff=(30.0,)).give(Changed("web", "down"))
    machine.pass_time(20).give(Changed("web", "up")).fails("no answer")
    machine.until_due().fails("no answer").until_due()
    assert machine.now == START + 60 * SECOND
    assert machine.said("warn") == [
        "drops a delivery: it waited for longer than max-queue-time (1m); its last attempt: no answer"
    ]
    assert [job.status for job in machine.sending] == ["up"], "the next one begins at once"
    assert (machine.state.dropped, machine.state.queued) == (1, 2)


def test_what_waits_behind_a_slow_attempt_is_dropped_in_its_time_and_the_attempt_may_end():
    machine = Machine(age=60.0).give(Changed("web", "down")).pass_time(1).give(Changed("web", "up"))
    machine.until_due()
    assert machine.now == START + 61 * SECOND
    assert [job.status for job in machine.state.jobs] == ["down"]
    assert "max-queue-time" in machine.said("warn")[0]
    machine.ok()
    assert machine.state.last.ok


def test_a_full_queue_loses_its_oldest_but_not_the_one_that_is_under_way():
    machine = Machine(depth=2).give(Changed("web", "down"))
    for number in range(2, 6):
        machine.give(Changed("web", "up" if number % 2 == 0 else "down"))
    assert [job.number for job in machine.state.jobs] == [1, 4, 5]
    assert (machine.state.dropped, machine.state.queued) == (2, 5)
    assert machine.said("warn") == ["drops a delivery: the queue is full (max-queue-depth 2)"]
    machine.fails("503")
    assert machine.said("warn")[-1] == "drops a delivery: the queue is full (max-queue-depth 2); its last attempt: 503"
    assert [job.number for job in machine.sending] == [4], "waiting to be tried again it is the oldest"


# --- the loss of control ---


def test_a_delivery_that_control_died_of_three_times_is_dropped_with_an_error():
    machine = Machine().give(Changed("web", "down"), Changed("db", "down"))
    machine.die()
    assert [job.begun for job in machine.sending] == [2]
    machine.die()
    assert [(job.check, job.begun) for job in machine.sending] == [("web", 3)]
    machine.die()
    assert machine.said("error") == ["drops a delivery: control died 3 times while it was under way"]
    assert [(job.check, job.begun) for job in machine.sending] == [("db", 1)], "what is behind it goes on"
    assert machine.state.dropped == 1


def test_an_attempt_that_ended_makes_the_count_begin_anew():
    machine = Machine(retry_attempts=100).give(Changed("web", "down"))
    for _ in range(5):
        machine.die().die()
        assert machine.head.begun == 3
        machine.fails().until_due()
        assert machine.head.begun == 1
    assert machine.state.dropped == 0


def test_the_next_control_does_not_begin_before_the_delay_of_the_last_one_is_over():
    machine = Machine(retry_backoff=(30.0,)).give(Changed("web", "down")).fails().pass_time(1).die()
    assert machine.sending == []
    assert deadline(machine.state, machine.settings) == START + 30 * SECOND


# --- another plan ---


def test_a_replan_forgets_checks_no_longer_watched_and_still_tells_what_happened():
    machine = Machine().give(Changed("web", "down"), Changed("db", "down"))
    machine.alert = msgspec.structs.replace(machine.alert, on_check=("db",))
    machine.give(Replanned({"db": "down"}, changed=True))
    assert list(machine.state.seen) == ["db"]
    assert [job.check for job in machine.state.jobs] == ["web", "db"]
    machine.alert = msgspec.structs.replace(machine.alert, on_check=("db", "web"))
    machine.ok().ok().give(Replanned({"db": "down", "web": "up"}, changed=True))
    assert machine.state.jobs == (), "watched anew it begins anew"


def test_an_alert_that_begins_to_watch_a_check_that_is_down_fires():
    machine = Machine().give(Replanned({"web": "down", "db": "up", "other": "down"}))
    assert [(job.check, job.status) for job in machine.state.jobs] == [("web", "down")]


def test_a_check_that_a_replan_starts_anew_does_not_fire_again_and_its_resolve_is_not_lost():
    machine = Machine().give(Changed("web", "down")).ok().give(Replanned({}))
    assert machine.give(Changed("web", "down")).state.jobs == ()
    assert [job.status for job in machine.give(Changed("web", "up")).state.jobs] == ["up"]


def test_an_alert_that_was_put_right_is_tried_at_once_and_from_the_first_attempt():
    machine = Machine(retry_attempts=2, retry_backoff=(30.0,)).give(Changed("web", "down")).fails()
    assert machine.give(Replanned({})).sending == []
    assert [job.attempts for job in machine.give(Replanned({}, changed=True)).sending] == [0]


def test_a_smaller_queue_drops_at_once():
    machine = Machine().give(Changed("web", "down"), Changed("db", "down"), Changed("web", "up"), Changed("db", "up"))
    machine.settings = AlertSettings(max_queue_depth=1)
    machine.give(Replanned({}))
    assert [job.number for job in machine.state.jobs] == [1, 4]


# --- tests ---


def test_a_test_goes_down_and_up_and_touches_no_check():
    machine = Machine().give(Changed("web", "down")).give(Try("t"))
    machine.ok()
    assert [(job.check, job.status) for job in machine.sending] == [(TEST_CHECK, "down")]
    assert machine.ok().sending[0].status == "up"
    machine.ok()
    assert machine.effects[-1] == Tried("t", True)
    assert list(machine.state.seen) == ["web"]
    assert (machine.state.queued, machine.state.dropped) == (3, 0)


def test_a_test_is_tried_once_and_says_why_it_failed():
    machine = Machine().give(Try("t"), Changed("web", "down")).fails("connection refused")
    assert Tried("t", False, "connection refused") in machine.effects
    assert [job.check for job in machine.sending] == ["web"], "the other half of the test is not sent"


def test_a_test_whose_second_half_fails_has_failed():
    machine = Machine().give(Try("t")).ok().fails("503")
    assert [e for e in machine.effects if isinstance(e, Tried)] == [Tried("t", False, "503")]
    assert machine.state.jobs == ()


def test_a_test_takes_no_room_from_what_is_real():
    machine = Machine(depth=3).give(*(Changed("web", word) for word in ("down", "up", "down", "up")))
    assert machine.give(Try("t")).effects == (Tried("t", False, "the queue is full"),)
    assert machine.state.dropped == 0


# --- everything at random ---


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_receiver_has_each_change_in_order_or_it_was_counted(seed):
    """Kills at every step, a receiver that fails, time that passes: nothing is lost without being counted."""
    dice = random.Random(seed)
    machine = Machine(depth=5, age=30.0, retry_attempts=3)
    truth = {"web": None, "db": None}
    wanted = got = 0
    last_number = 0
    for _ in range(400):
        match dice.randrange(6):
            case 0 | 1:
                check = dice.choice(["web", "db"])
                new = dice.choice(["up", "down"])
                if new != truth[check] and (truth[check] or new == "down"):
                    wanted += 1
                truth[check] = new
                machine.give(Changed(check, new))
            case 2:
                machine.pass_time(dice.choice([0.1, 1, 5, 20])).give(Due())
            case 3 if machine.state.sending:
                assert machine.head.number > last_number, "in order, and none twice"
                last_number = machine.head.number
                got += 1
                machine.ok()
            case 4 if machine.state.sending:
                machine.fails(again=dice.random() < 0.7)
            case 5 if machine.kept:
                machine.die()
        assert len(machine.state.waiting) <= 5
        assert machine.state.queued == wanted == got + machine.state.dropped + len(machine.state.jobs)


# --- the journal ---


def test_only_what_changed_is_written():
    machine = Machine().give(*(Changed("web", word) for word in ["down", "up"] * 50))
    before = machine.state
    machine.ok()
    changes = writes("pager", before, machine.state)
    assert set(changes) == {"alert/pager", "alert/pager/1", "alert/pager/2"}
    assert changes["alert/pager/1"] is None
    assert sum(len(value or b"") for value in changes.values()) < 300
    assert writes("pager", before, before) == {}
    assert set(writes("pager", before, None)) == {"alert/pager"} | {f"alert/pager/{n}" for n in range(1, 101)}


def test_alerts_whose_names_begin_alike_are_told_apart():
    one = Machine().give(Changed("web", "down"))
    kept = {f"alert/pager-2{key.removeprefix('alert/pager')}": value for key, value in one.kept.items()} | one.kept
    assert load(kept.items()) == {"pager": one.state, "pager-2": one.state}


def test_a_journal_that_makes_no_sense_says_whose_part():
    with pytest.raises(states.StartError, match="cannot read the state of alert pager in the journal"):
        load([("alert/pager", b"\xc1")])
