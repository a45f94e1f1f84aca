"""One reader in C: any number of logs, merged by seq, rendered many entries per call."""

from __future__ import annotations

import os
from typing import Any

from vigil._native import ffi, lib

FORMATS = {
    "ndjson": int(lib.EXT_NDJSON),
    "json": int(lib.EXT_SSE_JSON),
    "text": int(lib.EXT_SSE_TEXT),
    "entries": int(lib.EXT_ENTRIES),
}
CHUNK = int(lib.EXT_ROOM)

# One buffer for all: what is read is copied out before anything else runs.
_buffer = ffi.new("char[]", CHUNK)

Places = dict[int, tuple[int, int]]


class Log:
    """A mapped log. ``serial`` is never used twice, so that a log made again under the same name is another one."""

    _serials = 0

    def __init__(self, name: str, fd: int) -> None:
        """Map it. OSError where the descriptor is no log. It may be closed afterwards."""
        self.handle: Any = lib.ext_log_open(fd, name.encode())
        if self.handle == ffi.NULL:
            raise OSError(ffi.errno, f"cannot open the log of {name}: {os.strerror(ffi.errno)}")
        self.name = name
        Log._serials += 1
        self.serial = Log._serials

    def close(self) -> None:
        """Unmap it, once no reader needs it any more."""
        if self.handle is not None:
            lib.ext_log_close(self.handle)
            self.handle = None

    def last_seq(self) -> int:
        """Seq of its last line, 0 before the first."""
        return int(lib.ext_log_last_seq(self.handle))

    def lines(self) -> int:
        """Lines ever kept."""
        return int(lib.ext_log_lines(self.handle))

    def gone(self, seq: int) -> int:
        """How many lines that came after ``seq`` are overwritten, at most."""
        return int(lib.ext_log_gone(self.handle, seq))

    def after(self, seq: int, limit: int) -> int:
        """How many lines there are after ``seq``, up to ``limit``."""
        return int(lib.ext_log_after(self.handle, seq, limit))


class Reader:
    """Reads up to a mark: what was captured before it, in every log."""

    def __init__(self, format: str, boot_id: str = "") -> None:  # noqa: A002 - the word users know
        """``boot_id`` is for the ids of events; without it there are none."""
        handle = lib.ext_reader_new(FORMATS[format], boot_id.encode())
        if handle == ffi.NULL:
            raise MemoryError("cannot read logs: no memory")
        self._handle: Any = ffi.gc(handle, lib.ext_reader_free)
        self._serials: list[int] = []  # as the C side numbers them

    def add(self, log: Log, start: int, value: int = 0, line: int = 0, *, end: int | None = None) -> None:
        """Read this log too, from where ``start`` (EXT_FROM_...) and ``value`` say, up to the line of index ``end``."""
        number = lib.ext_reader_add(self._handle, log.handle, start, value, line)
        if number < 0:
            raise MemoryError("cannot read logs: no memory")
        if end is not None:
            lib.ext_reader_end(self._handle, number, end)
        self._serials.append(log.serial)

    def remove(self, log: Log) -> None:
        """Read it no further."""
        number = lib.ext_reader_remove(self._handle, log.handle)
        if number >= 0:
            last = self._serials.pop()
            if number < len(self._serials):
                self._serials[number] = last

    def mark(self) -> int:
        """Everything captured so far may be read. Returns the last seq."""
        return int(lib.ext_reader_mark(self._handle))

    def limit(self, seq: int) -> None:
        """The same up to another reader's mark."""
        lib.ext_reader_limit(self._handle, seq)

    def keep(self, lines: int) -> None:
        """Only the last so many entries before the mark."""
        lib.ext_reader_keep(self._handle, lines)

    def lost(self, lines: int) -> None:
        """So many were lost before: told before the next entry."""
        lib.ext_reader_lost(self._handle, lines)

    def read(self) -> bytes:
        """The next entries, about 140 kB of them at most; empty: there are no more before the mark."""
        size = lib.ext_reader_read(self._handle, _buffer, CHUNK)
        return bytes(ffi.buffer(_buffer, size))

    def missed(self) -> int:
        """Lines it never saw because they were overwritten first."""
        return int(lib.ext_reader_missed(self._handle))

    def places(self) -> Places:
        """Where it is in each log, by serial: position and index of the next line."""
        room = ffi.new("struct ext_place[]", max(len(self._serials), 1))
        lib.ext_reader_places(self._handle, room)
        return {serial: (int(room[at].at), int(room[at].line)) for at, serial in enumerate(self._serials)}
