"""control as a program, under a PID 1 without processes: what it does in which order, what it says when it cannot."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import pytest

from tests.channel.fake import Peer
from vigil._native import lib
from vigil.journal import Store
from vigil.plan import Sources

PLAN = """\
services:
  web:
    command: sleep 1000
    startup: enabled
  db:
    command: /usr/bin/db --now
    startup: enabled
    environment: {A: b}
  off:
    command: sleep 1
"""


class World:
    """A folder with a plan, a peer, and the control under test."""

    def __init__(self, folder):
        self.folder = folder
        self.peer = Peer()
        self.socket = folder / "v.sock"
        self.layers = folder / "layers"
        self.layers.mkdir()
        self.plan(PLAN)
        self.processes = []

    def plan(self, text):
        (self.layers / "a.yaml").write_text(text)

    def run(self, *arguments, link=True, env=None, socket_flag=True, before=""):
        """Execute control, after some code in it; its end of a new link is in its environment."""
        fd = self.peer.connect() if link else -1
        words = ["--layers-dir", str(self.layers), *(["--socket", str(self.socket)] if socket_flag else []), *arguments]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("VIGIL_")}
        process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\nimport vigil.daemon.__main__", *words],
            env=clean | (env or {}) | ({"VIGIL_LINK": str(fd)} if link else {}),
            pass_fds=[fd] if link else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if link:
            os.close(fd)
        self.processes.append(process)
        return process

    def ready(self, process):
        """Wait for READY."""
        end = time.monotonic() + 30
        while not self.peer.pid1.is_ready:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)
        return process

    def up(self, *arguments, **more):
        """A control that is READY."""
        self.peer.pid1.is_ready = False
        return self.ready(self.run(*arguments, **more))

    def calls(self, *names):
        with self.peer.table() as pid1:
            return [call for call in pid1.calls if not names or call[0] in names]

    def kill(self, process, signo=signal.SIGKILL):
        process.send_signal(signo)
        output = process.communicate(timeout=30)
        self.peer._thread.join(10)
        return process.returncode, *output

    def store(self):
        """What is in the parked journal."""
        return Store.open(os.dup(self.peer.pid1.parked["journal"]))

    def get(self, path):
        connection = http.client.HTTPConnection("x")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(str(self.socket))
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())["result"]
        finally:
            connection.close()

    def close(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        self.peer.hang_up()
        self.peer.pid1.close()
        assert self.peer.problems == []


@pytest.fixture
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("d"))
    yield made
    made.close()


def test_everything_that_outlives_it_is_parked_before_the_first_spawn(world):
    world.up()
    calls = [call[:2] if call[0] == "park" else call[0] for call in world.calls()]
    begin = calls[: calls.index("spawn")]
    assert begin[:3] == [("park", "journal"), ("park", "listener/unix"), ("park", "counters")]
    assert calls[-1] == "ready"
    spawned = {call[1].name: call[1] for call in world.calls("spawn")}
    assert list(spawned["db"].argv) == ["/usr/bin/db", "--now"]
    assert set(spawned) == {"web", "db"}
    store = world.store()
    assert store.get("boot").decode() == store.boot_id == world.get("/v1/system-info")["boot-id"]
    assert msgspec.msgpack.decode(store.get("plan"), type=Sources).directory == str(world.layers)
    for name in ("web", "db"):
        assert store.get(f"service/{name}")  # the token of the SPAWN stands in it
    store.close()


def test_services_inherit_vigilds_environment_without_what_is_vigils(world):
    given = {"PLAIN": "1", "VIGIL_LOG_LEVEL": "debug", "VIGIL_SOCKET": str(world.socket), "NOTIFY_SOCKET": "/n"}
    given |= {"WATCHDOG_USEC": "1", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
    world.up(env=given, socket_flag=False)
    spec = next(call[1] for call in world.calls("spawn") if call[1].name == "db")
    entries = dict(entry.split(b"=", 1) for entry in spec.env)
    assert entries[b"PLAIN"] == b"1"
    assert entries[b"A"] == b"b"
    assert entries[b"VIGIL_SOCKET"] == os.fsencode(world.socket)
    hidden = (b"VIGIL_", b"NOTIFY_SOCKET", b"WATCHDOG_", b"LISTEN_")
    assert [key for key in entries if key.startswith(hidden)] == [b"VIGIL_SOCKET"]


def test_the_settings_of_hello_come_from_the_options(world):
    world.up("--stop-timeout", "8s", "--forward-stall=1s", "--log-level", "warn", "--forward-format", "timestamp")
    hello = world.peer.hello
    assert (hello.stop_budget_ms, hello.forward_stall_ms, hello.log_level) == (8000, 1000, lib.VG_WARN)
    assert hello.forward_format == lib.VG_FORMAT_TIMESTAMP


def test_the_next_control_goes_on_from_the_journal_and_reads_no_file(world):
    first = world.up()
    with world.peer.table() as pid1:
        runs = {name: pid1.start(name) for name in ("web", "db")}
        spawns = len(world.calls("spawn"))
    before = world.get("/v1/system-info")
    place = os.lstat(world.socket)
    world.kill(first)
    world.plan("services: {half: [written")
    second = world.up()
    after = world.get("/v1/system-info")
    assert after["boot-id"] == before["boot-id"]
    assert after["control-restarts"] == 1
    assert os.lstat(world.socket).st_ino == place.st_ino
    services = {service["name"]: service for service in world.get("/v1/services")}
    assert {name: services[name]["pid"] for name in runs} == {name: world.peer.pid1.find(name).pid for name in runs}
    assert set(services) == {"web", "db", "off"}
    assert len(world.calls("spawn")) == spawns
    assert world.calls("stop", "release") == []
    assert second.poll() is None


def test_clients_wait_in_the_backlog_while_there_is_no_control(world):
    first = world.up()
    world.kill(first)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.settimeout(30)
        waiting.connect(str(world.socket))
        waiting.sendall(b"GET /v1/system-info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        world.up()
        assert waiting.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_socket_that_was_removed_is_made_anew_by_the_next_control_and_kept_for_those_after_it(world):
    first = world.up()
    world.kill(first)
    os.unlink(world.socket)
    second = world.up()
    place = os.lstat(world.socket)
    assert world.get("/v1/system-info")["control-restarts"] == 1
    world.kill(second)
    third = world.up()
    assert os.lstat(world.socket).st_ino == place.st_ino
    assert world.get("/v1/system-info")["control-restarts"] == 2
    with world.peer.table() as pid1:
        pid1.signalled(signal.SIGTERM)
    assert world.kill(third, signal.SIGTERM)[0] == 0
    assert not world.socket.exists()


def test_a_socket_that_was_removed_and_cannot_be_made_anew_holds_up_nothing(world):
    first = world.up()
    world.kill(first)
    os.unlink(world.socket)
    second = world.up(
        before="import vigil.daemon.listener as l\ndef fail(*_):\n    raise l.StartError('cannot listen: on purpose')\n"
        "l.bind = fail"
    )
    assert "cannot listen: on purpose" in world.kill(second)[2]


@pytest.mark.parametrize("step", ["Overlord.attach", "Store.create"])
def test_an_error_at_a_restart_leaves_the_socket_that_it_has_taken_over(world, step):
    first = world.up()
    world.kill(first)
    with world.peer.table() as pid1:
        os.close(pid1.parked.pop("counters"))
        pid1.flags |= lib.VG_RESTARTED
        pid1.runs.clear()
    place = os.lstat(world.socket)
    failed = world.run(before=f"{CRASHES}\nfrom vigil.journal import Store\n{step} = fail")
    assert failed.wait(30) == 1
    assert os.lstat(world.socket).st_ino == place.st_ino
    world.up()
    assert world.get("/v1/system-info")


def test_a_plan_in_force_that_this_version_cannot_use_is_said_and_services_are_left_alone(world):
    first = world.up()
    with world.peer.table() as pid1:
        pid1.start("web")
    world.kill(first)
    store = world.store()
    layer = b"services: {web: {command: sleep 1000, kill-delay: soon}}"
    store.put("plan", msgspec.msgpack.encode(Sources(str(world.layers), ((str(world.layers / "a.yaml"), layer),))))
    store.close()
    place, calls = os.lstat(world.socket), len(world.calls("stop", "release", "spawn"))
    process = world.run()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("vigild: cannot use the plan in force, as it was read by another version of vigil: ")
    assert 'services.web.kill-delay: "soon" is not a duration' in err
    assert "Traceback" not in err
    assert os.lstat(world.socket).st_ino == place.st_ino
    assert len(world.calls("stop", "release", "spawn")) == calls


def test_without_threads_there_is_an_api_all_the_same(world):
    """A service may have used up all processes that there may be, and somebody has to be able to stop it."""
    world.up(
        before='import threading\ndef fail(*_):\n    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = fail"
    )
    with world.peer.table() as pid1:
        run = pid1.start("web")
        pid = pid1.find(run).pid
    assert {service["name"]: service["pid"] for service in world.get("/v1/services")}["web"] == pid


def test_a_log_that_cannot_be_read_is_said_and_all_else_goes_on(world):
    first = world.up()
    with world.peer.table() as pid1:
        run = pid1.start("web")
    world.kill(first)
    with world.peer.table() as pid1:
        os.close(pid1.parked["log/web"])
        pid1.parked["log/web"] = os.memfd_create("a log of another format")
    second = world.up()
    assert {s["name"]: s["pid"] for s in world.get("/v1/services")}["web"] == world.peer.pid1.find(run).pid
    assert world.get("/v1/logs?services=web") == []
    assert "cannot show what web writes: " in world.kill(second)[2]


@pytest.mark.parametrize("lost", ["journal", "counters"])
def test_a_control_that_died_before_the_boot_had_begun_leaves_nothing_to_go_on_from(world, lost):
    first = world.up()
    boot = world.get("/v1/system-info")["boot-id"]
    world.kill(first)
    with world.peer.table() as pid1:
        os.close(pid1.parked.pop(lost))
        pid1.runs.clear()
        pid1.calls.clear()
    world.plan("services: {other: {command: sleep 5, startup: enabled}}")
    os.unlink(world.socket)  # where the journal is lost, so is the listener's place: it is bound anew
    world.up()
    assert [call[1].name for call in world.calls("spawn")] == ["other"]
    store = world.store()
    assert store.boot_id != boot
    assert store.get("service/web") is None
    store.close()


def test_a_restart_keeps_identities_and_listener_and_nothing_else(world):
    first = world.up()
    before = world.get("/v1/system-info")
    boot = before["boot-id"]
    store = world.store()
    store.put("identity/bob", b"spec")
    store.close()
    world.kill(first)
    with world.peer.table() as pid1:  # what vigild does for `vigil vigild restart`
        for name in [name for name in pid1.parked if name.startswith("log/") or name == "counters"]:
            os.close(pid1.parked.pop(name))
        pid1.runs.clear()
        pid1.calls.clear()
        pid1.flags |= lib.VG_RESTARTED
        pid1.lives = 0
    world.plan("services: {other: {command: sleep 5, startup: enabled}}")
    place = os.lstat(world.socket)
    second = world.up()
    store = world.store()
    assert store.boot_id != boot
    assert store.get("identity/bob") == b"spec"
    assert store.get("service/web") is None
    store.close()
    assert [call[1].name for call in world.calls("spawn")] == ["other"]
    assert os.lstat(world.socket).st_ino == place.st_ino
    restarted = world.get("/v1/system-info")
    assert restarted["start-time"] > before["start-time"]
    world.kill(second)
    world.up()  # the flag stays; the boot has begun all the same
    again = world.get("/v1/system-info")
    assert (again["boot-id"], again["start-time"]) == (restarted["boot-id"], restarted["start-time"])
    assert [call[1].name for call in world.calls("spawn")] == ["other"]


@pytest.mark.parametrize("damage", ["header", "middle", "newer"])
def test_a_journal_that_cannot_be_read_is_said_and_services_are_left_alone(world, damage):
    first = world.up()
    world.kill(first)
    fd = world.peer.pid1.parked["journal"]
    if damage == "newer":
        import struct
        import zlib

        head = struct.pack("=IHH", 0, 99, 1)
        os.pwrite(fd, head + struct.pack("=II", zlib.crc32(head), 0), os.fstat(fd).st_size)
    else:
        os.pwrite(fd, b"\xff", 3 if damage == "header" else 100)
    with world.peer.table() as pid1:
        pid1.calls.clear()
        runs = dict(pid1.runs)
    second = world.run()
    out, err = second.communicate(timeout=30)
    assert (second.returncode, out) == (1, "")
    assert err.startswith("vigild: cannot read the journal: ")
    assert err.count("\n") == 1
    assert world.calls() == []
    assert world.peer.pid1.runs == runs
    assert world.socket.exists()


def test_sigterm_ends_it_with_0_and_removes_the_socket(world):
    process = world.up()
    with world.peer.table() as pid1:
        pid1.signalled(signal.SIGINT)
    code, out, err = world.kill(process, signal.SIGTERM)
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert not world.socket.exists()


def test_sigterm_to_control_alone_ends_only_that_and_the_socket_stays_for_the_next(world):
    place = None
    for _ in range(2):
        process = world.up()
        place = place or os.lstat(world.socket)
        assert world.kill(process, signal.SIGTERM)[0] == 0
        assert os.lstat(world.socket).st_ino == place.st_ino
    world.up()
    assert world.get("/v1/system-info")["control-restarts"] == 2


def test_at_a_restart_the_socket_stays_for_the_next(world):
    process = world.up()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(world.socket))
        body = b'{"action":"restart"}'
        head = b"POST /v1/vigild HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % len(body) + body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        world.peer.wait(lambda pid1: pid1.shutting_down == (0, True))
        code, _, _ = world.kill(process, signal.SIGTERM)
    assert code == 0
    assert world.socket.exists()


def test_a_signal_to_vigild_turns_a_restart_into_an_exit(world):
    process = world.up()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(world.socket))
        body = b'{"action":"restart"}'
        head = b"POST /v1/vigild HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % len(body) + body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        world.peer.wait(lambda pid1: pid1.shutting_down == (0, True))
    with world.peer.table() as pid1:
        pid1.signalled(signal.SIGTERM)
    code, _, _ = world.kill(process, signal.SIGTERM)
    assert code == 0
    assert not world.socket.exists()


def test_every_problem_of_a_bad_plan_is_told_and_nothing_happened(world):
    world.plan("services:\n  web:\n    command: sleep 5\n    kill-delay: 5 parsecs\n    requires: [nobody]\n")
    process = world.run()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    first, second = f"{world.layers}/a.yaml:4:17: services.web.kill-delay: ", f"{world.layers}/a.yaml:5:16: "
    lines = err.splitlines()
    assert lines == [
        first + '"5 parsecs" is not a duration (write 500ms, 3s, 1m30s, 1h)',
        "        kill-delay: 5 parsecs",
        "                    ^^^^^^^^^",
        second + 'services.web.requires: there is no service "nobody" (there is web)',
        "        requires: [nobody]",
        "                   ^^^^^^",
        "vigild: cannot load the plan: 2 problems",
    ]
    assert world.calls() == []
    assert not world.socket.exists()


def test_a_socket_that_cannot_be_had_is_one_line_and_nothing_happened(world):
    world.socket.write_text("a file")
    process = world.run()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err == f"vigild: cannot listen on {world.socket}: it is there and no socket\n"
    assert world.calls() == []


def test_without_a_place_for_the_socket_there_is_no_api_but_all_else(world):
    process = world.up(socket_flag=False, before="from vigil.client import places; places.usual = lambda: []")
    assert {call[1].name for call in world.calls("spawn")} == {"web", "db"}
    assert set(world.peer.pid1.parked) == {"journal", "counters", "log/web", "log/db"}
    code, _, err = world.kill(process, signal.SIGTERM)
    assert code == 0
    assert "there is no place for the API's Unix socket" in err


def test_vigild_that_closes_the_link_ends_it_with_a_reason(world):
    process = world.up()
    world.peer.hang_up()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err.endswith("vigild: cannot go on: vigild closed the link (its own diagnostics say why)\n")
    assert world.socket.exists()  # services go on, and so does who connects


def test_nonsense_from_vigild_ends_it_with_a_reason(world):
    process = world.up()
    world.peer.send(b"\x0c\0\0\0\xff\xff\0\0nons")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.endswith("vigild: cannot understand vigild: message of unknown kind 65535\n")


def test_sigabrt_shows_where_it_hangs(world):
    process = world.up()
    code, _, err = world.kill(process, signal.SIGABRT)
    assert code == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in err
    assert "serve.py" in err


def test_a_ping_is_answered_by_its_loop(world):
    world.up()
    world.peer.ping(77)
    world.peer.wait(lambda _: world.peer.pongs == [77])


CRASHES = """
from vigil.overlord import Overlord
def fail(*_):
    raise ArithmeticError("on purpose")
