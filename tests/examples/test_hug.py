"""examples/hug: HAProxy restarted, reloaded and stopped under load. Each test says what is promised of requests."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.daemon import Daemon
from tests.examples.room import EXAMPLES, Room, ask, copied, inside

HERE = Path(__file__).resolve().parent
HUG = EXAMPLES / "hug"
PORT = "8080"
BACKENDS = f"""
services:
  one: &server
    command: [{sys.executable}, {HERE}/backend.py, '9001', one]
    startup: enabled
    before: [haproxy]
  two:
    <<: *server
    command: [{sys.executable}, {HERE}/backend.py, '9002', two]
"""


@pytest.fixture
def hug(vigild: Callable[..., Daemon], need: Callable[..., None], root: None, tmp_path: Path) -> Callable[..., Daemon]:
    """The example as it is in its image, with two servers behind it; started and answering."""
    need("haproxy", "curl", "wrk", "nsenter")

    def start(change: Callable[[str], str] = str) -> Daemon:
        backends = tmp_path / "backends.d"
        backends.mkdir()
        backends.chmod(0o755)
        (backends / "one").write_text("127.0.0.1:9001\n")
        room = Room(["/run", "/srv"], copied("hug") | {"/srv/hug/backends.d": backends})
        layers = {"10-hug.yaml": change((HUG / "layers" / "10-hug.yaml").read_text()), "90-backends.yaml": BACKENDS}
        daemon = vigild(layers, prefix=room.prefix, env=room.env)
        daemon.ready()
        daemon.until(lambda: "[controller] reloaded haproxy with 1 servers" in daemon.stdout, "the controller to act")
        daemon.until(lambda: serves(daemon), "haproxy to answer")
        return daemon

    return start


def serves(daemon: Daemon) -> str:
    """Body of an answer; empty where there is none."""
    command = ("curl", "-sf", "-m", "5", f"http://127.0.0.1:{PORT}/")
    with inside(daemon, *command, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=30)
    return str(out)


class Wrk:
    """wrk, running until it is asked: it counts every connection that broke and every answer that was none."""

    def __init__(self, daemon: Daemon, *more: str) -> None:
        words = ("wrk", "-t", "1", "-c", "32", "-d", "600s", "--timeout", "30s", "--latency", *more)
        enter = ("nsenter", "--target", str(daemon.pid), "--net")
        command = [*enter, *words, f"http://127.0.0.1:{PORT}/"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def answered(self) -> int:
        """End it: how many requests were answered; the test fails if any was not."""
        assert self._process.poll() is None
        self._process.send_signal(signal.SIGINT)
        report, _ = self._process.communicate(timeout=60)
        print(report)
        found = re.search(r"(\d+) requests in", report)
        assert found, report
        assert "Socket errors" not in report, report
        assert "Non-2xx" not in report, report
        return int(found[1])


class Client:
    """tests/examples/client.py, running."""

    def __init__(self, daemon: Daemon, connections: int, path: str) -> None:
        words = (sys.executable, str(HERE / "client.py"), PORT, str(connections), path)
        enter = ("nsenter", "--target", str(daemon.pid), "--net")
        self._process = subprocess.Popen([*enter, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def found(self, *, end: bool = True) -> dict[str, list[str]]:
        """What became of its requests."""
        out, _ = self._process.communicate("end\n" if end else None, timeout=120)
        return dict(json.loads(out))


def read_by_backends(daemon: Daemon, path: str) -> list[str]:
    """The requests that a backend has begun to answer, as it says itself."""
    return re.findall(rf"^\[(?:one|two)\] ({path}/\d+)$", daemon.stdout, re.MULTILINE)


@pytest.mark.parametrize("more", [(), ("-H", "Connection: close")], ids=["kept connections", "a connection a request"])
def test_a_restart_under_load_loses_no_request(hug: Callable[..., Daemon], more: tuple[str, ...]) -> None:
    """wrk, which retries nothing: no connection refused, reset or timed out, no answer but 200, over three restarts."""
    daemon = hug()
    load = Wrk(daemon, *more)
    pids = [daemon.service("haproxy")["pid"]]
    for _ in range(3):
        daemon.cli("restart", "haproxy")
        pids.append(daemon.service("haproxy")["pid"])
    assert load.answered() > 500
    assert len(set(pids)) == 4


def test_a_restart_waits_for_slow_answers_and_newcomers_wait_with_it(hug: Callable[..., Daemon]) -> None:
    """Requests of 3 s under way are answered whole, those that come meanwhile wait in a queue. None is lost."""
    daemon = hug()
    slow = Client(daemon, 8, "/sleep/3")
    daemon.until(lambda: begun(daemon) >= 8, "8 slow requests to be under way")
    load = Wrk(daemon)
    began = time.monotonic()
    daemon.cli("restart", "haproxy")
    assert time.monotonic() - began > 2, "the slow requests were waited for"
    assert load.answered() > 500
    found = slow.found()
    assert found["reasons"] == []
    assert found["refused"] == []
    assert len(found["answered"]) >= 8


def test_a_reload_under_load_loses_no_request(hug: Callable[..., Daemon], tmp_path: Path) -> None:
    """The controller adds a server, and takes one away; then SIGUSR2 by hand: the same master, and no request lost."""
    daemon = hug()
    before = daemon.services()
    load = Wrk(daemon)
    (tmp_path / "backends.d" / "two").write_text("127.0.0.1:9002\n")
    daemon.until(lambda: "reloaded haproxy with 2 servers" in daemon.stdout, "the controller to see the new server")
    daemon.until(lambda: serves(daemon).startswith("two"), "the new server to be asked")
    knowing = workers(daemon)
    (tmp_path / "backends.d" / "one").unlink()
    daemon.until(
        lambda: daemon.stdout.count("reloaded haproxy with 1 servers") == 2, "the controller to see that one went"
    )
    daemon.until(lambda: (now := workers(daemon)) and not now & knowing, "the workers that knew it to end")
    daemon.cli("stop", "one")  # nobody asks it any more
    reloads = daemon.stderr.count("Reloading HAProxy")
    status, _ = daemon.api("POST", "/v1/services", {"action": "signal", "services": ["haproxy"], "signal": "SIGUSR2"})
    assert status == 202
    daemon.until(lambda: daemon.stderr.count("Reloading HAProxy") == reloads + 1, "the reload by hand")
    assert load.answered() > 500
    after = daemon.services()
    assert [after[name]["pid"] for name in ("haproxy", "doorman", "controller")] == [
        before[name]["pid"] for name in ("haproxy", "doorman", "controller")
    ]
    assert after["haproxy"]["restarts"] == 0


def test_a_configuration_that_haproxy_refuses_is_reported_and_not_used(
    hug: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = hug()
    bad = tmp_path / "backends.d" / "bad"
    bad.write_text("999.0.0.1.2.3:80\n")
    assert daemon.err
    daemon.err.wait_for("haproxy refuses what /srv/hug/backends.d asks for")
    assert serves(daemon).startswith("one")
    bad.write_text("what is this\n")
    daemon.err.wait_for("left out 'bad': 'what is this' is not HOST:PORT")
    assert serves(daemon).startswith("one")


@pytest.mark.parametrize("how", ["SIGTERM to PID 1", "vigil vigild stop", "vigil stop"])
def test_a_stop_under_load_cuts_no_request(hug: Callable[..., Daemon], how: str) -> None:
    """Every request that haproxy took is answered whole, slow ones of 3 s too, and that is all the time a stop takes.

    Those whose connection was in the queue, not accepted by haproxy, are turned away at the end without a byte: none
    of theirs had reached a server, so they may ask elsewhere. Later ones are refused.
    """
    daemon = hug()
    quick = Client(daemon, 8, "/quick")
    daemon.until(lambda: len(read_by_backends(daemon, "/quick")) > 500, "quick requests to flow")
    slow = Client(daemon, 16, "/sleep/3")
    daemon.until(lambda: begun(daemon) >= 16, "16 slow requests to be under way")
    began = time.monotonic()
    # Of haproxy alone doorman would keep the queue, until haproxy is started again.
    stop = {"vigil stop": ("stop", "haproxy", "doorman", "--no-wait"), "vigil vigild stop": ("vigild", "stop")}.get(how)
    if stop:
        daemon.cli(*stop)
    else:
        daemon.signal(signal.SIGTERM)
    quickly, slowly = quick.found(end=False), slow.found(end=False)  # they end when they are refused
    took = time.monotonic() - began
    assert daemon.stop() == 0
    print([{what: len(some) for what, some in one.items()} for one in (quickly, slowly)], f"{took:.1f} s")
    for path, one in (("/quick", quickly), ("/sleep/3", slowly)):
        assert not one["lost"], one["reasons"]
        assert sorted(one["answered"]) == sorted(read_by_backends(daemon, path)), (
            "all that reached a server, and no other"
        )
    assert len(slowly["answered"]) >= 16
    assert took < 3 + 10, "generous: 3 s of drain, and a busy machine; the kill delay is 30 s"


def test_the_stop_signal_is_what_keeps_them(hug: Callable[..., Daemon]) -> None:
    """With SIGTERM instead of SIGUSR1 the same stop cuts requests, and the client of these tests sees it."""
    daemon = hug(lambda text: text.replace("stop-signal: SIGUSR1", "stop-signal: SIGTERM"))
    slow = Client(daemon, 8, "/sleep/3")
    daemon.until(lambda: begun(daemon) >= 8, "8 slow requests to be under way")
    assert daemon.stop() == 0
    found = slow.found(end=False)
    assert len(found["lost"]) + len(found["turned away"]) >= 8


def test_the_check_of_the_plan_passes_while_haproxy_runs_and_fails_when_it_does_not(hug: Callable[..., Daemon]) -> None:
    daemon = hug()
    plan = yaml.safe_load((HUG / "layers" / "10-hug.yaml").read_text())
    command = shlex.split(plan["checks"]["check-haproxy"]["exec"]["command"])
    assert "http,FRONTEND," in ask(daemon, *command)
    daemon.cli("stop", "haproxy")
    with inside(daemon, *command, stdout=subprocess.DEVNULL) as check:
        assert check.wait(30) != 0


def test_a_crash_of_haproxy_costs_the_requests_that_it_had_and_refuses_nobody(hug: Callable[..., Daemon]) -> None:
    daemon = hug()
    quick = Client(daemon, 8, "/quick")
    daemon.until(lambda: len(read_by_backends(daemon, "/quick")) > 500, "quick requests to flow")
    daemon.kill(daemon.service("haproxy")["pid"])
    daemon.until(lambda: daemon.service("haproxy")["restarts"] == 1, "vigil to start it again")
    known = len(read_by_backends(daemon, "/quick"))
    daemon.until(lambda: len(read_by_backends(daemon, "/quick")) > known + 500, "requests to flow again")
    found = quick.found()
    assert found["refused"] == []
    assert len(found["lost"]) + len(found["turned away"]) <= 8, found["reasons"]


def test_when_doorman_is_killed_haproxy_goes_on_and_the_next_restart_brings_doorman_back(
    hug: Callable[..., Daemon],
) -> None:
    daemon = hug()
    daemon.kill(daemon.service("doorman")["pid"])
    daemon.until(lambda: daemon.service("doorman")["restarts"] >= 2, "doorman to try in vain: haproxy has the port")
    assert serves(daemon).startswith("one")
    daemon.cli("restart", "haproxy")
    daemon.until(lambda: serves(daemon).startswith("one"), "haproxy to be back with doorman")
    restarts = daemon.service("doorman")["restarts"]
    load = Wrk(daemon)
    daemon.cli("restart", "haproxy")
    assert load.answered() > 500
    assert daemon.service("doorman")["restarts"] == restarts


def workers(daemon: Daemon) -> set[int]:
    """The workers that haproxy's master has."""
    master = daemon.service("haproxy")["pid"]
    return {pid for pid, process in daemon.processes().items() if process.parent == master}


def begun(daemon: Daemon) -> int:
    """How many slow requests have come to a server."""
    return daemon.stdout.count("] begins /sleep/")
