"""The wrong moment: what comes in between, what is full, what hangs, what is missing just then."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.init.pid1 import PYTHON, Control, Pid1, lib, m, plain, wire
from tests.init.test_stop import stands

TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def fill(control: Control, message: bytes) -> None:
    """Send it again and again, until vigild takes no more for half a second."""
    control.link.settimeout(0.5)
    try:
        while True:
            control.link.send(message)
    except TimeoutError:
        pass


def ring(control: Control, name: str) -> None:
    """Make and park the log of a service."""
    from vigil._native import ffi

    fd = lib.ring_create(ffi.new("char[]", name.encode()), 1000, 1 << 20)
    assert fd >= 0
    control.send(wire.park(f"log/{name}"), [fd])
    os.close(fd)


# --- control ---


def test_what_a_control_sent_is_done_though_it_died_with_answers_unread(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    for _ in range(10):
        control = daemon.attached()
        known = {state.run for state in control.runs}
        first = control.ask(control.spec("sleep", "1000"))
        daemon.until(lambda: daemon.named("sleep"), "its start, of which STARTED waits unread")
        os.kill(daemon.pid, signal.SIGSTOP)
        tokens = {first.token} | {control.ask(control.spec("sleep", "1000")).token for _ in range(5)}
        control.link.close()
        daemon.kill_control(control)
        os.kill(daemon.pid, signal.SIGCONT)
        second = daemon.attached()
        assert {state.token for state in second.runs if state.run not in known} == tokens
        for state in second.runs:
            second.send(wire.stop(state.run))
        for state in second.runs:
            second.end(state.run)
        daemon.kill_control(second)


def test_answers_that_nobody_reads_cost_no_time(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    fill(control, plain(lib.VG_REEXEC))
    before = cpu(daemon.pid)
    time.sleep(1.5)
    assert cpu(daemon.pid) - before < 0.3
    refused = 0
    while not control.silent(m.Refused, 0.5):  # reading them, it goes on
        refused += 1
    assert refused > 100
    assert control.end(control.sh("exit 3").run).exit_code == 3


def test_what_an_ending_control_sends_costs_no_time(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    first = daemon.attached()
    program = daemon.folder / "python"  # the next one will not go at SIGTERM
    program.write_text(program.read_text().replace("SIG_DFL", "SIG_IGN"))
    daemon.kill_control(first)
    control = daemon.attached()
    daemon.signal(signal.SIGTERM)
    daemon.until(lambda: "stopping" in daemon.stderr, "the stop")
    control.send(wire.ready())
    before = cpu(daemon.pid)
    time.sleep(1.0)
    assert cpu(daemon.pid) - before < 0.2
    assert daemon.wait() == 0


def test_whoever_else_has_the_link_of_a_dead_control_holds_up_nothing(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    flood = os.fork()
    if flood == 0:
        while True:
            try:
                control.link.send(wire.ready())
            except OSError:
                os._exit(0)
    try:
        time.sleep(0.2)
        daemon.kill_control(control)
        second = daemon.attached()
        assert second.end(second.sh("exit 3").run).exit_code == 3
    finally:
        os.kill(flood, signal.SIGKILL)
        os.waitpid(flood, 0)


def test_a_control_that_died_just_before_a_stop_is_not_started_again(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    stands(
        control,
        "import os, signal, time; signal.signal(15, 1); os.write(1, b'stands\\n'); time.sleep(99)",
        kill_delay=1,
    )
    daemon.kill_control(control)
    daemon.until(lambda: "control was killed" in daemon.stderr, "its end")
    daemon.signal(signal.SIGTERM)  # within the 100 ms before the next life
    with pytest.raises(TimeoutError):
        daemon.control(timeout=0.6)
    assert daemon.wait() == 0


def test_a_delay_that_no_clock_holds_is_refused_and_a_budget_is_cut(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    hello = wire._new("struct vg_hello", lib.VG_HELLO)
    hello.version, hello.stop_budget_ms = lib.VG_PROTOCOL, (1 << 64) // 1_000_000 + 2
    control = daemon.control()
    control.send(wire._bytes(hello))
    control.expect(m.Welcome)
    control.send(wire.ready())
    run = stands(
        control, "import os, time\ntry:\n os.write(1, b'stands\\n'); time.sleep(99)\n"
        "except KeyboardInterrupt: time.sleep(1)",
        stop_signal=signal.SIGINT,
    )  # fmt: skip
    update = wire._about("struct vg_update_run", lib.VG_UPDATE, run)
    update.set, update.stop_signal, update.kill_delay_ms = lib.VG_UPDATE_STOP, 15, (1 << 64) // 1_000_000 + 1
    control.send(wire._bytes(update))
    assert control.expect(m.Refused).error == errno.EINVAL
    daemon.signal(signal.SIGTERM)
    exited = control.exited(run)
    assert (exited.exit_code, exited.signal) == (0, None)


def test_a_run_released_before_its_end_is_forgotten_though_control_died_meanwhile(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    deaf = f"{PYTHON} -IS -c 'import signal, time; signal.signal(15, 1); time.sleep(1)' & sleep 0.5; exit 3"
    run = control.sh(deaf, kill_delay=30).run
    control.exited(run)
    control.send(wire.release(run))
    daemon.kill_control(control)
    second = daemon.control()
    daemon.until(lambda: not daemon.named("vigil-keeper"), "its end")
    second.attach()
    assert second.runs == ()
    assert second.spawn("sleep", "1000").run.slot == run.slot


# --- helpers ---


def test_a_shortage_when_a_helper_is_to_be_started_makes_no_wait_longer(pid1: Callable[..., Pid1], root: None) -> None:
    daemon = pid1()
    control = daemon.attached()
    usual = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4, usual[1]))
    daemon.kill(daemon.only("vigil-logger").pid)
    time.sleep(2)  # 20 tries
    assert not daemon.named("vigil-logger")
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, usual)
    daemon.until(lambda: daemon.named("vigil-logger"), "logger", timeout=0.6)
    assert control.end(control.sh("exit 3").run).exit_code == 3
    daemon.until(lambda: daemon.stderr.count("cannot start logger") == 1, "one word about it")


# --- logger ---


def test_runs_that_come_and_go_without_logger_leave_descriptors_for_the_next_one(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1(prefix=("/bin/sh", "-c", 'ulimit -n 256; exec "$@"', "sh"))
    control = daemon.attached()
    ring(control, "web")
    logger = daemon.only("vigil-logger")
    daemon.kill(logger.pid, signal.SIGSTOP)
    failed = 0
    for _ in range(10):
        specs = [control.ask(control.spec("/bin/true", log="web", log_mode=m.LogMode.ENABLED)) for _ in range(40)]
        for spec in specs:
            answer = control.expect((m.Started, m.SpawnFailed), lambda a, t=spec.token: a.token == t)  # type: ignore[arg-type]
            if isinstance(answer, m.Started):
                control.end(answer.run)
            else:
                assert answer.shortage
                failed += 1
    assert failed
    daemon.until(lambda: [p for p in daemon.named("vigil-logger") if p.pid != logger.pid], "the next logger")
    daemon.until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) < 40, "what waited is taken")
    run = control.sh("echo it works", log="web", log_mode=m.LogMode.ENABLED).run
    assert control.end(run).exit_code == 0
    assert daemon.out is not None
    daemon.out.wait_for("it works")


def test_descriptors_in_flight_that_are_too_many_are_waited_for_without_spinning(
    pid1: Callable[..., Pid1], root: None
) -> None:
    """ETOOMANYREFS: counted over all processes of a user, so anybody else of that user can bring it about."""
    as_user = "import os, sys; os.setgroups([]); os.setgid(61298); os.setuid(61298)\n"
    daemon = pid1(
        prefix=(
            PYTHON, "-IS", "-c",
            "import resource; resource.setrlimit(7, (200, 200))\n" + as_user + "os.execv(sys.argv[1], sys.argv[1:])",
        ),
        open_to_all=True,
    )  # fmt: skip
    control = daemon.attached()
    ring(control, "web")
    run = control.spawn("sleep", "1000", log="web", log_mode=m.LogMode.ENABLED).run
    with subprocess.Popen(
        [
            PYTHON, "-IS", "-c",
            as_user + "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "for _ in range(3): socket.send_fds(a, [b'x'], [0] * 100)\nprint(flush=True)\nsys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        daemon.kill(daemon.only("vigil-logger").pid)
        time.sleep(0.3)
        before = cpu(daemon.pid)
        time.sleep(1.0)
        assert cpu(daemon.pid) - before < 0.2
        other.communicate()
    control.send(wire.stop(run))
    control.end(run)
    run = control.sh("echo it works", log="web", log_mode=m.LogMode.ENABLED).run
    control.end(run)
    assert daemon.out is not None
    daemon.out.wait_for("it works")


def test_a_stderr_that_is_full_does_not_keep_vigild_from_its_end(pid1: Callable[..., Pid1]) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while os.write(write, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(write, True)
    daemon = pid1(stderr=write)
    os.close(write)
    daemon.attached()
    daemon.kill(daemon.only("vigil-logger").pid, signal.SIGSTOP)
    for _ in range(4):
        daemon.signal(signal.SIGTERM)
        time.sleep(0.1)
    assert daemon.wait(10) == 0
    os.close(read)


# --- keepers ---


def test_a_signal_to_a_tree_that_is_being_emptied_does_not_harm_its_keeper(pid1: Callable[..., Pid1]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    daemon = pid1()
    control = daemon.attached()
    started = control.spawn("sleep", "1000", kill_delay=0)
    traced = daemon.host_pid(started.pid)
    # What is traced stays a zombie that its parent does not see: the emptying goes on and on.
    assert libc.ptrace(0x4206, traced, None, None) == 0, os.strerror(ctypes.get_errno())
    control.send(wire.stop(started.run))
    for _ in range(20):
        control.send(wire.signal(started.run, signal.SIGWINCH, m.Target.TREE))
        time.sleep(0.02)
    assert control.silent(m.Exited, 0.1)
    os.waitpid(traced, 0)
    assert not control.exited(started.run).keeper_lost
    assert not control.gone(started.run).keeper_lost


def test_50_keepers_killed_at_once_leave_nothing_of_theirs_and_touch_nothing_else(
    pid1: Callable[..., Pid1], need: Callable[..., None]
) -> None:
    need("nsenter")
    daemon = pid1()
    control = daemon.attached()
    tree = "(setsid sh -c 'sleep 1001 & sleep 1001' &) ; exec sleep 1001"
    doomed = [control.sh(tree, name=f"d{i}") for i in range(50)]
    kept = [control.spawn("sleep", "1002", name=f"k{i}") for i in range(50)]
    subprocess.run(
        ["nsenter", "-t", str(daemon.pid), "-p", "sh", "-c", "setsid sleep 1003 >/dev/null 2>&1 &"],
        check=True,
        timeout=30,
    )

    def count(what: str) -> int:
        return sum(p.args[-1:] == (what,) and p.comm == "sleep" for p in daemon.processes().values())

    daemon.until(lambda: count("1001") == 150 and count("1003") == 1, "all trees")
    helpers = control.pid, daemon.only("vigil-logger").pid
    namespace = os.readlink(f"/proc/{daemon.pid}/ns/pid")
    hosts = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == namespace:
                status = (entry / "status").read_text()
                hosts[int(status.partition("NSpid:")[2].partition("\n")[0].split()[-1])] = int(entry.name)
        except OSError:
            continue
    for run in doomed:
        os.kill(hosts[run.keeper], signal.SIGKILL)
    for run in doomed:
        assert control.exited(run.run).keeper_lost
        control.gone(run.run)
    assert (count("1001"), count("1002"), count("1003")) == (0, 50, 1)
    assert (control.pid, daemon.only("vigil-logger").pid) == helpers
    for run in kept:
        control.stop(run.run)


def test_500_keepers_killed_at_once_do_not_keep_vigild_busy(pid1: Callable[..., Pid1]) -> None:
    daemon = pid1()
    control = daemon.attached()
    runs = [control.spawn("sleep", "1000") for _ in range(500)]
    for run in runs:
        control.send(wire.signal(run.run, signal.SIGSTOP, m.Target.MAIN))
    daemon.until(lambda: sum(p.state == "T" for p in daemon.named("sleep")) == 500, "signals at work")
    keepers = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in keepers}
    before = cpu(daemon.pid)
    for pid, name in names.items():
        if name == "vigil-keeper":
            os.kill(int(pid), signal.SIGKILL)
    for run in runs:
        assert control.gone(run.run).keeper_lost
    assert cpu(daemon.pid) - before < 1.0


def test_a_vigild_that_has_a_tag_itself_spares_its_own_as_heir(pid1: Callable[..., Pid1]) -> None:
    """RLIMIT_LOCKS as another vigild's keeper would have set it: that of the first run of all."""
    tag = 1 << 62 | 1 << 16
    prefix = (
        PYTHON, "-IS", "-c",
        f"import os, resource, sys; resource.setrlimit(10, ({tag}, {tag})); os.execv(sys.argv[1], sys.argv[1:])",
    )  # fmt: skip
    daemon = pid1(prefix=prefix)
    control = daemon.attached()
    logger = daemon.only("vigil-logger").pid
    first = control.sh("(setsid sleep 1001 &) ; exec sleep 1001")
    assert (first.run.slot, first.run.generation) == (0, 1)
    bystander = control.spawn("sleep", "1002")
    daemon.kill(first.keeper)
    control.end(first.run)
    assert control.silent(m.Exited, 0.3)
    assert daemon.only("vigil-logger").pid == logger
    assert [p.args[-1] for p in daemon.named("sleep")] == ["1002"]
    control.stop(bystander.run)