"""


def test_an_error_that_nobody_expected_ends_it_with_a_traceback_and_the_next_goes_on(world):
    process = world.up(before=f"{CRASHES}\nOverlord.handle = fail")
    with world.peer.table() as pid1:
        run = pid1.start("web")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in err
    assert err.rstrip().endswith("ArithmeticError: on purpose")
    world.up()
    assert world.get("/v1/services")[0]["pid"] == world.peer.pid1.find(run).pid


def test_an_error_before_the_first_spawn_leaves_no_socket(world):
    process = world.run(before=f"{CRASHES}\nOverlord.autostart = fail")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ArithmeticError: on purpose" in err
    assert not world.socket.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--version"], 0, "vigild 0.1.0\n", ""),
        (
            ["--sokcet"],
            2,
            "",
            'vigild: unknown option "--sokcet" (did you mean "--socket"?)\nvigild --help tells more\n',
        ),
        (["--check"], 0, "The plan is right: 3 services.\n", ""),
        ([], 1, "", "vigild: cannot start: control is started by vigild, not by hand (there is no VIGIL_LINK)\n"),
    ],
)
def test_what_it_says_where_it_starts_nothing(world, arguments, code, out, err):
    process = world.run(*arguments, link=False)
    assert (*process.communicate(timeout=30), process.returncode) == (out, err, code)


def test_help_is_the_usage_text(world):
    process = world.run("--help", link=False)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("vigild: ")
    assert "--layers-dir PATH" in out


def test_check_tells_every_problem_and_needs_no_vigild(world):
    world.plan("services:\n  web:\n    commnad: sleep 5\n    startup: sometimes\n")
    process = world.run("--check", link=False)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "commnad" in err
    assert "sometimes" in err
    assert err.splitlines()[-1].startswith("vigild: cannot load the plan: ")
    assert "Traceback" not in err


def test_a_missing_directory_is_an_empty_plan_and_a_warning(world):
    world.layers.rename(world.folder / "elsewhere")
    process = world.up()
    assert world.calls("spawn") == []
    assert world.get("/v1/services") == []
    _, _, err = world.kill(process, signal.SIGTERM)
    assert "WARN" in err
    assert str(world.layers) in err


@pytest.mark.parametrize("call", ["vigil.daemon.start.read", "asyncio.run"])
def test_sigterm_before_there_is_a_loop_ends_it_with_0_and_no_socket(world, call):
    module = call.rpartition(".")[0]
    process = world.run(
        before=f"import os, signal, {module}\noriginal = {call}\ndef first(*a):\n"
        f"    os.kill(os.getpid(), signal.SIGTERM)\n    return original(*a)\n{call} = first"
    )
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert world.calls("ready") == []
    assert not world.socket.exists()
