"""Turns: what happens to services is taken in, thought through, written down, and only then done.

A turn takes what has come in, asks the machines and the order what follows until nothing more does, writes all new
states and changes to the journal in one record, and only then acts. So a kill of control at any instruction leaves
either a turn that has not happened, or one that the next control finds in the journal and finishes.

A turn that raises cannot be half undone: control ends, and the next one goes on from the journal.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from vigil.journal.store import Store
from vigil.model import say
from vigil.overlord.changes import Changes
from vigil.overlord.order import Graph, Neighbours
from vigil.plan.types import Service
from vigil.service.actor import Actor
from vigil.service.clock import Clock
from vigil.service.events import Closing, Command, Due, Event, Report, Shutdown, WorkBegan, WorkEnded
from vigil.service.state import State, Work, WorkKind
from vigil.shim.messages import Message

_TOKEN = "counter/token"

Incoming = Message | tuple[Actor, Event]


class Loop:
    """The services' actors, and everything that makes one of them move."""

    def __init__(
        self,
        actors: dict[str, Actor],
        graph: Graph,
        changes: Changes,
        store: Store,
        clock: Clock,
        dispatch: Callable[[Message], None],
        shut: Callable[[Actor, Shutdown], None],
        forget: Callable[[Actor], None],
    ) -> None:
        """In a turn ``dispatch`` is given each message from PID 1, ``shut`` what a service's policy asks for, and
        ``forget`` the services that the plan does not have and of which nothing is left.
        """
        self.actors, self.changes, self.clock = actors, changes, clock
        self.neighbours = Neighbours(graph, self._look)
        self.by_token = {actor.state.token: actor for actor in actors.values() if actor.state.token}
        self.closing = ""  # vigild is stopping, and why
        self._store, self._dispatch, self._shut, self._forget = store, dispatch, shut, forget
        self._token = int(store.get(_TOKEN) or b"0")
        self._inbox: deque[Incoming] = deque()
        self._scheduled = self._turning = self._failed = False
        self._moved: dict[str, None] = {}  # services whose neighbours are to be asked
        self._acting: dict[str, Actor] = {}  # that may have to be written, and to act
        self._writes: dict[str, bytes | None] = {}
        self._after: list[Callable[[], None]] = []  # acts that are no service's
        self._alarms: list[tuple[int, str]] = []  # heap; an entry that is out of date is skipped
        self._watched: dict[str, int] = {}  # each service's latest entry there
        self._armed: int | None = None

    # --- outside a turn ---

    def tell(self, message: Message) -> None:
        """``message`` is dealt with in the next turn, together with all that came by then."""
        self._inbox.append(message)
        if not self._scheduled:
            self._scheduled = True
            self.clock.soon(self.turn)

    def turn(self, first: Callable[[], None] | None = None) -> None:
        """A turn that begins with ``first``, and those that follow from it at once."""
        if self._failed:
            raise SystemExit(1)  # control is ending, and what is left to run of it must not act on half a turn
        if self._turning:
            return  # somebody who was told something in this turn asks for the next one
        self._turning, self._scheduled = True, False
        try:
            if first is not None:
                first()
            while True:
                while self._inbox:
                    item = self._inbox.popleft()
                    if isinstance(item, tuple):
                        self.take(*item)
                    else:
                        self._dispatch(item)
                self._expire()
                self._follow()
                self._drop_removed()
                self._commit()
                self._act()
                if not self._inbox:
                    break
            self._arm()
        except Exception as error:
            self._failed = True
            _fail(error)
        finally:
            self._turning = False

    # --- for what is part of a turn ---

    def take(self, actor: Actor, event: Event) -> None:
        """Give ``event`` to ``actor``, and what it reports to whom it concerns."""
        before = actor.state
        reports = actor.take(event, self.clock.monotonic_ns(), self.clock.realtime_ns(), self.closing)
        after = actor.state
        if after is not before:
            if after.token != before.token:
                if self.by_token.get(before.token) is actor:
                    del self.by_token[before.token]
                self.by_token[after.token] = actor
            if _matters(before, after):
                self._moved[actor.name] = None
            self._watch(actor)
        self._acting[actor.name] = actor
        for report in reports:
            self._report(actor, report)

    def ask(self, actor: Actor) -> None:
        """Have the order asked about ``actor``, and its deadline watched, whether it has moved or not."""
        self._moved[actor.name] = None
        self._watch(actor)

    def write(self, key: str, value: bytes | None) -> None:
        """Part of this turn's record; None removes the key."""
        self._writes[key] = value

    def after(self, call: Callable[[], None]) -> None:
        """An act that is no service's: done when the record is written."""
        self._after.append(call)

    def close(self, cause: str) -> None:
        """From now on nothing is started any more."""
        if not self.closing:
            self.closing = cause
            say.info("vigil.overlord", f"stops: {cause}")
            for actor in self.actors.values():
                self.take(actor, Closing())

    def used(self, token: int) -> None:
        """``token`` is of a run that the journal does not know: never give it again."""
        self._token = max(self._token, token)
        self._writes[_TOKEN] = str(self._token).encode()

    # --- inner ---

    def _look(self, name: str) -> tuple[State, Service]:
        actor = self.actors[name]
        return actor.state, actor.service

    def _next_token(self) -> int:
        self.used(self._token + 1)
        return self._token

    def _report(self, actor: Actor, report: Report) -> None:
        match report:
            case WorkEnded():
                now = self.clock.realtime_ns()
                self.changes.end_task(report.work.change, actor.name, report.status, report.err, report.output, now)
            case WorkBegan():
                self._take_along(actor.name, report.work)
            case Shutdown():
                self._shut(actor, report)

    def _take_along(self, name: str, work: Work) -> None:
        """A stop or restart of ``name`` began on command: those that run and require it go with it, as tasks too."""
        cause = self.changes.get(str(work.change)).cause
        stop = work.kind is WorkKind.STOP
        for other in self.neighbours.live_requirers(name, staying=not stop):
            if self.changes.add(work.change, other, work.kind.value):
                along = Work(work.change, work.kind, f"{cause}, as it requires {name}", keep=stop)
                self.take(self.actors[other], Command(along))

    def _follow(self) -> None:
        """Ask the order about everything that moved, until nothing moves any more. The plan has no cycle: it ends."""
        while self._moved:
            moved = next(iter(self._moved))
            del self._moved[moved]
            for name in self.neighbours.affected(moved):
                event = self.neighbours.decide(name, self._next_token)
                if event is not None:
                    self.take(self.actors[name], event)

    def _drop_removed(self) -> None:
        gone = {name: actor for name, actor in self._acting.items() if actor.removed and actor.at_rest}
        for name, actor in gone.items():
            actor.dirty = False
            del self.actors[name]
            self._watched.pop(name, None)
            if self.by_token.get(actor.state.token) is actor:
                del self.by_token[actor.state.token]
            self.write(f"service/{name}", None)
            self._forget(actor)
        if gone:
            self.neighbours.graph = self.neighbours.graph.without(gone.keys())

    def _commit(self) -> None:
        writes = self._writes
        for name, actor in self._acting.items():
            if actor.dirty:
                writes[f"service/{name}"] = actor.record()
                actor.dirty = False
        writes.update(self.changes.writes())
        if writes:
            self._store.write(writes)
            self._writes = {}
        self.changes.committed()

    def _act(self) -> None:
        acting, self._acting = self._acting, {}
        for actor in acting.values():
            if actor.acting:
                self._inbox.extend((actor, event) for event in actor.act())
        after, self._after = self._after, []
        for call in after:
            call()

    # --- time ---

    def _watch(self, actor: Actor) -> None:
        due = actor.deadline()
        if due is not None and self._watched.get(actor.name) != due:
            self._watched[actor.name] = due
            heapq.heappush(self._alarms, (due, actor.name))

    def _expire(self) -> None:
        now = self.clock.monotonic_ns()
        while self._alarms and self._alarms[0][0] <= now:
            actor = self._pop()
            due = actor.deadline() if actor is not None else None
            if actor is not None and due is not None and due <= now:
                self.take(actor, Due())

    def _arm(self) -> None:
        while self._alarms:
            due, name = self._alarms[0]
            if name in self.actors and self.actors[name].deadline() == due:
                break
            self._pop()
        wanted = self._alarms[0][0] if self._alarms else None
        if wanted != self._armed:
            self._armed = wanted
            self.clock.alarm(wanted, self._ring)

    def _pop(self) -> Actor | None:
        due, name = heapq.heappop(self._alarms)
        if self._watched.get(name) == due:
            del self._watched[name]
        return self.actors.get(name)

    def _ring(self) -> None:
        self._armed = None
        self.turn()


def _matters(before: State, after: State) -> bool:
    """Whether the change may mean something to the order."""
    return (
        before.phase is not after.phase
        or before.next is not after.next
        or before.postponed != after.postponed
        or before.queue != after.queue
    )


def _fail(error: Exception) -> NoReturn:
    import traceback

    for line in traceback.format_exception(error):
        for part in line.rstrip("\n").split("\n"):
            say.error("vigil.overlord", part)
    say.error("vigil.overlord", f"cannot go on: {error}; the next control goes on from the journal")
    raise SystemExit(1) from error
