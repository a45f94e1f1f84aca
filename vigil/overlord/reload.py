"""The plan in force: the actors of its services, their order, and how another plan takes its place.

A service that the new plan does not have stays an actor until nothing of it is left, with its log, so that it is
stopped in order and can be looked at; what the old plan said of its order stands in the journal until then, under
``removed/NAME``. Then it is forgotten: state, log, name. A plan that has the name again before that takes it back.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from vigil.journal.store import Store
from vigil.model import api, say
from vigil.model.errors import StartError
from vigil.overlord.changes import Change, Changes
from vigil.overlord.loop import Loop
from vigil.overlord.order import Graph, graph_of
from vigil.plan.diff import Diff, diff, digest
from vigil.plan.types import RESERVED_NAME, Plan, Service, Sources
from vigil.service.actor import Actor, Outside
from vigil.service.events import Command, Replanned
from vigil.service.state import LIVE, Work, WorkKind

_PLAN = "plan"
_REPLANNED = "replanned"  # this boot had another plan before
_REMOVED = "removed/"

_KINDS = {"start": WorkKind.START, "stop": WorkKind.STOP, "restart": WorkKind.RESTART}


class Removed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a service that no plan has any more: fields are only ever added, each with a default."""

    after: tuple[str, ...] = ()  # all that it waited for
    before: tuple[str, ...] = ()  # all that waited for it
    type: Literal["simple", "oneshot"] = "simple"
    stop_signal: int = 15
    kill_delay: float | None = 5.0
    forward_signals: frozenset[int] = frozenset()
    logs_forward: Literal["enabled", "disabled", "passthrough"] = "enabled"

    def service(self, name: str) -> Service:
        """As a service that cannot be started."""
        return Service(
            name=name,
            after=self.after,
            before=self.before,
            type=self.type,
            stop_signal=self.stop_signal,
            kill_delay=self.kill_delay,
            forward_signals=self.forward_signals,
            logs_forward=self.logs_forward,
        )


class InForce:
    """The plan in force and its actors."""

    def __init__(self, plan: Plan, store: Store, outside: Outside) -> None:
        """``plan`` and what the journal has of earlier ones."""
        self.plan = plan
        self._store, self._outside = store, outside
        kept = {key.removeprefix(_REMOVED): _read(key, value) for key, value in store.items(_REMOVED)}
        services = {**plan.services, **{name: removed.service(name) for name, removed in kept.items()}}
        self.graph: Graph = graph_of(services, kept.keys())  # as it is at the start; from then on the loop has it
        places = self.graph.places
        self.actors = {
            name: Actor(service, places[name], outside, store.get(f"service/{name}"))
            for name, service in services.items()
        }
        for name in kept:
            self.actors[name].removed = True

    def sources(self) -> Sources:
        """What the plan in force was made of."""
        record = self._store.get(_PLAN)
        return Sources("") if record is None else msgspec.msgpack.decode(record, type=Sources)

    def attach(self, loop: Loop) -> None:
        """Before the actors attach: whether PID 1 was told of a replan is not known, so it is told again."""
        if self._store.get(_REPLANNED) is not None:
            for actor in self.actors.values():
                actor.tell_again()
        for name in sorted(self._outside.parked - self.actors.keys() - {RESERVED_NAME}):
            self._drop_log(loop, name)

    def replace(self, loop: Loop, changes: Changes, sources: Sources, plan: Plan, change: Change) -> None:
        """Put ``plan`` in force and begin ``change``, as its steps say. Part of a turn."""
        different = diff(self.plan, plan)
        olds, self.plan = self.plan.services, plan
        services = dict(plan.services)
        for name, actor in self.actors.items():
            if name not in plan.services:
                services[name] = actor.service if actor.removed else _remove(loop, actor)
        loop.neighbours.graph = graph_of(services, services.keys() - plan.services.keys())
        places = loop.neighbours.graph.places
        earlier = dict(self.actors)
        self.actors.clear()  # the loop has the same dictionary
        for name, service in services.items():
            if name not in earlier:
                self.actors[name] = Actor(service, places[name], self._outside, None)
                continue
            actor = self.actors[name] = earlier[name]
            if actor.removed and name in plan.services:
                loop.write(f"{_REMOVED}{name}", None)
            actor.become(service, places[name], removed=name not in plan.services)
            loop.take(actor, Replanned(_definition(different, actor, olds.get(name))))
        works = [(step.service, _work(step, change, plan)) for step in change.steps if step.action in _KINDS]
        for name, work in works:
            changes.add(change.id, name, work.kind.value)
        for name, work in works:
            loop.take(self.actors[name], Command(work))
        changes.settle(change, loop.clock.realtime_ns())
        for actor in self.actors.values():
            loop.ask(actor)
        loop.write(_PLAN, msgspec.msgpack.encode(sources))
        loop.write(_REPLANNED, b"1")

    def forget(self, loop: Loop, actor: Actor) -> None:
        """Nothing is left of a service that the plan does not have. Part of a turn."""
        say.info("vigil.overlord", f"{actor.name} is no more: the plan does not have it, and nothing of it is left")
        loop.write(f"{_REMOVED}{actor.name}", None)
        if actor.name in self._outside.parked:
            self._drop_log(loop, actor.name)

    def _drop_log(self, loop: Loop, name: str) -> None:
        self._outside.parked.discard(name)

        def drop() -> None:
            self._outside.shim.unpark(f"log/{name}")
            self._outside.logs.drop(name)

        loop.after(drop)


def tell(change: Change, plan: Plan) -> None:
    """What a replan does, for whom and why, in vigild's diagnostics."""
    for warning in plan.warnings:
        say.warn("vigil.plan", str(warning))
    say.info("vigil.overlord", f"takes a new plan, asked for by {change.cause}: {change.summary}", change=change.id)
    for step in change.steps:
        say.info("vigil.overlord", f"{step.service}: {step.action}: {', '.join(step.why)}", change=change.id)


def _remove(loop: Loop, actor: Actor) -> Service:
    """Keep what the stop of a service needs."""
    name, service = actor.name, actor.service
    removed = Removed(
        after=loop.neighbours.graph.needs[name],
        before=loop.neighbours.graph.needed_by[name],
        type=service.type,
        stop_signal=service.stop_signal,
        kill_delay=service.kill_delay,
        forward_signals=service.forward_signals,
        logs_forward=service.logs_forward,
    )
    loop.write(f"{_REMOVED}{name}", msgspec.msgpack.encode(removed))
    return removed.service(name)


def _work(step: api.Step, change: Change, plan: Plan) -> Work:
    kind, removed = _KINDS[step.action], step.service not in plan.services
    cause = f"the replan of {change.cause}: {', '.join(step.why)}"
    return Work(change.id, kind, cause, keep=kind is WorkKind.STOP and not removed, removed=removed)


def _definition(different: Diff, actor: Actor, old: Service | None) -> str:
    changed = different.changed.get(actor.name)
    if old is None or changed is None or not changed.definition or actor.state.phase not in LIVE:
        return ""
    return digest(old)


def _read(key: str, value: bytes) -> Removed:
    try:
        return msgspec.msgpack.decode(value, type=Removed)
    except msgspec.MsgspecError as error:
        raise StartError(f"cannot read {key} in the journal: {error}") from error
