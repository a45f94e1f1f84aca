"""Takes jobs from a list in Redis and writes each, once done, into PostgreSQL: ``worker.py NUMBER``.

A job in hand stands in a list of this worker's own until it is written down: whoever is killed when, it is done, once.
SIGTERM: the job in hand is finished, unless PostgreSQL's client, which gets the signal too, was at work; then it is
done after the next start.
"""

import signal
import socket
import subprocess
import sys
import time

number = int(sys.argv[1])
mine = f"jobs-of-{number}"
ended = False


def end(*_: object) -> None:
    """SIGTERM."""
    global ended
    ended = True


class Redis:
    """As much of Redis's protocol as is needed here: strings and nothing."""

    def __init__(self) -> None:
        self._file = socket.create_connection(("127.0.0.1", 6379), timeout=10).makefile("rwb")

    def ask(self, *words: str) -> str | None:
        """The answer to a command; OSError when there is none."""
        self._file.write(f"*{len(words)}\r\n".encode())
        for word in words:
            self._file.write(f"${len(word.encode())}\r\n{word}\r\n".encode())
        self._file.flush()
        head = self._file.readline().decode().rstrip()
        if head[:1] == "$" and head != "$-1":
            return self._file.read(int(head[1:]) + 2)[:-2].decode()
        if head[:1] not in ("$", ":", "+", "*"):
            raise ConnectionError(f"redis says {head!r}")
        return None


def write_down(job: str) -> bool:
    """Into the table of what is done; false when that did not work."""
    script = f"INSERT INTO done VALUES ('{job.replace(chr(39), 2 * chr(39))}', {number}) ON CONFLICT DO NOTHING"
    return subprocess.run(["psql", "-q", "-X", "-c", script], stdin=subprocess.DEVNULL, check=False).returncode == 0


def work(redis: Redis) -> None:
    """One job, if there is one within a second."""
    job = redis.ask("LINDEX", mine, "0") or redis.ask("BLMOVE", "jobs", mine, "LEFT", "RIGHT", "1")
    if job is not None:
        if write_down(job):
            redis.ask("LREM", mine, "1", job)
            print(f"did {job}", flush=True)
        else:
            time.sleep(0.5)


signal.signal(signal.SIGTERM, end)
print(f"worker {number} begins", flush=True)
connection = None
while not ended:
    try:
        connection = connection or Redis()
        work(connection)
    except OSError as error:
        print(f"waits for redis: {error}", file=sys.stderr, flush=True)
        connection = None
        time.sleep(0.5)
print(f"worker {number} ends", flush=True)
