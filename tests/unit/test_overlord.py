"""What the overlord does with services, over a PID 1 without processes."""

from __future__ import annotations

import asyncio
import errno
import signal
import threading
from typing import Any

import msgspec
import pytest

from tests.unit.overlord_world import SHORT, World, service
from vigil.journal import JournalError
from vigil.model import api
from vigil.model.errors import BadRequest, Conflict, NotFound, StartError, Unavailable
from vigil.overlord.tree import Use
from vigil.plan.types import Policy, Sources
from vigil.shim.messages import RunPhase, SpawnSpec, Step

TWO = (service("db"), service("web", requires=("db",)))


def up(*services: object) -> World:
    """A world in which everything enabled has been up for two seconds."""
    world = World(services)  # type: ignore[arg-type]
    world.advance(2)
    return world


# --- start ---


def test_enabled_services_start_once_in_a_boot_and_the_change_is_done_after_a_second() -> None:
    world = World([service("web"), service("idle", startup="disabled")])
    world.settle()
    assert world.states() == {"web": "active", "idle": "inactive"}
    (change,) = world.overlord.changes()
    assert (change.kind, change.cause, change.status.value) == ("autostart", "vigild: autostart", "doing")
    world.advance(0.999)
    assert world.status(change) == "doing"
    world.advance(0.002)
    assert world.status(change) == "done"
    world.do("stop", "web")
    world.kill()
    world.settle()
    assert world.states() == {"web": "inactive", "idle": "inactive"}
    assert world.starts("web") == 1
    world.check()


def test_a_boot_with_nothing_to_start_is_a_change_that_is_done() -> None:
    world = World([])
    (change,) = world.overlord.changes()
    assert (change.status.value, change.tasks, change.summary) == ("done", [], "autostart nothing")


def test_a_log_is_made_and_parked_before_the_first_spawn_and_only_once() -> None:
    world = up(service("web"), service("raw", logs_forward="passthrough"))
    kinds = [call[0] for call in world.pid1.calls if call[0] in ("park", "spawn")]
    assert kinds == ["park", "spawn", "spawn"]
    assert world.calls("park") == [("park", "log/web")]
    world.kill()
    world.exit("web", 1)
    world.advance(1)
    assert world.starts("web") == 2
    assert len(world.calls("park")) == 1


def test_what_a_spawn_carries() -> None:
    world = World([service("db"), service("web", after=("db",), nice=5, stop_signal=10, kill_delay=None)])
    world.settle()
    spec = next(spec for spec in world.spawned if spec.name == "web")
    assert isinstance(spec, SpawnSpec)
    assert (spec.argv, spec.cwd, spec.nice, spec.stop_signal, spec.kill_delay) == (("/bin/web",), "/", 5, 10, None)
    assert (spec.log, spec.prefix, spec.rank, list(spec.env)) == ("web", "[web] ", 1, [b"PATH=/bin"])


def test_services_start_in_order_and_side_by_side() -> None:
    world = World([service("a"), service("b", after=("a",)), service("c", before=("a",)), service("d")])
    world.slow = {"c"}
    world.settle()
    assert world.states() == {"a": "starting", "b": "starting", "c": "starting", "d": "active"}
    assert world.show("a").waiting_for == ["c"]
    world.slow.clear()
    world.settle()
    assert [spec.name for spec in world.spawned] == ["c", "d", "a", "b"]


def test_a_disabled_one_does_not_hold_up_after_and_is_warned_of_once(capfd: pytest.CaptureFixture[str]) -> None:
    world = up(service("idle", startup="disabled"), service("web", after=("idle",)))
    assert world.state("web") == "active"
    world.exit("web", 1)
    world.advance(3)
    world.kill()
    world.do("restart", "web")
    assert capfd.readouterr().err.count("started without waiting for idle, which nobody starts") == 1


def test_starting_one_starts_what_it_requires_but_not_what_it_is_only_after() -> None:
    world = World(
        [
            service("base", startup="disabled"),
            service("db", startup="disabled", requires=("base",)),
            service("cache", startup="disabled"),
            service("web", startup="disabled", requires=("db",), after=("cache",)),
        ]
    )
    change = world.do("start", "web")
    assert world.states() == {"base": "active", "db": "active", "cache": "inactive", "web": "active"}
    assert list(world.tasks(change)) == ["base", "db", "web"]
    assert "as db requires it" in world.show("base").cause
    world.advance(1)
    assert world.status(change) == "done"


def test_a_start_that_cannot_be_satisfied_is_an_error_that_names_what_is_missing() -> None:
    world = up(service("db", on_failure=Policy.IGNORE, startup="disabled"), service("web", requires=("db",)))
    world.exit("db", 1)
    world.broken["db"] = (Step.EXEC, errno.ENOENT)
    change = world.do("start", "web")
    assert world.tasks(change) == {"db": ("start", "error"), "web": ("start", "error")}
    err = world.overlord.change(change.id).err
    assert err is not None
    assert "web: it requires db, which is inactive" in err
    assert "db: exec /bin/db: No such file or directory" in err
    assert (world.state("web"), world.show("web").waiting_for) == ("inactive", ["db"])


