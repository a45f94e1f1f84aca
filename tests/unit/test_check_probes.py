"""The http and tcp probes against servers on loopback, what an exec probe's end says, and the actor around them."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.http_world import Server, answer, descriptors, say
from vigil.check import execute, http, tcp
from vigil.check.actor import Actor, Outside
from vigil.check.events import Attached, Due, Event, Refresh, Result, Stop
from vigil.check.outcome import Probed
from vigil.check.probes import Probes
from vigil.http import resolve
from vigil.model.errors import StartError
from vigil.plan.types import Check, ExecProbe, HttpProbe, TcpProbe
from vigil.shim.program import Ended, Programs, Tokens

LONG, SHORT = 20.0, 0.3


def web(url: str, timeout: float = LONG, **more: Any) -> Probed:
    return asyncio.run(http.probe(HttpProbe(url=url, **more), timeout))


def connects(port: int, host: str = "127.0.0.1", timeout: float = LONG) -> Probed:
    return asyncio.run(tcp.probe(TcpProbe(host=host, port=port), timeout))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(answer("200 OK", b"all is well")) as made:
        yield made


# --- http ---


def test_the_status_decides(server: Server) -> None:
    assert web(server.url) == Probed(True)
    server.handler = answer("204 No Content")
    assert web(server.url) == Probed(True)
    server.handler = answer("503 Service Unavailable")
    assert web(server.url) == Probed(False, "answered 503 Service Unavailable")
    assert web(server.url, success_statuses=frozenset({503})) == Probed(True)


def test_a_redirect_is_followed_where_the_plan_says_so(server: Server) -> None:
    def handle(connection: Any, head: bytes) -> None:
        answer(*(("200 OK",) if b"/end" in head else ("302 Found",)), Location="/end")(connection, head)

    server.handler = handle
    assert web(server.url) == Probed(False, "answered 302 Found (a redirect, which is not followed)")
    assert web(server.url, no_follow_redirects=False) == Probed(True)


def test_what_the_body_has_to_hold(server: Server) -> None:
    assert web(server.url, body_contains="is well") == Probed(True)
    reason = "answered 200, but the body does not hold what body-contains wants"
    assert web(server.url, body_contains="is ill") == Probed(False, reason)
    server.handler = server.pour(b"HTTP/1.1 200 OK\r\n\r\n")
    reason = "answered 200, but the first 256 KiB of the body does not hold what body-contains wants"
    assert web(server.url, body_contains="is well") == Probed(False, reason)
    assert web(server.url) == Probed(True)


def test_headers_and_method_are_sent(server: Server) -> None:
    assert web(server.url, method="HEAD", headers={"X-One": "1", "Host": "other"}) == Probed(True)
    assert server.heads[0].startswith(b"HEAD / HTTP/1.1")
    assert b"X-One: 1\r\n" in server.heads[0]
    assert server.heads[0].count(b"Host:") == 1


def test_an_http_probe_past_its_timeout(server: Server) -> None:
    server.handler = server.drip(b"HTTP/1.1 200 OK\r\nX: ")
    reason = f"no answer within 300ms (still waiting for the answer of 127.0.0.1:{server.port})"
    assert web(server.url, SHORT) == Probed(False, reason)


def test_over_a_unix_socket(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server = Server(say(b"HTTP/1.0 200 OK\r\n\r\n"), path=tmp_path / "s")
    request.addfinalizer(server.close)
    assert web("http://haproxy/stats", unix_socket=str(tmp_path / "s")) == Probed(True)


# --- tcp ---


def test_a_connection_is_enough(server: Server) -> None:
    before = descriptors()
    assert connects(server.port) == Probed(True)
    assert connects(server.port, "localhost") == Probed(True)
    assert threading.active_count() < 20
    assert descriptors() <= before + 2  # the server's ends


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert connects(port) == Probed(False, f"connection refused by 127.0.0.1:{port}")
        assert connects(port, "localhost") == Probed(False, f"connection refused by 127.0.0.1:{port}")


def full() -> tuple[int, list[socket.socket]]:
    """A port whose queue of connections is full: a SYN gets no answer. And what holds it so."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    held = [listener]
    for _ in range(8):
        held.append(socket.socket())
        held[-1].setblocking(False)
        held[-1].connect_ex(listener.getsockname())
    return listener.getsockname()[1], held


def test_a_tcp_probe_past_its_timeout_and_the_share_of_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    port, held = full()
    began = time.monotonic()
    reason = f"no connection within 300ms (still connecting to 127.0.0.1:{port})"
    assert connects(port, timeout=SHORT) == Probed(False, reason)
    assert SHORT <= time.monotonic() - began < SHORT + 2
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        async def two(host: str, _: int) -> list[resolve.Address]:
            return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, listener.getsockname())]

        monkeypatch.setattr(resolve, "resolve", two)
        assert connects(port, "two.test", 1.0) == Probed(True)
    for each in held:
        each.close()


def test_a_name_that_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert connects(80, "nowhere.test") == Probed(False, "cannot resolve nowhere.test: there is no such name")


def test_without_a_descriptor_it_is_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(socket.socket):
        def __init__(self, family: int = -1, *args: Any, **more: Any) -> None:
            if family == socket.AF_INET:
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(family, *args, **more)

    monkeypatch.setattr("vigil.check.tcp.socket.socket", Short)
    assert connects(80) == Probed(False, "no socket can be made: Too many open files", short=True)


# --- exec: what its end says (how it is run is tried with the real PID 1) ---


