"""Who may start, who must stop, who waits for whom. Pure: from the states of a service and its neighbours to an event.

A service waits for those on their way, not for those that nobody starts (unless it requires one: then it is held). It
goes when one that it requires goes, and comes back with that one. Stop is the other way round: a service stops when
those that need it and are stopping too have stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from enum import Enum

import msgspec

from vigil.plan import graph
from vigil.plan.types import Service
from vigil.service.events import Cascade, Go, Hold, StopLater, StopNow, Wait
from vigil.service.state import LEAVING, LIVE, Next, Phase, State, WorkKind, described


class Standing(Enum):
    """What a service is to one that needs it."""

    UP = "up"
    COMING = "coming"  # on its way: wait for it
    GOING = "going"  # on its way down: soon DOWN
    DOWN = "down"  # nobody starts it


class Graph(msgspec.Struct, frozen=True):
    """The edges between services, both ways."""

    needs: dict[str, tuple[str, ...]]  # waits for, in the plan's order
    requires: dict[str, tuple[str, ...]]
    needed_by: dict[str, tuple[str, ...]]
    required_by: dict[str, tuple[str, ...]]
    removed: Set[str]  # those that no plan has any more: waited for by who stops, never by who starts
    places: Mapping[str, tuple[int, int]]  # component and rank of each

    def without(self, names: Set[str]) -> Graph:
        """The same without some services. The others keep their places: what lives was told of them."""
        needs, requires, needed_by, required_by = (
            {name: tuple(o for o in others if o not in names) for name, others in edges.items() if name not in names}
            for edges in (self.needs, self.requires, self.needed_by, self.required_by)
        )
        return Graph(needs, requires, needed_by, required_by, self.removed - names, self.places)


def graph_of(services: Mapping[str, Service], removed: Set[str] = frozenset()) -> Graph:
    """The graph of a plan's services, and of those that were in it and still run."""
    place = {name: index for index, name in enumerate(services)}
    waits = graph.edges(services.values())
    if removed and graph.cycles(waits):  # what the old plan says of these against what the new one says of the others
        waits = {name: others - removed for name, others in waits.items()}
    needs = {name: tuple(sorted(waits[name], key=place.__getitem__)) for name in services}
    requires = {name: tuple(dict.fromkeys(service.requires)) for name, service in services.items()}
    return Graph(needs, requires, _reversed(needs), _reversed(requires), removed, graph.order(waits))


def standing(state: State, service: Service) -> Standing:
    """What the service is to one that needs it."""
    match state.phase:
        case Phase.ACTIVE:
            return Standing.COMING if service.type == "oneshot" else Standing.UP
        case Phase.EXITED:
            return Standing.UP if service.type == "oneshot" else Standing.DOWN  # it was one in an earlier plan
        case Phase.WAITING | Phase.SPAWNING | Phase.BACKOFF:
            return Standing.COMING
        case Phase.STOP_WAIT | Phase.STOPPING | Phase.ENDING:
            if state.next in (Next.START, Next.BACKOFF, Next.EXITED) or _asked_again(state):
                return Standing.COMING
            return Standing.GOING
        case _:
            return Standing.DOWN


