"""Kills under load: logger and control are SIGKILLed again and again while services write, and nothing may be lost.

    python -m tests.chaos.kill --kills 2000 --seed 1

20 services write numbered lines, 12 MB/s together. Each kill comes 0 to 5 ms after the successor's first sign of life:
for logger the first byte it forwarded, for control its first API answer. With every tenth kill of control a stop, a
start and a restart are asked for just before. Afterwards: the same pids, no restart counted, every line once and in
order on stdout, the unbroken end of it in the logs, and each command carried out exactly once. Prints what it did;
exits with 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import json
import mmap
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.daemon import Daemon

HERE = Path(__file__).resolve().parent
SERVICES = 20
RATE = 600_000  # bytes a second and service
LIMIT = 60.0
COMMANDED = ("c-stop", "c-start", "c-restart")
T = TypeVar("T")


def until(holds: Callable[[], T | None], what: str) -> T:
    """Ask until the answer is true."""
    end = time.monotonic() + LIMIT
    while not (answer := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {LIMIT} s for {what}")
        time.sleep(0.0002)
    return answer


class World:
    """vigild, its writers and the checker behind its stdout."""

    def __init__(self, folder: Path, binary: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        load = folder / "load"
        subprocess.run(["cc", "-O2", "-o", str(load), str(HERE / "load.c")], check=True)
        shared = folder / "shared"
        shared.write_bytes(bytes(24))
        with shared.open("r+b") as file:
            self.shared = mmap.mmap(file.fileno(), 24)
        self.pipe, write = os.pipe()
        self.checker = subprocess.Popen(
            [str(load), "check", str(shared), str(SERVICES)], stdin=self.pipe, stdout=subprocess.PIPE, text=True
        )
        self.daemon = Daemon(binary, folder, self.plan(load), stdout=write)
        os.close(write)
        self.daemon.ready()
        self.pids = {name: self.daemon.wait_state(name, "active")["pid"] for name in self.writers}
        self.daemon.wait_state("c-stop", "active")
        self.daemon.wait_state("c-restart", "active")
        self.logger_kills = self.control_kills = self.commands = 0
        self.control_seen = self.daemon.only("vigil-control").pid
        self.wanted = {name: 1 if name != "c-start" else 0 for name in COMMANDED}

    writers = tuple(f"s{i:02}" for i in range(SERVICES))

    def plan(self, load: Path) -> str:
        """Twenty writers, and three services for commands, which note each of their starts."""
        lines = ["services:"]
        lines.extend(
            f"  {name}: {{startup: enabled, command: [{load}, write, '{RATE}', {self.folder}/{name}]}}"
            for name in self.writers
        )
        for name in COMMANDED:
            startup = "disabled" if name == "c-start" else "enabled"
            lines.append(
                f"  {name}: {{startup: {startup}, command: [/bin/sh, -c,"
                f" 'echo started >>{self.folder}/{name}; exec sleep 100000']}}"
            )
        return "\n".join(lines) + "\n"

    @property
    def taken(self) -> tuple[int, int, int]:
        """Bytes and lines that the checker took, and faults it found."""
        return struct.unpack("=QQQ", self.shared[:24])

    def in_pipe(self) -> int:
        """Bytes in the pipe behind vigild's stdout."""
        return int(struct.unpack("=i", fcntl.ioctl(self.pipe, termios.FIONREAD, bytes(4)))[0])

    def child(self, comm: str, other_than: int) -> int | None:
        """Host pid of a child of vigild by its name."""
        children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split()
        for pid in reversed(children):
            try:
                if int(pid) != other_than and Path(f"/proc/{pid}/comm").read_text() == comm + "\n":
                    return int(pid)
            except OSError:
                continue
        return None

    def phase(self) -> None:
        """Wait 0 to 5 ms."""
        end = time.perf_counter() + self.dice.uniform(0, 0.005)
        while time.perf_counter() < end:
            pass

    def kill_logger(self) -> None:
        """One kill, and the wait for the successor's first forwarded byte."""
        logger = until(lambda: self.child("vigil-logger", 0), "a logger")
        self.phase()
        os.kill(logger, 9)
        self.logger_kills += 1
        until(lambda: self.child("vigil-logger", logger), "the next logger")
        # The dead one forwards nothing more: what it forwarded was taken or is in the pipe. (Counts only grow, in this
        # order.)
        mark = self.taken[0] + self.in_pipe()
        until(
            lambda: self.taken[0] + self.in_pipe() > mark + 131072 or self.taken[0] > mark, "a line of the next logger"
        )

    def kill_control(self) -> None:
        """One kill, and the wait for the successor's first answer."""
        control = until(lambda: self.child("vigil-control", 0), "a control")
        self.phase()
        command = self.control_kills % 10 == 9
        if command:
            self.command(control)
        else:
            os.kill(control, 9)
        self.control_kills += 1
        until(lambda: self.child("vigil-control", control), "the next control")
        until(self.daemon._answers, "an answer of the next control")
        if command:
            self.check_commands()

    # Commands.

    def post(self, action: str, service: str, key: str) -> tuple[int, dict[str, Any]]:
        """POST /v1/services."""
        return self.daemon.api(
            "POST", "/v1/services", {"action": action, "services": [service]}, {"Idempotency-Key": key}
        )

    def command(self, control: int) -> None:
        """Ask for a stop, a start and a restart, and kill control at a moment in which it has them or not."""
        self.asked = [("stop", "c-stop"), ("start", "c-start"), ("restart", "c-restart")]
        self.key = f"kill-{self.control_kills}"
        open_sockets = []
        for action, service in self.asked:
            body = json.dumps({"action": action, "services": [service]}).encode()
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self.daemon.socket))
            connection.sendall(
                b"POST /v1/services HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Idempotency-Key: %s-%s\r\nContent-Length: %d\r\n\r\n%s"
                % (self.key.encode(), action.encode(), len(body), body)
            )
            open_sockets.append(connection)
        end = time.perf_counter() + self.dice.uniform(0, 0.01)
        while time.perf_counter() < end:
            pass
        os.kill(control, 9)
        for connection in open_sockets:
            connection.close()

    def check_commands(self) -> None:
        """Ask again with the same keys, as the CLI does, and see each done once; then put things back."""
        for action, service in self.asked:
            status, answer = self.post(action, service, f"{self.key}-{action}")
            assert status == 202, answer
            change = self.finished(answer["change"])
            assert change["status"] == "done", change
            self.commands += 1
        self.wanted["c-start"] += 1
        self.wanted["c-restart"] += 1
        current = {name: self.daemon.service(name)["current"] for name in COMMANDED}
        assert current == {"c-stop": "inactive", "c-start": "active", "c-restart": "active"}, current
        self.check_starts()
        for action, service in (("start", "c-stop"), ("stop", "c-start")):
            self.finished(self.post(action, service, f"{self.key}-back-{action}")[1]["change"])
        self.wanted["c-stop"] += 1

    def finished(self, change: str) -> dict[str, Any]:
        """A change once it has ended."""
        return self.daemon.api("GET", f"/v1/changes/{change}/wait?timeout=50", timeout=LIMIT)[1]["result"]

    def check_starts(self) -> None:
        """Each of the three services was started as often as it was asked for."""
        for name in COMMANDED:
            path = self.folder / name
            starts = path.read_text().count("started") if path.exists() else 0
            assert starts == self.wanted[name], f"{name} was started {starts} times, wanted {self.wanted[name]}"

    # The end.

    def check(self) -> dict[str, Any]:
        """All that must hold; figures of the run."""
        services = self.daemon.services()
        assert {name: services[name]["pid"] for name in self.writers} == self.pids, "other pids"
        assert {services[name]["restarts"] for name in self.writers} == {0}, "restarts were counted"
        self.check_starts()
        for pid in self.pids.values():
            self.daemon.kill(pid, 10)
        totals = {name: int(until(lambda name=name: self.total(name), f"the total of {name}")) for name in self.writers}
        for name in self.writers:
            self.check_log(name, totals[name])
        assert self.daemon.stop(LIMIT) == 0
        output, _ = self.checker.communicate(timeout=LIMIT)
        forwarded = dict(zip(self.writers, map(int, output.split()), strict=True))
        _bytes, lines, faults = self.taken
        assert faults == 0, f"{faults} faults on stdout"
        assert forwarded == totals, {n: (forwarded[n], totals[n]) for n in totals if forwarded[n] != totals[n]}
        return {"lines": lines, "bytes": _bytes}

    def total(self, name: str) -> str | None:
        """What a paused writer noted."""
        path = self.folder / name
        return path.read_text() if path.exists() else None

    def check_log(self, name: str, total: int) -> None:
        """The log is the unbroken end of what was written."""

        def last() -> list[int] | None:
            status, answer = self.daemon.api("GET", f"/v1/logs?services={name}&n=1000")
            assert status == 200, answer
            numbers = [int(entry["message"].split(" ", 1)[0]) for entry in answer["result"]]
            return numbers if numbers[-1:] == [total - 1] else None

        numbers = until(last, f"the end of the log of {name}")
        assert numbers == list(range(total - len(numbers), total)), f"the log of {name} is broken"
        assert len(numbers) >= 500

    def close(self) -> None:
        """End everything."""
        self.daemon.end()
        self.checker.kill()
        self.checker.wait()
        os.close(self.pipe)


