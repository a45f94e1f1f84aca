"""The changes: what was asked for, by whom, and what came of it for each service.

A change is in the journal in the same write as the tasks it gives to services, and every end of a task in the same
write as the state that it ends with. The last 500 that ended are kept, and all that are under way.

While a change is under way a task that ends is written alone, as ``change/ID/SERVICE``: the whole of it each time would
be megabytes for a few hundred services that start one after the other. At its end it is written as a whole again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from vigil.model import api, say
from vigil.model.errors import NotFound, StartError
from vigil.model.states import ChangeStatus

if TYPE_CHECKING:
    import asyncio

KEPT = 500
"""So many ended changes are kept."""

TASKS_KEPT = 20_000
"""And fewer where they have more tasks than that together: hundreds of services in each would cost many megabytes."""

REPLAN = "replan"
"""The kind of a change that puts another plan in force."""

_PREFIX = "change/"
_COUNTER = "counter/change"
_SHOWN_OUTPUT = 5


class Task(msgspec.Struct, omit_defaults=True):
    """What a change does to one service."""

    kind: str
    status: ChangeStatus = ChangeStatus.DOING
    err: str = ""


class Change(msgspec.Struct, omit_defaults=True):
    """One change, as the journal has it."""

    id: int
    kind: str
    summary: str
    cause: str
    spawn_real_ns: int
    key: str | None = None  # idempotency key
    tasks: dict[str, Task] = {}
    status: ChangeStatus = ChangeStatus.DOING
    ready_real_ns: int = 0
    steps: tuple[api.Step, ...] = ()  # of a replan: what it found to be done
    no_restart: bool = False  # of a replan

    @property
    def size(self) -> int:
        """Of how many parts it consists."""
        return len(self.tasks) + len(self.steps)

    @property
    def ended(self) -> bool:
        """Whether nothing of it is under way any more."""
        return self.status is not ChangeStatus.DOING


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Change).decode
_decode_task = msgspec.msgpack.Decoder(Task).decode


class Changes:
    """All changes."""

    @staticmethod
    def load(items: Callable[[str], Iterable[tuple[str, bytes]]], get: Callable[[str], bytes | None]) -> Changes:
        """Those in a store, of which these are the methods."""
        return Changes(items(_PREFIX), get(_COUNTER))

    def __init__(self, records: Iterable[tuple[str, bytes]], counter: bytes | None) -> None:
        """``records``, with their keys, and ``counter`` as they are in the journal."""
        self._apart: dict[int, set[str]] = {}  # tasks that the journal has under keys of their own
        try:
            loaded = self._read(dict(records))
        except msgspec.MsgspecError as error:
            raise StartError(f"cannot read the changes in the journal: {error}") from error
        self._all = {change.id: change for change in loaded}
        self._keys = {change.key: change.id for change in loaded if change.key is not None}
        self._ended = deque(sorted((c.ready_real_ns, c.id) for c in loaded if c.ended))
        self._ended_tasks = sum(change.size for change in loaded if change.ended)
        self._last = max([int(counter or b"0"), *self._all])
        self._dirty: set[int] = set()  # to be written as a whole
        self._touched: dict[int, set[str]] = {}  # of which only these tasks are to be written
        self._dropped: list[int] = []
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}

    def _read(self, records: dict[str, bytes]) -> list[Change]:
        loaded = {key: _decode(record) for key, record in records.items() if key.count("/") == 1}
        for key, record in records.items():
            whole, _, service = key.rpartition("/")
            if whole in loaded:
                loaded[whole].tasks[service] = _decode_task(record)
                self._apart.setdefault(loaded[whole].id, set()).add(service)
        return sorted(loaded.values(), key=lambda change: change.id)

    # --- to look at ---

    def of_key(self, key: str | None) -> Change | None:
        """The change that was asked for with this idempotency key."""
        return self._all.get(self._keys.get(key, 0)) if key is not None else None

    def get(self, id: str) -> Change:  # noqa: A002 - the word users know
        """The change of that id; NotFound where there is none, or not any more."""
        found = self._all.get(int(id)) if id.isascii() and id.isdigit() and len(id) < 19 else None
        if found is None:
            raise NotFound(f'cannot find change "{id}": there is none with that id (the last {KEPT} are kept)')
        return found

    def all(self) -> list[Change]:
        """Oldest first."""
        return list(self._all.values())

    # --- to change ---

    def new(self, kind: str, summary: str, cause: str, key: str | None, real_ns: int) -> Change:
        """A change without tasks; ``close_empty`` ends it if it gets none."""
        self._last += 1
        change = Change(self._last, kind, summary, cause, real_ns, key, {})
        self._all[change.id] = change
        if key is not None:
            self._keys[key] = change.id
        self._dirty.add(change.id)
        return change

    def add(self, id: int, service: str, kind: str) -> bool:  # noqa: A002
        """Give ``service`` a part in the change; False where it has one, or the change is over."""
        change = self._all.get(id)
        if change is None or change.ended or service in change.tasks:
            return False
        change.tasks[service] = Task(kind)
        self._dirty.add(id)
        return True

    def end_task(
        self,
        id: int,  # noqa: A002
        service: str,
        status: ChangeStatus,
        err: str,
        output: Iterable[str],
        real_ns: int,
    ) -> None:
        """The part of ``service`` is over; with the last part the change is."""
        change = self._all.get(id)
        task = change.tasks.get(service) if change is not None else None
        if change is None or task is None or task.status is not ChangeStatus.DOING:
            return
        task.status = status
        task.err = "\n  ".join([err + "; its last lines:" if output else err, *list(output)[-_SHOWN_OUTPUT:]])
        self._touched.setdefault(id, set()).add(service)
        self.settle(change, real_ns)

    def settle(self, change: Change, real_ns: int) -> None:
        """End ``change`` if nothing of it is under way."""
        if change.ended or any(task.status is ChangeStatus.DOING for task in change.tasks.values()):
            return
        self._dirty.add(change.id)
        # A replan is done when the plan is in force: services that then failed are named, and are no failure of its.
        statuses = {task.status for task in change.tasks.values()} if change.kind != REPLAN else set()
        change.status = next(
            (status for status in (ChangeStatus.ERROR, ChangeStatus.HOLD) if status in statuses), ChangeStatus.DONE
        )
        change.ready_real_ns = real_ns
        self._ended.append((real_ns, change.id))
        self._ended_tasks += change.size
        while len(self._ended) > KEPT or (self._ended_tasks > TASKS_KEPT and len(self._ended) > 1):
            _, oldest = self._ended.popleft()
            dropped = self._all.pop(oldest)
            self._ended_tasks -= dropped.size
            if dropped.key is not None:
                self._keys.pop(dropped.key, None)
            self._dropped.append(oldest)
            self._dirty.discard(oldest)
            self._touched.pop(oldest, None)

    def writes(self) -> dict[str, bytes | None]:
        """What is to be written, since ``committed``."""
        found: dict[str, bytes | None] = {f"{_PREFIX}{id_}": None for id_ in self._dropped}
        found.update((f"{_PREFIX}{id_}", _encode(self._all[id_])) for id_ in sorted(self._dirty))
        for id_ in (*self._dropped, *self._dirty):
            found.update((f"{_PREFIX}{id_}/{service}", None) for service in self._apart.get(id_, ()))
        for id_, services in self._touched.items():
            if id_ not in self._dirty:
                tasks = self._all[id_].tasks
                found.update((f"{_PREFIX}{id_}/{service}", _encode(tasks[service])) for service in sorted(services))
        if self._dirty:
            found[_COUNTER] = str(self._last).encode()
        return found

    def committed(self) -> None:
        """All that ``writes`` gave is in the journal: whoever waits for it may know."""
        for id_, services in self._touched.items():
            self._apart.setdefault(id_, set()).update(services)
        self._touched.clear()
        for id_ in (*self._dropped, *self._dirty):
            self._apart.pop(id_, None)
        for id_ in sorted(self._dirty):
            change = self._all[id_]
            if change.ended:
                _tell(change)
                self._wake(id_)
        for id_ in self._dropped:
            self._wake(id_)
        self._dirty.clear()
        self._dropped.clear()

    def _wake(self, id: int) -> None:  # noqa: A002
        for waiter in self._waiters.pop(id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, id: str, timeout: float | None) -> Change:  # noqa: A002, ASYNC109
        """The change at its end, or as it is after ``timeout`` seconds."""
        change = self.get(id)
        if not change.ended and (timeout is None or timeout > 0):
            import asyncio  # loaded by then

            waiter = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(change.id, [])
            waiters.append(waiter)
            try:
                await asyncio.wait((waiter,), timeout=timeout)
            finally:
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters and self._waiters.get(change.id) is waiters:
                    del self._waiters[change.id]
        return change


def view(change: Change) -> api.Change:
    """The change, as the API shows it."""
    tasks = [
        api.Task(service=name, kind=t.kind, status=t.status, err=t.err or None) for name, t in change.tasks.items()
    ]
    errors = [f"{name}: {task.err}" for name, task in change.tasks.items() if task.err]
    return api.Change(
        id=str(change.id),
        kind=change.kind,
        summary=change.summary,
        status=change.status,
        spawn_time=say.timestamp(change.spawn_real_ns),
        ready_time=say.timestamp(change.ready_real_ns) if change.ended else None,
        err="\n".join(errors) or None,
        cause=change.cause,
        tasks=tasks,
    )


def _tell(change: Change) -> None:
    failed = any(task.status is ChangeStatus.ERROR for task in change.tasks.values())
    tell = say.warn if failed else say.info
    tell("vigil.overlord", f"change {change.id} ({change.summary}): {change.status.value}")