def test_what_the_end_of_a_program_says() -> None:
    assert execute.judged(Ended(code=0, output=b"noise"), 1.0) == Probed(True)
    lines = b"\n".join(b"line %d" % i for i in range(9)) + b"\n\n"
    told = "exited with code 3: line 4 | line 5 | line 6 | line 7 | line 8"
    assert execute.judged(Ended(code=3, reason="exited with code 3", output=lines), 1.0) == Probed(False, told)
    assert execute.judged(Ended(code=0, overdue=True), 0.5) == Probed(False, "not ended within 500ms")
    reason = "exec /nope: No such file or directory"
    assert execute.judged(Ended(reason=reason), 1.0) == Probed(False, reason)
    assert execute.judged(Ended(reason="fork", shortage=True), 1.0) == Probed(False, "fork", short=True)
    long = execute.judged(Ended(code=1, reason="exited with code 1", output=b"x" * 8000 + b"\xff"), 1.0).reason
    assert len(long) < 400


def test_tokens_are_never_given_twice_and_never_a_services() -> None:
    now = [5]
    first = Tokens(lambda: now[0])
    given = [first(), first(), first()]
    now[0] = 100
    given.append(first())
    later = Tokens(lambda: 200)
    given.append(later())
    assert given == sorted(set(given))
    assert all(1 << 63 < token < 1 << 64 for token in given)


# --- the actor ---


class World:
    """An overlord of one check, on a loop."""

    def __init__(self, probe: Any) -> None:
        self.soon: list[Callable[[], None]] = []
        self.events: list[Event] = []
        self.told = asyncio.Event()
        outside = Outside(probe, self.soon.append, self._tell)
        self.actor = Actor(Check(name="web", probe=TcpProbe(port=1), delay=0.0), 0, 1, outside, None)
        self.take(Attached())

    def _tell(self, actor: Actor, event: Event) -> None:
        assert actor is self.actor
        self.events.append(event)
        self.told.set()

    def take(self, event: Event) -> None:
        self.actor.take(event, time.monotonic_ns(), time.time_ns(), closing=False)
        self.actor.act()
        while self.soon:
            self.soon.pop(0)()


class Scripted:
    """Probes that end when and as a test says."""

    def __init__(self) -> None:
        self.begun: list[Check] = []
        self.result: asyncio.Future[Probed] = asyncio.get_running_loop().create_future()
        self.cancelled = 0

    async def run(self, check: Check) -> Probed:
        self.begun.append(check)
        try:
            return await self.result
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def test_the_actor_probes_tells_the_result_and_survives_what_a_probe_raises(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def play() -> None:
        probes = Scripted()
        world = World(probes)
        assert world.actor.dirty
        world.take(Due())
        await asyncio.sleep(0)
        assert probes.begun == [world.actor.check]
        probes.result.set_result(Probed(False, "no"))
        await world.told.wait()
        assert world.events == [Result(1, False, "no")]
        world.take(world.events[0])
        assert world.actor.state.failures == 1
        world.told.clear()
        probes.result = asyncio.get_running_loop().create_future()
        probes.result.set_exception(ZeroDivisionError("x"))
        world.take(Refresh())
        await world.told.wait()
        assert world.events[1] == Result(2, False, "cannot be probed: ZeroDivisionError: x")

    asyncio.run(play())
    assert "web: cannot be probed: ZeroDivisionError: x" in capfd.readouterr().err


def test_the_actor_ends_a_probe_that_is_not_wanted_any_more() -> None:
    async def play() -> None:
        probes = Scripted()
        world = World(probes)
        world.take(Due())
        await asyncio.sleep(0)
        world.take(Stop())
        for _ in range(3):
            await asyncio.sleep(0)
        assert (probes.cancelled, world.events) == (1, [])
        # Begun and ended in one turn it is never made.
        world.actor.take(Refresh(), time.monotonic_ns(), 0, closing=False)
        world.actor.take(Stop(), time.monotonic_ns(), 0, closing=False)
        world.actor.act()
        for call in world.soon:
            call()
        await asyncio.sleep(0)
        assert len(probes.begun) == 1

    asyncio.run(play())


def test_a_record_that_cannot_be_read_is_told() -> None:
    with pytest.raises(StartError, match="cannot read the state of check web in the journal"):
        Actor(Check(name="web", probe=TcpProbe(port=1)), 0, 1, Outside(None, None, None), b"\xc1")  # type: ignore[arg-type]


def test_nothing_that_a_kind_needs_is_imported_before_its_first_probe() -> None:
    code = (
        "import sys, vigil.check.actor, vigil.check.probes, vigil.check.machine;"
        "assert not {'asyncio', 'ssl', 'socket', 'threading', 'requests'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_kind_finds_its_probe(server: Server) -> None:
    class NoPid1:
        def spawn(self, spec: Any) -> None:
            self.spec = spec

        def stop(self, run: Any, token: int) -> None:
            pass

    async def play() -> None:
        shim: Any = NoPid1()
        probes = Probes(Programs(shim, Tokens()), {b"PATH": b"/bin"})
        assert await probes.run(Check(name="a", probe=TcpProbe(host="127.0.0.1", port=server.port))) == Probed(True)
        assert await probes.run(Check(name="b", probe=HttpProbe(url=server.url))) == Probed(True)
        began = time.monotonic_ns()
        check = Check(name="c", timeout=SHORT, probe=ExecProbe(command=("true",), environment={"A": "1"}))
        reason = "not ended within 300ms, nor by SIGKILL"  # nobody is there to run it
        assert await probes.run(check) == Probed(False, reason)
        assert shim.spec.env == [b"PATH=/bin", b"A=1"]
        assert began + 3e8 <= shim.spec.deadline < began + 3e9
        reason = "what the last probe left cannot be ended: the kernel holds it"
        assert await probes.run(check) == Probed(False, reason)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(play())
