"""Time from one start of a service that exits at once to the next, with a backoff of 1 ms where there is one.

s6 waits until a second has passed since the last start; supervisord has no backoff but looks once in a while.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping

from peers import PROBES, S6, BenchError, Peer, Service, Supervisord, Vigil, fifo, measure, options, report


def once(peer: Peer, starts: int) -> Mapping[str, float]:
    with fifo() as stamps:
        services = [Service("again", (str(PROBES), "again", str(stamps.path), "again"))]
        with peer.run(services):
            times = [at for _, at in stamps.take(starts, patience=8.0)]
    if len(times) < 3:
        raise BenchError(f"it was started {len(times)} times in 8 s")
    gaps = [(after - before) / 1e6 for before, after in itertools.pairwise(times)]
    return {"start to start, median": statistics.median(gaps), "start to start, longest": max(gaps)}


def main() -> None:
    chosen = options(__doc__, rounds=3)
    rows = measure([Vigil(), Supervisord(), S6()], chosen.rounds, lambda peer: once(peer, 5 if chosen.smoke else 200))
    report(__doc__, rows, "ms", {"start to start, median": ("<=", 5.0)}, chosen)


if __name__ == "__main__":
    main()
