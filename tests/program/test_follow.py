"""Following logs, with a real PID 1 and real sockets: nothing is lost or doubled, and nobody is held up by anybody."""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import LIMIT, Daemon

# Control with the API's times shortened. vigild executes it as it would Python: its own words come after four others.
SHORT = """#!{python} -EP
import runpy, sys
import vigil.api.server as server
settings = server.Settings
server.Settings = lambda **given: settings(**({{"stall_seconds": 3.0, "ping_seconds": 0.5}} | given))
sys.argv = ["vigild", *sys.argv[5:]]
runpy.run_module("vigil.daemon", run_name="__main__", alter_sys=True)
"""


def shortened(folder: Path) -> dict[str, str]:
    """An environment in which silence and patience are short."""
    program = folder / "python"
    program.write_text(SHORT.format(python=sys.executable))
    program.chmod(0o755)
    return {"VIGIL_PYTHON": str(program)}


def count(rate: int, most: int = 10**9, size: int = 80) -> list[str]:
    """A command that writes the numbers from 0 on, so many a second, each with so many bytes more, and stays."""
    script = (
        "import os, sys, time\n"
        "began, at = time.monotonic(), 0\n"
        f"while at < {most}:\n"
        f"    due = min(int((time.monotonic() - began) * {rate}), {most})\n"
        f"    text = ''.join(str(n) + ' {'x' * size}\\n' for n in range(at, due)).encode()\n"
        "    while text:\n"
        "        text = text[os.write(1, text):]\n"
        "    at = max(at, due)\n"
        "    time.sleep(0.005)\n"
        "time.sleep(1000)\n"
    )
    return [sys.executable, "-IS", "-c", script]


def plan(**services: dict[str, Any]) -> str:
    """A layer: JSON is YAML. Services are enabled unless they say otherwise."""
    return json.dumps({"services": {name: {"startup": "enabled", **keys} for name, keys in services.items()}})


class Client:
    """A follower. What comes is a list of events: a number, ("lagged", N), or another text."""

    def __init__(self, daemon: Daemon, query: str = "", headers: str = "", version: str = "1.1") -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(str(daemon.socket))
        self.sock.sendall(f"GET /v1/logs/follow{query} HTTP/{version}\r\nHost: v\r\n{headers}\r\n".encode())
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: list[int | tuple[str, int] | str] = []
        self.last_id = ""
        self.ended = False
        self._raw = b""
        self._chunk = 0  # bytes of the chunk that are still to come, with its line end
        self._body = b""

    def take(self, most: int = 1 << 18) -> None:
        """Read once, and understand as much of it as is complete."""
        try:
            data = self.sock.recv(most)
        except ConnectionResetError:
            data = b""
        self.ended = not data
        self._raw += data
        if not self.status:
            head, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return
            lines = head.decode().split("\r\n")
            self.status = int(lines[0].split()[1])
            self.headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
            }
            self._raw = rest
        self._unframe()
        self._understand()

    def _unframe(self) -> None:
        if self.headers.get("transfer-encoding") != "chunked":
            self._body, self._raw = self._body + self._raw, b""
            return
        while self._raw:
            if not self._chunk:
                size, found, rest = self._raw.partition(b"\r\n")
                if not found:
                    return
                self._chunk, self._raw = int(size, 16) + 2, rest
            piece, self._raw = self._raw[: self._chunk], self._raw[self._chunk :]
            # The last two bytes of a chunk are its line end.
            self._body += piece[: max(self._chunk - 2, 0)]
            self._chunk -= len(piece)

    def _understand(self) -> None:
        if self.headers["content-type"] == "application/x-ndjson":
            *lines, self._body = self._body.split(b"\n")
            for line in lines:
                entry = json.loads(line)
                self.events.append(("lagged", entry["lagged"]) if "lagged" in entry else meant(entry["message"]))
        elif self.headers["content-type"] == "text/event-stream":
            *parts, self._body = self._body.split(b"\n\n")
            for part in parts:
                fields = dict(line.split(": ", 1) for line in part.decode().split("\n"))
                if "data" in fields:
                    data = fields["data"]
                    self.events.append(meant(json.loads(data)["message"] if data[0] == "{" else data))
                    self.last_id = fields["id"]
                elif fields[""].startswith("lagged "):
                    self.events.append(("lagged", int(fields[""].split()[1])))
                else:
                    self.events.append(f": {fields['']}")

    def until(self, holds: Callable[[], Any], what: str) -> None:
        """Take until that is so."""
        end = time.monotonic() + LIMIT
        while not holds():
            assert not self.ended, f"the stream ended without {what}: {self.events[-5:]}"
            assert time.monotonic() < end, f"waited {LIMIT} s without {what}: {self.events[-5:]}"
            self.take()

    def reach(self, numbers: int) -> None:
        """Take until that many numbered lines are there."""
        self.until(lambda: len(self.numbers) >= numbers, f"{numbers} lines")

    def head(self) -> None:
        """Take until the head of the answer is there: the place is fixed."""
        self.until(lambda: self.status, "a head")

    @property
    def numbers(self) -> list[int]:
        """Those of the events that are numbered lines."""
        return [event for event in self.events if isinstance(event, int)]

    def whole(self) -> None:
        """Fail where a line is missing, doubled or out of order; what lagging lost must be told, to the line."""
        due: int | None = None
        lost = 0
        for event in self.events:
            if isinstance(event, tuple):
                lost += event[1]
            elif isinstance(event, int):
                assert due is None or event == due + lost, f"{event} came where {due} and {lost} lost were due"
                due, lost = event + 1, 0

    def lagged(self) -> int:
        """Lines that it was told it lost."""
        return sum(event[1] for event in self.events if isinstance(event, tuple))

    def close(self) -> None:
        """Go."""
        self.sock.close()


