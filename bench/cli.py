"""Time of a command that asks a running daemon for its list, from fork to exit; and what vigil imports for it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from peers import PATIENCE, BenchError, Options, Peer, Running, Service, Supervisord, Vigil, measure, options, report

import vigil.cli as cli

SHOWN = 12  # packages in the list of imports


class Client(Peer):
    """A peer whose client is measured: ``ask`` is its command, once the supervisor runs."""

    ask: Sequence[str] = ()
    shows = ""  # what it says of a service that runs

    def ready(self, count: int) -> None:
        """Wait until the client shows all services as running."""
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(self.ask, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if len(re.findall(rf"\b{self.shows}\b", done.stdout)) >= count:
                return
            if time.monotonic() > end:
                raise BenchError(f"{' '.join(self.ask)}: {done.stderr.strip() or done.stdout.strip()}")
            time.sleep(0.05)

    def once(self) -> tuple[float, float]:
        """Milliseconds of one call: on the clock, and of a processor."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(self.ask, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(self.ask)} exited with {done.returncode}")
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return took * 1e3, used * 1e3


class VigilClient(Vigil, Client):
    """vigil services."""

    shows = "active"

    def command(self, services: Sequence[Service], folder: Path) -> list[str]:
        self.ask = [str(self.vigild.with_name("vigil")), "--socket", str(folder / "vigild.sock"), "services"]
        return super().command(services, folder)


class SupervisorClient(Supervisord, Client):
    """supervisorctl status."""

    shows = "RUNNING"

    def command(self, services: Sequence[Service], folder: Path) -> list[str]:
        command = super().command(services, folder)
        config = folder / "supervisord.conf"
        control = "[supervisorctl]\nserverurl=unix://{}/supervisor.sock\n"
        config.write_text(config.read_text() + control.format(folder))
        self.ask = [str(self.home / "bin" / "supervisorctl"), "-c", str(config), "status"]
        return command


class Podman(Client):
    """podman ps, which asks no daemon: it reads its files, of no container at all."""

    name = "podman"
    ask = ("podman", "ps")

    @property
    def missing(self) -> str | None:
        if shutil.which("podman") is None:
            return "not installed"
        done = subprocess.run(self.ask, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return f"podman ps: {done.stderr.strip().splitlines()[-1]}" if done.returncode else None

    @contextmanager
    def run(self, services: Sequence[Service], stdout: int = subprocess.DEVNULL) -> Iterator[Running]:
        yield None  # type: ignore[misc] # there is nothing to run

    def ready(self, count: int) -> None:
        pass


def once(peer: Peer, count: int) -> Mapping[str, float]:
    assert isinstance(peer, Client)
    took, used = peer.once()
    return {f"{count} services": took, "of that in a processor": used}


def imports(vigil: VigilClient, chosen: Options) -> None:
    """Print which packages the client imports, with the time each takes by itself."""
    main = "import sys; from vigil.cli.main import main; sys.exit(main())"
    packages: dict[str, list[float]] = defaultdict(list)
    for _ in range(chosen.rounds):
        sums: dict[str, float] = defaultdict(float)
        count = 0
        command = [sys.executable, "-X", "importtime", "-c", main, *vigil.ask[1:]]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        for own, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE):
            sums[name.partition(".")[0]] += int(own) / 1e3
            count += 1
        sums["all together"] = sum(sums.values())
        for name, took in sums.items():
            packages[name].append(took)
    medians = sorted(((statistics.median(times), name) for name, times in packages.items()), reverse=True)
    print(f"\nWhat vigil services imports: {count} modules (python -X importtime, which makes them slower itself)")
    for took, name in medians[: SHOWN + 1]:
        print(f"  {name:34} {took:8.1f} ms")


def main() -> None:
    chosen = options(__doc__, rounds=31)
    count = 2 if chosen.smoke else 20
    services = [Service(f"s{number:02}", ("sleep", "1000000")) for number in range(count)]
    vigil = VigilClient()
    peers: list[Client] = [vigil, SupervisorClient(), Podman()]
    os.environ.pop("VIGIL_SOCKET", None)
    # What an installation does: the sources of an editable one may have no compiled files, and that would be measured.
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(Path(cli.__file__).parent.parent)], check=True)
    with ExitStack() as stack:
        for peer in peers:
            if not peer.missing:
                stack.enter_context(peer.run(services))
                peer.ready(count)
        rows = measure(peers, chosen.rounds, lambda peer: once(peer, count))
        report(__doc__, rows, "ms", {f"{count} services": ("<=", 70.0)}, chosen)
        if not vigil.missing:
            imports(vigil, chosen)


if __name__ == "__main__":
    main()
