"""500 checks, one a second each, http, tcp and exec mixed: what they cost control and PID 1, and how late they run.

The room of checks is driven directly: what vigild executes as control is this file, with the actors, the journal and
the link of the real one, and no API.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from peers import BenchError, Vigil

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
CONTROL = "#!/bin/sh\nexec {python} -I -S -c 'import sys; sys.path[:0] = {path}; import checks; checks.control()'\n"
KINDS = ("http", "tcp", "exec")


def serve(port_file: Path) -> None:
    """What is checked: answers whatever it is asked, in a process of its own."""

    class Answer(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
            self.transport.close()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Answer, "127.0.0.1", 0, backlog=4096)
        hanging = socket.create_server(("127.0.0.1", 0), backlog=4096)  # the kernel accepts, and nobody answers
        ports = [server.sockets[0].getsockname()[1], hanging.getsockname()[1]]
        port_file.with_suffix(".new").write_text(json.dumps(ports))
        port_file.with_suffix(".new").rename(port_file)
        await asyncio.Event().wait()

    asyncio.run(run())


class Control:
    """As much of the overlord as checks need: turns, one record in the journal for each, one alarm."""

    def __init__(self, setting: dict[str, Any]) -> None:
        from vigil.check.actor import Actor, Outside
        from vigil.check.events import Attached, Event
        from vigil.check.probes import Probes
        from vigil.journal.store import PARKED_AS, Store
        from vigil.plan.types import Check, ExecProbe, HttpProbe, TcpProbe
        from vigil.service.clock import LoopClock
        from vigil.shim.link import Link
        from vigil.shim.messages import Settings
        from vigil.shim.program import Programs, Tokens

        self.link, _, _ = Link.attach(3, Settings())
        self.store = Store.create("bench")
        self.link.park(PARKED_AS, self.store.fd)
        self.store.compact_with(self.link.try_park)
        self.clock = LoopClock()
        self.programs = Programs(self.link, Tokens())
        probes: dict[str, HttpProbe | TcpProbe | ExecProbe] = {
            "http": HttpProbe(url=f"http://127.0.0.1:{setting['ports'][0]}/"),
            "tcp": TcpProbe(host="127.0.0.1", port=setting["ports"][0]),
            "exec": ExecProbe(command=("/bin/true",)),
            "hang": HttpProbe(url=f"http://127.0.0.1:{setting['ports'][1]}/"),
        }
        outside = Outside(Probes(self.programs, {b"PATH": b"/bin"}), self.clock.soon, self.tell)
        count, kinds = setting["checks"], setting["kinds"]
        self.actors = [
            Actor(
                Check(
                    name=f"check-{n}",
                    delay=1.0,
                    period=setting["period"],
                    timeout=min(3.0, setting["period"]),
                    probe=probes[kinds[n % len(kinds)]],
                ),
                n,
                count,
                outside,
                None,
            )
            for n in range(count)
        ]
        self.inbox: deque[tuple[Actor, Event]] = deque((actor, Attached()) for actor in self.actors)
        self.alarms: list[tuple[int, int]] = []
        self.scheduled = False
        self.late: list[float] = []
        self.took: dict[str, list[float]] = {}
        self.results = {True: 0, False: 0}
        self.turns = 0

    def hear(self, message: Any) -> None:
        self.programs.handle(message)

    def tell(self, actor: Any, event: Any) -> None:
        self.inbox.append((actor, event))
        if not self.scheduled:
            self.scheduled = True
            self.clock.soon(self.turn)

    def turn(self) -> None:
        from vigil.check.events import Due

        self.scheduled = False
        self.turns += 1
        now, real = self.clock.monotonic_ns(), self.clock.realtime_ns()
        while self.alarms and self.alarms[0][0] <= now:
            due, place = heapq.heappop(self.alarms)
            if self.actors[place].deadline() == due:
                self.late.append((now - due) / 1e6)
                self.inbox.append((self.actors[place], Due()))
        moved = {}
        while self.inbox:
            actor, event = self.inbox.popleft()
            for report in actor.take(event, now, real, closing=False):
                self.results[report.ok] += 1
                kind = type(actor.check.probe).__name__
                self.took.setdefault(kind, []).append((now - report.began_ns) / 1e6)
            moved[actor.place] = actor
        writes: dict[str, bytes | None] = {f"check/{a.name}": a.record() for a in moved.values() if a.dirty}
        self.store.write(writes)
        for actor in moved.values():
            actor.dirty = False
            if actor.acting:
                actor.act()
            due = actor.deadline() or 0
            if due:
                heapq.heappush(self.alarms, (due, actor.place))
        self.clock.alarm(self.alarms[0][0] if self.alarms else None, self.turn)

    async def run(self, seconds: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        self.clock.bind(loop)
        self.link.listen(loop, self.hear)
        self.link.ready()
        gc.freeze()
        self.turn()
        await asyncio.sleep(3)  # all kinds are imported, all checks have run
        self.late.clear()
        self.took.clear()
        self.results = {True: 0, False: 0}
        lag = []
        began, spent, turns = time.monotonic(), time.process_time(), self.turns
        while time.monotonic() < began + seconds:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lag.append((time.monotonic() - before - 0.01) * 1e3)
        took = time.monotonic() - began
        return {
            "cpu": (time.process_time() - spent) / took * 100,
            "turns": (self.turns - turns) / took,
            "results": self.results,
            "seconds": took,
            "late": self.late,
            "took": self.took,
            "lag": lag,
            "rss": resident(),
            "threads": len(os.listdir("/proc/self/task")),
            "descriptors": len(os.listdir("/proc/self/fd")),
        }


def resident() -> float:
    """Megabytes of private and shared memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def control() -> None:
    setting = json.loads(Path(os.environ["VIGIL_BENCH"]).read_text())
    made = Control(setting)
    base = resident()
    result = asyncio.run(made.run(setting["seconds"]))
    result_file = Path(setting["result"])
    result_file.with_suffix(".new").write_text(json.dumps({**result, "base": base}))
    result_file.with_suffix(".new").rename(result_file)
    time.sleep(60)  # until it is killed with vigild


