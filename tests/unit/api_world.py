"""A daemon without a daemon: the real API and protocol over a Unix socket, above a fake overlord and fake logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from vigil.api.server import Server, serve
from vigil.api.settings import Settings
from vigil.model import api
from vigil.model.errors import NotFound
from vigil.model.states import ChangeStatus, ServiceState
from vigil.plan import Sources

NOW = "2026-03-21T12:00:00.000000Z"
SOURCES = Sources("/etc/vigil/layers")


def service(name: str, **fields: Any) -> api.Service:
    values: dict[str, Any] = {
        "name": name, "startup": "enabled", "current": ServiceState.ACTIVE, "current_since": NOW, "cause": "autostart",
        "waiting_for": [], "status_text": None, "pid": 42, "restarts": 0, "exit": None, "ready": True,
        "stop_signal": "SIGTERM", "on_success": "restart", "on_failure": "restart", "pending_restart": False,
        "cpu": 0.1, "memory": 1000,
    }  # fmt: skip
    return api.Service(**{**values, **fields})


class FakeOverlord:
    """Remembers what it was asked; a change ends when ``finish`` says so, or at once where ``ends`` says how."""

    def __init__(self) -> None:
        self.boot_id = "0a1b-2c3d"
        self.entries = {name: service(name) for name in ("db", "web")}
        self.acts: list[tuple[api.ServicesAction, str, str | None]] = []
        self.known: dict[str, api.Change] = {}
        self.keys: dict[str, str] = {}
        self.ended: dict[str, asyncio.Event] = {}
        self.replans: list[tuple[api.ReplanAction, str, str | None]] = []
        self.shutdowns: list[tuple[int, bool, str]] = []
        self.ends: tuple[ChangeStatus, str | None] | None = (ChangeStatus.DONE, None)
        self.breaks: Exception | None = None

    @property
    def plan(self) -> Any:
        return SimpleNamespace(services=self.entries)

    def services(self, names: Sequence[str] = ()) -> list[api.Service]:
        if self.breaks is not None:
            raise self.breaks
        for name in names:
            if name not in self.entries:
                raise NotFound(f"cannot find a service named {name}")
        return [self.entries[name] for name in names or sorted(self.entries)]

    async def measured(self, names: Sequence[str] = ()) -> list[api.Service]:
        return self.services(names)

    def act(self, action: api.ServicesAction, cause: str, key: str | None) -> api.Change:
        self.acts.append((action, cause, key))
        if key is not None and key in self.keys:
            return self.known[self.keys[key]]
        names = [entry.name for entry in self.services(action.services)]
        change_id = str(len(self.known) + 1)
        tasks = [api.Task(service=name, kind=action.action, status=ChangeStatus.DOING) for name in names]
        self.known[change_id] = api.Change(
            id=change_id, kind=action.action, summary=f"{action.action} {', '.join(names)}", status=ChangeStatus.DOING,
            spawn_time=NOW, ready_time=None, err=None, cause=cause, tasks=tasks,
        )  # fmt: skip
        self.ended[change_id] = asyncio.Event()
        if key is not None:
            self.keys[key] = change_id
        if self.ends is not None:
            self.finish(change_id, *self.ends)
        return self.known[change_id]

    def finish(self, change_id: str, status: ChangeStatus, err: str | None) -> None:
        change = self.known[change_id]
        tasks = [msgspec.structs.replace(task, status=status, err=err) for task in change.tasks]
        self.known[change_id] = msgspec.structs.replace(change, status=status, err=err, ready_time=NOW, tasks=tasks)
        self.ended[change_id].set()

    def changes(self) -> list[api.Change]:
        return list(self.known.values())

    def change(self, id: str) -> api.Change:  # noqa: A002
        if id not in self.known:
            raise NotFound(f"cannot find a change {id}")
        return self.known[id]

    async def wait(self, id: str, timeout: float | None) -> api.Change:  # noqa: A002, ASYNC109
        self.change(id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.ended[id].wait()
        return self.known[id]

    def system_info(self) -> api.SystemInfo:
        return api.SystemInfo(
            boot_id=self.boot_id, version="0.1.0", start_time=NOW, http_address=None, https_address=None,
            control_start_time=NOW, control_restarts=0, logger_restarts=0, pid1_version="0.1.0",
        )  # fmt: skip

    async def check_plan(self) -> Sources:
        if self.breaks is not None:
            raise self.breaks
        return SOURCES

    async def replan(self, action: api.ReplanAction, cause: str, key: str | None) -> api.Replan:
        if self.breaks is not None:
            raise self.breaks
        self.replans.append((action, cause, key))
        change = None if action.dry_run else self.act(api.ServicesAction(action="replan"), cause, key)
        return api.Replan(
            dry_run=action.dry_run, started=[], stopped=[], restarted=["web"], updated=[], pending_restart=[],
            steps=[api.Step(service="web", action="restart", why=["command changed"])], warnings=[], change=change,
        )  # fmt: skip

    async def shown_plan(self, *, secrets: bool) -> dict[str, Any]:
        return {"services": {"web": {"environment": {"TOKEN": "abc" if secrets else "*****"}}}}

    def shutdown(self, code: int, restart: bool, cause: str, sources: Sources | None = None) -> None:
        assert sources is (SOURCES if restart else None)
        self.shutdowns.append((code, restart, cause))


class FakeFollower:
    """Hands on what is put in; remembers that it was closed."""

    def __init__(self, logs: FakeLogs, names: Sequence[str], format: str, replay: list[api.LogEntry]) -> None:  # noqa: A002
        self.logs = logs
        self.names = names
        self.format = format
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False
        for entry in replay:
            self.put(entry)

    def put(self, entry: api.LogEntry) -> None:
        if entry.service in self.names or (not self.names and entry.service != "vigild"):
            self.chunks.put_nowait(self.render(entry))

    def render(self, entry: api.LogEntry) -> bytes:
        line = msgspec.json.encode(entry)
        if self.format == "ndjson":
            return line + b"\n"
        if self.format == "text":
            line = f"[{entry.service}] {entry.message}".encode()
        return b"id: %s-%d\ndata: %s\n\n" % (self.logs.boot_id.encode(), entry.seq, line)

    def __aiter__(self) -> FakeFollower:
        return self

    async def __anext__(self) -> bytes:
        return await self.chunks.get()

    def close(self) -> None:
        self.closed = True
        if self in self.logs.followers:
            self.logs.followers.remove(self)


class FakeLogs:
    """A list of entries."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self.entries: list[api.LogEntry] = []
        self.followers: list[FakeFollower] = []
        self.all_followers: list[FakeFollower] = []
        self.asked: list[tuple[Any, ...]] = []

    def names(self) -> list[str]:
        return ["db", "vigild", "web"]

    def write(self, service: str, message: str, stream: Any = "stdout", timestamp: str = NOW, **more: Any) -> None:
        seq = self.entries[-1].seq + 1 if self.entries else 1
        entry = api.LogEntry(seq=seq, timestamp=timestamp, service=service, stream=stream, message=message, **more)
        self.entries.append(entry)
        for follower in self.followers:
            follower.put(entry)

    def _pick(self, names: Sequence[str], n: int, since: int | float | None) -> list[api.LogEntry]:
        names = names or ["db", "web"]
        found = [e for e in self.entries if e.service in names and not (isinstance(since, int) and e.seq <= since)]
        return found[len(found) - n :] if n < len(found) else found

    def tail(self, names: Sequence[str], n: int, since: int | float | None) -> Iterator[bytes]:
        self.asked.append(("tail", list(names), n, since))
        lines = [msgspec.json.encode(entry) + b"\n" for entry in self._pick(names, n, since)]
        return iter([b"".join(lines[at : at + 100]) for at in range(0, len(lines), 100)])

    def follow(self, names: Sequence[str], format: str, n: int, since: int | float | None) -> FakeFollower:  # noqa: A002
        self.asked.append(("follow", list(names), format, n, since))
        follower = FakeFollower(self, names, format, self._pick(names, n, since))
        self.followers.append(follower)
        self.all_followers.append(follower)
        return follower