def test_a_service_without_command_cannot_be_started_nor_what_requires_it() -> None:
    world = World([service("db", command=None, startup="disabled"), service("web", requires=("db",))])
    world.settle()
    (change,) = world.overlord.changes()
    assert world.tasks(change) == {"db": ("start", "error"), "web": ("start", "error")}
    assert change.err is not None
    assert "the plan gives it no command" in change.err
    assert world.state("web") == "inactive"


def test_an_exit_within_a_second_is_the_changes_error_with_code_and_output() -> None:
    world = World([service("web")])
    world.advance(0.25)
    world.lines["web"] = ["first", "bind: Address in use"]
    world.exit("web", 3, gone=False)
    (change,) = world.overlord.changes()
    assert change.status.value == "doing", "the last lines are known when nothing of it is left"
    world.go("web")
    (change,) = world.overlord.changes()
    assert change.status.value == "error"
    assert change.err == "web: exited with code 3 after 250ms; its last lines:\n  first\n  bind: Address in use"
    last = world.show("web").exit
    assert last is not None
    assert (last.code, last.signal, last.output) == (3, None, ["first", "bind: Address in use"])
    assert world.state("web") == "backoff"


def test_an_exit_after_a_second_is_not_the_changes_error() -> None:
    world = World([service("web")])
    world.advance(1)
    world.exit("web", 3)
    (change,) = world.overlord.changes()
    assert change.status.value == "done"


def test_a_start_of_what_is_up_is_done_at_once() -> None:
    world = up(service("web"))
    assert world.status(world.do("start", "web")) == "done"
    assert world.starts("web") == 1


def test_what_waits_for_one_that_failed_is_on_hold_and_still_starts() -> None:
    world = World([service("db"), service("web", after=("db",)), service("front", after=("web",))])
    world.broken["db"] = (Step.EXEC, errno.ENOENT)
    world.advance(0.1)
    (change,) = world.overlord.changes()
    assert world.tasks(change) == {"db": ("start", "error"), "web": ("start", "hold"), "front": ("start", "hold")}
    assert change.status.value == "error"
    assert (world.state("db"), world.state("web"), world.show("web").waiting_for) == ("backoff", "starting", ["db"])
    world.broken.clear()
    world.advance(1)
    assert set(world.states().values()) == {"active"}
    held = world.do("stop", "db")
    assert held.status.value == "done"
    assert world.state("web") == "active", "after is no requirement"


# --- failures ---


@pytest.mark.parametrize(("error", "code"), [(errno.ENOENT, 127), (errno.EACCES, 126), (errno.ENOEXEC, 126)])
def test_a_command_that_cannot_be_executed_is_a_failure_with_the_shells_code(error: int, code: int) -> None:
    world = World([service("web")])
    world.broken["web"] = (Step.EXEC, error)
    world.settle()
    shown = world.show("web")
    assert shown.exit is not None
    assert (shown.current.value, shown.exit.code) == ("backoff", code)
    assert shown.exit.reason.startswith("exec /bin/web: ")
    assert not world.pid1.runs, "PID 1 keeps a failed start until it is released"


def test_a_shortage_is_tried_again_with_backoff_and_not_counted() -> None:
    world = World([service("web", restart_limit=0, on_failure=Policy.SHUTDOWN)])
    world.broken["web"] = SHORT
    world.advance(0.4)
    assert (world.state("web"), world.starts("web")) == ("backoff", 1)
    world.advance(1.2)
    assert world.starts("web") == 3, "after 0.5 s and 1 s more"
    world.broken.clear()
    world.advance(5)
    shown = world.show("web")
    assert (shown.current.value, shown.restarts, shown.exit) == ("active", 0, None)
    (change,) = world.overlord.changes()
    assert change.status.value == "done"


def test_a_full_table_is_a_shortage() -> None:
    world = World([service("a"), service("b")])
    world.pid1.slots = 1
    world.do("stop")
    change = world.do("start", "a", "b")
    assert (world.state("a"), world.state("b")) == ("active", "backoff")
    world.pid1.slots = 2
    world.advance(2)
    assert (world.state("b"), world.status(change)) == ("active", "done")


