"""control is killed at every instruction of a list of scenarios; what comes of it is the same as without a kill.

For each scenario: one run without a cut, then for every write to the journal, message to PID 1 and message from it, cut
before and after, one run that is killed there; then the same with a second kill at each of the next instructions, most
of them in the recovery from the first. Compared is all that a user can tell: states, causes, restarts, exits with code
and output, changes with their tasks, how often each service was really started, which signals came, the exit code.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.overlord_world import SHORT, Knife, World, service
from vigil.plan.types import Policy, Service
from vigil.shim.messages import Step

Scenario = Callable[[World], None]
SCENARIOS: dict[str, tuple[list[Service], Scenario]] = {}


def scenario(*services: Service) -> Callable[[Scenario], Scenario]:
    def register(run: Scenario) -> Scenario:
        SCENARIOS[run.__name__] = (list(services), run)
        return run

    return register


@scenario(service("db"), service("web", requires=("db",)), service("log", before=("db",)))
def boot_in_order(world: World) -> None:
    world.advance(2)


@scenario(service("web"))
def crashes_and_backoff(world: World) -> None:
    world.advance(2)
    world.lines["web"] = ["one", "two"]
    for code in (1, 0, 255):
        world.exit("web", code)
        world.advance(5)
    world.exit("web", signo=signal.SIGSEGV)
    world.advance(60)


@scenario(service("web", restart_limit=2, backoff_delay=0.25))
def gives_up(world: World) -> None:
    for _ in range(3):
        world.settle()
        world.exit("web", 9)
        world.advance(1)
    world.do("start", "web")
    world.advance(2)


@scenario(service("web"))
def dies_within_a_second(world: World) -> None:
    world.advance(0.25)
    world.lines["web"] = ["cannot bind"]
    world.exit("web", 3)
    world.advance(0.1)
    world.do("stop", "web")
    world.do("start", "web")
    world.advance(2)


@scenario(service("web"))
def leftover_after_its_own_end(world: World) -> None:
    world.advance(2)
    world.exit("web", 7, gone=False)
    world.advance(3)
    world.go("web")
    world.advance(3)


@scenario(service("db"), service("web", requires=("db",)), service("cron", after=("web",)))
def stop_start_restart(world: World) -> None:
    world.advance(2)
    world.do("stop", "db", "cron")
    world.advance(1)
    world.do("start", "web")
    world.advance(2)
    world.do("restart", "db")
    world.advance(2)
    world.do("stop")
    world.advance(1)


@scenario(service("web"))
def commands_queue_up(world: World) -> None:
    world.advance(2)
    world.deaf.add("web")
    world.act("stop", "web", key="a")
    world.act("start", "web", key="b")
    world.act("restart", "web", key="c")
    world.settle()
    world.deaf.clear()
    world.advance(5)


@scenario(service("web"))
def stop_during_start(world: World) -> None:
    world.slow.add("web")
    world.advance(1)
    world.do("stop", "web")
    world.advance(1)
    world.slow.clear()
    world.advance(3)


@scenario(service("web"))
def stop_during_backoff(world: World) -> None:
    world.advance(2)
    world.exit("web", 1)
    world.do("stop", "web")
    world.advance(60)


@scenario(service("web"), service("nope", on_failure=Policy.IGNORE), service("x", after=("nope",)))
def cannot_be_executed(world: World) -> None:
    world.broken = {"nope": (Step.EXEC, errno.ENOENT), "web": (Step.EXEC, errno.EACCES)}
    world.advance(0.4)
    world.broken.clear()
    world.advance(3)


@scenario(service("web"), service("x", requires=("web",)))
def shortage(world: World) -> None:
    world.broken["web"] = SHORT
    world.advance(0.7)
    world.broken.clear()
    world.advance(5)


@scenario(
    service("db", on_failure=Policy.IGNORE),
    service("web", requires=("db",)),
    service("front", requires=("web",)),
)
def required_one_goes_and_comes_back(world: World) -> None:
    world.advance(2)
    world.exit("db", 1)
    world.advance(2)
    world.do("start", "front")
    world.advance(2)


@scenario(service("migrate", type="oneshot", on_success=Policy.IGNORE), service("web", requires=("migrate",)))
def oneshot_then_service(world: World) -> None:
    world.advance(3)
    world.exit("migrate", 0)
    world.advance(2)
    world.do("start", "migrate")
    world.exit("migrate", 0)
    world.advance(1)


@scenario(service("migrate", type="oneshot", on_success=Policy.IGNORE), service("web", requires=("migrate",)))
def oneshot_restarted(world: World) -> None:
    world.settle()
    world.exit("migrate", 0)
    world.advance(2)
    world.do("restart", "migrate")
    world.exit("migrate", 0)
    world.advance(2)


@scenario(
    service("migrate", type="oneshot", on_success=Policy.IGNORE, on_failure=Policy.IGNORE),
    service("web", requires=("migrate",)),
)
def oneshot_fails(world: World) -> None:
    world.advance(3)
    world.lines["migrate"] = ["no such table"]
    world.exit("migrate", 4)
    world.advance(2)


@scenario(service("web", on_failure=Policy.SHUTDOWN), service("db", on_failure=Policy.FAILURE_SHUTDOWN))
def first_shutdown_decides(world: World) -> None:
    world.advance(2)
    run = world.pid1.exit("web", 7)
    other = world.pid1.exit("db", 9)
    world.pid1.go(other)
    world.pid1.go(run)
    world.settle()
    world.advance(2)


@scenario(service("web"), service("db"))
def shutdown_on_command(world: World) -> None:
    world.advance(0.5)
    world._guard(lambda: world.overlord.shutdown(0, False, "uid 0 asked for it"))
    world.advance(2)


@scenario(service("db"), service("web", requires=("db",)), service("old", after=("web",)), service("keep"))
def replan_of_everything(world: World) -> None:
    world.advance(2)
    web = service("web", requires=("db",), stop_signal=10, kill_delay=9.0)
    keep = service("keep", after=("db",), forward_signals=frozenset({1}), logs_forward="disabled")
    world.replan(service("db", nice=1), web, keep, service("new", before=("db",)))
    world.advance(3)
    assert world.starts("keep") == 1


@scenario(service("db"), service("web", requires=("db",)))
def replan_removes_and_brings_back(world: World) -> None:
    world.advance(2)
    world.deaf = {"web", "db"}
    world.replan(service("other"))
    world.settle()
    world.replan(service("other"), service("web", command=("/bin/else",)))
    world.settle()
    world.deaf.clear()
    world.advance(3)


@scenario(service("a"), service("r", after=("a",)), service("b", after=("r",)))
def replan_turns_the_order_round(world: World) -> None:
    world.advance(2)
    world.deaf = {"r"}
    world.replan(service("a", after=("b",)), service("b", nice=1))
    world.advance(1)
    world.replan(service("a", after=("b",), kill_delay=7.0), service("b", nice=1), service("c", after=("a",)))
    world.advance(1)
    world.deaf.clear()
    world.advance(3)


@scenario(service("db"), service("web", requires=("db",)))
def replan_without_restart(world: World) -> None:
    world.advance(2)
    world.replan(service("db", nice=1, kill_delay=8.0), service("web", requires=("db",)), no_restart=True)
    world.advance(1)
    assert world.show("db").pending_restart
    world.exit("db", 1)
    world.advance(2)
    assert not world.show("db").pending_restart
    world.replan(service("db", nice=2), service("web", requires=("db",)), no_restart=True)
    world.replan(service("db", nice=2), service("web", requires=("db",)))
    world.advance(3)


@scenario(service("slow"), service("crash", backoff_delay=20.0), service("held", requires=("off",)), service("off"))
def replan_in_the_middle_of_everything(world: World) -> None:
    world.advance(2)
    world.exit("crash", 1)
    world.act("stop", "off")
    world.settle()
    world.slow.add("slow")
    world.act("restart", "slow")
    world.settle()
    world.replan(service("slow", nice=1, kill_delay=3.0), service("crash", nice=1), service("held"), service("off"))
    world.settle()
    world.slow.clear()
    world.advance(4)


@scenario(service("db"), service("web", requires=("db",)))
def replan_then_shutdown(world: World) -> None:
    world.advance(2)
    world.deaf.add("web")
    world.replan(service("db", nice=1), service("new", after=("db",)))
    world._guard(lambda: world.overlord.shutdown(0, False, "uid 0 asked for it"))
    world.settle()
    world.deaf.clear()
    world.advance(2)


def outcome(name: str, *cuts: int) -> tuple[dict[str, Any], Knife]:
    services, run = SCENARIOS[name]
    knife = Knife(cuts)
    world = World(services, knife)
    run(world)
    world.settle()
    world.check()
    return world.outcome(), knife


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_instruction_changes_nothing(name: str) -> None:
    expected, knife = outcome(name)
    for cut in range(1, knife.count + 1):
        found, _ = outcome(name, cut)
        assert found == expected, f"killed at instruction {cut} of {knife.count}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_second_kill_in_the_recovery_changes_nothing(name: str) -> None:
    expected, knife = outcome(name)
    for cut in range(1, knife.count + 1, 3):
        for second in range(cut + 1, cut + 10):
            found, _ = outcome(name, cut, second)
            assert found == expected, f"killed at instructions {cut} and {second}"
