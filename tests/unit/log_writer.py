"""A writer of logs for unit tests: the splitter and the ring of logger, without logger."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

STDERR, PARTIAL, FORWARD = 1, 2, 4


class Writer:
    """Writes to one log what logger would; the seq is shared by all writers that are given the same list."""

    def __init__(self, testmod: ModuleType, fd: int, seq: list[int] | None = None) -> None:
        self.ffi, self.lib = testmod.ffi, testmod.lib
        self.ring: Any = self.ffi.new("struct ring *")
        own = os.dup(fd)
        if self.lib.ring_open(self.ring, own, 1) < 0:
            error = self.ffi.errno
            os.close(own)
            raise OSError(error, os.strerror(error))
        self.seq = seq if seq is not None else [1]
        self._held = [self.ffi.new("unsigned char[]", self.lib.LINES_HELD_MAX) for _ in range(2)]
        self._which, self._length = 0, 0
        self.whole = 0
        self.nth = 0

    def split(self, text: bytes, *, end: bool = False, flags: int = FORWARD, real_ns: int = 1) -> Any:
        """The first half of an intake: records are there, but not published."""
        header = self.ring.header
        into = self.ffi.new("struct lines_in *")
        into.ring, into.head, into.line = self.ring, header.head, header.lines
        into.seq, into.nth, into.real_ns, into.flags, into.end = self.seq[0], self.nth, real_ns, flags, end
        data = self.ffi.from_buffer(text)
        into.text, into.text_length = data, len(text)
        into.held, into.held_length = self._held[self._which], self._length
        into.rest = self._held[1 - self._which]
        out = self.ffi.new("struct lines_out *")
        self.lib.lines_split(into, out)
        return out

    def publish(self, out: Any) -> None:
        """The second half."""
        header = self.ring.header
        self._which, self._length = 1 - self._which, out.rest_length
        self.nth, self.seq[0], self.whole = out.nth, out.seq, out.whole
        if out.head != header.head:
            header.head, header.lines, header.last_seq = out.head, out.line, out.seq - 1
            self.lib.ring_trim(self.ring, header.head)

    def write(self, text: bytes, **more: Any) -> None:
        """An intake."""
        self.publish(self.split(text, **more))

    @property
    def held(self) -> bytes:
        """The unterminated line."""
        return bytes(self.ffi.buffer(self._held[self._which], self._length))

    def close(self) -> None:
        """Unmap."""
        self.lib.ring_close(self.ring)


def records(ffi: Any, ring: Any) -> list[tuple[int, int, int, bytes]]:
    """(seq, line, flags, message) of all there is."""
    found = []
    at = ring.header.tail
    while at < ring.header.head:
        place = ring.data + at % ring.capacity
        record = ffi.cast("struct vg_record *", place)
        message = bytes(ffi.buffer(place + 32, record.length))
        found.append((record.seq, record.line, record.flags, message))
        at += 32 + (record.length + 7) // 8 * 8
    return found
