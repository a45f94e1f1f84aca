"""Everything at random and with a seed: commands, replans, exits, leftovers, shortages, deaf services, time, kills.

What must hold is checked all the way: nothing is spawned before what it requires is up, nothing is told to stop before
what requires it is gone, no service runs twice, no token is used twice. And in the end, when all is let go quietly:
every change has ended, nothing is on its way, nothing is up without what it requires, PID 1 holds nothing unknown.
"""

from __future__ import annotations

import errno
import random
import signal
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.overlord_world import SHORT, Knife, World, service
from vigil.plan.types import Policy, Service
from vigil.shim.messages import NO_RUN, Run, RunPhase, SpawnSpec, Step


def random_plan(rng: random.Random) -> list[Service]:
    names = [f"s{number}" for number in range(rng.randint(2, 8))]
    services = []
    for index, name in enumerate(names):
        earlier = names[:index]
        oneshot = rng.random() < 0.2
        services.append(
            service(
                name,
                startup=rng.choice(["enabled", "enabled", "disabled"]),
                requires=tuple(rng.sample(earlier, min(len(earlier), rng.choice([0, 0, 1, 2])))),
                after=tuple(rng.sample(earlier, min(len(earlier), rng.choice([0, 1])))),
                type="oneshot" if oneshot else "simple",
                on_success=Policy.IGNORE if oneshot else rng.choice([Policy.RESTART, Policy.IGNORE]),
                on_failure=rng.choice([Policy.RESTART, Policy.RESTART, Policy.IGNORE]),
                restart_limit=rng.choice([None, None, 1, 3]),
            )
        )
    return services


def next_plan(rng: random.Random, services: list[Service]) -> list[Service]:
    """Another plan: services go and come, and some of what is said of the others is another."""
    kept = [one for one in services if rng.random() < 0.85]
    new = [name for name in (f"s{number}" for number in range(9)) if name not in {one.name for one in services}]
    kept += [service(name, startup=rng.choice(["enabled", "disabled"])) for name in rng.sample(new, min(1, len(new)))]
    if rng.random() < 0.3:
        rng.shuffle(kept)  # whom they need is among those before them: the order may turn round
    found: list[Service] = []
    for one in kept:
        earlier = [other.name for other in found]
        more: dict[str, Any] = {}
        for key in ("requires", "after"):
            more[key] = tuple(name for name in getattr(one, key) if name in earlier)
            if earlier and rng.random() < 0.2:
                more[key] = (rng.choice(earlier),)
        match rng.randint(0, 9):
            case 0 | 1:
                more["nice"] = rng.choice([None, 1, 2])
            case 2:
                more["kill_delay"] = rng.choice([None, 1.0, 30.0])
            case 3:
                more["startup"] = rng.choice(["enabled", "disabled"])
            case 4:
                oneshot = one.type != "oneshot"
                more["type"] = "oneshot" if oneshot else "simple"
                more["on_success"] = Policy.IGNORE if oneshot else one.on_success
            case 5:
                more["logs_forward"] = rng.choice(["enabled", "disabled"])
        found.append(replace(one, **more))
    return found


