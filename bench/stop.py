"""Time from SIGTERM to the end of a supervisor that runs 100 services."""

from __future__ import annotations

import time
from collections.abc import Mapping

from peers import PROBES, S6, BenchError, Peer, Service, Supervisord, Vigil, fifo, measure, options, report

SETTLE = 2.0  # seconds after the last start: it is the stop of what runs that is measured, not that of a start


def once(peer: Peer, count: int) -> Mapping[str, float]:
    with fifo() as stamps:
        services = [
            Service(f"s{number:03}", (str(PROBES), "stamp", str(stamps.path), f"s{number:03}"))
            for number in range(count)
        ]
        with peer.run(services) as running:
            if len(stamps.take(count)) < count:
                raise BenchError("not all services were started")
            time.sleep(SETTLE)
            return {f"{count} services": running.stop() * 1e3}


def main() -> None:
    chosen = options(__doc__, rounds=7)
    count = 10 if chosen.smoke else 100
    peers: list[Peer] = [Vigil(), Supervisord(), S6()]
    rows = measure(peers, chosen.rounds, lambda peer: once(peer, count))
    report(__doc__, rows, "ms", {f"{count} services": ("<=", 60.0)}, chosen)


if __name__ == "__main__":
    main()
