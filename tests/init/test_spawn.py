"""A child starts clean, and exactly as asked."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.init.pid1 import PYTHON, Control, Pid1, lib, m, plain, wire

LOOK = """
import json, os, resource, signal
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
print(json.dumps({
    "fds": [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")],
    "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16), "caught": int(status["SigCgt"], 16),
    "session": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpid(),
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
    "umask": status["Umask"], "nice": os.nice(0), "cwd": os.getcwd(),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "oom": open("/proc/self/oom_score_adj").read().strip(), "environ": dict(os.environ), "argv": os.sys.argv,
    "rights": [int(status[field], 16) for field in ("CapPrm", "CapEff", "CapAmb")],
    "stdin": os.readlink("/proc/self/fd/0"), "parent": open(f"/proc/{os.getppid()}/comm").read().strip(),
}), flush=True)
"""


def look(control: Control, *argv: str, **more: Any) -> dict[str, Any]:
    """What a child sees of itself."""
    read, write = os.pipe()
    control.end(control.spawn(PYTHON, "-IS", "-c", LOOK, *argv, fds=(None, write, None), **more).run)
    os.close(write)
    with open(read, "rb") as output:
        return msgspec.json.decode(output.read())


def test_a_child_has_nothing_but_what_was_meant_for_it(pid1: Callable[..., Pid1], tmp_path: Path) -> None:
    # vigild is started with a blocked and an ignored signal, and descriptors that are not close-on-exec.
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    prefix = (PYTHON, "-c", ("import os, signal, sys; signal.signal(signal.SIGUSR1, signal.SIG_IGN);"
              " signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
              " signal.pthread_sigmask(0, [signal.SIGHUP, signal.SIGCHLD]);"
              " os.dup2(0, 77); os.execv(sys.argv[1], sys.argv[1:])"))  # fmt: skip
    child = look(pid1(prefix=prefix).attached())
    os.close(leak)
    assert child["fds"] == [0, 1, 2]
    # Python itself ignores SIGPIPE and SIGXFSZ and catches SIGINT.
    assert child["ignored"] & ~(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
    assert child["blocked"] == 0
    assert child["session"]
    assert child["group"]
    assert child["parent"] == "vigil-keeper"
    assert child["stdin"] == "/dev/null"
    assert child["cwd"] == "/"
    assert child["nofile"] == list(resource.getrlimit(resource.RLIMIT_NOFILE))
    assert child["oom"] == Path("/proc/self/oom_score_adj").read_text().strip()


def test_a_child_is_as_asked(pid1: Callable[..., Pid1], root: None) -> None:
    child = look(
        pid1().attached(), "a b", "", "é",
        uid=61234, gid=61235, groups=(61236, 61237), umask=0o27, nice=5, oom_score_adj=321, cwd="/usr",
        limits=((resource.RLIMIT_NOFILE, 100, 200), (resource.RLIMIT_CORE, 0, 0)), env={"A": "1", "B": "x=y"},
    )  # fmt: skip
    assert (child["uid"], child["gid"], child["groups"]) == ([61234] * 3, [61235] * 3, [61236, 61237])
    assert (child["umask"], child["nice"], child["oom"], child["cwd"]) == ("0027", 5, "321", "/usr")
    assert (child["nofile"], child["core"]) == ([100, 200], [0, 0])
    assert child["argv"] == ["-c", "a b", "", "é"]
    assert {k: v for k, v in child["environ"].items() if k != "LC_CTYPE"} == {"A": "1", "B": "x=y"}


def test_a_user_without_groups_has_none_of_roots(pid1: Callable[..., Pid1], root: None) -> None:
    assert look(pid1().attached(), uid=61234, gid=61234, groups=())["groups"] == []


@pytest.mark.parametrize("other", [True, False])
def test_what_an_ordinary_user_that_is_vigild_may_do_goes_with_the_user(
    pid1: Callable[..., Pid1], root: None, other: bool
) -> None:
    # CAP_SETGID and CAP_SETUID as ambient capabilities: what lets a vigild that is not root start services as others.
    ambient = """
import ctypes, os, sys
libc, rights = ctypes.CDLL(None), 1 << 6 | 1 << 7
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([])
os.setgid(61298)
os.setuid(61298)
assert libc.capset((ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)(rights, rights, rights, 0, 0, 0)) == 0
assert libc.prctl(47, 2, 6, 0, 0) == libc.prctl(47, 2, 7, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE
os.execv(sys.argv[1], sys.argv[1:])
"""
    uid = 61234 if other else 61298
    child = look(pid1(prefix=(PYTHON, "-c", ambient), open_to_all=True).attached(), uid=uid, gid=61235, groups=())
    assert (child["uid"], child["gid"]) == ([uid] * 3, [61235] * 3)
    assert child["rights"] == [0 if other else 1 << 6 | 1 << 7] * 3


def test_a_command_is_looked_up_in_its_own_path(pid1: Callable[..., Pid1], tmp_path: Path) -> None:
    control = pid1().attached()
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nexit 5\n")
    tool.chmod(0o755)
    assert control.end(control.spawn("tool", env={"PATH": f"/nowhere:{tmp_path}"}).run).exit_code == 5
    tool.chmod(0o644)
    control.ask(control.spec("tool", env={"PATH": f"/nowhere:{tmp_path}"}))
    assert control.expect(m.SpawnFailed).describe("tool") == "exec tool: Permission denied"
    tool.write_text("#!/no/such/interpreter\n")
    tool.chmod(0o755)
    control.ask(control.spec(str(tool)))
    failed = control.expect(m.SpawnFailed)
    assert (failed.step, failed.exit_code) == (m.Step.INTERPRETER, 126)


@pytest.mark.parametrize(
    ("more", "step"),
    [
        ({"cwd": "/nowhere"}, m.Step.CHDIR),
        ({"limits": ((resource.RLIMIT_NOFILE, 10, 5),)}, m.Step.LIMIT),
        ({"oom_score_adj": 5000}, m.Step.OOM),
    ],
)
def test_a_step_that_fails_is_named_and_leaves_nothing_open(
    pid1: Callable[..., Pid1], more: dict[str, Any], step: m.Step
) -> None:
    daemon = pid1()
    control = daemon.attached()
    before = descriptors(daemon, 1)
    for _ in range(20):
        control.ask(control.spec("/bin/true", **more))
        failed = control.expect(m.SpawnFailed)
        assert failed.step is step
        control.send(wire.release(failed.run))
    settle(control)
    assert descriptors(daemon, 1) == before
    daemon.until(lambda: not daemon.named("vigil-keeper"), "no keeper")


def descriptors(daemon: Pid1, pid: int) -> list[str]:
    """What a process has open, without the numbers of inodes."""
    folder = Path(f"/proc/{daemon.host_pid(pid)}/fd")
    return sorted(re.sub(r"[:\[]+[0-9]+\]", "", os.readlink(fd)) for fd in folder.iterdir())


def settle(control: Control) -> None:
    """Return once PID 1 has dealt with all that was sent."""
    control.send(plain(lib.VG_REEXEC))
    control.expect(m.Refused, lambda r: r.kind == lib.VG_REEXEC)


def test_descriptors_are_counted_and_stay_what_they_are(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    started = control.spawn("sleep", "1000")
    assert descriptors(daemon, started.keeper) == ["anon_inode:[eventfd]"]
    logger = daemon.only("vigil-logger").pid
    before = descriptors(daemon, 1), descriptors(daemon, logger)
    assert before[0].count("socket") == 2, "one link to control, one to logger"
    assert before[0].count("anon_inode:[signalfd]") == before[0].count("anon_inode:[timerfd]") == 1
    ring = control.parked["log/vigild"]
    control.send(wire.park("log/web"), [ring])
    for _ in range(1000):
        control.end(control.spawn("/bin/true", log_mode=m.LogMode.ENABLED, log="web").run)
    control.send(wire.unpark("log/web"))
    settle(control)
    daemon.until(lambda: (descriptors(daemon, 1), descriptors(daemon, logger)) == before, "the descriptors of before")


def test_a_large_environment_is_started_and_a_too_large_one_is_said(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    half = {f"V{i}": "x" * 100_000 for i in range(15)}
    run = control.spawn("/bin/sh", "-c", "exit ${#V14}", env=half).run
    assert control.end(run).exit_code == 100_000 % 256
    control.ask(control.spec("/bin/true", env={f"V{i}": "x" * 100_000 for i in range(70)}))
    assert control.expect(m.SpawnFailed).describe("/bin/true") == "exec /bin/true: Argument list too long"


def test_forwarded_signals_reach_the_main_process_of_those_that_want_them(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    script = "trap 'exit 11' HUP; trap 'exit 12' USR1; echo; while :; do sleep 0.05; done"
    runs = []
    for forward in ({signal.SIGHUP}, {signal.SIGUSR1}, set[int]()):
        read, write = os.pipe()
        runs.append(control.sh(script, forward=frozenset(int(s) for s in forward), fds=(None, write, None)).run)
        os.read(read, 1)
        os.close(read)
        os.close(write)
    daemon.signal(signal.SIGHUP)
    assert control.expect(m.Signalled).numbers == {signal.SIGHUP}
    assert control.end(runs[0]).exit_code == 11
    daemon.signal(signal.SIGUSR1)
    assert control.end(runs[1]).exit_code == 12
    assert control.stop(runs[2]).signal == signal.SIGTERM


def test_a_signal_reaches_its_target(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    read, write = os.pipe()
    run = control.sh("trap 'exit 3' USR2; echo; while :; do sleep 0.05; done", fds=(None, write, None)).run
    os.read(read, 1)
    control.send(wire.signal(run, signal.SIGUSR2, m.Target.MAIN))
    assert control.end(run).exit_code == 3
    os.close(read)
    os.close(write)


def test_10_000_quick_exits_of_50_runs_each_come_once_with_their_code(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    seen = []
    want = {}
    sent = 0
    while len(seen) < 10_000:
        while sent < 10_000 and sent - len(seen) < 50:
            spec = control.ask(control.spec("/bin/sh", "-c", f"exit {sent % 256}"))
            want[spec.token] = sent % 256
            sent += 1
        exited = control.expect(m.Exited)
        assert exited.exit_code == want[exited.token]
        seen.append(exited.token)
        control.send(wire.release(exited.run))
        control._early = [e for e in control._early if isinstance(e, m.Exited)]
    assert len(set(seen)) == 10_000