class Neighbours:
    """The services of a plan in the states they are in now."""

    def __init__(self, graph: Graph, look: Callable[[str], tuple[State, Service]]) -> None:
        self.graph = graph
        self._look = look

    def decide(self, name: str, token: Callable[[], int]) -> Go | Wait | Hold | Cascade | StopNow | StopLater | None:
        """What its neighbours mean to ``name`` now. ``token`` is asked for where it is to be started."""
        state, _ = self._look(name)
        match state.phase:
            case Phase.WAITING | Phase.HELD:
                return self._start(name, token)
            case Phase.BACKOFF:
                return self._held(name)
            case Phase.SPAWNING | Phase.ACTIVE:
                return self._cascade(name)
            case Phase.STOP_WAIT:
                blockers = self._stops_first(name)
                return StopLater(blockers) if blockers else StopNow()
            case _:
                return None

    def affected(self, name: str) -> list[str]:
        """Those for whom a change of ``name`` may matter, ``name`` itself among them."""
        turns = (Phase.STOP_WAIT, Phase.WAITING)
        up = [other for other in self.graph.needs[name] if self._look(other)[0].phase in turns]
        return [name, *self.graph.needed_by[name], *up]

    def live_requirers(self, name: str, *, staying: bool) -> list[str]:
        """Those that run and require ``name``; with ``staying`` without those that are on their way down for good."""
        states = [(other, *self._look(other)) for other in self.graph.required_by[name]]
        return [
            other
            for other, state, service in states
            if state.phase in LIVE and not (staying and standing(state, service) is Standing.GOING)
        ]

    def to_start(self, names: list[str]) -> dict[str, str | None]:
        """``names`` and what they require, as far as that is down, in order of need. The value: required by whom."""
        wanted: dict[str, str | None] = dict.fromkeys(names)
        found: dict[str, str | None] = {}
        stack = [(name, False) for name in reversed(names)]
        while stack:
            name, entered = stack.pop()
            if entered:
                found.setdefault(name, wanted[name])
                continue
            if name in found:
                continue
            stack.append((name, True))
            for other in reversed(self.graph.requires[name]):
                state, service = self._look(other)
                if other in found or (other not in wanted and not _needs_start(state, service)):
                    continue
                wanted.setdefault(other, name)
                stack.append((other, False))
        return found

    def _start(self, name: str, token: Callable[[], int]) -> Go | Wait | Hold:
        held = self._held(name)
        if held is not None:
            return held
        coming = self._restarts_first(name)
        down: list[str] = []
        required = self.graph.requires[name]
        postponed = ""
        for other in self.graph.needs[name]:
            if other in self.graph.removed:
                continue
            state, service = self._look(other)
            match standing(state, service):
                case Standing.COMING:
                    coming.append(other)
                    if not postponed and _failed_before(state):
                        postponed = f"{other}, which {_what(state)}"
                case Standing.GOING if other in required:
                    coming.append(other)
                case Standing.GOING | Standing.DOWN:
                    down.append(other)
        if coming:
            return Wait(tuple(coming), postponed)
        return Go(token(), tuple(down))

    def _restarts_first(self, name: str) -> list[str]:
        """Those that are restarted with ``name``, a oneshot that was done: they stop before it runs again."""
        task = self._look(name)[0].task
        if task is None or task.kind is not WorkKind.RESTART or task.begun:
            return []
        return [other for other in self.graph.required_by[name] if self._look(other)[0].phase in LEAVING]

    def _held(self, name: str) -> Hold | None:
        down = [other for other in self.graph.requires[name] if standing(*self._look(other)) is Standing.DOWN]
        if not down:
            return None
        return Hold(tuple(down), f"it requires {down[0]}, which {_what(self._look(down[0])[0])}")

    def _cascade(self, name: str) -> Cascade | None:
        for other in self.graph.requires[name]:
            state, service = self._look(other)
            if state.phase is Phase.STOP_WAIT or standing(state, service) is Standing.DOWN:
                return Cascade(f"it requires {other}, which {_what(state)}")
        return None

    def _stops_first(self, name: str) -> tuple[str, ...]:
        """Those that need ``name`` and stop too; those that require it are told by ``_cascade`` in the same turn."""
        required_by = self.graph.required_by[name]
        return tuple(
            other
            for other in self.graph.needed_by[name]
            if (phase := self._look(other)[0].phase) in LEAVING or (phase in LIVE and other in required_by)
        )


def _needs_start(state: State, service: Service) -> bool:
    """Whether a service that is required must be started for it to come up, or may be started sooner than by itself."""
    return state.phase is Phase.BACKOFF or standing(state, service) in (Standing.DOWN, Standing.GOING)


def _asked_again(state: State) -> bool:
    return any(work.kind in (WorkKind.START, WorkKind.RESTART) for work in state.queue)


def _failed_before(state: State) -> bool:
    """Whether it is on its way only because its failed start is tried again, or waits for such a one."""
    return (state.phase is Phase.BACKOFF and not state.short) or state.postponed


def _what(state: State) -> str:
    if state.phase is Phase.HELD:
        return f"waits for {' and '.join(state.waiting_for)}"
    if state.phase is Phase.STOP_WAIT:
        return f"is to be {'restarted' if state.next is Next.START else 'stopped'}"
    if state.phase is Phase.WAITING and state.waiting_for:
        return f"waits for {' and '.join(state.waiting_for)}"
    return f"is {described(state)} ({state.cause})"


def _reversed(edges: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    back: dict[str, list[str]] = {name: [] for name in edges}
    for name, others in edges.items():
        for other in others:
            back[other].append(name)
    return {name: tuple(others) for name, others in back.items()}
