"""Private memory of each process of a supervisor that runs 20 idle services: what would come free if it ended."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from peers import PROBES, S6, BenchError, Peer, Service, Supervisord, Vigil, fifo, measure, options, report

COUNT = 20
SETTLE = 3.0  # seconds after the last start: by then vigil's API is imported and answers, and that is part of its size


def private(pid: int) -> float:
    """kB that no other process shares."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    return sum(float(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))


def descendants(pid: int) -> list[tuple[int, str]]:
    """A process and all below it, with their names."""
    found = [(pid, Path(f"/proc/{pid}/comm").read_text().strip())]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += descendants(int(child))
    return found


def once(peer: Peer) -> Mapping[str, float]:
    with fifo() as stamps:
        services = [Service(f"s{n}", (str(PROBES), "stamp", str(stamps.path), f"s{n}")) for n in range(COUNT)]
        with peer.run(services) as running:
            if len(stamps.take(COUNT)) < COUNT:
                raise BenchError("not all services were started")
            time.sleep(SETTLE)
            sizes: dict[str, list[float]] = defaultdict(list)
            for pid, name in descendants(running.pid):
                if name != PROBES.name:
                    sizes["PID 1" if pid == running.pid else name].append(private(pid))
    rows = {
        f"{name} (largest of {len(values)})" if len(values) > 1 else name: max(values) for name, values in sizes.items()
    }
    return {**rows, f"all together, {COUNT} services": sum(sum(values) for values in sizes.values())}


def main() -> None:
    chosen = options(__doc__, rounds=3)
    rows = measure([Vigil(), Supervisord(), S6()], chosen.rounds, once)
    goals = {"PID 1": ("<=", 300.0), f"vigil-keeper (largest of {COUNT})": ("<=", 300.0)}
    report(__doc__, rows, "kB", goals, chosen)


if __name__ == "__main__":
    main()
