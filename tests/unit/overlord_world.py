"""An overlord over a PID 1 without processes and a clock that jumps, which may be killed at any instruction.

An instruction is: a write to the journal, a message to PID 1, a message from PID 1; each may be cut before it and after
it. After a cut the next control attaches to what the journal and PID 1 have, as in real life.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tests.channel.fake import FakePid1, FakeRun
from vigil._native import lib
from vigil.model import api
from vigil.model.states import ChangeStatus
from vigil.overlord import Overlord, Settings
from vigil.plan import graph
from vigil.plan.types import Plan, Service, Sources
from vigil.shim.messages import LogMode, Message, RunPhase, SpawnSpec, Step

SECOND = 1_000_000_000


class Cut(BaseException):
    """control was killed here."""


class Knife:
    """Counts instructions, and cuts at those in ``at`` (numbers from 1)."""

    def __init__(self, at: Iterable[int] = ()) -> None:
        self.at = set(at)
        self.count = 0

    def point(self) -> None:
        self.count += 1
        if self.count in self.at:
            raise Cut


class MemoryStore:
    """The journal's latest values, outliving lives of control."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.boot_id = "test-boot"
        self.writes = 0
        self.bytes = 0
        self.knife = Knife()

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def items(self, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        return iter([(key, value) for key, value in self.values.items() if key.startswith(prefix)])

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        self.knife.point()
        self.writes += 1
        for key, value in changes.items():
            self.bytes += len(value or b"")
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self.knife.point()


class CutShim:
    """The fake's calls, each an instruction."""

    def __init__(self, pid1: FakePid1, knife: Knife) -> None:
        self._pid1, self._knife = pid1, knife

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._pid1, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._knife.point()
            result = method(*args, **kwargs)
            self._knife.point()
            return result

        return call


class Clock:
    """Jumps."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND
        self.real = 1_700_000_000 * SECOND
        self.calls: list[Callable[[], None]] = []
        self.wanted: tuple[int, Callable[[], None]] | None = None

    def monotonic_ns(self) -> int:
        return self.now

    def realtime_ns(self) -> int:
        return self.real

    def soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def alarm(self, deadline_ns: int | None, call: Callable[[], None]) -> None:
        self.wanted = None if deadline_ns is None else (deadline_ns, call)

    def forget(self) -> None:
        self.calls.clear()
        self.wanted = None


class Logs:
    """Rings without content but what a test says."""

    def __init__(self, lines: dict[str, list[str]]) -> None:
        self.lines = lines
        self._names: list[str] = []

    def make(self, name: str) -> int:
        self._names.append(name)
        return 0  # any descriptor that can be copied

    def adopt(self, name: str, fd: int) -> None:
        os.close(fd)
        self._names.append(name)

    def names(self) -> list[str]:
        return self._names

    def drop(self, name: str) -> None:
        if name in self._names:
            self._names.remove(name)

    def last_lines(self, name: str, n: int, run_started_real_ns: int) -> list[str]:
        assert run_started_real_ns
        return self.lines.get(name, [])[-n:]


class World:
    """Everything, and what a service's processes do by themselves."""

    def __init__(self, services: Sequence[Service], knife: Knife | None = None) -> None:
        self.plan = Plan(services={service.name: service for service in services})
        self.plans: list[Plan] = []  # that replans were asked for
        self.pid1 = FakePid1()
        self.store = MemoryStore()
        self.clock = Clock()
        self.lines: dict[str, list[str]] = {}
        self.knife = knife or Knife()
        self.store.knife = self.knife
        self.slow: set[str] = set()  # does not get as far as exec by itself
        self.deaf: set[str] = set()  # does not end when told to stop
        self.broken: dict[str, tuple[Step, int]] = {}  # cannot be started
        self.spawned: list[SpawnSpec] = []  # that took effect
        self.kills = 0
        self.overlord: Overlord
        self.pid1.now_ns = self.clock.real
        original = self.pid1.spawn

        def spawn(spec: SpawnSpec) -> None:
            before = len(self.pid1.runs)
            original(spec)
            if len(self.pid1.runs) > before:
                assert spec.token not in {earlier.token for earlier in self.spawned}, "a token was used twice"
                self.spawned.append(spec)

        self.pid1.spawn = spawn  # type: ignore[method-assign]
        self._guard(self._begin)

    # --- lives of control ---

    def _begin(self) -> None:
        knife = self.knife
        shim = CutShim(self.pid1, knife)
        self.overlord = Overlord(
            shim=shim,  # type: ignore[arg-type]
            store=self.store,  # type: ignore[arg-type]
            logs=Logs(self.lines),
            clock=self.clock,
            settings=Settings(plan=self.plan_in_force(), environment={b"PATH": b"/bin"}),
        )
        handle = self.overlord.handle

        def handler(message: Message) -> None:
            knife.point()
            handle(message)

        welcome, snapshot = self.pid1.attach(handler)
        self.overlord.attach(welcome, snapshot)
        self.overlord.autostart()

    def plan_in_force(self) -> Plan:
        """As the daemon finds it in the journal. What its sources are is told by their directory."""
        record = self.store.values.get("plan")
        sources = Sources("") if record is None else msgspec.msgpack.decode(record, type=Sources)
        return self.plans[int(sources.directory)] if sources.directory.isdecimal() else self.plan

    def kill(self) -> None:
        """control dies; the next one begins."""
        self.kills += 1
        self.pid1.detach()
        self.clock.forget()
        self._guard(self._begin)

    def _guard(self, call: Callable[[], None]) -> None:
        """A cut in ``call`` kills control, and the call is done again by the next."""
        while True:
            try:
                call()
                return
            except Cut:
                self.kills += 1
                self.pid1.detach()
                self.clock.forget()
                if call != self._begin:
                    self._guard(self._begin)

    # --- what goes on ---

    def settle(self) -> None:
        """Until nothing happens any more without time passing."""
        self._guard(self._settle)

    def _settle(self) -> None:
        for _ in range(10_000):
            if not (self._behave() or self._deliver()):
                return
        raise AssertionError("it never comes to rest")

    def _deliver(self) -> bool:
        if self.pid1.outbox:
            self.pid1.pump()
            return True
        if self.clock.calls:
            self.clock.calls.pop(0)()
            return True
        if self.clock.wanted is not None and self.clock.wanted[0] <= self.clock.now:
            _, call = self.clock.wanted
            self.clock.wanted = None
            call()
            return True
        return False

    def _behave(self) -> bool:
        for entry in list(self.pid1.runs.values()):
            name = entry.name
            if entry.state is RunPhase.STARTING and name in self.broken:
                self.pid1.fail(entry.run, *self.broken[name])
                return True
            if entry.state is RunPhase.STARTING and name not in self.slow:
                self.pid1.start(entry.run)
                return True
            if self._told_to_stop(entry) and name not in self.deaf:
                self.pid1.end(entry.run, signo=entry.stop[0])
                return True
        return False

    def _told_to_stop(self, entry: FakeRun) -> bool:
        return entry.state is RunPhase.RUNNING and bool(entry.flags & lib.VG_IS_STOPPING)

    def advance(self, seconds: float) -> None:
        """Time passes, and everything that it brings."""
        until = self.clock.now + round(seconds * SECOND)
        while True:
            self.settle()
            wanted = self.clock.wanted
            if wanted is None or wanted[0] > until:
                break
            self._pass(wanted[0])
        self._pass(until)
        self.settle()

    def _pass(self, until: int) -> None:
        step = max(0, until - self.clock.now)
        self.clock.now += step
        self.clock.real += step
        self.pid1.now_ns = self.clock.real

    def exit(self, name: str, code: int = 0, signo: int | None = None, *, gone: bool = True) -> None:
        """The main process of ``name`` ends."""
        run = self.pid1.exit(name, code, signo)
        if gone:
            self.pid1.go(run)
        self.settle()

    def go(self, name: str) -> None:
        """Nothing of ``name`` is left."""
        self.pid1.go(name)
        self.settle()

    def act(self, action: str, *names: str, key: str | None = None, signal: str | None = None) -> api.Change:
        """A client asks, and asks again with the same key where control died before it answered."""
        change: list[api.Change] = []
        if key is None:
            key = f"key {len(self.overlord.changes())}"
        request = api.ServicesAction(action=action, services=list(names), signal=signal)  # type: ignore[arg-type]
        self._guard(lambda: change.append(self.overlord.act(request, "uid 0 over the Unix socket", key)))
        return change[-1]

    def replan(
        self, *services: Service, dry_run: bool = False, no_restart: bool = False, key: str | None = None
    ) -> api.Replan:
        """The plan becomes these services, as ``act``."""
        found: list[api.Replan] = []
        self.plans.append(Plan(services={service.name: service for service in services}))
        sources, plan = Sources(str(len(self.plans) - 1)), self.plans[-1]
        if key is None:
            key = f"key {len(self.overlord.changes())}"
        action = api.ReplanAction(dry_run=dry_run, no_restart=no_restart)
        cause = "uid 0 over the Unix socket"
        self._guard(lambda: found.append(self.overlord.take_plan(sources, plan, action, cause, key)))
        return found[-1]

    def do(self, action: str, *names: str, signal: str | None = None) -> api.Change:
        """``act``, and let happen what happens at once."""
        change = self.act(action, *names, signal=signal)
        self.settle()
        return self.overlord.change(change.id)

    # --- to look at ---

    def show(self, name: str) -> api.Service:
        return self.overlord.services([name])[0]

    def state(self, name: str) -> str:
        return self.show(name).current.value

    def states(self) -> dict[str, str]:
        return {service.name: service.current.value for service in self.overlord.services()}

    def status(self, change: api.Change) -> str:
        return self.overlord.change(change.id).status.value

    def tasks(self, change: api.Change) -> dict[str, tuple[str, str]]:
        return {t.service: (t.kind, t.status.value) for t in self.overlord.change(change.id).tasks}

    def starts(self, name: str) -> int:
        return sum(spec.name == name for spec in self.spawned)

    def living(self) -> set[str]:
        return {entry.name for entry in self.pid1.runs.values() if not entry.over}

    def calls(self, kind: str) -> list[tuple[Any, ...]]:
        return [call for call in self.pid1.calls if call[0] == kind]

    def outcome(self) -> dict[str, Any]:
        """All that a user can tell, except for times and the runs' numbers."""
        services = {
            s.name: (
                s.current.value,
                s.cause,
                s.waiting_for,
                s.restarts,
                (s.exit.code, s.exit.signal, s.exit.reason, s.exit.output) if s.exit else None,
                self.starts(s.name),
            )
            for s in self.overlord.services()
        }
        changes = {
            c.id: (c.kind, c.status, c.err, {t.service: (t.kind, t.status, t.err) for t in c.tasks})
            for c in self.overlord.changes()
        }
        runs = {e.name: (e.signals, e.stop, e.forward, e.log_mode, e.spec.argv) for e in self.pid1.runs.values()}
        pending = [s.name for s in self.overlord.services() if s.pending_restart]
        parked = sorted(self.pid1.parked)
        return {
            "services": services, "changes": changes, "runs": runs, "pending": pending, "parked": parked,
            "shutdown": self.pid1.shutting_down,
        }  # fmt: skip

    def check(self) -> None:
        """What holds whenever nothing goes on: PID 1 holds nothing but what the services say they have."""
        live = [s.name for s in self.overlord.services() if s.current.value in ("active", "stopping") and s.pid]
        running = [e.name for e in self.pid1.runs.values() if e.state is RunPhase.RUNNING]
        assert sorted(live) == sorted(running)
        assert not [e for e in self.pid1.runs.values() if e.over], "an exit was never released"
        assert len(running) == len(set(running)), "a service runs twice"
        plan = self.overlord.plan
        places = graph.order(graph.needs(plan))
        for entry in self.pid1.runs.values():
            if entry.name in places and entry.state is RunPhase.RUNNING and not entry.flags & lib.VG_IS_STOPPING:
                wanted = plan.services[entry.name]
                assert entry.stop == (wanted.stop_signal, wanted.kill_delay), f"{entry.name} was not told how to stop"
                assert entry.forward == wanted.forward_signals, f"{entry.name} was not told what to forward"
                assert (entry.log_mode is LogMode.DISABLED) == (wanted.logs_forward == "disabled")
        told = {e.name: e.order for e in self.pid1.runs.values() if e.name in places and e.state is RunPhase.RUNNING}
        for name, (component, rank) in told.items():
            for other in graph.needs(plan)[name] & told.keys():
                assert told[other][0] == component, f"{name} and {other} do not know that they belong together"
                assert told[other][1] < rank, f"{name} would not stop before {other}"
        parked = {name.removeprefix("log/") for name in self.pid1.parked if name.startswith("log/")}
        assert parked <= plan.services.keys() | set(running), "a log is kept of a service that is no more"


def service(name: str, **keys: Any) -> Service:
    """A service that is enabled, unless said otherwise."""
    return Service(name=name, **{"command": (f"/bin/{name}",), "startup": "enabled", **keys})


DONE = ChangeStatus.DONE.value
SHORT = (Step.FORK, errno.EAGAIN)
