"""The client beside a real vigild: what it says, and what it survives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.daemon import CLIENT, LIMIT, Daemon, Output

Start = Callable[..., Daemon]

pytestmark = pytest.mark.pid1

PLAN = """
services:
  db: {command: sleep 1000, startup: enabled}
  web: {command: sleep 1000, startup: enabled, requires: [db]}
  cache: {command: sleep 1000, startup: enabled, kill-delay: 1s}
  old: {command: sleep 1000, startup: enabled}
"""

NEXT = """
services:
  db: {command: sleep 1000, startup: enabled, environment: {SIZE: "2"}}
  web: {command: sleep 1000, startup: enabled, requires: [db]}
  cache: {command: sleep 1000, startup: enabled, kill-delay: 2s}
  new: {command: "sh -c 'echo no disk; exit 3'", startup: enabled}
"""


def rewrite(daemon: Daemon, text: str) -> None:
    (daemon.layers / "10-test.yaml").write_text(text)


def settled(daemon: Daemon) -> Daemon:
    """Once its first change is over."""
    daemon.ready()
    daemon.until(lambda: daemon.json("changes")[0]["status"] != "doing", "the first change to end")
    return daemon


class Following:
    """``vigil logs -f`` and what it wrote."""

    def __init__(self, daemon: Daemon, *words: str) -> None:
        self.process = subprocess.Popen(
            [*CLIENT, "logs", "-f", *words],
            env=daemon.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = Output(self.process.stdout)
        self.err = Output(self.process.stderr)

    def end(self) -> int:
        self.process.kill()
        self.process.wait(LIMIT)
        self.out.finish()
        self.err.finish()
        return self.process.returncode


@pytest.fixture
def follow() -> Iterator[Callable[..., Following]]:
    started: list[Following] = []

    def start(daemon: Daemon, *words: str) -> Following:
        started.append(Following(daemon, *words))
        return started[-1]

    yield start
    for following in started:
        following.end()


# Replan.


def test_a_replan_says_what_it_does_and_why_and_which_services_failed_afterwards(vigild: Start) -> None:
    daemon = settled(vigild(PLAN))
    before = daemon.services()
    assert daemon.cli("replan").stdout == "Replan completed. Nothing has changed.\n"
    rewrite(daemon, NEXT)
    dry = daemon.cli("replan", "--dry-run")
    assert dry.stdout.splitlines() == [
        "Nothing was done. A replan would do this:",
        "",
        "Service  Action   Why",
        "db       restart  environment changed (SIZE)",
        "web      restart  db is restarted, which it requires",
        "cache    update   kill-delay changed",
        "new      start    new, and enabled",
        "old      stop     removed",
    ]
    assert daemon.services().keys() == before.keys()
    done = daemon.cli("replan")
    assert done.stdout.splitlines() == [
        "Replan completed.",
        "",
        "Service  Action     Why",
        "db       restarted  environment changed (SIZE)",
        "web      restarted  db is restarted, which it requires",
        "cache    updated    kill-delay changed",
        "new      failed     new, and enabled",
        "old      stopped    removed",
    ]
    failure = r"vigil: cannot start new: exited with code 3 after \d+ms; its last lines:\n  no disk\n"
    assert re.fullmatch(failure, done.stderr)
    after = daemon.services()
    assert after["db"]["pid"] != before["db"]["pid"]
    assert after["cache"]["pid"] == before["cache"]["pid"]


def test_a_plan_with_mistakes_is_told_as_by_a_compiler_and_changes_nothing(vigild: Start) -> None:
    daemon = settled(vigild(PLAN))
    before = daemon.services()
    rewrite(daemon, "services:\n  db:\n    command: sleep 1000\n    kill-delay: 5 parsecs\n    stop-signal: SIGFOO\n")
    for words, doing in ((("replan",), "replan"), (("vigild", "restart"), "restart vigild")):
        done = daemon.cli(*words, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        first, line, mark, second, *_, last = done.stderr.splitlines()
        file = f"{daemon.layers}/10-test.yaml"
        assert first.startswith(f'{file}:4:17: services.db.kill-delay: "5 parsecs" is not a duration')
        assert line.strip() == "kill-delay: 5 parsecs"
        assert line[mark.index("^") : mark.rindex("^") + 1] == "5 parsecs"
        assert second.startswith(f"{file}:5:18: services.db.stop-signal: ")
        assert last == f"vigil: cannot {doing}: the plan has 2 problems"
    checked = daemon.cli("plan", "check", str(daemon.layers), check=False)
    assert checked.returncode == 1
    assert checked.stderr.splitlines()[:-1] == done.stderr.splitlines()[:-1]
    assert {name: s["pid"] for name, s in daemon.services().items()} == {name: s["pid"] for name, s in before.items()}


def test_what_waits_for_its_restart_is_seen_below_the_table(vigild: Start) -> None:
    daemon = settled(vigild(PLAN))
    rewrite(daemon, PLAN.replace("sleep 1000", "env SIZE=2 sleep 1000", 1))
    done = daemon.cli("replan", "--no-restart")
    assert "db       pending restart  command changed" in done.stdout
    assert "\n\ndb: pending restart: it runs with what the plan said before\n" in daemon.cli("services").stdout
    daemon.cli("restart", "db")
    assert "pending" not in daemon.cli("services").stdout


def test_a_replan_that_is_not_waited_for_says_where_it_goes_on(vigild: Start) -> None:
    daemon = settled(vigild(PLAN))
    rewrite(daemon, NEXT.replace("sleep 1000", "sleep 1001"))
    done = daemon.cli("replan", "--no-wait")
    first = done.stdout.splitlines()[0]
    assert re.fullmatch(r"Replan completed; what it starts and stops goes on \(vigil changes \d+\)\.", first)
    assert "restart  command changed" in done.stdout


def test_json_is_what_the_api_says_with_the_change_at_its_end(vigild: Start) -> None:
    daemon = settled(vigild(PLAN))
    rewrite(daemon, NEXT)
    done = json.loads(daemon.cli("replan", "--format", "json").stdout)
    assert done["restarted"] == ["db", "web"]
    change = daemon.json("changes", done["change"]["id"])
    assert done["change"] == change
    assert change["status"] != "doing"


# Commands.


def test_of_several_services_those_that_were_done_are_told_and_those_that_failed(vigild: Start) -> None:
    daemon = settled(vigild(PLAN))
    daemon.cli("stop", "old")
    done = daemon.cli("signal", "CONT", "old", "cache", check=False)
    assert (done.returncode, done.stdout) == (1, "cache: signal sent\n")
    assert done.stderr == "vigil: cannot signal old: it is inactive\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stop wbe", 'cannot stop: there is no service "wbe" (did you mean "web"?)'),
        ("logs wbe", 'cannot show logs: there is no service "wbe" (did you mean "web"?)'),
        ("services wbe", 'cannot list services: there is no service "wbe" (did you mean "web"?)'),
        ("services strat db", 'cannot list services: there is no service "strat" (did you mean "start"?)'),
        ("changes 99", 'cannot find change "99": there is none with that id (the last 500 are kept)'),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_right_one(vigild: Start, words: str, said: str) -> None:
    done = settled(vigild(PLAN)).cli(*words.split(), check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"vigil: {said}\n")


# The plan.


def test_the_plan_in_force_is_a_layer_and_masks_nothing_for_root(vigild: Start, root: None, tmp_path: Path) -> None:
    daemon = settled(vigild({"10.yaml": PLAN, "20.yaml": 'services: {db: {environment: {TOKEN: "0755", X: no}}}'}))
    shown = daemon.cli("plan").stdout
    assert yaml.safe_load(shown)["services"]["db"]["environment"] == {"TOKEN": "0755", "X": "no"}
    (tmp_path / "one.yaml").write_text(shown)
    assert "right: 4 services." in daemon.cli("plan", "check", str(tmp_path)).stdout
    assert json.loads(daemon.cli("plan", "show", "--format", "json").stdout) == yaml.safe_load(shown)


def test_a_plan_is_checked_without_a_daemon_and_as_vigild_does(vigild_binary: Path, tmp_path: Path) -> None:
    env = {**os.environ, "VIGIL_LAYERS": str(tmp_path), "VIGIL_SOCKET": "/none", "VIGIL_PYTHON": sys.executable}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=LIMIT)

    (tmp_path / "10.yaml").write_text("services: {a: {command: x, startup: enabled}}")
    done = run(*CLIENT, "plan", "check")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"The plan in {tmp_path} is right: 1 service.\n", "")
    (tmp_path / "20.yaml").write_text("services: {a: {stratup: enabled, after: [b]}}")
    ours, theirs = run(*CLIENT, "plan", "check"), run(str(vigild_binary), "--check")
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr.splitlines()[:-1] == theirs.stderr.splitlines()[:-1]
    assert len(ours.stderr.splitlines()) > 4
    done = run(*CLIENT, "plan", "check", str(tmp_path / "none"))
    assert done.stderr == f"vigil: cannot check {tmp_path}/none: there is no such directory\n"


def test_the_schema_needs_no_daemon(tmp_path: Path) -> None:
    env = {**os.environ, "VIGIL_SOCKET": "/none"}
    for words, load in ((("schema",), json.loads), (("schema", "--format", "yaml"), yaml.safe_load)):
        done = subprocess.run([*CLIENT, "plan", *words], env=env, capture_output=True, text=True, check=True)
        assert "services" in load(done.stdout)["properties"]


# Logs.

SPEAKER = "services: {web: {command: \"sh -c 'echo hello; exec sleep 1000'\", startup: enabled}}"


def test_a_follower_goes_on_after_a_restart_of_vigild_and_says_so(
    vigild: Start, follow: Callable[..., Following]
) -> None:
    daemon = settled(vigild(SPEAKER))
    following = follow(daemon)
    following.out.wait_for("[web] [stdout] hello\n")
    daemon.kill(daemon.only("vigil-control").pid)
    daemon.ready()
    daemon.cli("restart", "web")
    daemon.until(lambda: following.out.data.count(b"hello") == 2, "the line of the second run")
    assert following.err.data == b""
    daemon.cli("vigild", "restart")
    daemon.until(lambda: following.out.data.count(b"hello") == 3, "the line of the next boot")
    following.err.wait_for("\n")
    assert following.err.data == b"vigil: vigild was restarted; what follows was written since\n"
    daemon.stop()
    assert following.process.wait(LIMIT) == 1
    following.err.wait_for("vigil: cannot follow logs: vigild has ended\n")
    assert following.out.data.count(b"hello") == 3


def test_who_follows_all_follows_services_of_a_later_plan_too(vigild: Start, follow: Callable[..., Following]) -> None:
    daemon = settled(vigild(SPEAKER))
    following = follow(daemon)
    following.out.wait_for("[web] [stdout] hello\n")
    (daemon.layers / "20.yaml").write_text(
        "services: {late: {command: \"sh -c 'echo born; sleep 99'\", startup: enabled}}"
    )
    daemon.cli("replan")
    following.out.wait_for("[late] [stdout] born\n")


def test_a_reader_that_has_seen_enough_ends_a_follower_that_has_nothing_to_write(vigild: Start) -> None:
    daemon = settled(vigild(SPEAKER))
    command = f"{CLIENT[0]} -P -c '{CLIENT[-1]}' logs -f | head -n 1"
    began = time.monotonic()
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {command}"],
        env=daemon.env,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"[web] [stdout] hello\n")
    assert time.monotonic() - began < 14  # what would end it otherwise is the first ping, after 15 s


def test_why_a_service_with_passthrough_has_no_entries(vigild: Start, follow: Callable[..., Following]) -> None:
    daemon = settled(vigild("services: {raw: {command: echo x, logs-forward: passthrough}, mute: {command: sleep 99}}"))
    why = "vigil: raw writes to vigild's own output, past its logs (logs-forward: passthrough)\n"
    for words in ((), ("raw",), ("raw", "mute")):
        done = daemon.cli("logs", *words)
        assert (done.stdout, done.stderr) == ("No log entries.\n", why)
    assert daemon.cli("logs", "mute").stderr == ""
    follow(daemon, "raw").err.wait_for(why)


# Who is not there.


def test_a_vigild_that_is_starting_is_waited_for(vigild: Start) -> None:
    daemon = vigild(PLAN)
    daemon.until(daemon.socket.exists, "the socket")
    assert daemon.cli("services").stdout.count("\n") >= 5


def test_a_socket_that_a_killed_vigild_left_behind_is_called_that(vigild: Start) -> None:
    daemon = settled(vigild(PLAN))
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    done = daemon.cli("services", check=False)
    why = f"nobody listens at the socket {daemon.socket} (vigild has ended, and left it behind)"
    assert (done.returncode, done.stderr) == (1, f"vigil: cannot list services: {why}\n")
