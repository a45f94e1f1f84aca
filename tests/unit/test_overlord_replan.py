"""What a new plan does to the services that run, over a PID 1 without processes."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.overlord_world import DONE, World, service
from vigil.model import api
from vigil.model.errors import Conflict, NotFound, PlanError, Unavailable
from vigil.plan import reader
from vigil.plan.types import Policy, Sources
from vigil.shim.messages import LogMode, RunPhase

DB = service("db")
WEB = service("web", requires=("db",))
CRON = service("cron", after=("web",))


def up(*services: Any) -> World:
    world = World(services)
    world.advance(2)
    return world


def changed(one: Any, **keys: Any) -> Any:
    """The same service with something else."""
    return service(one.name, **{"requires": one.requires, "after": one.after, **keys})


def pids(world: World) -> dict[str, int | None]:
    return {s.name: s.pid for s in world.overlord.services()}


def actions(found: api.Replan) -> dict[str, str]:
    return {step.service: step.action for step in found.steps}


def why(found: api.Replan, name: str) -> list[str]:
    return next(step.why for step in found.steps if step.service == name)


def finish(world: World, found: api.Replan) -> api.Change:
    world.advance(3)
    assert found.change is not None
    return world.overlord.change(found.change.id)


# --- what it does ---


def test_nothing_changed_is_an_empty_result_and_a_change_that_is_done() -> None:
    world = up(DB, WEB)
    calls = len(world.pid1.calls)
    found = world.replan(DB, WEB)
    assert found.steps == found.started == found.stopped == found.restarted == found.updated == []
    assert found.change is not None
    assert (found.change.kind, found.change.status.value, found.change.tasks) == ("replan", DONE, [])
    assert found.change.summary == "replan: nothing changed"
    world.settle()
    assert len(world.pid1.calls) == calls


def test_new_enabled_ones_start_in_order_and_new_disabled_ones_are_known() -> None:
    world = up(DB)
    found = world.replan(DB, WEB, CRON, service("idle", startup="disabled"))
    assert (found.started, found.updated) == (["web", "cron"], ["idle"])
    assert why(found, "web") == ["new, and enabled"]
    change = finish(world, found)
    assert {t.service: (t.kind, t.status.value) for t in change.tasks} == {
        "web": ("start", DONE),
        "cron": ("start", DONE),
    }
    assert [spec.name for spec in world.spawned] == ["db", "web", "cron"]
    assert world.state("idle") == "inactive"
    assert "started by the replan of uid 0 over the Unix socket: new, and enabled" in world.show("web").cause
    world.check()


def test_a_new_one_starts_what_it_requires() -> None:
    world = up(service("db", startup="disabled"))
    found = world.replan(service("db", startup="disabled"), WEB)
    assert actions(found) == {"db": "start", "web": "start"}
    assert why(found, "db") == ["web requires it"]
    finish(world, found)
    assert world.states() == {"db": "active", "web": "active"}


def test_removed_ones_stop_in_order_and_are_forgotten() -> None:
    world = up(DB, WEB, CRON)
    world.deaf = {"web", "cron"}
    found = world.replan()
    assert (found.stopped, why(found, "db")) == (["db", "web", "cron"], ["removed"])
    world.settle()
    assert world.states() == {"db": "stopping", "web": "stopping", "cron": "stopping"}
    assert world.show("db").waiting_for == ["web"]
    assert [run.slot for _, run in world.calls("stop")] == [2], "cron is told first, and alone"
    assert world.overlord.services(["cron"])[0].cause.startswith("stopped by the replan of uid 0")
    world.deaf = set()
    change = finish(world, found)
    assert change.status.value == DONE
    assert world.overlord.services() == []
    assert not [name for name in world.pid1.parked if name.startswith("log/")]
    left = [key for key in world.store.values if key.startswith(("service/", "removed/"))]
    assert not left
    world.check()


def test_a_removed_one_that_is_down_goes_at_once() -> None:
    world = up(DB, WEB)
    world.do("stop", "web")
    found = world.replan(DB)
    assert why(found, "web") == ["removed (it was not running)"]
    assert world.states() == {"db": "active"}
    with pytest.raises(NotFound):
        world.do("start", "web")


def test_while_it_stops_a_removed_one_can_be_seen_and_is_no_service_to_any_command() -> None:
    world = up(DB, WEB)
    world.deaf.add("web")
    world.replan(DB)
    world.settle()
    assert world.state("web") == "stopping"
    for action, signal in (("start", None), ("stop", None), ("restart", None), ("signal", "HUP")):
        with pytest.raises(NotFound, match=f"cannot {action} web: the plan does not have it any more"):
            world.act(action, "web", signal=signal)
        with_all = world.act(action, signal=signal)
        assert {t.service for t in with_all.tasks} <= {"db"}
    assert "log/web" in world.pid1.parked


def test_a_removed_one_stops_before_what_it_needed_and_after_what_needed_it() -> None:
    world = up(DB, WEB, CRON)
    world.deaf = {"web", "cron"}
    world.replan(changed(DB, nice=1), service("cron", nice=1))  # web is gone, cron no longer after it
    world.settle()
    stopped = [world.pid1.runs[run].name for _, run in world.calls("stop")]
    assert stopped == ["cron"]
    world.deaf = {"web"}
    world.settle()
    stopped = [world.pid1.runs[run].name for _, run in world.calls("stop") if run in world.pid1.runs]
    assert stopped == ["web"]
    assert world.starts("db") == 1, "db waits for web to be gone"
    world.deaf = set()
    world.advance(2)
    assert world.states() == {"db": "active", "cron": "active"}
    world.check()


def test_old_and_new_order_that_contradict_one_another_do_not_lock_up() -> None:
    world = up(service("a"), service("r", after=("a",)), service("b", after=("r",)))
    found = world.replan(service("a", after=("b",), nice=1), service("b", nice=1))
    change = finish(world, found)
    assert change.status.value == DONE
    assert world.states() == {"a": "active", "b": "active"}
    assert [s.name for s in world.spawned[3:]] == ["b", "a"]
    world.check()


def test_removed_and_added_again_while_it_stops() -> None:
    world = up(DB, WEB)
    pid = world.show("web").pid
    world.deaf.add("web")
    world.replan(DB)
    world.settle()
    found = world.replan(DB, changed(WEB, command=("/bin/other",)))
    assert found.started == ["web"]
    world.settle()
    assert (world.state("web"), world.show("web").pid) == ("stopping", pid)
    world.deaf.clear()
    change = finish(world, found)
    assert (change.status.value, world.tasks(change)) == (DONE, {"web": ("start", DONE)})
    assert world.state("web") == "active"
    assert world.spawned[-1].argv == ("/bin/other",)
    assert "log/web" in world.pid1.parked
    world.kill()
    world.settle()
    world.check()


def test_removed_and_added_again_disabled_while_it_stops_is_new_not_stopped_by_hand() -> None:
    world = up(DB, WEB)
    world.do("stop", "web")
    world.do("start", "web")
    world.deaf.add("web")
    world.act("stop", "web")
    world.replan(DB)
    world.settle()
    found = world.replan(DB, changed(WEB, startup="disabled"))
    assert actions(found) == {"web": "update"}
    world.deaf.clear()
    world.advance(2)
    assert world.state("web") == "inactive"
    assert world.replan(DB, WEB).started == ["web"]
    world.advance(2)
    assert world.state("web") == "active"


def test_a_changed_definition_restarts_it_in_order_with_those_that_require_it_and_no_other() -> None:
    other = service("other")
    world = up(DB, WEB, CRON, other)
    before = pids(world)
    found = world.replan(changed(DB, environment={"A": "secret"}), WEB, CRON, other)
    assert found.restarted == ["db", "web"]
    assert why(found, "db") == ["environment changed (A)"]
    assert why(found, "web") == ["db is restarted, which it requires"]
    change = finish(world, found)
    assert {t.service: (t.kind, t.status.value) for t in change.tasks} == {
        "db": ("restart", DONE),
        "web": ("restart", DONE),
    }
    after = pids(world)
    assert {name for name in after if after[name] != before[name]} == {"db", "web"}
    assert [spec.name for spec in world.spawned[4:]] == ["db", "web"]
    assert b"A=secret" in world.spawned[4].env
    assert all(s.restarts == 0 for s in world.overlord.services())
    assert "secret" not in str(change)
    world.check()


def test_stop_parameters_order_signals_and_log_mode_change_in_place() -> None:
    world = up(DB, WEB)
    before = pids(world)
    new = service("web", after=("db",), stop_signal=10, kill_delay=None, forward_signals=frozenset({1}))
    found = world.replan(DB, new, service("log", before=("db",), startup="disabled"))
    assert why(found, "web") == [
        "after changed", "requires changed", "stop-signal changed", "kill-delay changed", "forward-signals changed",
    ]  # fmt: skip
    world.settle()
    assert pids(world) | {"log": None} == before | {"log": None}
    run = world.pid1.find("web")
    assert (run.stop, run.forward, run.order[1]) == ((10, None), frozenset({1}), 2)
    assert world.pid1.find("db").order[1] == 1, "it waits for another one now"
    told = [call[1] for call in world.calls("update")]
    world.replan(DB, changed(new, stop_signal=10, kill_delay=None, after=("db",), logs_forward="disabled"))
    world.settle()
    assert run.log_mode is LogMode.DISABLED
    assert len(told) == 2
    world.check()


def test_only_what_is_news_to_pid_1_is_sent() -> None:
    world = up(DB, WEB, service("other"))
    world.replan(DB, changed(WEB, kill_delay=9.0), service("other", on_failure=Policy.IGNORE))
    world.settle()
    assert [world.pid1.runs[call[1]].name for call in world.calls("update")] == ["web"]


def test_policies_backoff_and_limits_of_restarts_change_in_place() -> None:
    world = up(service("web"))
    found = world.replan(service("web", on_failure=Policy.IGNORE, backoff_delay=9.0))
    assert (found.updated, found.restarted) == (["web"], [])
    world.exit("web", 1)
    assert world.state("web") == "inactive"


def test_a_run_whose_start_has_not_been_told_gets_the_new_order_as_soon_as_it_is() -> None:
    world = World([service("web")])
    world.slow.add("web")
    world.settle()
    world.replan(service("web", kill_delay=30.0))
    world.settle()
    assert not world.calls("update")
    world.slow.clear()
    world.settle()
    assert world.pid1.find("web").stop == (15, 30.0)
    world.check()


def test_what_is_on_its_way_out_keeps_the_signal_of_the_command_it_was_started_with() -> None:
    world = up(service("web", stop_signal=10))
    world.replan(service("web", stop_signal=3, command=("/bin/other",)))
    world.deaf.add("web")
    world.settle()
    assert world.pid1.find("web").stop[0] == 10
    world.deaf.clear()
    world.advance(2)
    assert world.pid1.find("web").stop[0] == 3


# --- what is not started ---


def test_startup_that_becomes_enabled_starts_it_unless_it_was_stopped_by_hand() -> None:
    off = [service(name, startup="disabled") for name in ("never", "by-hand", "ended")]
    world = up(*off)
    world.do("start", "by-hand", "ended")
    world.advance(2)
    world.do("stop", "by-hand")
    world.replan(*off[:2], service("ended", startup="disabled", on_success=Policy.IGNORE))
    world.exit("ended", 0)
    assert set(world.states().values()) == {"inactive"}
    found = world.replan(*(service(s.name, on_success=Policy.IGNORE) for s in off))
    assert found.started == ["never", "ended"]
    assert why(found, "by-hand")[-1] == "not started, as it was stopped by hand"
    world.advance(2)
    assert world.states() == {"never": "active", "by-hand": "inactive", "ended": "active"}


def test_startup_that_becomes_disabled_stops_nothing() -> None:
    world = up(service("web"))
    found = world.replan(service("web", startup="disabled"))
    assert (found.updated, found.stopped) == (["web"], [])
    world.settle()
    assert world.state("web") == "active"


def test_what_was_stopped_by_hand_stays_down_whatever_changes_of_it() -> None:
    world = up(DB, WEB)
    world.do("stop", "web")
    found = world.replan(DB, changed(WEB, command=("/bin/other",)))
    assert actions(found) == {"web": "update"}
    world.advance(2)
    assert world.state("web") == "inactive"
    world.do("start", "web")
    assert world.spawned[-1].argv == ("/bin/other",)


def test_what_is_being_stopped_by_hand_is_not_taken_along_by_a_restart() -> None:
    world = up(DB, WEB)
    world.deaf.add("web")
    world.act("stop", "web")
    world.settle()
    found = world.replan(changed(DB, nice=3), WEB)
    assert found.restarted == ["db"]
    world.act("restart", "db")
    world.settle()
    world.deaf.clear()
    world.advance(3)
    assert world.states() == {"db": "active", "web": "inactive"}


def test_a_new_one_does_not_start_what_was_stopped_by_hand_and_says_so() -> None:
    world = up(DB)
    world.do("stop", "db")
    found = world.replan(DB, WEB)
    assert found.started == ["web"]
    change = finish(world, found)
    assert world.states() == {"db": "inactive", "web": "inactive"}
    assert change.status.value == DONE
    assert change.err is not None
    assert change.err.startswith("web: it requires db, which is inactive (stopped by uid 0")


def test_one_that_comes_to_require_something_more_starts_that() -> None:
    world = up(service("web"))
    pid = world.show("web").pid
    found = world.replan(service("db", startup="disabled"), WEB)
    assert actions(found) == {"db": "start", "web": "update"}
    world.advance(2)
    assert world.states() == {"db": "active", "web": "active"}
    assert world.show("web").pid == pid


def test_one_that_comes_to_require_what_was_stopped_by_hand_stops_and_comes_back_with_that() -> None:
    front = service("front", requires=("web",))
    world = up(DB, service("web"), front)
    world.do("stop", "db")
    found = world.replan(DB, WEB, front)
    assert actions(found) == {"web": "stop", "front": "stop"}
    assert why(found, "web")[-1] == "it requires db, which is inactive"
    change = finish(world, found)
    assert world.tasks(change) == {"web": ("stop", DONE), "front": ("stop", DONE)}
    assert world.show("web").waiting_for == ["db"]
    world.do("start", "db")
    world.advance(2)
    assert set(world.states().values()) == {"active"}


def test_one_that_waits_for_what_it_no_longer_requires_starts() -> None:
    world = up(DB, WEB)
    world.do("stop", "db")
    assert world.show("web").waiting_for == ["db"]
    world.replan(DB, service("web"))
    world.advance(2)
    assert world.state("web") == "active"
    assert world.show("web").cause == "started, as nothing that it requires is missing any more"
    world.check()


def test_what_comes_back_with_what_it_requires_says_so() -> None:
    world = up(DB, WEB)
    world.do("stop", "db")
    assert world.show("web").cause.startswith("it requires db, which is inactive")
    world.do("start", "db")
    world.advance(2)
    assert (world.state("web"), world.show("web").cause) == ("active", "started again with what it requires")


# --- in the middle of something ---


def test_a_failure_of_what_is_changed_ends_its_backoff() -> None:
    world = up(service("web", backoff_delay=30.0), service("bad", backoff_delay=30.0))
    world.exit("web", 1)
    world.exit("bad", 1)
    found = world.replan(service("web", backoff_delay=30.0, nice=1), service("bad", backoff_delay=29.0))
    assert (found.restarted, found.updated) == (["web"], ["bad"])
    assert [step.why for step in found.steps if step.service == "web"] == [["nice changed", "it had failed"]]
    world.advance(2)
    assert world.states() == {"web": "active", "bad": "backoff"}
    assert world.show("web").restarts == 0


def test_what_was_given_up_is_started_with_another_definition_if_it_is_enabled() -> None:
    world = World([service("web", restart_limit=0), service("idle", restart_limit=0, startup="disabled")])
    world.advance(2)
    world.do("start", "idle")
    world.exit("web", 1)
    world.exit("idle", 1)
    assert set(world.states().values()) == {"error"}
    found = world.replan(service("web", nice=1), service("idle", nice=1, startup="disabled"))
    assert actions(found) == {"web": "start", "idle": "update"}
    world.advance(2)
    assert world.states() == {"web": "active", "idle": "error"}


def test_a_start_under_way_is_followed_by_the_restart() -> None:
    world = World([service("web")])
    world.slow.add("web")
    world.settle()
    found = world.replan(service("web", command=("/bin/other",)))
    assert found.restarted == ["web"]
    world.slow.clear()
    change = finish(world, found)
    assert [spec.argv[0] for spec in world.spawned] == ["/bin/web", "/bin/other"]
    assert change.status.value == DONE
    assert world.status(world.overlord.change("1")) == DONE


def test_what_waits_to_be_started_starts_as_the_new_plan_says() -> None:
    world = World([DB, WEB])
    world.slow.add("db")
    world.settle()
    found = world.replan(DB, changed(WEB, command=("/bin/other",)))
    assert (found.restarted, found.updated) == ([], ["web"])
    world.slow.clear()
    world.advance(2)
    assert [spec.argv[0] for spec in world.spawned] == ["/bin/db", "/bin/other"]
    assert not world.show("web").pending_restart


def test_a_restart_that_is_queued_anyway_is_the_only_one() -> None:
    world = World([service("web")])
    world.settle()
    world.act("restart", "web")  # the start settles for a second
    found = world.replan(service("web", command=("/bin/other",)))
    assert (found.restarted, found.updated, why(found, "web")) == ([], ["web"], ["command changed"])
    assert world.replan(service("web", command=("/bin/other",))).steps == [], "nothing is left as it was"
    world.advance(4)
    assert [spec.argv[0] for spec in world.spawned] == ["/bin/web", "/bin/other"]


def test_one_that_is_being_restarted_comes_up_as_the_new_plan_says() -> None:
    world = up(service("web"))
    world.deaf.add("web")
    world.act("restart", "web")
    world.settle()
    found = world.replan(service("web", command=("/bin/other",)))
    assert found.updated == ["web"]
    world.deaf.clear()
    world.advance(2)
    assert [spec.argv[0] for spec in world.spawned] == ["/bin/web", "/bin/other"]


def test_a_command_that_goes_away_leaves_what_runs_and_starts_nothing() -> None:
    world = World([DB, WEB])
    world.slow.add("db")
    world.settle()
    found = world.replan(DB, changed(WEB, command=None, startup="disabled"))
    world.slow.clear()
    finish(world, found)
    assert world.states() == {"db": "active", "web": "inactive"}
    assert world.show("web").cause == "the plan gives it no command"
    found = world.replan(
        service("db", command=None, startup="disabled"), changed(WEB, command=None, startup="disabled")
    )
    assert found.pending_restart == ["db"]
    world.settle()
    assert (world.state("db"), world.show("db").pending_restart) == ("active", True)


def test_a_oneshot_that_was_done_and_is_none_any_more_is_started_or_down() -> None:
    shots = [service(name, type="oneshot", on_success=Policy.IGNORE) for name in ("on", "off")]
    world = World(shots)
    world.settle()
    world.exit("on", 0)
    world.exit("off", 0)
    assert set(world.states().values()) == {"exited"}
    found = world.replan(service("on"), service("off", startup="disabled"), service("needs", requires=("off",)))
    assert actions(found) == {"on": "start", "off": "start", "needs": "start"}
    found = world.replan(service("on"), service("off", startup="disabled"))
    world.advance(2)
    assert world.states() == {"on": "active", "off": "active"}


def test_a_failed_start_is_named_in_a_change_that_is_done() -> None:
    world = up(DB)
    found = world.replan(DB, service("bad", on_failure=Policy.IGNORE))
    world.settle()
    world.lines["bad"] = ["cannot bind"]
    world.exit("bad", 3)
    change = finish(world, found)
    assert change.status.value == DONE
    assert change.err == "bad: exited with code 3 after 1ms; its last lines:\n  cannot bind"
    assert [t.status.value for t in change.tasks] == ["error"]


# --- no-restart, dry-run, keys, the end ---


def test_no_restart_leaves_what_changed_and_flags_it_until_its_next_start() -> None:
    world = up(DB, WEB)
    before = pids(world)
    new = changed(DB, environment={"A": "1"}, kill_delay=9.0)
    found = world.replan(new, WEB, service("more"), no_restart=True)
    assert (found.pending_restart, found.restarted, found.started) == (["db"], [], ["more"])
    world.advance(2)
    assert (pids(world)["db"], pids(world)["web"]) == (before["db"], before["web"])
    assert world.show("db").pending_restart
    assert not world.show("web").pending_restart
    assert world.pid1.find("db").stop == (15, 9.0)
    world.kill()
    world.settle()
    assert world.show("db").pending_restart, "control's death changes nothing"
    world.exit("db", 1)
    world.advance(2)
    assert not world.show("db").pending_restart
    assert b"A=1" in world.spawned[-1].env
    world.check()


def test_a_later_replan_restarts_what_was_left_running_unless_the_plan_is_back_where_it_was() -> None:
    world = up(DB, WEB)
    new = changed(DB, nice=1)
    world.replan(new, WEB, no_restart=True)
    world.settle()
    found = world.replan(DB, WEB)
    assert (found.updated, found.restarted) == (["db"], [])
    assert not world.show("db").pending_restart
    world.replan(new, WEB, no_restart=True)
    found = world.replan(new, WEB)
    assert found.restarted == ["db", "web"]
    assert why(found, "db") == ["changed by an earlier replan, and left running with what it had"]
    finish(world, found)
    assert not world.show("db").pending_restart
    assert world.replan(new, WEB).steps == []


def test_a_dry_run_says_what_would_happen_and_does_nothing() -> None:
    world = up(DB, WEB, service("old"))
    values, calls = dict(world.store.values), len(world.pid1.calls)
    plan = (changed(DB, nice=1), WEB, service("new"))
    found = world.replan(*plan, dry_run=True)
    assert (found.dry_run, found.change) == (True, None)
    assert (found.started, found.stopped, found.restarted) == (["new"], ["old"], ["db", "web"])
    world.settle()
    assert (world.store.values, len(world.pid1.calls)) == (values, calls)
    real = world.replan(*plan)
    assert real.steps == found.steps


def test_the_same_key_is_the_same_replan_and_another_one_is_a_conflict() -> None:
    world = up(DB, WEB)
    first = world.replan(DB, key="k")
    world.advance(2)
    again = world.replan(DB, WEB, key="k")
    assert again.change is not None
    assert first.change is not None
    assert (again.change.id, again.stopped, world.states()) == (first.change.id, ["web"], {"db": "active"})
    with pytest.raises(Conflict):
        world.replan(DB, WEB, key="k", no_restart=True)
    with pytest.raises(Conflict):
        world.act("stop", "db", key="k")
    world.act("stop", "db", key="other")
    with pytest.raises(Conflict):
        world.replan(DB, key="other")


def test_there_is_no_replan_during_a_shutdown() -> None:
    world = up(DB, WEB)
    world.deaf.add("web")
    world.overlord.shutdown(0, False, "uid 0")
    with pytest.raises(Unavailable, match="cannot replan: vigild is stopping"):
        world.replan(DB)


def test_a_shutdown_in_the_middle_of_a_replan_stops_the_removed_ones_too() -> None:
    world = up(DB, WEB)
    world.deaf = {"web", "db"}
    found = world.replan(DB, service("new"))
    world.settle()
    world.overlord.shutdown(0, False, "uid 0")
    world.settle()
    world.deaf.clear()
    change = finish(world, found)
    assert change.status.value == DONE
    assert not [e for e in world.pid1.runs.values() if e.state is RunPhase.RUNNING]


# --- reading ---


def on_disk(world: World, folder: Path, text: str) -> None:
    (folder / "a.yaml").write_text(text)
    world.store.values["plan"] = msgspec.msgpack.encode(Sources(directory=str(folder)))


def test_files_are_read_in_a_thread_and_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = up(DB)
    on_disk(world, tmp_path, "services: {db: {command: [/bin/db], startup: enabled}, new: {command: run}}")
    reading: list[int] = []
    at_once: list[int] = []

    def read(directory: str) -> Sources:
        assert threading.current_thread() is not threading.main_thread()
        reading.append(1)
        at_once.append(len(reading))
        time.sleep(0.02)  # as a slow disk would
        found = reader.read(directory)
        reading.pop()
        return found

    monkeypatch.setattr("vigil.overlord.overlord.read", read)

    async def both() -> list[api.Replan]:
        ask = [world.overlord.replan(api.ReplanAction(), f"caller {n}", None) for n in range(3)]
        return list(await asyncio.gather(*ask))

    found = asyncio.run(both())
    assert [answer.updated for answer in found] == [["new"], [], []]
    assert at_once == [1, 1, 1]


def test_layers_that_are_gone_stop_nothing(tmp_path: Path) -> None:
    world = up(DB)
    before = pids(world)
    world.store.values["plan"] = msgspec.msgpack.encode(Sources(directory=str(tmp_path / "layers")))
    with pytest.raises(PlanError, match="the directory is gone, which stops nothing"):
        asyncio.run(world.overlord.replan(api.ReplanAction(), "a test", None))
    with pytest.raises(PlanError, match="the directory is gone"):
        asyncio.run(world.overlord.check_plan())
    assert pids(world) == before
    (tmp_path / "layers").mkdir()
    assert asyncio.run(world.overlord.replan(api.ReplanAction(), "a test", None)).stopped == ["db"]


def test_a_plan_is_read_where_no_thread_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are too many, which is when somebody has to say that there shall be fewer."""
    world = up(DB)
    on_disk(world, tmp_path, "services: {}")

    async def none(call: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio, "to_thread", none)
    assert asyncio.run(world.overlord.replan(api.ReplanAction(), "uid 0", None)).stopped == ["db"]