def test_memory_for_a_log_being_short_is_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([service("web", startup="disabled")])
    logs = world.overlord._logs
    make = logs.make

    def fail(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(logs, "make", fail)
    change = world.do("start", "web")
    assert (world.state("web"), world.starts("web")) == ("backoff", 0)
    monkeypatch.setattr(logs, "make", make)
    world.advance(2)
    assert (world.state("web"), world.status(change)) == ("active", "done")


def test_backoff_gaps_follow_the_formula_at_the_limit_too_and_never_end() -> None:
    world = up(service("web", backoff_delay=0.5, backoff_factor=2.0, backoff_limit=3.0))
    gaps = []
    for _ in range(8):
        world.exit("web", 1)
        begun = world.clock.now
        starts = world.starts("web")
        while world.starts("web") == starts:
            assert world.clock.wanted is not None
            world._pass(world.clock.wanted[0])
            world.settle()
        gaps.append((world.clock.now - begun) / 1e9)
    assert gaps == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    assert world.show("web").restarts == 8


def test_the_gap_counts_from_the_exit_and_the_restart_waits_until_nothing_is_left() -> None:
    world = up(service("web"))
    world.exit("web", 1, gone=False)
    world.advance(0.3)
    assert (world.state("web"), world.starts("web")) == ("stopping", 1)
    world.go("web")
    assert world.state("web") == "backoff"
    world.advance(0.2)
    assert world.starts("web") == 2
    world.exit("web", 1, gone=False)
    world.advance(9)
    assert world.starts("web") == 2
    world.go("web")
    assert world.starts("web") == 3


def test_a_healthy_run_resets_the_delay_and_the_limit() -> None:
    world = up(service("web", restart_limit=1))
    for _ in range(3):
        world.exit("web", 1)
        world.advance(0.5)
        assert world.state("web") == "active"
        world.advance(30.1)  # longer than backoff-limit
    world.exit("web", 1)
    world.advance(0.6)
    world.exit("web", 1)
    assert world.state("web") == "error"


def test_restart_limit_gives_up_and_a_start_by_hand_begins_anew() -> None:
    world = up(service("web", restart_limit=2, backoff_delay=0.1))
    for _ in range(3):
        world.exit("web", 1)
        world.advance(0.5)
    shown = world.show("web")
    assert (shown.current.value, shown.restarts, world.starts("web")) == ("error", 2, 3)
    assert "given up after 2 restarts" in shown.cause
    world.do("start", "web")
    assert (world.state("web"), world.show("web").restarts) == ("active", 0)
    world.exit("web", 1)
    world.advance(0.1)
    assert world.state("web") == "active"


def test_success_backs_off_as_well_and_ignore_ends_it() -> None:
    world = up(service("web"), service("once", on_success=Policy.IGNORE))
    world.exit("web", 0)
    world.exit("once", 0)
    assert world.states() == {"web": "backoff", "once": "inactive"}
    world.advance(100)
    assert (world.starts("web"), world.starts("once")) == (2, 1)


def test_success_exit_codes_decide_which_policy_applies() -> None:
    world = up(service("java", success_exit_codes=frozenset({0, 143}), on_success=Policy.IGNORE))
    world.exit("java", signo=signal.SIGTERM)
    assert world.state("java") == "inactive"


# --- shutdown ---


@pytest.mark.parametrize(
    ("policy", "code", "signo", "expected"),
    [
        (Policy.SHUTDOWN, 7, None, 7),
        (Policy.SHUTDOWN, 255, None, 255),
        (Policy.SHUTDOWN, 0, signal.SIGKILL, 137),
        (Policy.SHUTDOWN, 0, signal.SIGSEGV, 139),
        (Policy.SHUTDOWN, 0, None, 0),
        (Policy.FAILURE_SHUTDOWN, 3, None, 3),
        (Policy.FAILURE_SHUTDOWN, 0, None, 10),
        (Policy.SUCCESS_SHUTDOWN, 7, None, 0),
    ],
)
def test_a_shutdown_policy_decides_the_exit_code(
    policy: Policy, code: int, signo: signal.Signals | None, expected: int
) -> None:
    world = up(service("web", on_failure=policy, on_success=policy), service("db"))
    world.exit("web", code, signo)
    world.advance(1)
    assert world.calls("shutdown") == [("shutdown", expected, False)]
    assert world.states() == {"web": "inactive", "db": "inactive"}
    assert not world.living()


def test_the_first_shutdown_decides_and_its_code_counts_before_the_rest_of_it_is_gone() -> None:
    world = up(service("a", on_failure=Policy.SHUTDOWN), service("b", on_failure=Policy.SHUTDOWN))
    world.deaf = {"b"}
    world.exit("a", 7, gone=False)
    assert world.pid1.shutting_down == (7, False)
    world.exit("b", 9)
    world.go("a")
    world.advance(60)
    assert world.calls("shutdown") == [("shutdown", 7, False)]


def test_a_command_that_cannot_be_executed_shuts_down_with_127() -> None:
    world = World([service("web", on_failure=Policy.SHUTDOWN)])
    world.broken["web"] = (Step.EXEC, errno.ENOENT)
    world.settle()
    assert world.pid1.shutting_down == (127, False)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_nothing_is_restarted_or_commanded_once_vigild_is_told_to_stop(end: signal.Signals) -> None:
    world = up(service("web", on_failure=Policy.SHUTDOWN), service("slow"), service("idle", startup="disabled"))
    world.exit("slow", 1)
    assert world.state("slow") == "backoff"
    world.pid1.signalled(end)
    world.settle()
    world.exit("web", 9)
    world.advance(60)
    assert world.states() == {"web": "inactive", "slow": "inactive", "idle": "inactive"}
    assert not world.calls("shutdown"), "the stop is PID 1's own, and so is its code"
    with pytest.raises(Unavailable, match=f"cannot start: vigild was told to stop by {end.name}"):
        world.act("start", "idle")


def test_a_stop_of_everything_that_control_did_not_ask_for_is_no_failure() -> None:
    world = up(service("web"), service("db"))
    world.pid1.shutdown(0, False)
    world.settle()
    world.advance(60)
    assert world.states() == {"web": "inactive", "db": "inactive"}
    assert len(world.spawned) == 2


def test_a_start_under_way_ends_in_error_when_vigild_stops() -> None:
    world = World([service("web"), service("x", after=("web",))])
    world.slow.add("web")
    world.settle()
    world.overlord.shutdown(0, False, "uid 0")
    world.settle()
    (change,) = world.overlord.changes()
    assert change.status.value == "error"
    assert change.err is not None
    assert "vigild is stopping: asked for by uid 0" in change.err
    assert world.state("x") == "inactive"


def test_other_signals_to_vigild_stop_nothing() -> None:
    world = up(service("web"))
    world.pid1.signalled(signal.SIGHUP)
    world.settle()
    assert world.state("web") == "active"
    assert world.status(world.do("restart", "web")) == "doing"


def test_a_restart_of_vigild_is_begun_without_reading_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """That may take long, and the loop has to go on: ``check_plan`` does it before, in a thread."""
    world = up(service("web"))
    world.store.values["plan"] = msgspec.msgpack.encode(Sources(directory="/etc/vigil/layers"))
    read: list[str] = []
    monkeypatch.setattr("vigil.overlord.overlord.read", lambda directory: read.append(directory) or Sources(directory))
    asyncio.run(world.overlord.check_plan())
    assert read == ["/etc/vigil/layers"]
    world.overlord.shutdown(0, True, "uid 0")
    assert read == ["/etc/vigil/layers"]
    assert world.calls("shutdown") == [("shutdown", 0, True)]


def test_processes_are_measured_beside_the_loop_and_once_for_all_who_ask() -> None:
    world = up(service("web"))
    looks: list[dict[str, tuple[int, int]]] = []
    go_on = threading.Event()

    def look(mains: dict[str, tuple[int, int]]) -> dict[str, Use]:
        looks.append(mains)
        assert go_on.wait(30)
        return {"web": Use(1.5, 4096)}

    world.overlord._tree.look = look  # type: ignore[method-assign, assignment]

    async def ask() -> list[list[Any]]:
        asked = [asyncio.create_task(world.overlord.measured(names)) for names in ((), ("web",))]
        cut = asyncio.create_task(world.overlord.measured())
        while not looks:  # noqa: ASYNC110 - it is set by a thread
            await asyncio.sleep(0.001)  # the loop goes on
        cut.cancel()  # that one client has gone is nothing to the others
        go_on.set()
        return await asyncio.gather(*asked)

    for services in asyncio.run(ask()):
        assert [(s.name, s.cpu, s.memory) for s in services] == [("web", 1.5, 4096)]
    assert len(looks) == 1
    asyncio.run(ask())
    assert len(looks) == 2, "what was found is not kept"


def test_a_restart_of_vigild_may_become_an_exit_but_not_the_other_way_round() -> None:
    world = up(service("web"))
    world.deaf.add("web")
    world.overlord.shutdown(0, True, "uid 0")
    world.overlord.shutdown(0, True, "uid 0")
    world.overlord.shutdown(0, False, "uid 0")
    world.overlord.shutdown(0, True, "uid 0")
    assert world.calls("shutdown") == [("shutdown", 0, True), ("shutdown", 0, False)]


def test_after_a_turn_that_failed_nothing_is_done_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """control ends then, but its loop goes round some more times on the way."""
    world = up(service("web"))
    write = world.store.write

    def fail(changes: object) -> None:
        monkeypatch.setattr(world.store, "write", write)
        raise JournalError("cannot write the journal: No space left on device")

    monkeypatch.setattr(world.store, "write", fail)
    calls, values = list(world.pid1.calls), dict(world.store.values)
    with pytest.raises(SystemExit):
        world.overlord.act(api.ServicesAction(action="stop", services=["web"]), "uid 0", None)
    with pytest.raises(SystemExit):
        world.overlord.act(api.ServicesAction(action="restart", services=["web"]), "uid 0", None)
    world.pid1.signalled(signal.SIGHUP)
    with pytest.raises(SystemExit):
        world._settle()
    assert (world.pid1.calls, world.store.values) == (calls, values)
    world.kill()
    assert world.status(world.do("stop", "web")) == "done"


# --- stop, restart, order ---


def test_stop_is_done_when_nothing_is_left() -> None:
    world = up(service("web"))
    world.deaf.add("web")
    change = world.do("stop", "web")
    assert (world.state("web"), world.status(change)) == ("stopping", "doing")
    world.exit("web", 0, gone=False)
    assert (world.state("web"), world.status(change)) == ("stopping", "doing")
    world.go("web")
    assert (world.state("web"), world.status(change)) == ("inactive", "done")
    assert world.show("web").cause.startswith("stopped by uid 0 over the Unix socket (change ")
    world.check()


def test_a_stop_goes_the_other_way_round_and_takes_along_what_requires_it() -> None:
    world = up(*TWO, service("front", requires=("web",)), service("cron", after=("db",)))
    world.deaf = {"front", "web"}
    change = world.do("stop", "db")
    assert world.states() == {"db": "stopping", "web": "stopping", "front": "stopping", "cron": "active"}
    assert len(world.calls("stop")) == 1
    assert world.show("db").waiting_for == ["web"]
    world.exit("front")
    assert len(world.calls("stop")) == 2
    world.exit("web")
    assert world.states() == {"db": "inactive", "web": "inactive", "front": "inactive", "cron": "active"}
    assert world.tasks(change) == dict.fromkeys(("db", "web", "front"), ("stop", "done"))


def test_a_stop_of_several_goes_in_reverse_order_of_need() -> None:
    world = up(service("a"), service("b", after=("a",)), service("c", after=("b",)), service("other"))
    world.deaf = {"b", "c"}
    world.do("stop", "a", "b", "c", "other")
    stopped = [world.pid1.find(run).name for _, run in world.calls("stop") if run in world.pid1.runs]
    assert stopped == ["c"], "other has gone already"
    assert world.state("other") == "inactive"
    world.exit("c")
    world.exit("b")
    assert set(world.states().values()) == {"inactive"}


def test_what_was_stopped_only_for_that_reason_comes_back_by_itself() -> None:
    world = up(*TWO, service("front", requires=("web",)), service("other", requires=("db",)))
    world.do("stop", "other")
    world.do("stop", "db")
    assert world.show("web").waiting_for == ["db"]
    world.do("start", "db")
    world.advance(2)
    assert world.states() == {"db": "active", "web": "active", "front": "active", "other": "inactive"}
    assert world.show("web").restarts == 0


def test_what_is_stopped_by_hand_meanwhile_does_not_come_back() -> None:
    world = up(*TWO)
    world.do("stop", "db")
    assert world.status(world.do("stop", "web")) == "done"
    world.do("start", "db")
    world.advance(2)
    assert world.states() == {"db": "active", "web": "inactive"}


@pytest.mark.parametrize("keys", [{"on_failure": Policy.IGNORE}, {"restart_limit": 0}])
def test_when_a_required_one_goes_for_good_what_requires_it_is_stopped(keys: dict[str, object]) -> None:
    world = up(service("db", **keys), service("web", requires=("db",)), service("front", requires=("web",)))
    world.exit("db", 1, gone=False)
    assert world.state("web") == "active", "dependents wait until nothing of it is left"
    world.go("db")
    assert (world.state("web"), world.state("front")) == ("inactive", "inactive")
    assert "it requires db, which is" in world.show("web").cause
    world.do("start", "db")
    world.advance(1)
    assert set(world.states().values()) == {"active"}


def test_a_required_one_in_backoff_stops_nobody() -> None:
    world = up(*TWO)
    world.exit("db", 1)
    assert world.states() == {"db": "backoff", "web": "active"}
    world.advance(1)
    assert (world.starts("db"), world.starts("web")) == (2, 1)


def test_in_backoff_a_service_whose_required_one_goes_is_not_started_again() -> None:
    world = up(service("db", on_failure=Policy.IGNORE), service("web", requires=("db",)))
    world.exit("web", 1)
    world.exit("db", 1)
    world.advance(60)
    assert (world.state("web"), world.starts("web")) == ("inactive", 1)
    world.do("start", "db")
    assert world.state("web") == "active"


def test_a_restart_on_command_takes_along_what_requires_it_in_order() -> None:
    world = up(*TWO, service("cron", after=("db",)))
    world.spawned.clear()
    change = world.do("restart", "db")
    assert [spec.name for spec in world.spawned] == ["db", "web"]
    assert world.tasks(change) == {"db": ("restart", "doing"), "web": ("restart", "doing")}
    world.advance(1)
    assert world.status(change) == "done"
    assert set(world.states().values()) == {"active"}
    assert [s.restarts for s in world.overlord.services()] == [0, 0, 0]
    world.check()


def test_a_restart_of_several_restarts_each_once() -> None:
    world = up(*TWO, service("front", after=("web",)))
    world.spawned.clear()
    change = world.do("restart", "front", "db", "web")
    assert sorted(spec.name for spec in world.spawned) == ["db", "front", "web"]
    assert [spec.name for spec in world.spawned] == ["db", "web", "front"]
    world.advance(1)
    assert world.status(change) == "done"


def test_a_restart_of_what_is_down_starts_it() -> None:
    world = World([service("web", startup="disabled")])
    change = world.do("restart", "web")
    world.advance(1)
    assert (world.state("web"), world.status(change)) == ("active", "done")


def test_an_empty_list_means_all() -> None:
    world = World([service("a"), service("b", startup="disabled"), service("c", startup="disabled", command=None)])
    world.advance(2)
    assert world.tasks(world.do("start")) == {"a": ("start", "done"), "b": ("start", "doing")}
    world.do("stop", "a")
    assert list(world.tasks(world.do("restart"))) == ["b"]
    world.advance(2)
    assert list(world.tasks(world.do("signal", signal="HUP"))) == ["b"]
    assert list(world.tasks(world.do("stop"))) == ["b"]
    assert list(world.tasks(world.do("autostart"))) == ["a"]


def test_a_stop_of_one_that_is_ending_anyway_lets_go_at_once_what_was_only_after_it() -> None:
    world = up(service("db"), service("web", after=("db",)))
    world.do("stop", "web")
    world.exit("db", 1, gone=False)
    world.do("start", "web")
    assert world.show("web").waiting_for == ["db"]
    world.do("stop", "db")
    assert (world.state("db"), world.state("web")) == ("stopping", "active")


# --- commands meet ---


def test_a_start_during_a_stop_waits_for_it() -> None:
    world = up(service("web"))
    world.deaf.add("web")
    stop = world.do("stop", "web")
    start = world.do("start", "web")
    assert (world.state("web"), world.starts("web")) == ("stopping", 1)
    world.deaf.clear()
    world.settle()
    assert (world.status(stop), world.status(start)) == ("done", "doing")
    assert (world.state("web"), world.starts("web")) == ("active", 2)
    world.advance(1)
    assert world.status(start) == "done"


def test_commands_on_one_service_queue_up() -> None:
    world = up(service("web"))
    changes = [world.act("stop", "web", key="1"), world.act("start", "web", key="2")]
    changes += [world.act("restart", "web", key="3"), world.act("restart", "web", key="4")]
    world.advance(5)
    assert [world.status(change) for change in changes] == ["done"] * 4
    assert world.starts("web") == 4
    world.check()


def test_a_stop_wins_over_a_start_under_way_and_over_those_that_wait() -> None:
    world = World([service("web", startup="disabled")])
    world.slow.add("web")
    start, again = world.do("start", "web"), world.do("restart", "web")
    stop = world.do("stop", "web")
    world.slow.clear()
    world.settle()
    assert [world.status(change) for change in (start, again, stop)] == ["error", "error", "done"]
    assert "overtaken by a stop" in str(world.overlord.change(start.id).err)
    world.advance(60)
    assert (world.state("web"), world.starts("web")) == ("inactive", 1)


def test_a_stop_wins_over_waiting_for_others() -> None:
    world = World([service("db"), service("web", after=("db",))])
    world.slow.add("db")
    world.settle()
    assert world.status(world.do("stop", "web")) == "done"
    world.slow.clear()
    world.advance(2)
    assert world.states() == {"db": "active", "web": "inactive"}


def test_a_stop_in_backoff_cancels_the_restart() -> None:
    world = up(service("web"))
    world.exit("web", 1)
    assert world.status(world.do("stop", "web")) == "done"
    world.advance(100)
    assert (world.state("web"), world.starts("web")) == ("inactive", 1)


def test_a_start_in_backoff_cancels_the_delay_and_resets_it() -> None:
    world = up(service("web", backoff_delay=20.0, backoff_limit=60.0))
    world.exit("web", 1)
    world.do("start", "web")
    assert (world.state("web"), world.show("web").restarts) == ("active", 0)
    world.exit("web", 1)
    world.advance(19.9)
    assert world.state("web") == "backoff"
    world.advance(0.2)
    assert world.state("web") == "active"


def test_a_command_while_its_own_end_goes_on_needs_no_backoff() -> None:
    world = up(service("web"))
    world.exit("web", 1, gone=False)
    start = world.do("start", "web")
    assert (world.state("web"), world.starts("web")) == ("stopping", 1)
    world.go("web")
    assert (world.state("web"), world.starts("web")) == ("active", 2)
    world.advance(1)
    assert world.status(start) == "done"


def test_signal_goes_to_the_main_process_once() -> None:
    world = up(service("web"), service("idle", startup="disabled"))
    change = world.do("signal", "web", "idle", signal="usr1")
    assert world.tasks(change) == {"web": ("signal", "done"), "idle": ("signal", "error")}
    assert [(number, target.name) for number, target in world.pid1.find("web").signals] == [(10, "MAIN")]


def test_a_kill_while_a_signal_is_sent_is_told() -> None:
    world = up(service("web"))
    change = world.act("signal", "web", signal="HUP")
    world.kill()
    world.settle()
    # Whether it had been sent nobody could tell the next control: here it was, and it is not sent twice.
    assert len(world.pid1.find("web").signals) == 1
    assert world.status(change) in ("done", "error")


# --- oneshots ---


def test_those_that_wait_for_a_oneshot_start_when_it_is_done() -> None:
    world = World([service("migrate", type="oneshot", on_success=Policy.IGNORE), service("web", after=("migrate",))])
    world.settle()
    assert (world.state("migrate"), world.show("migrate").ready) == ("active", False)
    world.advance(100)
    assert world.states() == {"migrate": "active", "web": "starting"}
    world.exit("migrate", 0)
    assert world.states() == {"migrate": "exited", "web": "active"}
    world.advance(1)
    (change,) = world.overlord.changes()
    assert change.status.value == "done"


def test_a_failed_oneshot_keeps_what_requires_it_waiting() -> None:
    world = World(
        [
            service("migrate", type="oneshot", on_success=Policy.IGNORE, on_failure=Policy.IGNORE),
            service("web", requires=("migrate",)),
            service("log", after=("migrate",)),
        ]
    )
    world.settle()
    world.exit("migrate", 1)
    assert world.states() == {"migrate": "inactive", "web": "inactive", "log": "active"}
    assert world.show("web").waiting_for == ["migrate"]
    (change,) = world.overlord.changes()
    assert world.tasks(change) == {"migrate": ("start", "error"), "web": ("start", "error"), "log": ("start", "doing")}
    world.do("start", "migrate")
    world.exit("migrate", 0)
    assert world.state("web") == "active"


def test_a_oneshot_that_is_done_is_not_run_again_for_one_that_requires_it_but_on_command() -> None:
    world = World([service("migrate", type="oneshot", on_success=Policy.IGNORE), service("web", requires=("migrate",))])
    world.settle()
    world.exit("migrate", 0)
    world.do("restart", "web")
    assert world.starts("migrate") == 1
    change = world.do("start", "migrate")
    assert world.states() == {"migrate": "active", "web": "active"}
    world.exit("migrate", 0)
    assert (world.starts("migrate"), world.status(change)) == (2, "done")


def test_a_restart_of_a_oneshot_that_is_done_restarts_what_requires_it_in_order() -> None:
    once = service("migrate", type="oneshot", on_success=Policy.IGNORE)
    world = World([once, service("web", requires=("migrate",)), service("log", after=("migrate",))])
    world.settle()
    world.exit("migrate", 0)
    world.advance(2)
    world.deaf.add("web")
    change = world.do("restart", "migrate")
    assert world.states() == {"migrate": "starting", "web": "stopping", "log": "active"}
    assert world.show("migrate").waiting_for == ["web"]
    world.exit("web", 0)
    assert world.states() == {"migrate": "active", "web": "starting", "log": "active"}
    world.deaf.clear()
    world.exit("migrate", 0)
    world.advance(1)
    assert world.states() == {"migrate": "exited", "web": "active", "log": "active"}
    assert world.tasks(change) == {"migrate": ("restart", "done"), "web": ("restart", "done")}


def test_a_oneshot_that_is_done_hands_no_restart_on_so_whoever_needs_what_is_behind_it_names_it_too() -> None:
    once = service("migrate", type="oneshot", on_success=Policy.IGNORE, requires=("db",))
    world = World(
        [service("db"), once, service("web", requires=("migrate",)), service("api", requires=("migrate", "db"))]
    )
    world.settle()
    world.exit("migrate", 0)
    world.advance(2)
    change = world.do("restart", "db")
    world.advance(1)
    assert world.tasks(change) == {"db": ("restart", "done"), "api": ("restart", "done")}
    assert [world.starts(name) for name in ("db", "migrate", "web", "api")] == [2, 1, 1, 2]


# --- what is asked ---


def test_unknown_names_are_named() -> None:
    world = up(service("web"), service("db"))
    with pytest.raises(NotFound, match='cannot stop: there is no service "wbe" \\(did you mean "web"\\?\\), "nobody"'):
        world.act("stop", "wbe", "web", "nobody")
    with pytest.raises(NotFound, match="nobody"):
        world.overlord.services(["nobody"])
    with pytest.raises(NotFound, match='change "77"'):
        world.overlord.change("77")
    with pytest.raises(NotFound, match="²"):
        world.overlord.change("²")


@pytest.mark.parametrize(
    ("action", "signo"), [("signal", None), ("signal", "SIGNOPE"), ("start", "HUP"), ("replan", None)]
)
def test_a_request_that_makes_no_sense_is_refused_and_makes_no_change(action: str, signo: str | None) -> None:
    world = up(service("web"))
    with pytest.raises(BadRequest, match=f"cannot {action}"):
        world.act(action, "web", signal=signo)
    assert len(world.overlord.changes()) == 1


def test_a_key_that_was_used_for_another_command_is_refused_and_nothing_is_done() -> None:
    world = up(service("web"), service("db"))
    first = world.act("restart", "web", key="k")
    for action, names in (("stop", ["web"]), ("restart", ["db"]), ("restart", ["web", "db"])):
        with pytest.raises(Conflict, match=f"cannot {action}: this Idempotency-Key was used for change {first.id}"):
            world.act(action, *names, key="k")
    world.advance(2)
    assert world.states() == {"web": "active", "db": "active"}
    assert world.starts("db") == 1
    assert world.act("restart", "web", key="k").id == first.id


def test_the_same_key_gives_the_same_change_over_a_restart_of_control_too() -> None:
    world = up(service("web"))
    first = world.act("restart", "web", key="k")
    world.settle()
    assert world.act("restart", "web", key="k").id == first.id
    world.kill()
    assert world.act("restart", "web", key="k").id == first.id
    world.advance(2)
    assert world.starts("web") == 2
    assert world.act("restart", "web", key="other").id != first.id


def test_ids_go_on_after_a_restart_of_control_even_when_the_last_changes_are_dropped() -> None:
    world = up(service("web"))
    last = world.do("start", "web")
    for key in [key for key in world.store.values if key.startswith("change/")]:
        del world.store.values[key]
    world.kill()
    assert int(world.do("start", "web").id) == int(last.id) + 1


def test_the_last_500_ended_changes_are_kept_and_none_that_goes_on_is_dropped() -> None:
    world = World([service("web"), service("db", startup="disabled")])
    world.advance(2)
    world.slow.add("db")
    going_on = world.do("start", "db")
    for number in range(520):
        world.act("start", "web", key=str(number))
    world.settle()
    kept = world.overlord.changes()
    assert len(kept) == 501
    assert kept[0].id == going_on.id
    assert len([key for key in world.store.values if key.startswith("change/")]) == 501
    world.kill()
    assert [change.id for change in world.overlord.changes()] == [change.id for change in kept]


# --- what PID 1 knows and the journal does not ---


def test_a_live_run_that_the_journal_does_not_know_is_adopted() -> None:
    world = up(service("web"))
    world.store.values.clear()
    world.kill()
    world.settle()
    assert (world.state("web"), world.starts("web")) == ("active", 1)
    assert world.show("web").cause.startswith("adopted")
    world.exit("web", 1)
    world.advance(1)
    assert (world.state("web"), world.starts("web")) == ("active", 2)
    world.check()


def test_a_run_of_a_service_that_is_not_in_the_plan_is_stopped_and_released() -> None:
    world = up(service("web"), service("old"))
    del world.plan.services["old"]
    world.kill()
    world.settle()
    assert (world.living(), world.states()) == ({"web"}, {"web": "active"})
    assert not [entry for entry in world.pid1.runs.values() if entry.name == "old"]


def test_an_exit_that_was_dealt_with_but_not_released_is_only_released() -> None:
    world = up(service("web", on_failure=Policy.IGNORE))
    world.pid1.exit("web", 1)
    world.pid1.go("web")
    release = world.pid1.release
    world.pid1.release = lambda run: None  # type: ignore[method-assign]
    world.settle()
    assert world.state("web") == "inactive"
    world.pid1.release = release  # type: ignore[method-assign]
    since = world.show("web").current_since
    world.kill()
    world.settle()
    assert not world.pid1.runs
    assert (world.state("web"), world.show("web").current_since) == ("inactive", since)


def test_a_run_that_pid_1_lost_counts_as_a_failure() -> None:
    world = up(service("web"))
    world.pid1.runs.clear()
    world.kill()
    world.advance(1)
    assert (world.state("web"), world.show("web").restarts) == ("active", 1)


def test_what_happened_while_control_was_away_is_dealt_with_once() -> None:
    world = up(service("a"), service("b"), service("c", restart_limit=0), service("d"))
    stop = world.act("stop", "d", key="d")
    world.pid1.detach()
    world.pid1.end("a", 7)
    world.pid1.exit("b", signo=signal.SIGKILL)
    world.pid1.end("c", 1)
    world.pid1.end("d", 0)
    world.kill()
    world.settle()
    assert world.states() == {"a": "backoff", "b": "stopping", "c": "error", "d": "inactive"}
    world.kill()
    world.go("b")
    world.advance(1)
    assert world.states() == {"a": "active", "b": "active", "c": "error", "d": "inactive"}
    assert [service_.restarts for service_ in world.overlord.services()] == [1, 1, 0, 0]
    assert world.status(stop) == "done"
    world.check()


def test_a_run_that_was_short_stays_short_when_its_end_is_learned_late() -> None:
    world = World([service("web", restart_limit=1)])
    world.settle()
    world.exit("web", 1)
    start = world.do("restart", "web")
    world.exit("web", 1)
    world.advance(0.5)
    assert world.show("web").restarts == 1
    world.pid1.detach()
    world._pass(world.clock.now + 300_000_000)
    world.pid1.end("web", 3)
    world._pass(world.clock.now + 3600 * 10**9)
    world.kill()
    world.settle()
    assert world.state("web") == "error", "an hour without control made no healthy run of it"
    assert world.overlord.change(start.id).err == "web: exited with code 1 after 1ms"


def test_a_start_whose_run_ended_too_soon_is_an_error_when_that_is_learned_late_too() -> None:
    world = World([service("web")])
    world.settle()
    world.pid1.detach()
    world._pass(world.clock.now + 300_000_000)
    world.pid1.end("web", 3)
    world._pass(world.clock.now + 3600 * 10**9)
    world.kill()
    world.settle()
    (change,) = world.overlord.changes()
    assert change.err == "web: exited with code 3 after 300ms"


def test_a_stop_does_not_wait_for_a_command_that_is_not_executed_yet() -> None:
    world = World([service("web")])
    world.slow.add("web")
    world.deaf.add("web")
    world.settle()
    stop = world.do("stop", "web")
    assert len(world.calls("stop")) == 1, "by its token: an exec that hangs never tells which run it is"
    world.kill()
    world.settle()
    assert len(world.calls("stop")) == 1, "the snapshot tells that it is stopping"
    world.slow.clear()
    world.deaf.clear()
    world.settle()
    assert (world.state("web"), world.status(stop)) == ("inactive", "done")
    world.check()


def test_a_deadline_survives_control() -> None:
    world = up(service("web", backoff_delay=10.0))
    world.exit("web", 1)
    world.advance(4)
    world.kill()
    world.advance(5.9)
    assert world.state("web") == "backoff"
    world.advance(0.2)
    assert world.state("web") == "active"


def test_what_a_dead_control_parked_is_adopted() -> None:
    world = up(service("web"))
    world.kill()
    assert world.overlord._logs.names() == ["web"]


def test_system_info_is_what_vigild_told() -> None:
    world = up(service("web"))
    world.kill()
    info = world.overlord.system_info()
    assert isinstance(info, api.SystemInfo)
    assert (info.boot_id, info.control_restarts, info.pid1_version) == ("test-boot", 1, "0.1.0")
    assert info.start_time == "2023-11-14T22:13:20.000000Z"


@pytest.mark.parametrize("key", ["service/web", "change/1"])
def test_a_record_that_cannot_be_read_is_said_and_touches_no_service(key: str) -> None:
    world = up(service("web"))
    world.store.values[key] = b"\x81\xa5phase\x07"
    with pytest.raises(StartError, match=r"cannot read the .* in the journal"):
        world.kill()
    assert world.living() == {"web"}


def test_an_error_in_a_turn_ends_control_and_the_journal_goes_on() -> None:
    world = up(service("web"))
    world.store.write = None  # type: ignore[assignment]
    with pytest.raises(SystemExit):
        world.overlord.act(api.ServicesAction(action="stop", services=["web"]), "uid 0", None)
    del world.store.write
    world.kill()
    world.settle()
    assert (world.state("web"), len(world.overlord.changes())) == ("active", 1)


def test_every_run_is_released_when_it_is_gone() -> None:
    world = up(service("web"), service("db"))
    for _ in range(5):
        world.exit("web", 1)
        world.exit("db", 0)
        world.advance(40)
    assert [entry.state for entry in world.pid1.runs.values()] == [RunPhase.RUNNING] * 2
