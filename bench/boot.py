"""Time from the exec of a supervisor as PID 1 to the first instruction of a service; and until 100 of them run."""

from __future__ import annotations

from collections.abc import Mapping

from peers import PROBES, S6, BenchError, Peer, Service, Supervisord, Vigil, fifo, measure, options, report


def once(peer: Peer, count: int) -> Mapping[str, float]:
    with fifo() as stamps:
        services = [
            Service(f"s{number:03}", (str(PROBES), "stamp", str(stamps.path), f"s{number:03}"))
            for number in range(count)
        ]
        with peer.run(services) as running:
            times = [at for _, at in stamps.take(count)]
            if len(times) < count:
                raise BenchError(f"only {len(times)} of {count} services were started")
    first, last = min(times), max(times)
    if count == 1:
        return {"first service": (first - running.began) / 1e6}
    return {
        f"first of {count} services": (first - running.began) / 1e6,
        f"{count} services, after the first": (last - first) / 1e6,
        f"{count} services, after exec": (last - running.began) / 1e6,
    }


def main() -> None:
    chosen = options(__doc__, rounds=9)
    many = 10 if chosen.smoke else 100
    peers: list[Peer] = [Vigil(), Supervisord(), S6()]
    rows = measure(peers, chosen.rounds, lambda peer: once(peer, 1))
    rows |= measure([peer for peer in peers if not peer.missing], chosen.rounds, lambda peer: once(peer, many))
    goals = {"first service": ("<=", 90.0), f"{many} services, after the first": ("<=", 150.0)}
    report(__doc__, rows, "ms", goals, chosen)


if __name__ == "__main__":
    main()
