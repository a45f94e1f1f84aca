"""Followers of one busy service: what they get, what they cost control, and what a request beside them waits.

The service writes 2,000 lines of 100 bytes a second. Every follower must get every line, once and in order, or be told
how many it missed: that is what a machine with too much else to do looks like.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path

from peers import PATIENCE, PROBES, BenchError, Peer, Running, Service, Vigil, measure, options, report

RATE = 2000  # lines a second
PAUSE = 0.02  # seconds between two requests beside the followers


class Requests(HTTPConnection):
    """A client that asks again and again over one connection."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Over the Unix socket, once it is there."""
        end = time.monotonic() + PATIENCE
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(PATIENCE)
            try:
                return self.sock.connect(str(self._path))
            except OSError:
                self.sock.close()
                if time.monotonic() > end:
                    raise BenchError("the API does not answer") from None
                time.sleep(0.01)

    def took(self) -> float:
        """Ask once; milliseconds until the answer was there."""
        began = time.monotonic()
        self.request("GET", "/v1/services")
        answer = self.getresponse()
        answer.read()
        if answer.status != 200:
            raise BenchError(f"GET /v1/services: {answer.status}")
        return (time.monotonic() - began) * 1e3


def control_of(running: Running) -> int:
    """Process id of its control, as seen from here."""
    for child in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text() == "vigil-control\n":
            return int(child)
    raise BenchError("there is no control")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def once(peer: Peer, count: int, seconds: int) -> Mapping[str, float]:
    with peer.run([Service("writer", (str(PROBES), "pace", str(RATE)))]) as running:
        requests = Requests(running.folder / "vigild.sock")
        requests.took()
        control = control_of(running)
        followers = subprocess.Popen(
            [str(PROBES), "follow", str(running.folder / "vigild.sock"), str(count), str(seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert followers.stdout is not None
        assert followers.stderr is not None
        try:
            if followers.stdout.readline() != "ready\n":
                raise BenchError(f"following failed: {followers.stderr.read().strip()}")
            began, used, times = time.monotonic(), cpu(control), []
            while time.monotonic() - began < seconds - PAUSE:
                times.append(requests.took())
                time.sleep(PAUSE)
            share = (cpu(control) - used) / (time.monotonic() - began)
            said, why = followers.communicate(timeout=PATIENCE)
            if followers.returncode:
                raise BenchError(f"following failed: {why.strip()}")
        finally:
            followers.kill()
            followers.communicate()
            requests.close()
    lines, least = map(int, said.split())
    delivered = {
        f"{count} followers: lines, all together": lines / seconds,
        f"{count} followers: lines, to whom fewest": least / seconds,
    }
    return {
        **(delivered if count else {}),
        f"{count} followers: CPU of control": 100 * share,
        f"{count} followers: half of the requests": statistics.median(times),
        f"{count} followers: 99 of 100 requests": sorted(times)[len(times) * 99 // 100],
    }


def main() -> None:
    chosen = options(__doc__, rounds=3)
    seconds = 1 if chosen.smoke else 5
    rows: dict[str, dict[str, list[float]]] = {}
    # With none first: what control does, and what a request waits, by itself.
    for count in (0, 5) if chosen.smoke else (0, 1, 20, 200):
        rows |= measure([Vigil()], chosen.rounds, lambda peer, count=count: once(peer, count, seconds))  # type: ignore[misc]
    goals = {"200 followers: CPU of control": ("<=", 25.0), "200 followers: half of the requests": ("<=", 10.0)}
    for title, unit, kind in (
        (__doc__, "lines/s", "lines"),
        ("CPU", "%", "CPU"),
        ("Time of GET /v1/services beside them", "ms", "requests"),
    ):
        report(title, {row: values for row, values in rows.items() if kind in row}, unit, goals, chosen)


if __name__ == "__main__":
    main()
