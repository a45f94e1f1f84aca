"""The overlord: the one that api and daemon talk to, and the one that hears PID 1. How it moves services: ``loop``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from vigil.journal.store import Store
from vigil.model import api, say, signals
from vigil.model.errors import Conflict, PlanError, Unavailable
from vigil.overlord import commands, reload, views
from vigil.overlord.changes import REPLAN, Change, Changes, view
from vigil.overlord.loop import Loop
from vigil.overlord.settings import Settings
from vigil.overlord.steps import steps
from vigil.overlord.tree import Tree, Use
from vigil.plan import Plan, Sources, load, read
from vigil.service import spec
from vigil.service.actor import Actor, Logs, Outside
from vigil.service.clock import Clock
from vigil.service.events import Adopted, Attached, Command, Shutdown
from vigil.service.state import LIVE
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

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_ENDS = frozenset(signals.parse(word) for word in ("TERM", "INT", "QUIT"))
_WHOLE_STOP = "vigild is stopping"
_SHUTDOWN = "shutdown"
_AUTOSTART = "autostart"

NEXT_PLAN = "next-plan"
"""Key of the journal: sources of the plan that the boot after a restart begins with."""


class Ending(msgspec.Struct, frozen=True):
    """A decided shutdown, as the journal has it."""

    code: int
    restart: bool
    cause: str


class Overlord:
    """Owns the plan, the actors and the changes."""

    def __init__(self, *, shim: Shim, store: Store, logs: Logs, clock: Clock, settings: Settings) -> None:
        self.boot_id = store.boot_id
        self._settings, self._shim, self._store, self._logs = settings, shim, store, logs
        self._welcome = Welcome()
        self._tree = Tree()
        self._ending: Ending | None = None
        self._strays: set[Run] = set()  # runs that belong to no service; released when gone
        self._outside = Outside(shim, logs, spec.inherited(settings.environment), settings.forward_format, set())
        self._in_force = reload.InForce(settings.plan, store, self._outside)
        self._actors = self._in_force.actors
        self._changes = Changes.load(store.items, store.get)
        self._loop = Loop(
            self._actors,
            self._in_force.graph,
            self._changes,
            store,
            clock,
            dispatch=self._dispatch,
            shut=self._policy,
            forget=lambda actor: self._in_force.forget(self._loop, actor),
        )
        self._replanning: asyncio.Lock | None = None

    # --- life ---

    def attach(self, welcome: Welcome, snapshot: Snapshot) -> None:
        """Go on from the journal and what PID 1 knows. Takes the descriptors ``log/*`` of the snapshot."""
        loop = self._loop
        self._welcome = welcome
        known = set(self._logs.names())
        for parked, fd in snapshot.parked.items():
            kind, _, name = parked.partition("/")
            if kind == "log":
                if name not in known:
                    try:
                        self._logs.adopt(name, fd)
                    except OSError as error:  # as logger goes on writing it, its service goes on too
                        say.error("vigil.overlord", f"cannot show what {name} writes: {error.strerror}")
                self._outside.parked.add(name)
        record = self._store.get(_SHUTDOWN)
        if record is not None:  # SHUTDOWN may not have been sent; the first one decides, so twice does no harm
            self._ending = msgspec.msgpack.decode(record, type=Ending)
            loop.closing = self._ending.cause
            loop.after(self._send_shutdown)
        self._in_force.attach(loop)
        runs = {run.token: run for run in snapshot.runs if run.kind is RunKind.SERVICE}
        others = [run for run in snapshot.runs if run.kind is not RunKind.SERVICE]
        for actor in self._actors.values():
            run = runs.pop(actor.state.token, None) if actor.state.phase in LIVE else None
            gone = run is not None and run.state is RunPhase.GONE  # then logger has taken its last lines
            output = actor.last_lines(run.started_real_ns) if run is not None and gone else ()
            loop.take(actor, Attached(run, output))
            loop.ask(actor)
        for run in (*runs.values(), *others):
            self._stray(run)
        loop.turn()

    def autostart(self) -> None:
        """Start the enabled services, once in a boot: a restarted control leaves them as they are."""
        self._loop.turn()
        if self._store.get(_AUTOSTART) is None and not self._loop.closing:
            self._loop.write(_AUTOSTART, b"1")
            self._begin(api.ServicesAction(action="autostart"), "vigild: autostart", None)

    def handle(self, message: Message) -> None:
        """A message from PID 1."""
        self._loop.tell(message)

    def shutdown(self, code: int, restart: bool, cause: str, sources: Sources | None = None) -> None:
        """Stop everything in order, then exit with ``code``, or start from scratch. The first shutdown decides.

        ``sources``: of the plan that a restart is to start with, as ``check_plan`` gave them: stopping may take long,
        and what the files say then nobody has looked at. None: the files are read then.
        """
        self._loop.turn()
        doing = "restarting" if restart else "stopping"
        self._shut(code, restart, f"vigild is {doing}: asked for by {cause}", sources)
        self._loop.turn()

    @property
    def closing(self) -> bool:
        """Whether everything is being stopped."""
        return bool(self._loop.closing)

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        return self._in_force.plan

    async def shown_plan(self, *, secrets: bool) -> dict[str, Any]:
        """The plan in force as one layer would say it; without ``secrets`` what looks like one is masked."""
        from vigil.plan.show import merged

        sources = self._in_force.sources()
        return await _aside(lambda: merged(sources, secrets=secrets))

    async def check_plan(self) -> Sources:
        """The plan's files as they are now; PlanError where they cannot be used."""
        return (await self._read())[0]

    async def replan(self, action: api.ReplanAction, cause: str, key: str | None) -> api.Replan:
        """Put the plan's files, as they are now, in force. PlanError: they are wrong, and nothing has changed.

        One at a time: who asks while another is being read gets what the files say after that. The same ``key`` gives
        the same change again.
        """
        import asyncio

        if self._replanning is None:
            self._replanning = asyncio.Lock()
        async with self._replanning:
            known = self._replanned(action, key)
            if known is not None:
                return known
            try:
                sources, plan = await self._read()
            except PlanError as bad:
                count = len(bad.problems)
                say.warn("vigil.overlord", f"refuses the plan that {cause} asks for: it has problems", problems=count)
                raise
            return self.take_plan(sources, plan, action, cause, key)

    def take_plan(
        self, sources: Sources, plan: Plan, action: api.ReplanAction, cause: str, key: str | None
    ) -> api.Replan:
        """Put ``plan`` in force, which ``sources`` make: one turn, one record in the journal."""
        self._loop.turn()
        known = self._replanned(action, key)
        if known is not None:
            return known
        states = {actor.name: actor.state for actor in self._actors.values()}
        found = steps(self.plan, plan, states, no_restart=action.no_restart)
        if action.dry_run:
            return views.replan(found, plan, None)
        change = self._changes.new(REPLAN, commands.replan_summary(found), cause, key, self._loop.clock.realtime_ns())
        change.steps, change.no_restart = tuple(found), action.no_restart
        reload.tell(change, plan)
        self._loop.turn(lambda: self._in_force.replace(self._loop, self._changes, sources, plan, change))
        return views.replan(found, plan, view(change))

    def _replanned(self, action: api.ReplanAction, key: str | None) -> api.Replan | None:
        """What a replan with that key was answered; Conflict, and Unavailable where there can be none any more."""
        change = None if action.dry_run else self._changes.of_key(key)
        if change is None:
            if self._loop.closing:
                raise Unavailable(f"cannot replan: {self._loop.closing}")
            return None
        if change.kind != REPLAN or change.no_restart != action.no_restart:
            raise _key_used("replan", change)
        return views.replan(change.steps, self.plan, view(change))

    async def _read(self) -> tuple[Sources, Plan]:
        """The plan's files as they are now."""
        before = self._in_force.sources()

        def take() -> tuple[Sources, Plan]:
            sources = read(before.directory)
            if sources.missing and not before.missing:
                # At start-up that is an empty plan; now it would stop all, and a volume that came loose is likelier.
                text = "the directory is gone, which stops nothing (a plan without services is an empty directory)"
                raise PlanError([api.Problem(file=before.directory, line=0, column=0, field="", message=text)])
            return sources, load(sources, templates=True)

        return await _aside(take)

    # --- what the API asks ---

    def services(self, names: Sequence[str] = (), uses: Mapping[str, Use] | None = None) -> list[api.Service]:
        """All services, or those named, in the order in which they are named; NotFound names the unknown ones."""
        chosen = commands.known(commands.LOOK, names, self._actors) if names else list(self._actors)
        actors = [self._actors[name] for name in chosen]
        return views.services(actors, uses or {}, self._settings.began_real_ns or self._welcome.start_real_ns)

    async def measured(self, names: Sequence[str] = ()) -> list[api.Service]:
        """The same with what they use, which takes the longer the more processes there are."""
        commands.known(commands.LOOK, names, self._actors)
        roots = {a.name: (a.state.pid, a.state.keeper) for a in self._actors.values() if a.state.phase in LIVE}
        return self.services(names, await self._tree.measure(roots) if roots else None)

    def act(self, action: api.ServicesAction, cause: str, key: str | None) -> api.Change:
        """Begin a change; it is in the journal when this returns. The same ``key`` gives the same change again.

        An empty list of services means all: start is for all that have a command, stop and restart are for those that
        are up or on their way, signal is for those that run. autostart is for the enabled ones that are down.
        """
        self._loop.turn()
        change = self._changes.of_key(key)
        if change is not None and not commands.same(action, change.kind, change.tasks):
            raise _key_used(action.action, change)
        if change is None:
            if self._loop.closing:
                raise Unavailable(f"cannot {action.action}: {self._loop.closing}")
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

    def _begin(self, action: api.ServicesAction, cause: str, key: str | None) -> Change:
        loop = self._loop
        parts = commands.parts(action, self._actors, loop.neighbours)
        summary = commands.summary(action, [part.service for part in parts if part.asked])
        change = self._changes.new(action.action, summary, cause, key, loop.clock.realtime_ns())
        for part in parts:
            self._changes.add(change.id, part.service, part.kind.value)
        for part in parts:
            loop.take(self._actors[part.service], Command(part.work(change.id, cause)))
        self._changes.settle(change, loop.clock.realtime_ns())
        loop.turn()
        return change

    # --- what PID 1 tells ---

    def _dispatch(self, message: Message) -> None:
        loop = self._loop
        match message:
            case Signalled():
                ends = sorted(message.numbers & _ENDS)
                if ends:
                    loop.close(f"vigild was told to stop by {signals.name(ends[0])}")
                return
            case Gone() if message.run in self._strays:
                self._strays.discard(message.run)
                loop.after(lambda: self._shim.release(message.run))
                return
            case Stopping(cause=StopCause.WHOLE) | SpawnFailed(step=Step.STOPPING):
                loop.close(_WHOLE_STOP)
            case _:
                pass
        owner = loop.by_token.get(message.token)
        match message:
            case Gone():
                if owner is not None and owner.state.phase in LIVE:
                    loop.take(owner, owner.emptied(message))
            case Started() | SpawnFailed() | Exited() | Stopping() | Refused():
                if owner is not None:
                    loop.take(owner, message)
                elif isinstance(message, SpawnFailed) and message.run != NO_RUN:
                    loop.after(lambda: self._shim.release(message.run))
                elif isinstance(message, Refused):
                    say.debug("vigil.overlord", f"vigild refused a message: {message.describe()}", run=message.run)

    def _stray(self, run: RunState) -> None:
        """A run whose token stands in no service's state."""
        loop = self._loop
        if run.state in (RunPhase.FAILED, RunPhase.GONE):  # dealt with by the last control, which did not get to this
            loop.after(lambda: self._shim.release(run.run))
            return
        actor = self._actors.get(spec.noted(run.note) or "") if run.kind is RunKind.SERVICE else None
        down = actor is not None and not actor.removed and actor.state.phase not in LIVE
        if actor is not None and down and run.state is not RunPhase.EXITED:
            loop.used(run.token)
            loop.take(actor, Adopted(run))
            return
        self._strays.add(run.run)
        if run.kind is RunKind.SERVICE and not run.stopping:
            say.warn("vigil.overlord", "stops a run that belongs to no service of the plan", run=run.run, pid=run.pid)
            loop.after(lambda: self._shim.stop(run.run))

    # --- the end ---

    def _policy(self, actor: Actor, report: Shutdown) -> None:
        self._shut(report.code, False, f"vigild is stopping: {actor.name} {report.cause}")

    def _shut(self, code: int, restart: bool, cause: str, sources: Sources | None = None) -> None:
        if self._loop.closing and (restart or (self._ending is not None and not self._ending.restart)):
            return  # the first one decides; but a restart may still become an exit
        self._ending = Ending(code, restart, cause)
        self._loop.write(_SHUTDOWN, msgspec.msgpack.encode(self._ending))
        if restart and sources is not None:
            self._loop.write(NEXT_PLAN, msgspec.msgpack.encode(sources))
        self._loop.after(self._send_shutdown)
        self._loop.close(cause)

    def _send_shutdown(self) -> None:
        if self._ending is not None:
            self._shim.shutdown(self._ending.code, self._ending.restart)


async def _aside(call: Callable[[], T]) -> T:
    """What ``call`` gives, out of a thread: plans may be large, and their disks slow."""
    import asyncio

    try:
        return await asyncio.to_thread(call)
    except RuntimeError:  # no thread to be had
        return call()


def _key_used(action: str, change: Change) -> Conflict:
    # Answered with that change, a client that uses a key twice would take its command for done.
    return Conflict(f"cannot {action}: this Idempotency-Key was used for change {change.id} ({change.summary})")
