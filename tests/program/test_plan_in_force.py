"""What a plan says of a service is so: its process, its environment, its output, its signals, and what hangs on it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon

# A Python that an unprivileged user may execute too: that of an environment may stand in a folder of root's.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
LOOK = """
import json, os, resource, sys, time
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
fds = [int(fd) for fd in os.listdir("/proc/self/fd")]
print(json.dumps({
    "fds": sorted(fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")),
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()),
    "umask": status["Umask"], "blocked": int(status["SigBlk"], 16), "nice": os.nice(0), "cwd": os.getcwd(),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "oom": open("/proc/self/oom_score_adj").read().strip(), "environ": dict(os.environ),
    "stdin": os.readlink("/proc/self/fd/0"),
}), flush=True)
time.sleep(1000)
"""
HELD = "trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; echo ready; while :; do sleep 0.05; done"


def plan(**services: dict[str, Any]) -> str:
    """A layer: JSON is YAML. Services are enabled unless they say otherwise."""
    return json.dumps({"services": {name: {"startup": "enabled", **keys} for name, keys in services.items()}})


def look(daemon: Daemon, name: str) -> dict[str, Any]:
    """What the service sees of itself."""
    daemon.ready()

    def line() -> str | None:
        entries = daemon.api("GET", f"/v1/logs?services={name}")[1]["result"]
        return entries[0]["message"] if entries else None

    seen: dict[str, Any] = json.loads(daemon.until(line, f"what {name} sees"))
    return seen


def test_a_process_is_as_the_plan_says(vigild: Callable[..., Daemon], tmp_path: Path, root: None) -> None:
    looks = {"command": [PYTHON, "-IS", "-c", LOOK]}
    daemon = vigild(
        plan(
            plain=looks,
            web={
                **looks,
                "user-id": 61234,
                "group-id": 61235,
                "umask": "027",
                "nice": 5,
                "oom-score-adj": 321,
                "working-dir": "/usr",
                "limits": {"nofile": "100:200", "core": 0},
            },
            by_name={**looks, "user": "daemon"},
        ),
        prefix=(sys.executable, "-c", "import os, sys; os.dup2(0, 77); os.execv(sys.argv[1], sys.argv[1:])"),
    )
    web, plain, by_name = (look(daemon, name) for name in ("web", "plain", "by_name"))
    assert (web["uid"], web["gid"], web["groups"]) == ([61234] * 3, [61235] * 3, [61235])
    assert (web["umask"], web["nice"], web["oom"], web["cwd"]) == ("0027", 5, "321", "/usr")
    assert (web["nofile"], web["core"]) == ([100, 200], [0, 0])
    assert web["environ"]["HOME"] == "/"
    assert plain["uid"] == [0] * 3
    assert (plain["nice"], plain["cwd"], plain["stdin"]) == (os.nice(0), "/", "/dev/null")
    account = pwd.getpwnam("daemon")
    assert (by_name["uid"], by_name["gid"]) == ([account.pw_uid] * 3, [account.pw_gid] * 3)
    assert by_name["groups"] == sorted(set(os.getgrouplist("daemon", account.pw_gid)))
    assert {by_name["environ"][name] for name in ("USER", "LOGNAME")} == {"daemon"}
    assert by_name["environ"]["HOME"] == account.pw_dir
    for child in (web, plain, by_name):
        assert (child["fds"], child["blocked"]) == ([0, 1, 2], 0)


def test_a_group_of_the_plan_is_the_only_one(vigild: Callable[..., Daemon], root: None) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid)
    daemon = vigild(plan(web={"command": [PYTHON, "-IS", "-c", LOOK], "group": group.gr_name}))
    web = look(daemon, "web")
    assert (web["uid"], web["gid"], web["groups"]) == ([0] * 3, [group.gr_gid] * 3, [group.gr_gid])


def test_an_environment_is_vigilds_without_what_is_vigilds_own(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "first").write_text("A=file\nB=file\nC=file = more\n")
    (tmp_path / "second").write_text("# comment\n\nB=second\n")
    daemon = vigild(
        plan(
            web={
                "command": [PYTHON, "-IS", "-c", LOOK],
                "env-file": [str(tmp_path / "first"), str(tmp_path / "second")],
                "environment": {"A": "plan", "D": "0755", "OUTSIDE": "over"},
            }
        ),
        env={
            "OUTSIDE": "1",
            "OTHER": "2",
            "VIGIL_FORWARD_STALL": "3s",
            "VIGIL_ANYTHING": "1",
            "NOTIFY_SOCKET": "/x",
            "WATCHDOG_USEC": "1",
            "LISTEN_FDS": "1",
            "LISTEN_PID": "1",
        },
    )
    found = look(daemon, "web")["environ"]
    assert {name: found.get(name) for name in "ABCD"} == {"A": "plan", "B": "second", "C": "file = more", "D": "0755"}
    assert (found["OUTSIDE"], found["OTHER"]) == ("over", "2")
    own = {name for name in found if name.startswith(("VIGIL_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"))}
    assert own == {"VIGIL_SOCKET"}, "so that vigil works within a service"


@pytest.mark.parametrize("stdin", ["null", "inherit"])
def test_stdin_is_what_the_plan_says(vigild: Callable[..., Daemon], tmp_path: Path, stdin: str) -> None:
    given = tmp_path / "given"
    given.write_text("from outside\n")
    with given.open() as file:
        daemon = vigild(plan(web={"command": "cat", "stdin": stdin, "on-success": "ignore"}), stdin=file)
        daemon.wait_state("web", "inactive")
    assert daemon.stop() == 0
    assert daemon.stdout == ("[web] from outside\n" if stdin == "inherit" else "")


def test_each_way_of_forwarding(vigild: Callable[..., Daemon]) -> None:
    both = "echo {0} out; echo {0} err >&2; exec sleep 1000"
    modes = ("enabled", "disabled", "passthrough")
    daemon = vigild(
        plan(**{mode: {"command": ["/bin/sh", "-c", both.format(mode)], "logs-forward": mode} for mode in modes})
    )
    for mode in modes:
        daemon.wait_state(mode, "active")
    assert daemon.out
    assert daemon.err
    for output, stream in ((daemon.out, "out"), (daemon.err, "err")):
        output.wait_for(f"passthrough {stream}\n")
        output.wait_for(f"[enabled] enabled {stream}\n")

    def kept() -> list[tuple[str, str, str]] | None:
        entries = daemon.api("GET", "/v1/logs")[1]["result"]
        found = sorted((entry["service"], entry["stream"], entry["message"]) for entry in entries)
        return found if len(found) >= 4 else None

    assert daemon.until(kept, "four lines") == [
        ("disabled", "stderr", "disabled err"),
        ("disabled", "stdout", "disabled out"),
        ("enabled", "stderr", "enabled err"),
        ("enabled", "stdout", "enabled out"),
    ]
    assert daemon.api("GET", "/v1/logs?services=passthrough")[1]["result"] == []
    assert daemon.stop() == 0
    assert sorted(daemon.stdout.splitlines()) == ["[enabled] enabled out", "passthrough out"]
    assert "disabled err" not in daemon.stderr
    assert "\npassthrough err\n" in daemon.stderr


def test_signals_are_forwarded_to_those_that_want_them(vigild: Callable[..., Daemon]) -> None:
    held = {"command": ["/bin/sh", "-c", HELD]}
    daemon = vigild(
        plan(default=held, deaf={**held, "forward-signals": "none"}, usr1={**held, "forward-signals": ["USR1"]})
    )
    assert daemon.out
    for name in ("default", "deaf", "usr1"):
        daemon.out.wait_for(f"[{name}] ready\n")
    daemon.signal(signal.SIGHUP)
    daemon.out.wait_for("[default] got HUP\n")
    daemon.signal(signal.SIGUSR1)
    daemon.out.wait_for("[default] got USR1\n")
    daemon.out.wait_for("[usr1] got USR1\n")
    # What reaches the deaf one by name comes after anything that had been forwarded before.
    daemon.cli("signal", "USR1", "deaf")
    daemon.out.wait_for("[deaf] got USR1\n")
    assert sorted(line for line in daemon.stdout.splitlines() if "got" in line) == [
        "[deaf] got USR1",
        "[default] got HUP",
        "[default] got USR1",
        "[usr1] got USR1",
    ]


def test_the_stop_signal_and_the_kill_delay_are_the_plans(vigild: Callable[..., Daemon]) -> None:
    polite = "trap 'echo asked; exit 5' USR2; trap 'echo wrong' TERM; echo ready; while :; do sleep 0.05; done"
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    daemon = vigild(
        plan(
            polite={"command": ["/bin/sh", "-c", polite], "stop-signal": "USR2", "kill-delay": "infinity"},
            stubborn={"command": ["/bin/sh", "-c", stubborn], "kill-delay": "50ms"},
        )
    )
    assert daemon.out
    for name in ("polite", "stubborn"):
        daemon.out.wait_for(f"[{name}] ready\n")
    daemon.wait_state("polite", "active")
    daemon.cli("stop", "polite", "stubborn")
    assert daemon.service("polite")["exit"]["code"] == 5
    assert daemon.service("stubborn")["exit"]["signal"] == "SIGKILL"
    assert "wrong" not in daemon.stdout


def test_what_counts_as_success_is_the_plans(vigild: Callable[..., Daemon]) -> None:
    three = {"command": ["/bin/sh", "-c", "exit 3"], "success-exit-codes": [0, 3], "on-failure": "shutdown"}
    daemon = vigild(
        plan(
            web={**three, "on-success": "ignore"},
            once={**three, "type": "oneshot"},
            after_it={"command": "sleep 1000", "requires": ["once"]},
        )
    )
    daemon.wait_state("after_it", "active")
    daemon.wait_state("web", "inactive")
    assert daemon.service("once")["current"] == "exited"
    assert daemon.service("web")["exit"]["code"] == 3
    # And nothing else is: with 3 left out of the list it is the failure that ends vigild.
    assert vigild(plan(web={**three, "success-exit-codes": [0, 4], "on-success": "ignore"})).wait() == 3


def test_a_oneshot_that_fails_keeps_what_requires_it_waiting(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = vigild(
        plan(
            migrate={
                "type": "oneshot",
                "command": ["/bin/sh", "-c", f"test -e {tmp_path}/ready || exit 3"],
                "backoff-delay": "50ms",
                "backoff-factor": 1,
            },
            gone={"type": "oneshot", "command": "false", "on-failure": "ignore"},
            web={"command": ["/bin/sh", "-c", f"echo up >>{tmp_path}/web; exec sleep 1000"], "requires": ["migrate"]},
            other={"command": ["/bin/sh", "-c", f"echo up >>{tmp_path}/other"], "requires": ["gone"]},
        )
    ).ready()
    daemon.until(lambda: daemon.service("migrate")["restarts"] >= 5, "five attempts")
    daemon.wait_state("gone", "inactive")
    assert daemon.service("web")["waiting-for"] == ["migrate"]
    assert daemon.service("other")["waiting-for"] == ["gone"]
    assert daemon.service("other")["current"] == "inactive"
    assert "gone" in daemon.cli("start", "other", check=False).stderr
    assert not (tmp_path / "web").exists()
    (tmp_path / "ready").touch()
    daemon.wait_state("web", "active")
    assert daemon.service("migrate")["current"] == "exited"
    assert (tmp_path / "web").read_text() == "up\n"
    assert not (tmp_path / "other").exists()


def chain() -> str:
    return plan(
        db={"command": "sleep 1000"},
        web={"command": "sleep 1000", "requires": ["db"]},
        front={"command": "sleep 1000", "requires": ["web"]},
        aside={"command": "sleep 1000", "after": ["db"]},
    )


def pids(daemon: Daemon) -> dict[str, int | None]:
    return {name: service["pid"] for name, service in daemon.services().items()}


def test_what_requires_a_stopped_one_is_stopped_first_and_comes_back_with_it(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(chain())
    for name in ("front", "aside"):
        daemon.wait_state(name, "active")
    aside = daemon.service("aside")["pid"]
    daemon.cli("stop", "db")
    assert {name: s["current"] for name, s in daemon.services().items()} == {
        "db": "inactive",
        "web": "inactive",
        "front": "inactive",
        "aside": "active",
    }
    stopped = [line.split()[3] for line in daemon.stderr.splitlines() if ": stopped: " in line]
    assert stopped == ["front:", "web:", "db:"]
    daemon.cli("start", "db")
    daemon.wait_state("front", "active")
    assert daemon.service("aside")["pid"] == aside
    # One that was stopped by hand does not come back by itself.
    daemon.cli("stop", "web")
    daemon.cli("stop", "db")
    daemon.cli("start", "db")
    assert {name for name, s in daemon.services().items() if s["current"] == "active"} == {"db", "aside"}


def test_a_restart_on_command_takes_what_requires_it_with_it_and_a_crash_does_not(
    vigild: Callable[..., Daemon],
) -> None:
    daemon = vigild(chain())
    for name in ("front", "aside"):
        daemon.wait_state(name, "active")
    before = pids(daemon)
    daemon.cli("restart", "db")
    after = pids(daemon)
    assert {name for name in after if after[name] != before[name]} == {"db", "web", "front"}
    assert None not in after.values()
    assert {service["restarts"] for service in daemon.services().values()} == {0}
    killed = after["db"]
    assert killed is not None
    daemon.kill(killed)
    daemon.until(lambda: daemon.service("db")["pid"] not in (None, killed), "db to be restarted")
    assert {name for name, pid in pids(daemon).items() if pid != after[name]} == {"db"}
    assert daemon.service("db")["restarts"] == 1


def test_a_command_sent_twice_with_one_key_is_done_once_though_control_is_killed_in_between(
    vigild: Callable[..., Daemon],
) -> None:
    daemon = vigild(plan(web={"command": "sleep 1000"}))
    first_pid = daemon.wait_state("web", "active")["pid"]
    body, key = {"action": "restart", "services": ["web"]}, {"Idempotency-Key": "once"}
    status, first = daemon.api("POST", "/v1/services", body, key)
    assert status == 202
    daemon.kill(daemon.only("vigil-control").pid)
    again = daemon.until(lambda: daemon.api("POST", "/v1/services", body, key), "an answer")
    assert (again[0], again[1]["change"]) == (202, first["change"])
    waited = daemon.api("GET", f"/v1/changes/{first['change']}/wait")[1]["result"]
    assert (waited["status"], waited["kind"]) == ("done", "restart")
    assert daemon.service("web")["pid"] != first_pid
    assert daemon.stderr.count("web: started") == 2
    refused = daemon.api("POST", "/v1/services", {"action": "stop", "services": ["web"]}, key)
    assert refused[0] == 409
    assert daemon.service("web")["current"] == "active"
