"""A client that knows of each of its requests what became of it: ``client.py PORT CONNECTIONS PATH``.

That many threads ask for ``PATH/1``, ``PATH/2``..., each over a connection that it keeps as long as the server does,
until nobody takes connections any more or a line comes on stdin. Prints how each request ended, as JSON:

* answered: 200, and the whole body;
* refused: no connection;
* turned away: the first request of a new connection, which was closed without a byte of an answer;
* lost: everything else.
"""

from __future__ import annotations

import http.client
import itertools
import json
import sys
import threading

ended = threading.Event()
numbers = itertools.count(1)
found: dict[str, list[str]] = {"answered": [], "refused": [], "turned away": [], "lost": []}
reasons: list[str] = []


def ask_on(port: int, path: str) -> None:
    """One thread."""
    connection, asked = None, 0
    while not ended.is_set():
        target = f"{path}/{next(numbers)}"
        if connection is None:
            connection, asked = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0
            try:
                connection.connect()
            except ConnectionRefusedError:
                found["refused"].append(target)
                return
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            body = answer.read().decode()
            kept = not answer.will_close
            good = answer.status == 200 and body.split() != [] and body.split()[-1] == target
            what, why = ("answered", "") if good else ("lost", f"{answer.status} {body!r}")
        except (OSError, http.client.HTTPException) as error:
            # A RemoteDisconnected is: not one byte of an answer.
            never = isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError)
            what, why, kept = "turned away" if never and asked == 0 else "lost", repr(error), False
        found[what].append(target)
        if why:
            reasons.append(f"{target}: {why} (request {asked + 1} of its connection)")
        asked += 1
        if not kept:
            connection.close()
            connection = None


def main() -> None:
    port, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    threads = [threading.Thread(target=ask_on, args=(port, path)) for _ in range(count)]
    for thread in threads:
        thread.start()
    threading.Thread(target=lambda: sys.stdin.readline() and ended.set(), daemon=True).start()
    for thread in threads:
        thread.join()
    json.dump({**found, "reasons": reasons}, sys.stdout)
    sys.stdout.flush()


main()