class Storm:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.services = random_plan(self.rng)
        self.replans = 0
        self.knife = Knife()
        self.world = World(self.services, self.knife)
        self._watch()

    def _watch(self) -> None:
        """Check the order at each call that takes effect."""
        pid1 = self.world.pid1
        spawn, stop = pid1.spawn, pid1.stop

        def checked_spawn(spec: SpawnSpec) -> None:
            for other in self.world.overlord.plan.services[spec.name].requires:
                assert self._is_up(other), f"{spec.name} is started, but {other} is not up"
            assert spec.name not in {
                e.name for e in pid1.runs.values() if e.state is not RunPhase.FAILED and not e.over
            }
            spawn(spec)

        def checked_stop(run: Run, token: int = 0) -> None:
            by_token = (e for e in pid1.runs.values() if e.spec.token == token)
            entry = next(by_token, None) if run == NO_RUN else pid1.runs.get(run)
            if entry is not None:
                needers = {s.name for s in self.services if entry.name in s.requires}
                left = needers & {e.name for e in pid1.runs.values() if not e.over}
                assert not left, f"{entry.name} is told to stop before {left}"
            stop(run, token)

        pid1.spawn, pid1.stop = checked_spawn, checked_stop  # type: ignore[method-assign]

    def _is_up(self, name: str) -> bool:
        """As far as control has been told."""
        oneshot = self.world.overlord.plan.services[name].type == "oneshot"
        return self.world.state(name) == ("exited" if oneshot else "active")

    def step(self) -> None:
        rng, world = self.rng, self.world
        name = rng.choice(self.services).name
        running = [e for e in world.pid1.runs.values() if e.state is RunPhase.RUNNING]
        leftovers = [e for e in world.pid1.runs.values() if e.state is RunPhase.EXITED]
        if rng.random() < 0.4:
            self.knife.at = {self.knife.count + rng.randint(1, 25)}
        match rng.randint(0, 10):
            case 10:
                self.services = next_plan(rng, self.services) or self.services
                self.world.replan(*self.services, no_restart=rng.random() < 0.2)
                self.replans += 1
            case 0 | 1 | 2:
                action = rng.choice(["start", "stop", "restart"])
                world.act(action, name)
            case 3 | 4 if running:
                entry = rng.choice(running)
                code = rng.choice([0, 1, 7])
                world.pid1.exit(entry.run, code, rng.choice([None, None, signal.SIGKILL]))
                if rng.random() < 0.6:
                    world.pid1.go(entry.run)
            case 5 if leftovers:
                world.pid1.go(rng.choice(leftovers).run)
            case 6:
                world.slow.symmetric_difference_update({name})
            case 7:
                world.deaf.symmetric_difference_update({name})
            case 8:
                if name in world.broken:
                    del world.broken[name]
                else:
                    world.broken[name] = rng.choice([SHORT, (Step.EXEC, errno.ENOENT)])
            case _:
                world.advance(rng.choice([0.1, 0.6, 3, 40]))
        if rng.random() < 0.8:
            world.settle()
        if rng.random() < 0.1:
            world.kill()

    def calm(self) -> None:
        """Let everything come to its end."""
        world = self.world
        self.knife.at = set()
        world.slow.clear()
        world.deaf.clear()
        world.broken.clear()
        for _ in range(60):
            world.settle()
            left = [e for e in world.pid1.runs.values() if e.state is RunPhase.EXITED]
            for entry in left:
                world.pid1.go(entry.run)
            planned = world.overlord.plan.services
            for entry in [e for e in world.pid1.runs.values() if e.name in planned]:
                if entry.state is RunPhase.RUNNING and planned[entry.name].type == "oneshot":
                    world.pid1.end(entry.run, 0)
            world.advance(40)


@pytest.mark.parametrize("seed", range(200))
def test_a_storm_leaves_everything_in_order(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(60):
        storm.step()
    storm.calm()
    world = storm.world
    world.check()
    shown = {item.name: item for item in world.overlord.services()}
    assert shown.keys() == {one.name for one in storm.services}, "what was removed is forgotten"
    doing = [change for change in world.overlord.changes() if change.status.value == "doing"]
    assert not doing, f"never ended: {doing}"
    assert not [item for item in shown.values() if item.current.value in ("starting", "stopping", "backoff")]
    for item in shown.values():
        for other in world.overlord.plan.services[item.name].requires:
            if item.current.value == "active":
                assert shown[other].current.value in ("active", "exited"), f"{item.name} is up without {other}"


def test_storms_do_kill() -> None:
    """The storm above is one: it kills control often, in turns and in recoveries, and commands go through."""
    kills = spawns = changes = replans = 0
    for seed in range(10):
        storm = Storm(seed)
        for _ in range(60):
            storm.step()
        kills += storm.world.kills
        replans += storm.replans
        spawns += len(storm.world.spawned)
        changes += len(storm.world.overlord.changes())
    assert kills > 100
    assert spawns > 200
    assert changes > 100
    assert replans > 30