def meant(text: str) -> int | str:
    """The number of a numbered line, or the text itself."""
    found = re.match(r"(?:\[[a-z]+\] )?(\d+) x", text)
    return int(found[1]) if found else text


@pytest.fixture
def follow() -> Iterator[Callable[..., Client]]:
    """``follow(daemon, query)``"""
    clients: list[Client] = []

    def begin(*args: Any, **more: Any) -> Client:
        clients.append(Client(*args, **more))
        return clients[-1]

    yield begin
    for client in clients:
        client.close()


def kill_control(daemon: Daemon) -> None:
    """Kill it, and wait until it can take no connection any more."""
    control = daemon.only("vigil-control").pid
    daemon.kill(control)
    daemon.until(lambda: control not in daemon.processes(), "its death")


def take_all(clients: list[Client], done: Callable[[], bool], beside: Callable[[], None] = lambda: None) -> None:
    """Take what comes for all of them, until that is so."""
    end = time.monotonic() + 2 * LIMIT
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
        while not done():
            assert time.monotonic() < end, [len(client.events) for client in clients]
            for key, _ in selector.select(0.05):
                key.data.take()
                if key.data.ended:
                    selector.unregister(key.fileobj)
            beside()


def test_200_followers_of_one_busy_service_slow_and_stopped_ones_among_them(
    vigild: Callable[..., Daemon], follow: Callable[..., Client], tmp_path: Path
) -> None:
    # Lines are few and long: it is followers that are many here. A feed keeps 3 s of them, the log one.
    busy = {"command": count(200, size=1500)}
    daemon = vigild(plan(busy=busy), args=["--log-buffer", "200"], env=shortened(tmp_path))
    daemon.wait_state("busy", "active")
    formats = ("ndjson", "json", "text")
    quick = [follow(daemon, f"?services=busy&format={formats[n % 3]}") for n in range(170)]
    slow = [follow(daemon, f"?format={formats[n % 3]}") for n in range(15)]
    stopped = [follow(daemon, f"?format={formats[n % 3]}") for n in range(15)]
    for client in slow + stopped:
        client.take()
        assert client.status == 200
    asked: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            assert daemon.api("GET", "/v1/services")[0] == 200
            asked.append(time.monotonic() - began)
            time.sleep(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    sip = time.monotonic()

    def sip_slowly() -> None:
        nonlocal sip
        if time.monotonic() >= sip:
            sip += 0.2
            for client in slow:
                client.take(8192)

    try:
        # Until every quick one has had five rings full, and every slow one has been lapped.
        take_all(
            quick,
            lambda: min(len(c.events) for c in quick) >= 1000 and all(c.lagged() for c in slow),
            sip_slowly,
        )
    finally:
        over.set()
        asking.join()
    for client in quick:
        client.whole()
        assert client.lagged() == 0, "one that takes what comes loses nothing"
    newest = max(client.numbers[-1] for client in quick)
    assert newest - min(client.numbers[-1] for client in quick) < 1000, "all get it about when it comes"
    for client in slow:
        client.whole()
        assert not client.ended, "one that takes something is kept"
    # Whoever takes nothing is cut, and finds out when he does.
    take_all(stopped, lambda: all(client.ended for client in stopped))
    for client in stopped:
        client.whole()
        assert client.numbers[-1] < newest
    assert daemon.stderr.count("cut off a reader that took nothing for 3 s") == 15
    assert daemon.api("GET", "/v1/system-info")[1]["result"]["control-restarts"] == 0
    assert len(asked) > 20
    assert sorted(asked)[len(asked) // 2] < 1, "a request beside them is answered: usually in milliseconds"


@pytest.mark.parametrize("format_", ["ndjson", "json", "text"])
def test_replay_and_live_are_joined_under_load(
    vigild: Callable[..., Daemon], follow: Callable[..., Client], format_: str
) -> None:
    daemon = vigild(plan(busy={"command": count(5000)}, other={"command": count(300)}), args=["--log-buffer", "20000"])
    for name in ("busy", "other"):
        daemon.wait_state(name, "active")
    # More than one read of a pipe can bring, all of which has one time.
    enough = 2000
    daemon.until(lambda: daemon.api("GET", f"/v1/logs?services=busy&n={enough}")[1]["result"][enough - 1 :], "lines")
    for turn in range(30):
        known = daemon.api("GET", f"/v1/logs?services=busy&n={enough}")[1]["result"]
        entry = known[-100 + turn]
        exclusive = follow(daemon, f"?services=busy&format={format_}&since={entry['seq']}")
        inclusive = follow(daemon, f"?services=busy&format={format_}&since={entry['timestamp']}")
        last = follow(daemon, f"?services=busy&format={format_}&n=40")
        both = follow(daemon, f"?services=busy&format={format_}&n=7&since={known[0]['seq']}")
        new = follow(daemon, f"?services=busy&format={format_}")
        clients = [exclusive, inclusive, last, both, new]
        take_all(clients, lambda: min(len(client.events) for client in clients) > 400)  # noqa: B023 - called here
        for client in clients:
            client.whole()
            assert client.lagged() == 0
        number = meant(entry["message"])
        assert isinstance(number, int)
        newest = meant(known[-1]["message"])
        assert isinstance(newest, int)
        assert exclusive.numbers[0] == number + 1
        alike = [meant(e["message"]) for e in known if e["timestamp"] == entry["timestamp"]]
        assert inclusive.numbers[0] == alike[0], "with all that were captured at that moment"
        assert newest - 39 <= last.numbers[0]
        assert newest - 6 <= both.numbers[0]
        assert newest < new.numbers[0], "nothing that was there before"
        for client in clients:
            client.close()


def test_last_event_id_resumes_over_restarts_of_control(
    vigild: Callable[..., Daemon], follow: Callable[..., Client]
) -> None:
    daemon = vigild(plan(busy={"command": count(1000)}), args=["--log-buffer", "100000"])
    daemon.wait_state("busy", "active")
    client = follow(daemon, "?services=busy&n=100000")
    client.reach(200)
    numbers, last = client.numbers, client.last_id
    for turn in range(5):
        kill_control(daemon)
        client.close()
        # ``n`` says nothing where an id says where to go on.
        client = follow(daemon, f"?services=busy&n=3&format={('json', 'text')[turn % 2]}", f"Last-Event-ID: {last}\r\n")
        client.reach(200)
        client.whole()
        numbers, last = numbers + client.numbers, client.last_id
    assert numbers == list(range(len(numbers)))
    assert daemon.api("GET", "/v1/system-info")[1]["result"]["control-restarts"] == 5
    # After a restart of vigild the logs are others: all there is now is news to that client.
    boot = last.rpartition("-")[0]
    assert boot == daemon.api("GET", "/v1/system-info")[1]["result"]["boot-id"]
    daemon.cli("vigild", "restart")
    daemon.until(
        lambda: daemon._answers() and daemon.api("GET", "/v1/system-info")[1]["result"]["boot-id"] != boot, "a new boot"
    )
    daemon.wait_state("busy", "active")
    daemon.until(lambda: len(daemon.api("GET", "/v1/logs?services=busy&n=500")[1]["result"]) == 500, "500 lines")
    client = follow(daemon, "?services=busy", f"Last-Event-ID: {last}\r\n")
    client.reach(600)
    assert client.numbers == list(range(len(client.numbers)))
    assert not client.last_id.startswith(boot)


def test_who_comes_back_too_late_is_told_how_much_is_gone(
    vigild: Callable[..., Daemon], follow: Callable[..., Client]
) -> None:
    daemon = vigild(plan(busy={"command": count(2000)}), args=["--log-buffer", "1000"])
    daemon.wait_state("busy", "active")
    client = follow(daemon, "?n=1000")
    client.reach(100)
    client.close()
    last = client.numbers[-1]

    def overtaken() -> bool:
        oldest = daemon.api("GET", "/v1/logs?services=busy&n=1000")[1]["result"][0]
        number = meant(oldest["message"])
        return isinstance(number, int) and number > last + 500

    daemon.until(overtaken, "the log to be full of newer lines")
    seq = client.last_id.rpartition("-")[2]
    for query, headers in (("", f"Last-Event-ID: {client.last_id}\r\n"), (f"?format=ndjson&since={seq}", "")):
        again = follow(daemon, query, headers)
        again.reach(1500)
        again.whole()
        assert again.events[0] == ("lagged", again.numbers[0] - last - 1)
        assert again.lagged() == again.numbers[0] - last - 1 > 500


def test_what_is_followed_is_what_was_asked_for(
    vigild: Callable[..., Daemon], follow: Callable[..., Client], tmp_path: Path
) -> None:
    trigger = tmp_path / "go"
    script = f"until test -e {trigger}; do sleep 0.02; done; echo 'words of' $0; echo ' ' $0 done >&2; exec sleep 1000"
    service = {"command": ["/bin/sh", "-c", script]}
    daemon = vigild(
        plan(
            web={**service, "command": [*service["command"], "web"]},
            db={**service, "command": [*service["command"], "db"]},
            through={**service, "command": [*service["command"], "through"], "logs-forward": "passthrough"},
        ),
        env=shortened(tmp_path),
    )
    for name in ("web", "db", "through"):
        daemon.wait_state(name, "active")
    clients = {
        "all": follow(daemon),
        "two": follow(daemon, "?services=web,through&format=text"),
        "repeated": follow(daemon, "?services=db&services=web&format=ndjson"),
        "through": follow(daemon, "?services=through"),
        "vigild": follow(daemon, "?services=vigild"),
        "mixed": follow(daemon, "?services=vigild,web&format=text"),
        "old": follow(daemon, "?services=db&format=text", version="1.0"),
    }
    for name, client in clients.items():
        client.head()
        assert client.status == 200
        kind = "application/x-ndjson" if name == "repeated" else "text/event-stream"
        assert (client.headers["content-type"], client.headers["cache-control"]) == (kind, "no-store")
    trigger.touch()

    def words(name: str) -> set[int | tuple[str, int] | str]:
        return {event for event in clients[name].events if event != ": ping"}

    wanted: dict[str, set[Any]] = {
        "all": {"words of web", "  web done", "words of db", "  db done"},
        "two": {"[web] words of web", "[web]   web done"},
        "repeated": {"words of web", "  web done", "words of db", "  db done"},
        "old": {"[db] words of db", "[db]   db done"},
    }
    # Of vigild there is a line where something happens.
    daemon.cli("restart", "db")
    take_all(
        list(clients.values()),
        lambda: (
            all(wanted[name] <= words(name) for name in wanted)
            and any("db: started" in str(event) for event in clients["vigild"].events)
            and {"[web] words of web"} < words("mixed")
            and all(": ping" in client.events for name, client in clients.items() if name != "repeated")
        ),
    )
    for name, events in wanted.items():
        assert words(name) == events, name
    assert words("through") == set(), "a service whose output is not captured has no entries"
    assert ": ping" not in clients["repeated"].events, "every line of ndjson is an entry"
    assert all(str(event).startswith(("[web] ", "[vigild] ")) for event in words("mixed"))


def test_what_is_wrong_is_told_before_a_stream_begins(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(
        plan(web={"command": "sleep 1000"}, through={"command": "sleep 1000", "logs-forward": "passthrough"})
    )
    daemon.ready()
    for query, headers, status, words in (
        ("?services=wbe", {}, 404, 'cannot show logs: there is no service "wbe" (did you mean "web"?)'),
        ("?services=web,gone,far", {}, 404, '"gone", "far"'),
        ("?format=jsn", {}, 400, '(did you mean "json"?)'),
        ("?n=x", {}, 400, "query: n: expected a whole number"),
        ("?n=-1", {}, 400, "n: "),
        ("?since=yesterday", {}, 400, 'since: "yesterday" is neither a seq nor a time'),
        ("?follow=1", {}, 400, "follow"),
        ("", {"Last-Event-ID": "nonsense"}, 400, '"nonsense" is not an event id'),
    ):
        got, answer = daemon.api("GET", f"/v1/logs/follow{query}", None, headers)
        assert (got, answer["type"], answer["status-code"]) == (status, "error", status), query
        assert words in answer["message"], answer
        assert answer["result"]["message"] == answer["message"]


def test_services_come_and_go_under_a_follower(vigild: Callable[..., Daemon], follow: Callable[..., Client]) -> None:
    old, new = {"command": count(1000, 3000)}, {"command": ["/bin/sh", "-c", "echo hello; exec sleep 1000"]}
    daemon = vigild(plan(old=old, stays=new), args=["--log-buffer", "10000"])
    daemon.wait_state("old", "active")
    everything, one = follow(daemon, "?format=ndjson"), follow(daemon, "?services=old&format=ndjson&n=10000")
    for client in (everything, one):
        client.reach(500)
    (daemon.layers / "10-test.yaml").write_text(plan(new=new, stays=new))
    status, answer = daemon.api("POST", "/v1/replan", {})
    assert status == 200, answer
    everything.until(lambda: "hello" in everything.events, "a service that came with the new plan")
    daemon.until(lambda: "old" not in daemon.services(), "old to be removed")
    assert daemon.api("GET", "/v1/logs/follow?services=old")[0] == 404
    # And it may come back: another log under the same name, to those who have followed that name all along.
    (daemon.layers / "10-test.yaml").write_text(plan(old=new, new=new, stays=new))
    assert daemon.api("POST", "/v1/replan", {})[0] == 200
    one.until(lambda: "hello" in one.events, "the service that came back")
    for client in (everything, one):
        client.whole()
    assert one.numbers == list(range(len(one.numbers)))
    assert everything.events.count("hello") >= 1
