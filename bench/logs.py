"""Rate at which lines of 100 bytes go from a service through capture to the supervisor's stdout, a pipe that is read.

Every line is numbered and must arrive once and in order. vigil keeps them in memory, s6-log in files, supervisord
nowhere: it forwards.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from peers import PATIENCE, PROBES, S6, BenchError, Peer, Service, Supervisord, Vigil, measure, options, report


def once(peer: Peer, lines: int, block: int) -> float:
    sink = subprocess.Popen(
        [str(PROBES), "sink", str(lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sink.stdin is not None
    assert sink.stderr is not None
    try:
        with peer.run([Service("writer", (str(PROBES), "write", str(lines), str(block)))], sink.stdin.fileno()):
            sink.stdin.close()
            said = sink.stderr.readline().strip()
        if sink.wait(PATIENCE) or not said.isdigit():
            raise BenchError(f"lines were lost, doubled or out of order: {said}")
    finally:
        sink.kill()
        sink.wait()
        sink.stderr.close()
    return lines * 100 / 1e6 / (int(said) / 1e9)


def main() -> None:
    chosen = options(__doc__, rounds=5)
    peers: list[Peer] = [Vigil(), Supervisord(), S6(logged=True)]
    few = 100 if chosen.smoke else 1

    def both(peer: Peer) -> Mapping[str, float]:
        return {
            "written in blocks of 50 KB": once(peer, 3_000_000 // few, 500),
            "one write a line": once(peer, 500_000 // few, 1),
        }

    report(__doc__, measure(peers, chosen.rounds, both), "MB/s", {"written in blocks of 50 KB": (">=", 150.0)}, chosen)


if __name__ == "__main__":
    main()
