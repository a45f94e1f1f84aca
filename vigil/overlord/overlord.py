"""The overlord: everything that happens to services goes through here, in turns.

A turn takes what has come in, asks the machines and the order what follows until nothing more does, writes all new
states and changes to the journal in one record, and only then acts. So a kill of control at any instruction leaves
either a turn that has not happened, or one that the next control finds in the journal and finishes.

A turn that raises cannot be half undone: control ends, and the next one goes on from the journal.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from vigil.journal.store import Store
from vigil.model import api, say, signals
from vigil.model.errors import Unavailable
from vigil.overlord import commands, order, views
from vigil.overlord.changes import Change, Changes, view
from vigil.overlord.settings import Settings
from vigil.overlord.tree import Tree
from vigil.plan import Sources, graph, load, read
from vigil.plan.types import Service
from vigil.service import spec
from vigil.service.actor import Actor, Logs, Outside
from vigil.service.clock import Clock
from vigil.service.events import Adopted, Attached, Closing, Command, Due, Event, Report, Shutdown, WorkBegan, WorkEnded
from vigil.service.state import LIVE, Phase, State, Work, WorkKind
from vigil.shim.messages import (
    NO_RUN,
    Exited,
    Gone,
    Message,
    Refused,
    Run,
    RunKind,
    RunPhase,
    RunState,
    Shim,
    Signalled,
    Snapshot,
    SpawnFailed,
    Started,
    Step,
    StopCause,
    Stopping,
    Welcome,
)

_ENDS = {signals.parse(word) for word in ("TERM", "INT", "QUIT")}
_PLAN = "plan"
_SHUTDOWN = "shutdown"
_AUTOSTART = "autostart"
_TOKEN = "counter/token"


class Ending(msgspec.Struct, frozen=True):
    """A decided shutdown, as the journal has it."""

    code: int
    restart: bool
    cause: str


class Overlord:
    """Owns the plan, the actors and the changes."""

    def __init__(self, *, shim: Shim, store: Store, logs: Logs, clock: Clock, settings: Settings) -> None:
        self.plan = settings.plan
        self.boot_id = store.boot_id
        self._settings, self._shim, self._store, self._logs, self._clock = settings, shim, store, logs, clock
        self._welcome = Welcome()
        self._changes = Changes.load(store.items, store.get)
        self._token = int(store.get(_TOKEN) or b"0")
        self._outside = Outside(shim, logs, spec.inherited(settings.environment), settings.forward_format, set())
        places = graph.order(self.plan)
        self._actors = {
            name: Actor(service, places[name], self._outside, store.get(f"service/{name}"))
            for name, service in self.plan.services.items()
        }
        self._neighbours = order.Neighbours(order.graph_of(self.plan), self._look)
        self._tree = Tree()
        self._by_token = {actor.state.token: actor for actor in self._actors.values() if actor.state.token}
        self._strays: set[Run] = set()  # runs that belong to no service; released when gone
        self._closing = ""  # vigild is stopping, and why
        self._ending: Ending | None = None
        # Of the turn:
        self._inbox: deque[Message | tuple[Actor, Event]] = deque()
        self._scheduled = self._turning = False
        self._moved: dict[str, None] = {}  # services whose neighbours are to be asked
        self._acting: dict[str, Actor] = {}
        self._writes: dict[str, bytes | None] = {}
        self._after: list[Callable[[], None]] = []  # acts that belong to no service
        self._alarms: list[tuple[int, str]] = []  # heap; an entry that is out of date is skipped
        self._watched: dict[str, int] = {}  # each service's latest entry there
        self._armed: int | None = None

    # --- life ---

    def attach(self, welcome: Welcome, snapshot: Snapshot) -> None:
        """Go on from the journal and what PID 1 knows. Takes the descriptors ``log/*`` of the snapshot."""
        self._welcome = welcome
        known = set(self._logs.names())
        for parked, fd in snapshot.parked.items():
            kind, _, name = parked.partition("/")
            if kind == "log":
                if name not in known:
                    self._logs.adopt(name, fd)
                self._outside.parked.add(name)
        record = self._store.get(_SHUTDOWN)
        if record is not None:  # SHUTDOWN may not have been sent; the first one decides, so twice does no harm
            self._ending = msgspec.msgpack.decode(record, type=Ending)
            self._closing = self._ending.cause
            self._after.append(self._send_shutdown)
        runs = {run.token: run for run in snapshot.runs if run.kind is RunKind.SERVICE}
        strays = [run for run in snapshot.runs if run.kind is not RunKind.SERVICE]
        for actor in self._actors.values():
            run = runs.pop(actor.state.token, None) if actor.state.phase in LIVE else None
            self._take(actor, Attached(run, actor.last_lines(run.started_real_ns) if run is not None else ()))
            if self._closing:
                self._take(actor, Closing())
            self._moved[actor.name] = None
            self._watch(actor)
        for run in (*runs.values(), *strays):
            self._stray(run)
        self._turn()

    def autostart(self) -> None:
        """Start the enabled services, once in a boot: a restarted control leaves them as they are."""
        self._turn()
        if self._store.get(_AUTOSTART) is None and not self._closing:
            self._writes[_AUTOSTART] = b"1"
            self._begin(api.ServicesAction(action="autostart"), "vigild: autostart", None)

    def handle(self, message: Message) -> None:
        """A message from PID 1; it is dealt with in the next turn, together with all that came by then."""
        self._inbox.append(message)
        if not self._scheduled:
            self._scheduled = True
            self._clock.soon(self._turn)

    def shutdown(self, code: int, restart: bool, cause: str) -> None:
        """Stop everything in order, then exit with ``code``, or start from scratch. The first shutdown decides.

        PlanError, and nothing happens, where a restart would find a plan that cannot be used.
        """
        if restart:
            self.check_plan()
        self._turn()
        self._shut(code, restart, f"vigild is {'restarting' if restart else 'stopping'}: asked for by {cause}")
        self._turn()

    def check_plan(self) -> None:
        """PlanError where the plan's files, as they are now, cannot be used. Reads files: may take a while."""
        record = self._store.get(_PLAN)
        if record is not None:
            load(read(msgspec.msgpack.decode(record, type=Sources).directory))

    # --- what the API asks ---

    def services(self, names: Sequence[str] = ()) -> list[api.Service]:
        """All services, or those named, in the plan's order of names given; NotFound names the unknown ones."""
        chosen = commands.known("show", names, self._actors) if names else list(self._actors)
        actors = [self._actors[name] for name in chosen]
        return views.services(actors, self._tree, self._welcome.start_real_ns)

    def act(self, action: api.ServicesAction, cause: str, key: str | None) -> api.Change:
        """Begin a change; it is in the journal when this returns. The same ``key`` gives the same change again.

        An empty list of services means all: start is for all that have a command, stop and restart are for those that
        are up or on their way, signal is for those that run. autostart is for the enabled ones that are down.
        """
        self._turn()
        change = self._changes.of_key(key)
        if change is None:
            if self._closing:
                raise Unavailable(f"cannot {action.action}: {self._closing}")
            change = self._begin(action, cause, key)
        return view(change)

    def changes(self) -> list[api.Change]:
        """All changes that are kept, oldest first."""
        return [view(change) for change in self._changes.all()]

    def change(self, id: str) -> api.Change:  # noqa: A002 - the word users know
        """One change; NotFound."""
        return view(self._changes.get(id))

    async def wait(self, id: str, timeout: float | None) -> api.Change:  # noqa: A002, ASYNC109
        """The change at its end, or as it is after ``timeout`` seconds."""
        return view(await self._changes.wait(id, timeout))

    def system_info(self) -> api.SystemInfo:
        """About vigild as a whole."""
        return views.system_info(self._settings, self.boot_id, self._welcome)

    # --- the turn ---

    def _turn(self) -> None:
        if self._turning:
            return  # somebody who was told in this turn asks for the next
        self._turning, self._scheduled = True, False
        try:
            while True:
                while self._inbox:
                    self._dispatch(self._inbox.popleft())
                self._expire()
                self._follow()
                self._commit()
                self._act()
                if not self._inbox:
                    break
            self._arm()
        except Exception as error:
            _fail(error)
        finally:
            self._turning = False

    def _dispatch(self, item: Message | tuple[Actor, Event]) -> None:
        match item:
            case (actor, event):
                self._take(actor, event)
            case Signalled():
                ends = sorted(item.numbers & _ENDS)
                if ends:
                    self._close(f"vigild was told to stop by {signals.name(ends[0])}")
            case Gone():
                if item.run in self._strays:
                    self._strays.discard(item.run)
                    self._after.append(lambda: self._shim.release(item.run))
                elif (owner := self._by_token.get(item.token)) is not None and owner.state.phase in LIVE:
                    self._take(owner, owner.emptied(item))
            case Started() | SpawnFailed() | Exited() | Stopping() | Refused():
                if isinstance(item, Stopping) and item.cause is StopCause.WHOLE:
                    self._close("vigild is stopping")
                if isinstance(item, SpawnFailed) and item.step is Step.STOPPING:
                    self._close("vigild is stopping")
                owner = self._by_token.get(item.token)
                if owner is not None:
                    self._take(owner, item)
                elif isinstance(item, SpawnFailed) and item.run != NO_RUN:
                    self._after.append(lambda: self._shim.release(item.run))
                elif isinstance(item, Refused):
                    say.debug("vigil.overlord", f"vigild refused a message: {item.describe()}", run=item.run)

    def _take(self, actor: Actor, event: Event) -> None:
        before = actor.state
        reports = actor.take(event, self._clock.monotonic_ns(), self._clock.realtime_ns(), self._closing)
        after = actor.state
        if after is not before:
            if after.token != before.token:
                if self._by_token.get(before.token) is actor:
                    del self._by_token[before.token]
                self._by_token[after.token] = actor
            if _matters(before, after):
                self._moved[actor.name] = None
            self._watch(actor)
        self._acting[actor.name] = actor
        for report in reports:
            self._report(actor, report)

    def _report(self, actor: Actor, report: Report) -> None:
        match report:
            case WorkEnded():
                now = self._clock.realtime_ns()
                self._changes.end_task(report.work.change, actor.name, report.status, report.err, report.output, now)
            case WorkBegan():
                self._take_along(actor.name, report.work)
            case Shutdown():
                self._shut(report.code, False, f"vigild is stopping: {actor.name} {report.cause}")

    def _take_along(self, name: str, work: Work) -> None:
        """A stop or restart of ``name`` began on command: those that run and require it go with it, as tasks too."""
        cause = self._changes.get(str(work.change)).cause
        stop = work.kind is WorkKind.STOP
        for other in self._neighbours.live_requirers(name):
            if self._changes.add(work.change, other, work.kind.value):
                along = Work(work.change, work.kind, f"{cause}, as it requires {name}", keep=stop)
                self._take(self._actors[other], Command(along))

    def _follow(self) -> None:
        """Ask the order about everything that moved, until nothing moves any more. The plan has no cycle: it ends."""
        while self._moved:
            moved = next(iter(self._moved))
            del self._moved[moved]
            for name in self._neighbours.affected(moved):
                event = self._neighbours.decide(name, self._next_token)
                if event is not None:
                    self._take(self._actors[name], event)

    def _expire(self) -> None:
        now = self._clock.monotonic_ns()
        while self._alarms and self._alarms[0][0] <= now:
            _, name = heapq.heappop(self._alarms)
            self._watched.pop(name, None)
            actor = self._actors[name]
            due = actor.deadline()
            if due is not None and due <= now:
                self._take(actor, Due())

    def _commit(self) -> None:
        writes = self._writes
        for name, actor in self._acting.items():
            if actor.dirty:
                writes[f"service/{name}"] = actor.record()
                actor.dirty = False
        writes.update(self._changes.writes())
        if writes:
            self._store.write(writes)
            self._writes = {}
        self._changes.committed()

    def _act(self) -> None:
        acting, self._acting = self._acting, {}
        for actor in acting.values():
            if actor.acting:
                self._inbox.extend((actor, event) for event in actor.act())
        after, self._after = self._after, []
        for call in after:
            call()

    def _watch(self, actor: Actor) -> None:
        due = actor.deadline()
        if due is not None and self._watched.get(actor.name) != due:
            self._watched[actor.name] = due
            heapq.heappush(self._alarms, (due, actor.name))

    def _arm(self) -> None:
        while self._alarms:
            due, name = self._alarms[0]
            if self._actors[name].deadline() == due:
                break
            heapq.heappop(self._alarms)
            if self._watched.get(name) == due:
                del self._watched[name]
        wanted = self._alarms[0][0] if self._alarms else None
        if wanted != self._armed:
            self._armed = wanted
            self._clock.alarm(wanted, self._ring)

    def _ring(self) -> None:
        self._armed = None
        self._turn()

    # --- inner ---

    def _begin(self, action: api.ServicesAction, cause: str, key: str | None) -> Change:
        parts = commands.parts(action, self._actors, self._neighbours)
        summary = commands.summary(action, [part.service for part in parts if part.asked])
        change = self._changes.new(action.action, summary, cause, key, self._clock.realtime_ns())
        for part in parts:
            self._changes.add(change.id, part.service, part.kind.value)
        for part in parts:
            self._take(self._actors[part.service], Command(part.work(change.id, cause)))
        self._changes.settle(change, self._clock.realtime_ns())
        self._turn()
        return change

    def _look(self, name: str) -> tuple[State, Service]:
        actor = self._actors[name]
        return actor.state, actor.service

    def _next_token(self) -> int:
        self._token += 1
        self._writes[_TOKEN] = str(self._token).encode()
        return self._token

    def _stray(self, run: RunState) -> None:
        """A run whose token stands in no service's state."""
        if run.state in (RunPhase.FAILED, RunPhase.GONE):  # dealt with by the last control, which did not get to this
            self._after.append(lambda: self._shim.release(run.run))
            return
        actor = self._actors.get(spec.noted(run.note) or "") if run.kind is RunKind.SERVICE else None
        if actor is not None and actor.state.phase not in LIVE and run.state is not RunPhase.EXITED:
            self._token = max(self._token, run.token)
            self._writes[_TOKEN] = str(self._token).encode()
            self._take(actor, Adopted(run))
            return
        self._strays.add(run.run)
        if run.kind is RunKind.SERVICE and not run.stopping:
            say.warn("vigil.overlord", "stops a run that belongs to no service of the plan", run=run.run, pid=run.pid)
            self._after.append(lambda: self._shim.stop(run.run))

    def _shut(self, code: int, restart: bool, cause: str) -> None:
        if self._closing and (restart or (self._ending is not None and not self._ending.restart)):
            return  # the first one decides; but a restart may still become an exit
        self._ending = Ending(code, restart, cause)
        self._writes[_SHUTDOWN] = msgspec.msgpack.encode(self._ending)
        self._after.append(self._send_shutdown)
        self._close(cause)

    def _send_shutdown(self) -> None:
        if self._ending is not None:
            self._shim.shutdown(self._ending.code, self._ending.restart)

    def _close(self, cause: str) -> None:
        """From now on nothing is started any more."""
        if self._closing:
            return
        self._closing = cause
        say.info("vigil.overlord", f"stops: {cause}")
        for actor in self._actors.values():
            self._take(actor, Closing())


def _matters(before: State, after: State) -> bool:
    """Whether the change may mean something to the order."""
    return (
        before.phase is not after.phase
        or before.next is not after.next
        or before.postponed != after.postponed
        or before.queue != after.queue
        or (after.phase is Phase.BACKOFF and before.short != after.short)
    )


def _fail(error: Exception) -> NoReturn:
    import traceback

    for line in traceback.format_exception(error):
        for part in line.rstrip("\n").split("\n"):
            say.error("vigil.overlord", part)
    say.error("vigil.overlord", f"cannot go on: {error}; the next control goes on from the journal")
    raise SystemExit(1) from error
