"""vigil and the supervisors it is compared with: how each is told what to run, started, and ended.

Every one runs as PID 1 of a PID namespace of its own, with the same services, and is measured from outside. One that is
not there is skipped by name. supervisord comes from the package index, into build/bench; s6 is what the system has
(Debian: s6).
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
PROBES = WORK / "probes"
PATIENCE = 60.0  # seconds after which something is called broken


class BenchError(Exception):
    """A measurement that could not be made, and why."""


@dataclass(frozen=True)
class Service:
    """What a supervisor is asked to run, and keep running."""

    name: str
    command: tuple[str, ...]


class Running:
    """A started supervisor: ``pid`` as seen from here, ``began`` (CLOCK_MONOTONIC, ns) right before its exec.

    ``folder`` has its configuration, and its socket where it has one.
    """

    def __init__(self, command: Sequence[str], stdout: int, folder: Path) -> None:
        self.folder = folder
        read, write = os.pipe()
        try:
            self.process = subprocess.Popen(
                [str(PROBES), "launch", str(write), *command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.DEVNULL,
                pass_fds=[write],
            )
        finally:
            os.close(write)
        with open(read, encoding="ascii") as report:
            lines = {line[0]: int(line[1:]) for line in report}
        if len(lines) != 2:
            raise BenchError("cannot start a supervisor: PID namespaces need root, or CAP_SYS_ADMIN")
        self.pid, self.began = lines["p"], lines["t"]

    def stop(self) -> float:
        """SIGTERM; seconds until it has ended, and all of its namespace with it."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise BenchError(f"it did not stop within {PATIENCE:.0f} s") from None
        return time.monotonic() - began

    def end(self) -> None:
        """SIGKILL to its PID 1, with which the kernel ends all others."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait()


class Peer:
    """A supervisor. ``missing`` says why it cannot be measured; None: it can."""

    name = ""

    @property
    def missing(self) -> str | None:
        raise NotImplementedError

    def command(self, services: Sequence[Service], folder: Path) -> list[str]:
        """Write the configuration into folder; the command that runs it."""
        raise NotImplementedError

    @contextmanager
    def run(self, services: Sequence[Service], stdout: int = subprocess.DEVNULL) -> Iterator[Running]:
        """Run these services until the block ends."""
        # Readable by all, since a supervisor may change its user; short, since a socket's path has at most 107 bytes.
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            running = Running(self.command(services, folder), stdout, folder)
            try:
                yield running
            finally:
                running.end()


class Vigil(Peer):
    """The one in the environment that runs this."""

    name = "vigil"

    def __init__(self) -> None:
        self.vigild = Path(sys.executable).parent / "vigild"

    @property
    def missing(self) -> str | None:
        return None if self.vigild.is_file() else f"no {self.vigild}: pip install . first"

    def command(self, services: Sequence[Service], folder: Path) -> list[str]:
        layers = folder / "layers"
        layers.mkdir()
        always = {"startup": "enabled", "backoff-delay": "1ms", "backoff-factor": 1.0, "backoff-limit": "1ms"}
        plan = {"services": {service.name: {"command": list(service.command), **always} for service in services}}
        (layers / "bench.yaml").write_text(json.dumps(plan))
        return [str(self.vigild), "--layers-dir", str(layers), "--socket", str(folder / "vigild.sock")]


class Supervisord(Peer):
    """supervisord, in an environment of its own, with its socket as vigil has one."""

    name = "supervisord"

    def __init__(self) -> None:
        self.home = WORK / "supervisord"
        self.why: str | None = None
        if not (self.home / "bin" / "supervisord").is_file():
            try:
                venv.create(self.home, with_pip=True)
                pip = [str(self.home / "bin" / "python"), "-m", "pip", "install", "-q", "supervisor", "setuptools<81"]
                subprocess.run(pip, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                shutil.rmtree(self.home, ignore_errors=True)
                reason = str(getattr(error, "stderr", "") or error).strip().splitlines()
                self.why = f"pip install supervisor: {reason[-1]}"

    @property
    def missing(self) -> str | None:
        return self.why

    def command(self, services: Sequence[Service], folder: Path) -> list[str]:
        text = [
            "[supervisord]",
            "nodaemon=true",
            "silent=true",
            "user=root",
            "logfile=/dev/null",
            "logfile_maxbytes=0",
            f"pidfile={folder}/supervisord.pid",
            "[unix_http_server]",
            f"file={folder}/supervisor.sock",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for service in services:
            text += [
                f"[program:{service.name}]",
                f"command={' '.join(service.command)}",
                "autorestart=true",
                "startsecs=0",
                "stdout_logfile=/dev/stdout",
                "stdout_logfile_maxbytes=0",
                "stderr_logfile=/dev/stderr",
                "stderr_logfile_maxbytes=0",
            ]
        (folder / "supervisord.conf").write_text("\n".join(text) + "\n")
        return [str(self.home / "bin" / "supervisord"), "-c", str(folder / "supervisord.conf")]


class S6(Peer):
    """s6-svscan, and s6-log where output is to be kept (``logged``)."""

    name = "s6"

    def __init__(self, logged: bool = False) -> None:
        self.logged = logged

    @property
    def missing(self) -> str | None:
        absent = [program for program in ("s6-svscan", "s6-log") if shutil.which(program) is None]
        return f"{' and '.join(absent)} not installed" if absent else None

    def command(self, services: Sequence[Service], folder: Path) -> list[str]:
        scan = folder / "scan"
        for service in services:
            self._script(scan / service.name / "run", f"exec {' '.join(service.command)}")
            if self.logged:
                # Kept in files, and forwarded to its standard output, which is that of s6-svscan.
                self._script(scan / service.name / "log" / "run", f"exec s6-log -b n3 s16777216 1 {folder}/log")
        return ["s6-svscan", str(scan)]

    @staticmethod
    def _script(file: Path, line: str) -> None:
        file.parent.mkdir(parents=True)
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)


class Fifo:
    """Where the probes' stamps arrive."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stamps"
        os.mkfifo(self.path)
        # Both ends are held, so that it never ends while no probe has it open.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def take(self, count: int, patience: float = PATIENCE) -> list[tuple[str, int]]:
        """The next stamps, as (name, ns) in the order of arrival; fewer when patience ends before."""
        stamps: list[tuple[str, int]] = []
        end = time.monotonic() + patience
        while len(stamps) < count:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                name, at = line.split()
                stamps.append((name.decode(), int(at)))
                self._rest = rest
            elif select.select([self._fd], [], [], max(0.0, end - time.monotonic()))[0]:
                self._rest += os.read(self._fd, 65536)
            else:
                break
        return stamps

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def fifo() -> Iterator[Fifo]:
    """A FIFO for stamps, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        made = Fifo(Path(name))
        try:
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Options:
    rounds: int
    smoke: bool


def options(title: str, rounds: int) -> Options:
    """Read the command line and compile the probes."""
    parser = argparse.ArgumentParser(description=title, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often each is measured (default: {rounds})")
    parser.add_argument(
        "--smoke", action="store_true", help="one round of little work: shows that it runs, measures nothing"
    )
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("probes.c")
    if not PROBES.exists() or PROBES.stat().st_mtime < source.stat().st_mtime:
        for linking in (["-static"], []):
            command = [
                "cc",
                "-std=c11",
                "-D_GNU_SOURCE",
                "-O2",
                "-Wall",
                "-Wextra",
                *linking,
                str(source),
                "-o",
                str(PROBES),
            ]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
        else:
            raise SystemExit(f"cannot compile {source}: {done.stderr}")
    return Options(1 if given.smoke else given.rounds, given.smoke)


def measure(
    peers: Sequence[Peer], rounds: int, once: Callable[[Peer], Mapping[str, float]]
) -> dict[str, dict[str, list[float]]]:
    """Values by row and peer. The peers take turns, so that a busy minute of the machine hits all of them."""
    rows: dict[str, dict[str, list[float]]] = {}
    present = []
    for peer in peers:
        if peer.missing:
            print(f"skipped: {peer.name}: {peer.missing}")
        else:
            present.append(peer)
    for _ in range(rounds):
        for peer in present:
            try:
                for row, value in once(peer).items():
                    rows.setdefault(row, {}).setdefault(peer.name, []).append(value)
            except BenchError as error:
                raise SystemExit(f"{peer.name}: {error}") from error
    return rows


def digits(value: float) -> str:
    """As many digits as tell something."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def report(
    title: str,
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    unit: str,
    goals: Mapping[str, tuple[str, float]],
    chosen: Options,
) -> None:
    """Print medians, the range they come from, and how each peer compares with vigil.

    ``goals``: by row, whether vigil's median shall be "<=" or ">=" which value; a smoke run tells nothing about that.
    """
    print(f"\n{title}")
    for row, peers in rows.items():
        own = statistics.median(peers["vigil"]) if "vigil" in peers else None
        for number, (peer, values) in enumerate(peers.items()):
            median = statistics.median(values)
            ratio = f"{median / own:8.2f} x vigil" if own and peer != "vigil" else ""
            scope = f"({digits(min(values))} to {digits(max(values))})"
            print(
                f"  {row if number == 0 else '':34} {peer:12} {digits(median):>8} {unit:5} {scope:20} {ratio}".rstrip()
            )
        if own is not None and row in goals and not chosen.smoke:
            comparison, goal = goals[row]
            reached = own <= goal if comparison == "<=" else own >= goal
            print(f"  {'':34} {'goal':12} {comparison} {goal:g} {unit}: {'reached' if reached else 'MISSED'}")