class World:
    """The API, served by a loop in a thread of its own."""

    def __init__(self, path: Path, settings: Settings | None = None) -> None:
        self.path = str(path)
        self.settings = settings or Settings()
        self.overlord = FakeOverlord()
        self.logs = FakeLogs(self.overlord.boot_id)
        self.loop = asyncio.new_event_loop()
        self.server: Server
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o666)  # callers of another uid are a case
        self.listener.listen(64)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def __enter__(self) -> World:
        self._thread.start()
        self.begin()
        return self

    def begin(self) -> None:
        """Serve (again): the listener outlives every server, as it does with PID 1."""
        given = self.listener.dup()
        starting = serve(self.overlord, self.logs, [given], self.settings)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(30)

    def end(self) -> None:
        """Stop serving; clients wait in the backlog."""
        self.call(self.server.close)

    def __exit__(self, *exc: object) -> None:
        self.end()
        self.call(lambda: None)

        async def settle() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(settle(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()
        self.listener.close()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` in the loop's thread."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Wait until ``condition`` holds, looked at in the loop's thread."""

        async def wait() -> None:
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - whatever the condition is
                    await asyncio.sleep(0.005)

        asyncio.run_coroutine_threadsafe(wait(), self.loop).result(seconds + 30)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(30)
        sock.connect(self.path)
        return sock

    def ask(self, request: bytes | str) -> Answer:
        """Send ``request`` as it is, read one answer."""
        with self.connect() as sock:
            sock.sendall(request.encode() if isinstance(request, str) else request)
            return read_answer(sock)

    def get(self, path: str, headers: str = "", method: str = "GET") -> Answer:
        return self.ask(f"{method} {path} HTTP/1.1\r\nHost: v\r\n{headers}\r\n")

    def post(self, path: str, body: str, content_type: str | None = "application/json", headers: str = "") -> Answer:
        kind = f"Content-Type: {content_type}\r\n" if content_type else ""
        data = body.encode("utf-8", "surrogateescape")
        head = f"POST {path} HTTP/1.1\r\nHost: v\r\n{kind}{headers}Content-Length: {len(data)}\r\n\r\n"
        return self.ask(head.encode() + data)


class Answer:
    """One HTTP answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.headers}, {self.body!r})"


def read_head(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise EOFError(f"closed after {data!r}")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split(" ")[1]), headers, rest


def read_answer(sock: socket.socket, head_only: bool = False) -> Answer:
    status, headers, body = read_head(sock)
    size = 0 if head_only else int(headers.get("content-length", "0"))
    while len(body) < size:
        piece = sock.recv(65536)
        if not piece:
            raise EOFError("the body was cut short")
        body += piece
    return Answer(status, headers, body)


@contextlib.contextmanager
def world(path: Path, **settings: Any) -> Iterator[World]:
    with World(path / "api.sock", Settings(**settings)) as made:
        yield made
