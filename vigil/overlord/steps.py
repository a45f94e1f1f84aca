"""What a new plan means to each service, as it is now, and why. Pure: a dry run is this, and nothing after it.

Started is what is new and enabled, what `startup` newly enables, what had been given up with a definition that is no
longer in force, and what any of these require. Never what was stopped by hand, whatever the plan says of it by now: to
take that back is the hand's to do. A `startup` that becomes disabled stops nothing: it speaks of the next boot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from vigil.model import api
from vigil.overlord.order import Graph, Standing, graph_of, standing
from vigil.plan.diff import Changed, Diff, diff, digest
from vigil.plan.types import Plan, Service
from vigil.service.state import LEAVING, LIVE, Next, Phase, State, WorkKind, described

_UP = (Phase.SPAWNING, Phase.ACTIVE)
_EARLIER = "changed by an earlier replan, and left running with what it had"
_NOTHING = Changed()


class _Fate(msgspec.Struct):
    action: Literal["start", "stop", "restart", "update", "pending-restart"]
    why: list[str]


def pending(state: State, service: Service) -> bool:
    """Whether the live run of a service was started with another definition than the plan in force has."""
    return state.phase in _UP and bool(state.definition) and state.definition != digest(service)


def grouped(found: Iterable[api.Step]) -> dict[str, list[str]]:
    """The services of each action."""
    groups: dict[str, list[str]] = {"start": [], "stop": [], "restart": [], "update": [], "pending-restart": []}
    for step in found:
        groups[step.action].append(step.service)
    return groups


def steps(old: Plan, new: Plan, states: Mapping[str, State], *, no_restart: bool) -> list[api.Step]:
    """One for each service that the new plan means something to, in its order; those that it does not have at the end.

    ``states`` may lack services. ``no_restart``: what is up stays up with what it was started with.
    """
    return _Steps(old, new, states, no_restart=no_restart).all()


class _Steps:
    def __init__(self, old: Plan, new: Plan, states: Mapping[str, State], *, no_restart: bool) -> None:
        self._old, self._new, self._states = old.services, new.services, states
        self._no_restart = no_restart
        self._diff: Diff = diff(old, new)
        self._graph: Graph = graph_of(new.services)
        self._fates: dict[str, _Fate] = {}

    def all(self) -> list[api.Step]:
        for name in self._new:
            fate = self._own(name)
            if fate is not None:
                self._fates[name] = fate
        self._restart_along()
        self._start_required()
        self._stop_without()
        found = [(name, self._fates[name]) for name in self._new if name in self._fates]
        for name in self._diff.removed:
            runs = self._state(name).phase in LIVE
            found.append((name, _Fate("stop", ["removed" if runs else "removed (it was not running)"])))
        return [api.Step(service=name, action=fate.action, why=fate.why) for name, fate in found]

    def _state(self, name: str) -> State:
        return self._states.get(name) or State()

    def _standing(self, name: str) -> Standing:
        return standing(self._state(name), self._new[name])

    def _own(self, name: str) -> _Fate | None:
        """By what changed of it itself."""
        service, state, old = self._new[name], self._state(name), self._old.get(name)
        if old is None:
            enabled = service.startup == "enabled"
            return _Fate("start", ["new, and enabled"]) if enabled else _Fate("update", ["new, and not enabled"])
        changed = self._diff.changed.get(name, _NOTHING)
        why = [*changed.definition, *changed.in_place]
        # With a restart that is queued anyway it is started as the new plan says.
        queued = service.command is not None and any(work.kind is WorkKind.RESTART for work in state.queue)
        if state.phase in _UP and not queued and self._outdated(state, service, changed):
            why = why if changed.definition else [_EARLIER, *why]
            if service.command is None:
                return _Fate("pending-restart", [*why, "it has no command to be restarted with"])
            return _Fate("pending-restart" if self._no_restart else "restart", why)
        if changed.definition and _failed(state) and service.command is not None and not self._no_restart:
            return _Fate("restart", [*why, "it had failed"])
        if service.startup == "enabled" and self._to_be_started(name, old, changed):
            return _Fate("start", why)
        if service.startup == "enabled" != old.startup and state.stopped:
            why.append("not started, as it was stopped by hand")
        return _Fate("update", why) if why else None

    def _outdated(self, state: State, service: Service, changed: Changed) -> bool:
        """Whether the live run is of another definition than the new plan has."""
        return state.definition != digest(service) if state.definition else bool(changed.definition)

    def _to_be_started(self, name: str, old: Service, changed: Changed) -> bool:
        state = self._state(name)
        if state.stopped or state.phase is Phase.HELD or self._standing(name) not in (Standing.DOWN, Standing.GOING):
            return False
        if state.phase is Phase.EXITED:  # it was a oneshot
            return True
        return old.startup != "enabled" or (state.phase is Phase.ERROR and bool(changed.definition))

    def _restart_along(self) -> None:
        """What runs and requires one that is restarted goes with it."""
        front = [name for name, fate in self._fates.items() if fate.action == "restart"]
        while front:
            name = front.pop()
            if self._state(name).phase not in _UP:
                continue  # nothing of it is up, so nothing that requires it is
            for other in self._graph.required_by[name]:
                fate = self._fates.get(other)
                stays = self._state(other).phase in LIVE and self._standing(other) is not Standing.GOING
                if not stays or self._new[other].command is None or (fate is not None and fate.action == "restart"):
                    continue
                why = [*(fate.why if fate is not None else ()), f"{name} is restarted, which it requires"]
                self._fates[other] = _Fate("restart", why)
                front.append(other)

    def _start_required(self) -> None:
        """What is started starts what it requires; so does what is up and requires something more than before."""
        front = [name for name, fate in self._fates.items() if fate.action in ("start", "restart")]
        more = (name for name, changed in self._diff.changed.items() if "requires changed" in changed.in_place)
        wanted = (Standing.UP, Standing.COMING)
        front.extend(n for n in more if self._standing(n) in wanted or self._state(n).phase is Phase.HELD)
        while front:
            name = front.pop()
            for other in self._graph.requires[name]:
                fate = self._fates.get(other)
                if fate is not None and fate.action in ("start", "restart"):
                    continue
                if self._nobody_starts(other):
                    self._fates[other] = _Fate("start", [*(fate.why if fate else ()), f"{name} requires it"])
                    front.append(other)

    def _nobody_starts(self, name: str) -> bool:
        """Whether it is down, and neither wanted nor stopped by hand."""
        state = self._state(name)
        if name not in self._old:  # it may still be stopping as what it was in an earlier plan
            return self._standing(name) in (Standing.DOWN, Standing.GOING)
        return self._standing(name) is Standing.DOWN and not state.stopped and state.phase is not Phase.HELD

    def _stop_without(self) -> None:
        """What is up and requires what is down, and stays so, goes until that comes."""
        front = list(self._new)
        while front:
            name = front.pop()
            fate = self._fates.get(name)
            if self._state(name).phase not in _UP or (fate is not None and fate.action in ("restart", "stop")):
                continue
            missing = next((other for other in self._graph.requires[name] if self._is_missing(other)), None)
            if missing is not None:
                why = f"it requires {missing}, which is {described(self._state(missing))}"
                self._fates[name] = _Fate("stop", [*(fate.why if fate is not None else ()), why])
                front.extend(self._graph.required_by[name])

    def _is_missing(self, name: str) -> bool:
        fate = self._fates.get(name)
        if fate is not None and fate.action in ("start", "restart", "stop"):
            return fate.action == "stop"
        return self._standing(name) in (Standing.DOWN, Standing.GOING)


def _failed(state: State) -> bool:
    """Whether it is down because it failed, and is to be started again after a while."""
    return (state.phase is Phase.BACKOFF and not state.short) or (state.phase in LEAVING and state.next is Next.BACKOFF)
