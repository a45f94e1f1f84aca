"""Exec probes through the built PID 1: killed in time with all they left, whether control works, hangs or is dead."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from pathlib import Path

import pytest

from tests.channel.worlds import LIMIT, RealWorld, start
from vigil._native import lib
from vigil.check.execute import Executor
from vigil.check.outcome import Probed
from vigil.plan.types import Check, Credentials, ExecProbe
from vigil.shim.messages import Gone, Refused, RunKind, RunPhase
from vigil.shim.program import Programs, Tokens

pytestmark = pytest.mark.pid1

# A tree that one signal does not end: a child in a session of its own, a daemon that has left its parents, and a main
# process that ignores the stop signal. Sleeps of this many seconds are nobody else's.
NUMBER = 86_000
TREE = f"""
trap '' TERM HUP
setsid sleep {NUMBER} &
(setsid sleep {NUMBER} &)
echo begun
while :; do sleep {NUMBER}; done
"""


class Prober:
    """A control that runs exec probes."""

    def __init__(self, real):
        self.real = real
        self.control = real.attach()
        self.link = self.control.link
        self.programs = Programs(self.link, Tokens())
        self.others = self.control.messages
        self.executor = Executor(self.programs, {b"PATH": os.environb[b"PATH"]})
        self.link.listen(
            self.control.loop, lambda message: self.programs.handle(message) or self.others.append(message)
        )

    def check(self, script, name="probe", timeout=LIMIT, **more):
        return Check(name=name, timeout=timeout, probe=ExecProbe(command=("sh", "-c", script), **more))

    def begin(self, script, **more):
        """A probe under way."""
        check = self.check(script, **more)
        return self.control.loop.create_task(self.executor.probe(check, check.probe))

    def end(self, *tasks):
        done = self.control.loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks), 3 * LIMIT))
        return done[0] if len(done) == 1 else done

    def run(self, script, **more):
        return self.end(self.begin(script, **more))

    def die(self):
        """With all that it was doing; nobody is told."""
        self.link.close()
        tasks = asyncio.all_tasks(self.control.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.control.loop.run_until_complete(asyncio.wait(tasks))
        self.real.die(self.control)

    def sleeps(self):
        """What a probe has left, seen by nobody's help but the kernel's."""
        found = self.real.daemon.processes().values()
        return [p.pid for p in found if str(NUMBER) in p.args or p.comm == "vigil-keeper" or p.state == "Z"]

    def wait_empty(self, seconds=LIMIT):
        """control does nothing meanwhile: its loop stands still, as it does in a control that hangs."""
        end = time.monotonic() + seconds
        while self.sleeps():
            assert time.monotonic() < end, list(self.real.daemon.processes().values())
            time.sleep(0.02)


@pytest.fixture
def prober(real):
    return Prober(real)


def descriptors(real: RealWorld) -> int:
    return len(os.listdir(f"/proc/{real.daemon.pid}/fd"))


def control_of(real: RealWorld) -> int:
    """The process that vigild takes for control, as the test sees it."""
    children = Path(f"/proc/{real.daemon.pid}/task/{real.daemon.pid}/children").read_text().split()
    return next(int(pid) for pid in children if "control" in Path(f"/proc/{pid}/cmdline").read_text())


def test_an_exit_code_the_last_lines_and_a_command_that_is_not_there(prober):
    assert prober.run("exit 0") == Probed(True)
    assert prober.run("echo one; echo two >&2; exit 3") == Probed(False, "exited with code 3: one | two")
    check = Check(name="a", probe=ExecProbe(command=("/nope",)))
    task = prober.control.loop.create_task(prober.executor.probe(check, check.probe))
    assert prober.end(task) == Probed(False, "exec /nope: No such file or directory")
    check = Check(name="a", probe=ExecProbe(command=("true",), working_dir="/nope"))
    task = prober.control.loop.create_task(prober.executor.probe(check, check.probe))
    assert prober.end(task) == Probed(False, "working-dir /nope: No such file or directory")


def test_a_user_of_its_own_can_write_to_its_output(prober, root):
    user = Credentials(uid=65534, gid=65534, groups=(65534,), home="/", name="nobody")
    assert prober.run("echo $USER:$HOME $(id -u) > /dev/stderr; exit 1", user=user).reason == (
        "exited with code 1: nobody:/ 65534"
    )


def test_at_its_deadline_it_is_killed_with_its_tree(prober):
    began = time.monotonic()
    assert prober.run(TREE, timeout=0.5) == Probed(False, "not ended within 500ms: begun")
    assert 0.5 <= time.monotonic() - began < 5
    prober.wait_empty()


def test_one_that_has_stopped_itself_is_killed_too(prober):
    assert prober.run("kill -STOP $$", timeout=0.5).reason.startswith("not ended within 500ms")
    prober.wait_empty()


def test_an_exit_code_0_counts_only_in_time(prober):
    assert prober.run("trap 'exit 0' TERM; while :; do :; done", timeout=0.3) == Probed(False, "not ended within 300ms")


def test_what_stays_behind_delays_nothing_and_changes_nothing(prober):
    began = time.monotonic()
    assert prober.run(f"setsid sh -c 'trap \"\" TERM; sleep {NUMBER}' & exit 0", timeout=LIMIT) == Probed(True)
    assert time.monotonic() - began < 5
    prober.wait_empty()


def test_the_deadline_holds_while_control_hangs(prober, real):
    service = start(real, prober.control, real.service(1))
    tasks = [prober.begin(TREE, name=str(n), timeout=1.0) for n in range(10)]
    prober.control.until(lambda: len(prober.sleeps()) >= 40, "the trees")
    stopped = control_of(real)
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    end = began + LIMIT
    while [p for p in real.daemon.processes().values() if str(NUMBER) in p.args]:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert time.monotonic() - began < 5
    os.kill(stopped, signal.SIGCONT)
    assert [result.reason for result in prober.end(*tasks)] == ["not ended within 1s: begun"] * 10
    assert len(prober.others) == 1  # Started of the service, which nothing happened to
    real.exit(prober.control, service)


def test_with_control_its_probes_end_and_with_them_all_they_left(prober, real):
    prober.link.ready()
    service = start(real, prober.control, real.service(1))
    for n in range(10):
        prober.begin(TREE, name=str(n), timeout=LIMIT)
    prober.control.until(lambda: len(prober.sleeps()) >= 40, "the trees")
    prober.die()
    after = real.attach()
    # The new control is told of them, and vigild forgets them once they are released.
    probes = {run.run: run for run in after.snapshot.runs if run.kind is RunKind.PROBE}
    assert len(probes) == 10
    assert all(run.ephemeral and run.stopping and run.asked for run in probes.values())
    assert [run.state for run in after.snapshot.runs if run.run == service] == [RunPhase.RUNNING]
    after.until(lambda: len([p for p in real.daemon.processes().values() if p.comm == "vigil-keeper"]) == 1, "the end")
    assert not [p for p in real.daemon.processes().values() if str(NUMBER) in p.args]
    for run in probes:
        after.link.release(run)
    after.link.ready()
    after.turn(0.1)
    real.die(after)
    assert [run.run for run in real.attach().snapshot.runs] == [service]


def test_those_that_control_asked_for_last_end_with_it_too(prober, real):
    """SPAWNs that vigild reads when it knows already that control is dead."""
    prober.link.ready()
    for n in range(20):
        prober.begin(TREE, name=str(n), timeout=LIMIT)
    prober.control.turn(0)
    prober.die()
    after = real.attach()
    after.until(lambda: not [p for p in real.daemon.processes().values() if str(NUMBER) in p.args], "the end")
    after.until(lambda: not [p for p in real.daemon.processes().values() if p.comm == "vigil-keeper"], "the keepers")
    assert len(after.snapshot.runs) == 20


def test_a_deadline_that_has_passed_already(prober):
    assert prober.run(f"sleep {NUMBER}", timeout=0.0) == Probed(False, "not ended within 0s")
    prober.wait_empty()


def test_a_killed_keeper_takes_its_probe_along(prober, real):
    task = prober.begin(TREE, timeout=LIMIT)
    prober.control.until(lambda: len(prober.sleeps()) >= 4, "the tree")
    keeper = next(p.pid for p in real.daemon.processes().values() if p.comm == "vigil-keeper")
    real.daemon.kill(keeper)
    assert prober.end(task) == Probed(False, "killed by SIGKILL: begun")
    prober.wait_empty()


def test_a_probe_that_is_not_wanted_any_more_is_killed(prober):
    task = prober.begin(TREE, timeout=LIMIT)
    prober.control.until(lambda: len(prober.sleeps()) >= 4, "the tree")
    task.cancel()
    prober.control.until(lambda: not prober.sleeps(), "the end")


def test_two_hundred_a_second_leave_nothing(prober, real):
    prober.link.ready()
    prober.run("exit 0")  # what is made once is there
    before, mine = descriptors(real), len(os.listdir("/proc/self/fd"))
    results = []

    async def three_seconds():
        loop = asyncio.get_running_loop()
        began, tasks = loop.time(), []
        for n in range(600):
            await asyncio.sleep(max(0.0, began + n / 200 - loop.time()))
            script = ("exit 0", "exit 7", f"setsid sleep {NUMBER} & exit 0")[n % 3]
            check = prober.check(script, name=str(n), timeout=10.0)
            tasks.append(loop.create_task(prober.executor.probe(check, check.probe)))
        results.extend(await asyncio.gather(*tasks))

    prober.control.loop.run_until_complete(asyncio.wait_for(three_seconds(), 4 * LIMIT))
    assert [result.ok for result in results] == [True, False, True] * 200
    prober.control.until(lambda: not prober.sleeps(), "the end of all")
    assert prober.programs.running == 0
    assert len(os.listdir("/proc/self/fd")) == mine
    prober.control.until(lambda: descriptors(real) <= before, "vigild's descriptors")
    assert prober.others == []
    prober.die()
    assert real.attach().snapshot.runs == ()


def test_where_all_slots_are_taken_it_is_not_the_checks_failure(vigild, tmp_path_factory):
    def few(*args, **more):
        return vigild(*args, prefix=("prlimit", "--nofile=84:84"), **more)

    real = RealWorld(few, tmp_path_factory.mktemp("c"))
    try:
        prober = Prober(real)
        most = prober.control.welcome.runs_max
        assert most < 100
        held = [start(real, prober.control, real.service(n + 1, f"s{n}")) for n in range(most)]
        assert prober.run("exit 0") == Probed(False, "all slots for runs are taken", short=True)
        assert not [m for m in prober.others if isinstance(m, Refused)]
        prober.link.stop(held[0])
        prober.control.until(lambda: any(type(m).__name__ == "Gone" for m in prober.others), "room")
        prober.link.release(held[0])
        assert prober.run("exit 0") == Probed(True)
    finally:
        real.close()


def test_a_fork_that_fails_is_not_the_checks_failure(prober):
    """What vigild says then, since no test may take a machine's last process."""
    from vigil.shim.messages import NO_RUN, SpawnFailed, Step

    class Short:
        def spawn(self, spec):
            failed = SpawnFailed(run=NO_RUN, token=spec.token, step=Step.FORK, error=errno.EAGAIN)
            prober.control.loop.call_soon(programs.handle, failed)

    programs = Programs(Short(), Tokens())
    check = prober.check("exit 0")
    executor = Executor(programs, {})
    task = prober.control.loop.create_task(executor.probe(check, check.probe))
    assert prober.end(task) == Probed(False, "fork of the keeper: Resource temporarily unavailable", short=True)
    assert lib.VG_STEP_FORK == Step.FORK


