"""Poor surroundings: system calls that a kernel or a seccomp filter does not allow, and no /proc."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.init.pid1 import PYTHON, Control, Pid1, m
from tests.init.test_stop import DAEMON, GENERATIONS, POLITE_LEADER, REPARENTED, stands

# A classic BPF program: for each of these numbers the answer is this errno, else all is as usual.
# argv: errno numbers -- command
FILTER = """
import ctypes, os, struct, sys
at = sys.argv.index("--")
errno, numbers = int(sys.argv[1]), [int(n) for n in sys.argv[2:at]]
rows = [struct.pack("=HBBI", 0x20, 0, 0, 0)]
for i, number in enumerate(numbers):
    rows.append(struct.pack("=HBBI", 0x15, len(numbers) - i, 0, number))
rows += [struct.pack("=HBBI", 0x06, 0, 0, 0x7fff0000), struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | errno)]
code = ctypes.create_string_buffer(b"".join(rows))
program = struct.pack("=HxxxxxxQ", len(rows), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[at + 1], sys.argv[at + 1:])
"""
# Ends at SIGTERM, and so does the orphan that it left in a session of its own, which tells.
ORPHAN = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"told\\n"), os._exit(0)))
        os.write(1, b"stands\\n")
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"""
CLOSE_RANGE, PIDFD_OPEN, PIDFD_SEND_SIGNAL, SCHED_SETSCHEDULER = 436, 434, 424, 144
EPERM, ENOSYS = 1, 38


def without(error: int, *numbers: int) -> tuple[str, ...]:
    """Prefix of vigild that makes these system calls fail."""
    return (PYTHON, "-IS", "-c", FILTER, str(error), *map(str, numbers), "--")


def survivors(daemon: Pid1, control: Control) -> list[str]:
    """What is left in the namespace beside vigild and its helpers, seen from outside."""
    namespace = os.readlink(f"/proc/{daemon.pid}/ns/pid")
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == namespace:
                found.append((int(entry.name), (entry / "comm").read_text().strip()))
        except OSError:
            continue
    helpers = {daemon.pid, control.host}
    return [comm for pid, comm in found if pid not in helpers and comm != "vigil-logger"]


def empties(daemon: Pid1) -> None:
    """Trees of all kinds are emptied, descriptors are clean."""
    control = daemon.attached()
    for script in (DAEMON, POLITE_LEADER, GENERATIONS, REPARENTED):
        for _ in range(3):
            control.stop(stands(control, script, kill_delay=0.02))
            assert survivors(daemon, control) == []
    read, write = os.pipe()
    run = control.spawn(
        PYTHON,
        "-IS",
        "-c",
        "import os\n"
        "def there(fd):\n"
        "    try: return bool(os.fstat(fd))\n"
        "    except OSError: return False\n"
        "print([fd for fd in range(1024) if there(fd)], flush=True)",
        fds=(None, write, None),
    ).run
    os.close(write)
    with open(read, encoding="utf-8") as output:
        assert output.read() == "[0, 1, 2]\n"
    assert control.end(run).exit_code == 0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the filter are x86-64's")
@pytest.mark.parametrize("error", [EPERM, ENOSYS], ids=["EPERM", "ENOSYS"])
def test_newer_system_calls_are_not_needed(pid1: Callable[..., Pid1], error: int) -> None:
    refused = without(error, CLOSE_RANGE, PIDFD_OPEN, PIDFD_SEND_SIGNAL, SCHED_SETSCHEDULER)
    empties(pid1(prefix=refused))


@pytest.mark.plain
def test_proc_is_not_needed(pid1: Callable[..., Pid1], root: None) -> None:
    """The namespace's own /proc and the one below it are hidden under an empty folder."""
    hidden = ("/bin/sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    daemon = pid1(prefix=hidden)
    control = daemon.attached()
    assert control.welcome.no_proc
    for script in (DAEMON, POLITE_LEADER, REPARENTED, GENERATIONS):
        control.stop(stands(control, script, kill_delay=0.02))
        assert survivors(daemon, control) == []
    assert control.end(control.sh("exit 3").run).exit_code == 3


@pytest.mark.plain
def test_who_is_hidden_in_proc_is_told_to_stop_too(pid1: Callable[..., Pid1], root: None) -> None:
    """hidepid, and root without CAP_SYS_PTRACE, as in containers: /proc does not show other users' processes."""
    hidden = (
        "/bin/sh",
        "-c",
        'mount -o remount,hidepid=2,gid=54321 /proc && exec setpriv --bounding-set=-sys_ptrace "$@"',
        "sh",
    )
    control = pid1(prefix=hidden).attached()
    read, write = os.pipe()
    run = control.spawn(PYTHON, "-IS", "-c", ORPHAN, fds=(None, write, None), uid=61299, gid=61299).run
    os.close(write)
    with os.fdopen(read, "rb", 0) as output:
        assert output.readline() == b"stands\n"
        control.stop(run)
        assert output.read() == b"told\n"


def test_few_descriptors_are_refused_with_a_reason_and_nothing_else_suffers(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1(prefix=("/bin/sh", "-c", 'ulimit -n 200; exec "$@"', "sh"))
    control = daemon.attached()
    assert control.welcome.runs_max == (200 - 64) // 4
    kept = [control.spawn("sleep", "1000").run for _ in range(control.welcome.runs_max)]
    control.ask(control.spec("sleep", "1000"))
    assert control.expect(m.Refused).error == 28
    for run in kept:
        control.stop(run)
    assert control.end(control.sh("exit 3").run).exit_code == 3


def test_few_processes_are_a_shortage_and_pass(pid1: Callable[..., Pid1], root: None) -> None:
    """Under an unprivileged user with a small RLIMIT_NPROC, fork fails in PID 1 or the keeper, and is told so."""
    prefix = (
        PYTHON,
        "-IS",
        "-c",
        (
            "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NPROC, (30, 30)); os.setgroups([]);"
            " os.setgid(61299); os.setuid(61299); os.execv(sys.argv[1], sys.argv[1:])"
        ),
    )
    daemon = pid1(prefix=prefix, open_to_all=True)
    control = daemon.attached()
    started, failed = [], []
    for _ in range(40):
        spec = control.ask(control.spec("sleep", "1000"))
        answer = control.expect((m.Started, m.SpawnFailed), lambda a, t=spec.token: a.token == t)  # type: ignore[arg-type]
        (started if isinstance(answer, m.Started) else failed).append(answer)
    assert started
    assert failed
    assert all(failure.shortage for failure in failed)
    for one in started:
        control.stop(one.run)
    assert control.end(control.sh("exit 3").run).exit_code == 3


@pytest.mark.parametrize("away", ["file", "folder", "neither"])
def test_python_is_looked_for_beside_the_program_before_it_is_beside_a_link_to_it(
    vigild_binary: Path, tmp_path: Path, away: str
) -> None:
    """In /usr/local/bin, where people put links, there may be another python3."""
    for folder, code in (("own", 41), ("usual", 42)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "python3").write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / folder / "python3").chmod(0o755)
    shutil.copy(vigild_binary, tmp_path / "own" / "vigild")
    called = {"file": "usual/vigild", "folder": "opt/vigild", "neither": "own/vigild"}[away]
    (tmp_path / "usual" / "vigild").symlink_to("../own/vigild")
    (tmp_path / "opt").symlink_to("own")
    clean = {name: value for name, value in os.environ.items() if name != "VIGIL_PYTHON"}
    done = subprocess.run([tmp_path / called], env=clean, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 41, done.stderr