def run(folder: Path, binary: Path, kills: int, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """``kills`` of each, in random turns."""
    world = World(folder, binary, seed)
    try:
        began = time.monotonic()
        while world.logger_kills < kills or world.control_kills < kills:
            both = world.logger_kills < kills and world.control_kills < kills
            if world.logger_kills < kills and (not both or world.dice.random() < 0.5):
                world.kill_logger()
            else:
                world.kill_control()
            if (world.logger_kills + world.control_kills) % 100 == 0:
                tell(f"{world.logger_kills} kills of logger, {world.control_kills} of control, {world.taken[2]} faults")
        seconds = time.monotonic() - began
        figures = world.check()
        rate = figures["bytes"] / seconds / 1e6
        return figures | {"seconds": round(seconds, 1), "MB/s": round(rate, 1), "commands": world.commands}
    except (OSError, http.client.HTTPException, AssertionError):
        tell(world.daemon.report())
        raise
    finally:
        world.close()


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="of logger, and as many of control")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vigild", type=Path, default=HERE.parent.parent / "build" / "vigild")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigil") as folder:
        try:
            figures = run(
                Path(folder), options.vigild, options.kills, options.seed, lambda text: print(text, flush=True)
            )
        except AssertionError as wrong:
            print(f"FAILED (seed {options.seed}): {wrong}")
            return 1
    print(f"{options.kills} kills of each, seed {options.seed}: {figures}; nothing lost, doubled, torn or done twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
