"""All logs of a boot: one per service, and ``vigild``'s own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec

from vigil._native import ffi, lib
from vigil.logs.feed import Feeds, Follower
from vigil.logs.reader import Log, Reader
from vigil.model import api

_START, _LAST = int(lib.EXT_FROM_START), int(lib.EXT_FROM_LAST)
_SEQ, _TIME = int(lib.EXT_FROM_SEQ), int(lib.EXT_FROM_TIME)
_decoder = msgspec.json.Decoder(api.LogEntry)


def _start(n: int, since: int | float | None) -> tuple[int, int]:
    """Where to begin in each log, so that the last ``n`` since then are among what follows."""
    match since:
        case None:
            return _LAST, n
        case int():
            return _SEQ, max(since, 0)
        case float():
            return _TIME, max(round(since * 1_000_000), 0) * 1000


class LogStore:
    """Makes logs, adopts those PID 1 kept, and reads them."""

    def __init__(self, *, lines: int, bytes: int) -> None:  # noqa: A002 - as the flag is called
        """``lines`` and ``bytes``: --log-buffer and --log-buffer-bytes, for each log made from now on."""
        self.boot_id = ""  # for the ids of events; without it a follower's events have none
        self._lines = lines
        self._bytes = bytes
        self._logs: dict[str, Log] = {}
        self._made: dict[str, int] = {}
        self._feeds = Feeds(self._logs)

    def make(self, name: str) -> int:
        """A new, empty log. Its descriptor stays the store's, for the caller to park; it is open until ``drop``."""
        fd = lib.ring_create(b"vigil-log", self._lines, self._bytes)
        if fd < 0:
            raise OSError(ffi.errno, f"cannot make the log of {name}: {os.strerror(ffi.errno)}")
        try:
            log = Log(name, fd)
        except OSError:
            os.close(fd)
            raise
        self._put(log)
        self._made[name] = int(fd)
        return int(fd)

    def adopt(self, name: str, fd: int) -> None:
        """A log that PID 1 kept; the descriptor is taken."""
        try:
            log = Log(name, fd)
        finally:
            os.close(fd)
        self._put(log)

    def drop(self, name: str) -> None:
        """Forget a log. Who follows it keeps following the others."""
        log = self._logs.pop(name, None)
        if log is None:
            return
        self._feeds.changed(gone=log)
        log.close()
        fd = self._made.pop(name, None)
        if fd is not None:
            os.close(fd)

    def names(self) -> list[str]:
        """All logs there are, ``vigild`` included."""
        return sorted(self._logs)

    def tail(self, names: Sequence[str], n: int, since: int | float | None = None) -> Iterator[bytes]:
        """The last ``n`` entries of these logs as JSON, one a line, oldest first, in pieces of whole lines.

        ``since`` is a seq (an int, exclusive) or a time (a float, seconds since 1970, inclusive). Which entries it will
        be is fixed now; what is overwritten before its piece is taken is left out.
        """
        return self._entries(names, n, *_start(n, since))

    def last_lines(self, name: str, n: int, run_started_real_ns: int) -> list[str]:
        """The last ``n`` messages that a run wrote which started then; invalid UTF-8 as U+FFFD."""
        pieces = self._entries([name], n, _TIME, run_started_real_ns)
        return [entry.message for piece in pieces for entry in _decoder.decode_lines(piece)]

    def lines_total(self, name: str) -> int:
        """Lines ever kept of this log, 0 where there is none."""
        log = self._logs.get(name)
        return log.lines() if log else 0

    def follow(
        self,
        names: Sequence[str],
        format: str,  # noqa: A002 - the word users know
        n: int = 0,
        since: int | float | None = None,
    ) -> Follower:
        """Follow these logs from now on, also those that are yet to be made; no names means all but ``vigild``.

        Before that the last ``n`` entries (since then) are given again, and where ``since`` is a seq, word of those
        among them that are overwritten. The place is fixed when this returns.
        ``format`` is ``json`` or ``text`` (server-sent events) or ``ndjson``. Only from within a running asyncio loop.
        """
        return self._feeds.follow(names, format, self.boot_id, n, _start(n, since))

    def close(self) -> None:
        """End all followers and forget all logs."""
        self._feeds.close()
        for name in list(self._logs):
            self.drop(name)

    def _put(self, log: Log) -> None:
        self.drop(log.name)
        self._logs[log.name] = log
        self._feeds.changed()

    def _entries(self, names: Sequence[str], n: int, start: int, value: int) -> Iterator[bytes]:
        reader = Reader("entries")
        for name in dict.fromkeys(names):
            if name in self._logs:
                reader.add(self._logs[name], start, value)
        reader.mark()
        reader.keep(n)
        return iter(reader.read, b"")