def cpu_of(pid: int) -> float:
    """Seconds of a process and of all that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(kinds: tuple[str, ...], chosen: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
        folder = Path(name)
        server = subprocess.Popen([sys.executable, __file__, "--serve", str(folder / "ports")])
        try:
            while not (folder / "ports").exists():
                time.sleep(0.01)
            setting = {
                "ports": json.loads((folder / "ports").read_text()),
                "checks": chosen.checks,
                "period": chosen.period,
                "seconds": chosen.seconds,
                "kinds": kinds,
                "result": str(folder / "result"),
            }
            (folder / "setting").write_text(json.dumps(setting))
            script = folder / "control"
            path = [str(Path(__file__).parent), *filter(None, sys.path)]
            script.write_text(CONTROL.format(python=sys.executable, path=json.dumps(path)))
            script.chmod(0o755)
            env = os.environ | {"VIGIL_PYTHON": str(script), "VIGIL_BENCH": str(folder / "setting")}
            command = [*NAMESPACE, str(Vigil().vigild)]
            vigild = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            pid1, spent = 0, [(0.0, 0.0)]
            while vigild.poll() is None and not (folder / "result").exists():
                time.sleep(0.05)
                children = Path(f"/proc/{vigild.pid}/task/{vigild.pid}/children").read_text().split()
                pid1 = int(children[0]) if children else pid1
                if pid1:
                    spent.append((time.monotonic(), cpu_of(pid1)))
                if len(spent) > (chosen.seconds + 60) / 0.05:
                    vigild.kill()
                    raise BenchError("control gave no result")
            spent = [each for each in spent if each[0] > spent[-1][0] - chosen.seconds]
            others = (spent[-1][1] - spent[0][1]) / (spent[-1][0] - spent[0][0]) * 100
            vigild.kill()
            vigild.wait(30)
            return {**json.loads((folder / "result").read_text()), "pid1": others}
        finally:
            server.kill()
            server.wait()


def at(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=500)
    parser.add_argument("--period", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", action="append", choices=("mixed", *KINDS, "hang"))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    if chosen.smoke:
        chosen.checks, chosen.seconds = 30, 1.0
    mixes: dict[str, tuple[str, ...]] = {"mixed": KINDS, **{kind: (kind,) for kind in KINDS}, "hang": ("hang", "tcp")}
    print(
        f"{chosen.checks} checks, each every {chosen.period:g} s, for {chosen.seconds:g} s; CPU in % of one processor"
    )
    print("late: from when it was due to when its probe began; lag: of control's loop; took: a probe\n")
    head = f"{'':6} {'probes/s':>8} {'control':>8} {'PID 1+':>7} {'ms each':>8} {'late p50':>9} {'p99':>6} {'max':>7}"
    print(f"{head} {'lag p99':>8} {'took p50':>9} {'p99':>7} {'memory':>12} {'threads':>8} {'fds':>4}")
    for name, kinds in mixes.items():
        if chosen.only and name not in chosen.only:
            continue
        found = measure(kinds, chosen)
        rate = sum(found["results"].values()) / found["seconds"]
        took = [each for values in found["took"].values() for each in values]
        print(
            f"{name:6} {rate:8.0f} {found['cpu']:7.1f}% {found['pid1']:6.1f}% {found['cpu'] * 10 / max(rate, 1):8.2f}"
            f" {statistics.median(found['late']):7.1f}ms {at(found['late'], 0.99):6.1f} {max(found['late']):7.1f}"
            f" {at(found['lag'], 0.99):6.1f}ms {statistics.median(took):7.1f}ms {at(took, 0.99):7.1f}"
            f" {found['base']:4.0f} ->{found['rss']:4.0f}MB {found['threads']:8} {found['descriptors']:4}",
            flush=True,
        )


if __name__ == "__main__":
    main()