def hangs(tmp_path: Path) -> tuple[Path, int]:
    """A command whose execve hangs until the descriptor is closed: somebody has a lease on the file."""
    command = tmp_path / "command"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", command)
    command.chmod(0o755)
    fd = os.open(command, os.O_WRONLY | os.O_CLOEXEC)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        pytest.skip(f"no leases here: {error}")
    return command, fd


@pytest.mark.parametrize("kill_delay", [0.1, None], ids=["short delay", "infinite delay"])
def test_a_run_whose_exec_hangs_can_be_stopped(
    pid1: Callable[..., Pid1], tmp_path: Path, kill_delay: float | None
) -> None:
    command, lease = hangs(tmp_path)
    daemon = pid1()
    control = daemon.attached()
    before = control.spawn("sleep", "1000")
    spec = control.ask(control.spec(str(command), "1000", kill_delay=kill_delay))
    daemon.until(lambda: len(daemon.named("vigil-keeper")) == 3, "keeper and child, in execve")
    assert control.silent(m.Started, 0.3)
    control.send(wire.stop(m.NO_RUN, spec.token))
    stopping = control.expect(m.Stopping)
    assert stopping.token == spec.token
    assert control.exited(stopping.run).asked
    control.gone(stopping.run)
    control.send(wire.release(stopping.run))
    assert len(daemon.named("vigil-keeper")) == 1
    control.stop(before.run)
    os.close(lease)


