"""One exchange against servers that answer, drip, hang, lie and pour: what is said, when it ends, what it leaves."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.http_world import OK, Server, answer, descriptors, say
from vigil.http import fetch as fetching
from vigil.http import resolve, threads
from vigil.http.deadline import Deadline, Expired
from vigil.http.fetch import FetchError, Request, Response, fetch

SHORT = 0.3  # a timeout that is to pass
LONG = 20.0  # one that is not


def get(url: str, **more: Any) -> Response:
    return asyncio.run(fetch(Request(**({"method": "GET", "url": url, "timeout": LONG} | more))))


def fail(url: str, **more: Any) -> FetchError:
    with pytest.raises(FetchError) as caught:
        get(url, **more)
    return caught.value


def timed_out(url: str, **more: Any) -> str:
    """It ends at the deadline, not before and not long after."""
    began = time.monotonic()
    error = fail(url, timeout=SHORT, **more)
    took = time.monotonic() - began
    assert error.kind == "timeout", error
    assert SHORT <= took < SHORT + 2
    assert str(error).startswith("no answer within 300ms (still ")
    while fetching._threads._count > fetching._threads._idle:  # the thread does not wait on, either
        assert time.monotonic() < began + SHORT + 4
        time.sleep(0.005)
    return str(error).partition("(still ")[2].removesuffix(")")


async def until(condition: Callable[[], bool]) -> None:
    """Other threads make it true, and tell no loop."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def serve(request: pytest.FixtureRequest, handler: Any = None, **more: Any) -> Server:
    made = Server(handler or say(OK), **more)
    request.addfinalizer(made.close)
    return made


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    return serve(request)


# --- answers ---


def test_an_answer_comes_whole_with_the_names_of_its_headers_in_lower_case(server: Server) -> None:
    server.handler = answer("201 Made", b"body", **{"X-One": "1"})
    response = get(server.url + "a?b=c", method="POST", body=b"data", headers={"X-Two": "2"})
    assert response == Response(
        status=201, reason="Made", headers={"content-length": "4", "x-one": "1"}, body=b"body", cut=False
    )
    head = server.heads[0].decode()
    assert head.startswith("POST /a?b=c HTTP/1.1\r\n")
    assert "X-Two: 2" in head
    assert "Content-Length: 4" in head
    assert "User-Agent: vigil/" in head
    assert "Connection: close" in head


def test_any_status_is_an_answer(server: Server) -> None:
    server.handler = answer("503 Service Unavailable")
    assert get(server.url).status == 503


