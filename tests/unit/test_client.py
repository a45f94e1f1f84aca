"""What the client promises: clear errors, and nothing lost or done twice while control comes and goes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.api_world import World, world
from vigil.client import places, wire
from vigil.client.client import Client, Lagged, Restarted, ended
from vigil.client.errors import BadAnswer, Lost, Refused, Unreachable
from vigil.model import api
from vigil.model.states import ChangeStatus, ServiceState

OK = b'{"type":"sync","status-code":200,"status":"OK","result":[]}'


def http(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + end


def info(boot: bytes) -> bytes:
    """The answer to GET /v1/system-info in this boot."""
    start = b'{"boot-id":"%b","version":"1","start-time":"t","http-address":null,"https-address":null,' % boot
    more = b'"control-start-time":"t","control-restarts":0,"logger-restarts":0,"pid1-version":"1"}'
    return http(OK.replace(b"[]", start + more))


class Script:
    """A server that gives each connection the next of its answers, and remembers what it was asked."""

    def __init__(self, path: Path, *answers: bytes | None) -> None:
        self.path = str(path)
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        for answer in self.answers:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock:
                if answer is None:
                    continue  # dies before it has read anything
                request = sock.recv(65536)
                while b"\r\n\r\n" not in request:
                    request += sock.recv(65536)
                self.asked.append(request)
                sock.sendall(answer)

    def __enter__(self) -> Script:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.listener.close()


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as problem:
            results.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def test_what_is_asked_comes_back_typed(w: World) -> None:
    client = Client(w.path)
    assert client.system_info().boot_id == w.overlord.boot_id
    assert [(s.name, s.current) for s in client.services(["web"])] == [("web", ServiceState.ACTIVE)]
    change = client.act(api.ServicesAction(action="start", services=["web"]))
    assert (change.status, ended(change)) == (ChangeStatus.DONE, True)
    assert client.change("1") == change == client.changes()[0]
    w.call(lambda: w.logs.write("web", "a\nb\x1b"))
    assert client.logs(["web"], 5)[0].message == "a\nb\x1b"


def test_a_no_is_an_error_with_its_words(w: World) -> None:
    with pytest.raises(Refused, match="cannot find a service named wbe") as caught:
        Client(w.path).services(["wbe"])
    assert (caught.value.status, caught.value.kind) == (404, "not-found")


def test_odd_names_survive_the_query(w: World) -> None:
    for name in ("a b", "a&b=c", "ü", "%41", "a+b"):
        with pytest.raises(Refused) as caught:
            Client(w.path).services([name])
        assert str(caught.value).endswith(name)


def test_fields_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    body = OK.replace(
        b'"result":[]',
        b'"new":1,"result":[{"seq":1,"timestamp":"t","service":"s","stream":"stdout","message":"m","x":[]}]',
    )
    with Script(tmp_path / "s", http(body)) as script:
        assert Client(script.path).logs([], 1)[0].message == "m"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 twohundred\r\n\r\n", "twohundred"),
        (http(b"<html>"), r"what answers at .*/s is not vigild \(HTTP status 200\)"),
        (http(b"{}", b"HTTP/1.1 404 Not Found\r\nServer: Docker\r\n"), r"not vigild \(HTTP status 404, Docker\)"),
        (http(b'{"type":"sync","result":{}}'), "not understood"),
        (http(b'["sync"]'), "is not vigild"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "does not speak HTTP"),
    ],
)
def test_an_answer_that_makes_no_sense_is_said_at_once(tmp_path: Path, answer: bytes, words: str) -> None:
    with Script(tmp_path / "s", answer) as script, pytest.raises(BadAnswer, match=words):
        Client(script.path).services()
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [http(OK), chunked(OK), chunked(OK[:1], OK[1:5], OK[5:]), b"HTTP/1.1 200 OK\r\n\r\n" + OK],
    ids=["length", "chunked", "in pieces", "to the end"],
)
def test_every_framing_of_a_body_is_read(tmp_path: Path, answer: bytes) -> None:
    with Script(tmp_path / "s", answer) as script:
        assert Client(script.path).services() == []


def test_chunks_are_read_however_they_are_cut() -> None:
    whole = chunked(b"hello ", b"x" * 1000, b"world").partition(b"\r\n\r\n")[2]
    for size in (1, 2, 3, 7, 500):
        ours, theirs = socket.socketpair()
        with ours, theirs:

            def send(theirs: socket.socket = theirs, size: int = size) -> None:
                for at in range(0, len(whole), size):
                    theirs.send(whole[at : at + size])

            thread, _ = in_thread(send)
            answer = wire.Answer(ours, 200, {"transfer-encoding": "chunked"}, b"")
            assert answer.body() == b"hello " + b"x" * 1000 + b"world"
            thread.join(30)


BROKEN = [
    None,
    b"",
    b"HTTP/1.1 2",
    b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + OK,
    chunked(OK, end=b""),
    chunked(OK[:10], end=b"ff\r\nxx"),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_question_that_broke_is_asked_again(tmp_path: Path, broken: bytes | None) -> None:
    with Script(tmp_path / "s", broken, broken, http(OK)) as script:
        assert Client(script.path).services() == []


@pytest.mark.parametrize("broken", BROKEN)
def test_a_command_that_broke_is_sent_again_with_the_same_key(tmp_path: Path, broken: bytes | None) -> None:
    change = b'{"id":"1","kind":"stop","summary":"s","status":"done","spawn-time":"t","ready-time":null,"err":null,'
    body = OK.replace(b'"result":[]', b'"result":' + change + b'"cause":"c","tasks":[]}')
    with Script(tmp_path / "s", broken, broken, http(body)) as script:
        assert Client(script.path).act(api.ServicesAction(action="stop")).id == "1"
    keys = {
        line for request in script.asked for line in request.split(b"\r\n") if line.startswith(b"Idempotency-Key: ")
    }
    assert len(keys) == 1
    assert len(script.asked) == (1 if broken is None else 3)


def test_two_commands_have_two_keys(w: World) -> None:
    for _ in range(2):
        Client(w.path).act(api.ServicesAction(action="stop"))
    first, second = (key for _, _, key in w.overlord.acts)
    assert first
    assert second
    assert first != second


def test_patience_ends(tmp_path: Path) -> None:
    with Script(tmp_path / "s", *[b""] * 1000) as script:
        began = time.monotonic()
        with pytest.raises(Lost):
            Client(script.path, patience=0.5).services()
        assert time.monotonic() - began < 20
        assert 2 < len(script.asked) < 100


def test_who_never_answers_is_given_up_with_the_name_of_the_socket(tmp_path: Path) -> None:
    words = f"vigild at {tmp_path / 's'} does not answer"
    with Script(tmp_path / "s") as script, pytest.raises(Unreachable, match=words):
        Client(script.path, patience=0.3).services()


def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(0)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
    with listener, waiting[0]:
        waiting[0].connect(path)
        thread, results = in_thread(lambda: Client(path).services())
        thread.join(0.2)
        assert thread.is_alive()
        for answer in (b"", http(OK)):
            sock, _ = listener.accept()
            with sock:
                if answer:
                    sock.recv(65536)
                    sock.sendall(answer)
        thread.join(30)
    assert results == [[]]


def test_a_request_waits_while_control_is_away(w: World) -> None:
    w.end()
    thread, results = in_thread(lambda: Client(w.path).system_info().version)
    thread.join(0.2)
    assert thread.is_alive()
    w.begin()
    thread.join(30)
    assert results == ["0.1.0"]


def test_waiting_for_a_change_goes_on_with_the_next_control(w: World) -> None:
    w.overlord.ends = None
    client = Client(w.path)
    client.act(api.ServicesAction(action="start"))
    assert client.wait("1", 0.05).status is ChangeStatus.DOING
    thread, results = in_thread(lambda: client.wait("1", 25).err)
    w.until(lambda: w.server.connections == 1)
    w.end()
    w.begin()
    w.until(lambda: w.server.connections == 1)
    w.call(lambda: w.overlord.finish("1", ChangeStatus.ERROR, "why"))
    thread.join(30)
    assert results == ["why"]


# Who is not there, and why.


def test_no_socket_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"there is no socket .*/none .*is vigild running") as caught:
        Client(str(tmp_path / "none")).services()
    assert caught.value.gone


def test_a_socket_left_behind_is_said(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
    with pytest.raises(Unreachable, match=r"nobody listens at the socket .*/s ") as caught:
        Client(str(path)).services()
    assert caught.value.gone


def test_a_file_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unreachable, match="/file is a file, not a socket"):
        Client(str(tmp_path / "file")).services()
    with pytest.raises(Unreachable, match=f"{tmp_path} is a directory, not a socket"):
        Client(str(tmp_path)).services()
    with pytest.raises(Unreachable, match="/file is not a directory"):
        Client(str(tmp_path / "file" / "s")).services()


def test_a_path_that_is_too_long_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"at most 107 bytes, and /x+ has 201"):
        Client("/" + "x" * 200).services()


def test_a_socket_of_another_kind_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "s"))
        with pytest.raises(Unreachable, match=r"the socket .*/s is of another kind"):
            Client(str(tmp_path / "s")).services()


ALONE = "it is for root alone (mode {}), and you are nobody (become root, or start vigild with --socket-group)"
MEMBERS = "it is for root and the group {} (mode 0660), and you are nobody (become a member of that group, or root)"


@pytest.mark.parametrize(
    ("mode", "gid", "folder_mode", "words"),
    [
        (0o600, 0, 0o755, ALONE.format("0600")),
        (0o660, 0, 0o755, ALONE.format("0660")),
        (0o660, 4, 0o755, MEMBERS.format("adm")),
        (0o660, 54321, 0o755, MEMBERS.format("54321")),
        (0o666, 0, 0o700, "no permission to enter {folder}, where the socket {path} should be (you are nobody)"),
    ],
)
def test_no_permission_is_said_with_who_has_it(mode: int, gid: int, folder_mode: int, words: str, root: None) -> None:
    import grp  # noqa: F401 - as nobody it could perhaps not be loaded from where this Python is
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = f"{folder}/s"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            os.chown(path, 0, gid)
            os.chmod(path, mode)
            os.chmod(folder, folder_mode)
            listener.listen(1)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                    Client(path).services()
                except Unreachable as problem:
                    os.write(write, str(problem).encode())
                finally:
                    os._exit(0)
            os.close(write)
            os.waitpid(child, 0)
    said = os.read(read, 4096).decode()
    os.close(read)
    if not words.startswith("no permission"):
        words = f"no permission to use the socket {path}: {words}"
    assert said == words.format(folder=folder, path=path)


def test_the_usual_places_are_tried_in_order_and_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    monkeypatch.setattr(places, "usual", lambda: [first, second])
    with pytest.raises(Unreachable, match=f"{first}, {second}"):
        Client().services()
    with Script(Path(second), http(OK)):
        assert Client().services() == []


def test_a_place_that_is_not_trusted_is_named_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        monkeypatch.setattr(places, "usual", lambda: ["/none/a", f"{folder}/s"])
        with Script(Path(folder) / "s", http(OK)), pytest.raises(Unreachable) as caught:
            Client().services()
    assert str(caught.value) == (
        f"nobody listens at /none/a, {folder}/s; {folder} is another user's, or open to others, and is not trusted "
        "(is vigild running? --socket names another place)"
    )


def test_who_hangs_up_again_and_again_is_asked_about(tmp_path: Path) -> None:
    words = f"without an answer, again and again .is {tmp_path / 's'} the socket of vigild"
    with Script(tmp_path / "s", *[b""] * 1000) as script, pytest.raises(Lost, match=words):
        Client(script.path, patience=0.3).services()


def test_where_the_usual_places_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    mine = f"/tmp/vigil-{os.geteuid()}/vigild.sock"
    assert places.usual() == ["/run/vigil/vigild.sock", "/run/user/7/vigil/vigild.sock", mine]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert places.usual() == ["/run/vigil/vigild.sock", mine]


def test_a_directory_in_tmp_that_others_can_write_is_not_trusted() -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        assert places.trusted(f"{folder}/vigild.sock")
        os.chmod(folder, 0o777)
        assert not places.trusted(f"{folder}/vigild.sock")
        os.chmod(folder, 0o700)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            assert not places.trusted(f"{folder}/vigild.sock")
    assert places.trusted("/run/vigil/vigild.sock")


# Followers.


Event = api.LogEntry | Lagged | Restarted


def numbers(entries: list[Event]) -> list[str]:
    return [entry.message if isinstance(entry, api.LogEntry) else type(entry).__name__ for entry in entries]


def take(stream: Iterator[Event], count: int) -> list[Event]:
    return [next(stream) for _ in range(count)]


def test_follow_begins_with_the_last_entries_and_goes_on(w: World) -> None:
    for number in range(5):
        w.call(lambda number=number: w.logs.write("web", str(number)))
    stream = Client(w.path).follow([], 2)
    assert numbers(take(stream, 2)) == ["3", "4"]
    thread, results = in_thread(lambda: numbers(take(stream, 2)))
    w.until(lambda: w.logs.followers)
    for number in (5, 6):
        w.call(lambda number=number: w.logs.write("db", str(number)))
    thread.join(30)
    assert results == [["5", "6"]]


@pytest.mark.parametrize("n", [0, 3])
def test_follow_loses_and_doubles_nothing_while_control_is_replaced_again_and_again(w: World, n: int) -> None:
    """Control goes in the middle of streams, and before the first event of one; lines are written all the time."""
    w.call(lambda: w.logs.write("web", "before"))
    stream = Client(w.path).follow(["web"], n)
    if n:
        assert numbers(take(stream, 1)) == ["before"]
    thread, results = in_thread(lambda: numbers(take(stream, 500)))
    w.until(lambda: w.logs.followers)
    for number in range(500):
        w.call(lambda number=number: w.logs.write("web", str(number)))
        if number % 50 == 7:
            w.end()
            w.call(lambda number=number: w.logs.write("db", "of no interest"))
            w.begin()
        if number % 50 == 9:  # at once: the new stream has had no event, perhaps no head
            w.end()
            w.begin()
    thread.join(60)
    assert results == [[str(number) for number in range(500)]]


def test_follow_starts_anew_with_another_boot(w: World) -> None:
    w.call(lambda: w.logs.write("web", "old"))
    stream = Client(w.path).follow([], 1)
    assert numbers(take(stream, 1)) == ["old"]
    thread, results = in_thread(lambda: numbers(take(stream, 3)))
    w.until(lambda: w.logs.followers)
    w.end()

    def another_boot() -> None:
        w.overlord.boot_id = w.logs.boot_id = "other-boot"
        w.logs.entries.clear()
        w.logs.write("web", "new")

    w.call(another_boot)
    w.begin()
    w.until(lambda: w.logs.followers)
    w.call(lambda: w.logs.write("web", "newer"))
    thread.join(30)
    assert results == [["Restarted", "new", "newer"]]


def test_follow_tells_what_was_lost(tmp_path: Path) -> None:
    entry = b'{"seq":9,"timestamp":"t","service":"s","stream":"stdout","message":"m"}'
    events = chunked(b": ping\n\n: lagged 7\n\nid: b-9\nda", b"ta: " + entry + b"\n", b"\n: ping\n\n")
    with Script(tmp_path / "s", info(b"b"), http(OK), events) as script:
        lagged, after = take(Client(script.path).follow([]), 2)
    assert lagged == Lagged(7)
    assert isinstance(after, api.LogEntry)
    assert b"Last-Event-ID: b-0\r\n" in script.asked[2]


def test_follow_ends_with_vigild(w: World) -> None:
    stream = Client(w.path).follow([])
    thread, results = in_thread(lambda: next(stream))
    w.until(lambda: w.logs.followers)
    os.unlink(w.path)
    w.end()
    thread.join(30)
    (problem,) = results
    assert isinstance(problem, Unreachable)
    assert (problem.gone, str(problem)) == (True, "vigild has ended")


# Stop and restart of vigild.


def test_vigild_stops_once(w: World) -> None:
    Client(w.path).vigild("stop")
    w.until(lambda: w.overlord.shutdowns)
    assert len(w.overlord.shutdowns) == 1


def test_a_stop_whose_answer_is_lost_with_vigild_itself_is_done(tmp_path: Path) -> None:
    with Script(tmp_path / "s", info(b"b"), b"") as script:
        thread, results = in_thread(lambda: Client(script.path).vigild("stop"))
        while len(script.asked) < 2:
            time.sleep(0.001)
        script.listener.close()
        os.unlink(script.path)
        thread.join(30)
    assert results == [b'{"action":"stop"}']


def test_a_restart_whose_answer_is_lost_is_not_asked_for_twice(tmp_path: Path) -> None:
    with Script(tmp_path / "s", info(b"one"), b"", info(b"two")) as script:
        Client(script.path).vigild("restart")
    assert [request.split(b" ")[0] for request in script.asked] == [b"GET", b"POST", b"GET"]
    with Script(tmp_path / "t", info(b"one"), b"", info(b"one"), http(OK)) as script:
        Client(script.path).vigild("restart")
    assert [request.split(b" ")[0] for request in script.asked] == [b"GET", b"POST", b"GET", b"POST"]


def test_the_client_imports_little() -> None:
    code = "import sys, vigil.client.client; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "email", "falcon", "gunicorn", "http", "json", "logging", "ssl", "urllib", "yaml"}