def test_control_killed_at_any_moment_among_a_hundred_probes_a_second(real):
    """Lives of control that end with probes at every stage; the next one releases what it is told of."""
    import random

    dice = random.Random(7)
    scripts = (
        "exit 0",
        "exit 1",
        TREE,
        f"setsid sleep {NUMBER} & exit 0",
        "/nope",
        f"(setsid sleep {NUMBER} &) ; kill $$",
    )
    for _ in range(25):
        prober = Prober(real)
        prober.link.ready()
        for run in prober.control.snapshot.runs:
            assert (run.kind, run.ephemeral) == (RunKind.PROBE, True)
        left = {run.run for run in prober.control.snapshot.runs if run.state not in (RunPhase.GONE, RunPhase.FAILED)}
        for run in prober.control.snapshot.runs:
            if run.run not in left:
                prober.link.release(run.run)
        end = time.monotonic() + dice.uniform(0.0, 0.3)
        n = 0
        while time.monotonic() < end:
            prober.begin(dice.choice(scripts), name=str(n), timeout=dice.choice((0.05, 10.0)))
            n += 1
            prober.control.turn(0.01)
            for message in [m for m in prober.others if isinstance(m, Gone) and m.run in left]:
                left.discard(message.run)
                prober.link.release(message.run)
        prober.die()
    last = Prober(real)
    last.link.ready()
    last.wait_empty()
    for run in last.control.snapshot.runs:
        last.link.release(run.run)
    last.control.turn(0.2)
    last.die()
    assert real.attach().snapshot.runs == ()