def test_of_a_body_without_end_only_what_is_wanted_is_read(server: Server) -> None:
    server.handler = server.pour(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        response = get(server.url, keep=1000)
        assert (response.body, response.cut) == (b"x" * 1000, True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_a_body_that_nobody_wants_is_not_waited_for(server: Server) -> None:
    server.handler = server.drip(b"HTTP/1.1 204 No Content\r\nContent-Length: 100000\r\n\r\n")
    assert get(server.url, keep=0).status == 204
    server.handler = server.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    assert get(server.url, keep=0) == Response(status=200, reason="OK", headers={"content-length": "100000"}, cut=True)


def test_a_body_is_not_unpacked(server: Server) -> None:
    server.handler = answer("200 OK", b"\x1f\x8bnonsense", **{"Content-Encoding": "gzip"})
    assert get(server.url).body == b"\x1f\x8bnonsense"


# --- deadlines ---


def test_a_server_that_never_answers(server: Server) -> None:
    server.handler = server.hang
    assert timed_out(server.url) == f"waiting for the answer of 127.0.0.1:{server.port}"


def test_a_server_that_drips_its_headers(server: Server) -> None:
    server.handler = server.drip(b"HTTP/1.1 200 OK\r\nX: ")
    assert timed_out(server.url) == f"waiting for the answer of 127.0.0.1:{server.port}"


def test_a_server_that_drips_its_body(server: Server) -> None:
    for head in (b"Content-Length: 100000", b"Connection: close", b"Transfer-Encoding: chunked"):
        server.handler = server.drip(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        assert timed_out(server.url) == "reading the body of the answer"


def test_a_server_that_goes_on_saying_continue(server: Server) -> None:
    def handle(connection: Any, _: bytes) -> None:
        while not server.over.is_set():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    server.handler = handle
    timed_out(server.url)


def test_a_server_that_accepts_no_connection(request: pytest.FixtureRequest) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(8):  # more than its queue holds: the rest gets no answer to its SYN
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
            waiting.append(other)
        assert timed_out(f"http://127.0.0.1:{port}/") == f"connecting to 127.0.0.1:{port}"
        for other in waiting:
            other.close()


def test_a_name_server_that_never_answers_holds_one_thread_for_a_name_and_delays_nothing_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, asked = threading.Event(), []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        if host == "dead.test" and not more.get("flags"):
            asked.append(host)
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
        if host == "live.test" and not more.get("flags"):
            return real("127.0.0.1", *args, **more)
        return real(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def both() -> None:
        dead = [
            asyncio.create_task(fetch(Request(method="GET", url="http://dead.test/", timeout=SHORT))) for _ in range(20)
        ]
        url = f"http://live.test:{server.port}/"
        assert (await fetch(Request(method="GET", url=url, timeout=LONG))).status == 200
        for task in dead:
            with pytest.raises(FetchError, match=r"^no answer within 300ms \(still resolving dead.test\)$"):
                await task

    try:
        asyncio.run(both())
        assert asked == ["dead.test"]
    finally:
        over.set()
    while resolve._lookups:
        time.sleep(0.01)


def test_hanging_targets_delay_no_others_and_their_threads_come_back(
    server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_IDLE", 0.1)
    hanging = serve(request)
    hanging.handler = hanging.hang
    before = descriptors()

    async def all_at_once() -> float:
        slow = [asyncio.create_task(fetch(Request(method="GET", url=hanging.url, timeout=1.0))) for _ in range(100)]
        await until(lambda: hanging.most == 100)
        began = time.monotonic()
        assert (await fetch(Request(method="GET", url=server.url, timeout=LONG))).status == 200
        took = time.monotonic() - began
        done = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(error, FetchError) and error.kind == "timeout" for error in done)
        return took

    assert asyncio.run(all_at_once()) < 0.9  # while they hung
    end = time.monotonic() + 20
    while len(fetching._threads) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(fetching._threads) <= 1
    hanging.close()
    server.close()
    assert descriptors() <= before


def test_where_all_threads_hang_it_is_said_that_nobody_was_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_threads", threads.Threads("test", 2))
    server.handler = server.hang

    async def three() -> list[Any]:
        held = [asyncio.create_task(fetch(Request(method="GET", url=server.url, timeout=1.0))) for _ in range(2)]
        await until(lambda: len(server.heads) == 2)
        late = fetch(Request(method="GET", url=server.url, timeout=SHORT))
        return await asyncio.gather(*held, late, return_exceptions=True)

    assert [error.kind for error in asyncio.run(three())] == ["timeout", "timeout", "shortage"]
    assert server.most == 2


def test_without_a_thread_it_is_a_shortage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_threads", threads.Threads("test", 2))

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert fail(server.url).kind == "shortage"
    assert get(server.url).status == 200


def test_without_a_descriptor_it_is_a_shortage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    get(server.url)

    class Short(socket.socket):
        def __init__(self, family: int = -1, *args: Any, **more: Any) -> None:
            if family == socket.AF_INET:
                raise OSError(errno.EMFILE, "Too many open files")
            super().__init__(family, *args, **more)

    monkeypatch.setattr("vigil.http.connect.socket.socket", Short)
    error = fail(server.url)
    assert (error.kind, str(error)) == ("shortage", "no socket can be made: Too many open files")


def test_an_address_of_a_kind_that_the_machine_has_not_is_passed_over(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Only(socket.socket):
        lacks: tuple[int, ...] = (socket.AF_INET6,)

        def __init__(self, family: int = -1, *args: Any, **more: Any) -> None:
            if family in self.lacks:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args, **more)

    monkeypatch.setattr("vigil.http.connect.socket.socket", Only)
    assert get(f"http://localhost:{server.port}/").status == 200
    Only.lacks = (socket.AF_INET6, socket.AF_INET)
    reason = f"[::1]:{server.port}: Address family not supported by protocol"
    assert str(fail(f"http://localhost:{server.port}/")) == reason


def test_who_is_cancelled_lets_go_of_the_connection(server: Server) -> None:
    ended = threading.Event()

    def handle(connection: Any, _: bytes) -> None:
        assert connection.recv(1) == b""
        ended.set()

    server.handler = handle

    async def cancel() -> None:
        task = asyncio.create_task(fetch(Request(method="GET", url=server.url, timeout=LONG)))
        await until(lambda: bool(server.heads))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert ended.wait(LONG)


def test_a_deadline_keeps_what_was_waited_for() -> None:
    deadline = Deadline(LONG)
    deadline.phase = "connecting"
    assert deadline.stuck == "connecting"
    assert not deadline.expire()
    deadline.phase = "reading"
    deadline.expire()
    assert deadline.stuck == "connecting"
    with pytest.raises(Expired):
        deadline.left()


# --- redirects ---


def test_a_redirect_is_an_answer_unless_it_is_to_be_followed_and_its_body_is_never_read(server: Server) -> None:
    def handle(connection: Any, head: bytes) -> None:
        if b"GET /end" in head:
            connection.sendall(OK)
        else:
            server.pour(b"HTTP/1.1 302 Found\r\nLocation: /end\r\nContent-Length: 10737418240\r\n\r\n")(
                connection, head
            )

    server.handler = handle
    assert get(server.url, keep=0).status == 302
    assert get(server.url, keep=10).cut
    assert get(server.url, follow_redirects=True).body == b"hello"


def test_a_redirect_to_itself_ends(server: Server) -> None:
    server.handler = answer("302 Found", Location="/")
    error = fail(server.url, follow_redirects=True)
    assert (error.kind, str(error)) == ("redirects", "more than 10 redirects")
    assert len(server.heads) == 11


def test_the_deadline_is_for_all_redirects_together(server: Server) -> None:
    def handle(connection: Any, head: bytes) -> None:
        server.over.wait(0.1)
        answer("302 Found", Location="/")(connection, head)

    server.handler = handle
    timed_out(server.url, follow_redirects=True)
    assert len(server.heads) < 5


def test_a_redirect_elsewhere_takes_no_secrets_along_and_a_303_no_body(
    server: Server, request: pytest.FixtureRequest
) -> None:
    other = serve(request)
    headers = {"Authorization": "Bearer 1", "Cookie": "a=b", "X-Mine": "1", "Content-Type": "text/plain"}
    server.handler = answer("303 See Other", Location=other.url, **{"Set-Cookie": "c=d"})
    assert get(server.url, method="POST", body=b"data", headers=headers, follow_redirects=True).status == 200
    head = other.heads[0].decode()
    assert head.startswith("GET / HTTP/1.1")
    assert "X-Mine: 1" in head
    for word in ("Authorization", "Cookie", "Content-"):
        assert word not in head
    server.handler = answer("307 Temporary Redirect", Location=other.url)
    get(server.url, method="POST", body=b"data", headers=headers, follow_redirects=True)
    assert other.heads[1].startswith(b"POST / HTTP/1.1")
    assert b"Content-Length: 4" in other.heads[1]


def test_a_redirect_to_another_scheme_is_refused(server: Server) -> None:
    server.handler = answer("302 Found", Location="file:///etc/passwd")
    assert fail(server.url, follow_redirects=True).kind == "redirects"


# --- what goes wrong ---


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        error = fail(f"http://127.0.0.1:{port}/secret")
        assert (error.kind, str(error)) == ("connection", f"connection refused by 127.0.0.1:{port}")
        assert str(fail(f"http://localhost:{port}/")) == f"connection refused by 127.0.0.1:{port}"


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert str(fail("http://nowhere.test/")) == "cannot resolve nowhere.test: there is no such name"


def test_a_connection_that_is_reset_or_closed_and_what_is_no_http(server: Server) -> None:
    whom = f"127.0.0.1:{server.port}"

    def reset(connection: Any, _: bytes) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    for handler, reason in (
        (reset, f"connection reset by {whom}"),
        (say(b""), f"{whom} closed the connection without an answer"),
        (say(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), f"{whom} does not speak HTTP"),
        (
            say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n12"),
            f"{whom} closed the connection in the middle of its answer",
        ),
        (
            say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12"),
            f"{whom} closed the connection in the middle of its answer",
        ),
        (
            say(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(500)) + b"\r\n"),
            f"{whom} answers with more headers than make sense",
        ),
        (
            say(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
            f"{whom} answers with more headers than make sense",
        ),
    ):
        server.handler = handler
        error = fail(server.url)
        assert (error.kind, str(error)) == ("connection", reason)


def test_a_url_or_header_that_makes_no_sense_is_not_shown() -> None:
    for url in ("http://[bad/secret", "ftp://host/secret", "http://ho st:99999/secret", ""):
        error = fail(url)
        assert error.kind == "url"
        assert "secret" not in str(error)
    for value in ("two\r\nlines", "\u20ac"):
        assert fail("http://127.0.0.1:1/", headers={"X": value}).kind == "url"


def test_nothing_of_the_surroundings_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert get(server.url).status == 200
    assert b"Authorization" not in server.heads[0]


def test_the_user_in_a_url_is_sent_and_never_shown(server: Server) -> None:
    get(f"http://user:pass@127.0.0.1:{server.port}/")
    assert b"Authorization: Basic dXNlcjpwYXNz" in server.heads[0]
    server.handler = say(b"")
    assert "pass" not in str(fail(f"http://user:pass@127.0.0.1:{server.port}/"))


# --- Unix sockets ---


def test_http_over_a_unix_socket(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = serve(request, path=path)
    assert get("http://any/path", unix_socket=str(path), proxy="http://127.0.0.1:1").body == b"hello"
    assert b"GET /path HTTP/1.1" in server.heads[0]
    assert b"Host: any" in server.heads[0]
    server.handler = server.hang
    assert timed_out("http://any/", unix_socket=str(path)) == f"waiting for the answer of {path}"
    server.close()
    assert str(fail("http://any/", unix_socket=str(path))) == f"connection refused by {path}: nobody listens there"
    path.unlink()
    assert str(fail("http://any/", unix_socket=str(path))) == f"{path}: No such file or directory"


def test_a_unix_socket_whose_queue_is_full(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        assert timed_out("http://any/", unix_socket=str(path)) == f"connecting to {path}: it accepts no connections"


def test_requests_is_imported_with_the_first_exchange_only() -> None:
    code = "import sys, vigil.http.fetch; assert not {'requests', 'urllib3', 'http.client'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