def test_who_goes_away_while_files_are_read_has_asked_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = up(DB)
    on_disk(world, tmp_path, "services: {}")
    reads, goes_on = threading.Event(), threading.Event()

    def read(directory: str) -> Sources:
        reads.set()
        assert goes_on.wait(30)
        return reader.read(directory)

    monkeypatch.setattr("vigil.overlord.overlord.read", read)

    async def cancelled() -> api.Replan:
        first = asyncio.ensure_future(world.overlord.replan(api.ReplanAction(), "gone", None))
        await asyncio.to_thread(reads.wait, 30)
        first.cancel()
        second = asyncio.ensure_future(world.overlord.replan(api.ReplanAction(dry_run=True), "there", None))
        goes_on.set()
        return await second

    assert asyncio.run(cancelled()).stopped == ["db"]
    assert [change.kind for change in world.overlord.changes()] == ["autostart"]
    assert world.states() == {"db": "active"}


# --- restart starts what it requires ---


def test_a_restart_starts_what_it_requires_as_a_start_does() -> None:
    world = up(DB, WEB)
    world.do("stop", "db")
    assert world.states() == {"db": "inactive", "web": "inactive"}
    change = world.do("restart", "web")
    world.advance(2)
    assert world.tasks(change) == {"db": ("start", DONE), "web": ("restart", DONE)}
    assert world.states() == {"db": "active", "web": "active"}


def test_a_restart_of_all_starts_nothing_that_was_stopped_by_hand() -> None:
    world = up(DB, WEB, service("other"))
    world.do("stop", "db")
    change = world.do("restart")
    world.advance(2)
    assert world.tasks(change) == {"other": ("restart", DONE)}
    assert world.states() == {"db": "inactive", "web": "inactive", "other": "active"}