def test_a_whole_stop_waits_for_no_exec_that_hangs(pid1: Callable[..., Pid1], tmp_path: Path) -> None:
    command, lease = hangs(tmp_path)
    daemon = pid1()
    control = daemon.attached()
    control.ask(control.spec(str(command), "1000", kill_delay=None))
    daemon.until(lambda: len(daemon.named("vigil-keeper")) == 2, "keeper and child, in execve")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    os.close(lease)


def test_a_stop_by_token_of_no_run_is_refused(pid1: Callable[..., Pid1]) -> None:
    control = pid1().attached()
    control.send(wire.stop(m.NO_RUN, 12345))
    refused = control.expect(m.Refused)
    assert (refused.kind, refused.error, refused.token) == (lib.VG_STOP, errno.ESRCH, 12345)


# --- the loop ---


def test_a_death_that_comes_while_signals_are_read_is_not_left_until_the_next(
    pid1: Callable[..., Pid1], need: Callable[..., None]
) -> None:
    need("strace", "nsenter")
    daemon = pid1()
    daemon.attached()
    with subprocess.Popen(
        ["strace", "-q", "-p", str(daemon.pid), "-e", "trace=read", "-e", "inject=read:delay_enter=20000"],
        stderr=subprocess.DEVNULL,
    ) as tracer:
        try:
            time.sleep(0.3)
            longest = 0.0
            for _ in range(8):
                subprocess.run(
                    ["nsenter", "-t", str(daemon.pid), "-p", "sh", "-c", "sleep 0.3 & sleep 0.31 & sleep 0.32 &"],
                    check=True, timeout=30, stdout=subprocess.DEVNULL,
                )  # fmt: skip
                end, since = time.monotonic() + 1.0, 0.0
                while time.monotonic() < end:
                    zombies = [p for p in daemon.processes().values() if p.state == "Z"]
                    since = (since or time.monotonic()) if zombies else 0.0
                    longest = max(longest, time.monotonic() - since if since else 0.0)
                    time.sleep(0.01)
        finally:
            tracer.terminate()
    assert longest < 0.25
