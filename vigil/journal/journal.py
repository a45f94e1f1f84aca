"""An append-only file of records in a memfd that PID 1 keeps for the next control.

Layout: a header (magic, version, boot-id), then records. A record is a head of 16 bytes (length of the body, version
and kind, crc32 of these eight bytes, crc32 of the body) and the body. Each is appended by one write at a place of our
own choosing (pwrite): the descriptor's offset is shared by all copies of it and means nothing.

A control killed within a write leaves a record cut short at the very end: the kernel copies front to back and a memfd
is only as long as what was copied. Such a record was never acted upon (write first, then act) and is dropped. Nothing
else that control can do damages a journal, so damage before the last record is not explained away: what came after it
may have been acted upon, and guessing would start or stop the wrong things. It is refused, and services go on.

On failure: JournalError with a sentence for the user.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable

import msgspec

from vigil.model.errors import StartError

VERSION = 1  # of the header and of each record; raised when an older control could not understand what is written

_HEADER = struct.Struct("=8sII40sI")  # magic, version, size of the header, boot-id, crc32 of all before
_HEAD = struct.Struct("=IHH")  # length of the body, version, kind
_SUMS = struct.Struct("=II")  # crc32 of the head, crc32 of the body
_MAGIC = b"vigiljnl"
_RECORD = _HEAD.size + _SUMS.size
_NAME = "vigil-journal"


class JournalError(StartError):
    """The journal cannot be used; services are left alone."""

    kind = "journal-error"


class Record(msgspec.Struct, frozen=True):
    """What one append wrote."""

    kind: int
    body: bytes


class Journal:
    """The open file. ``size`` is where the next record goes."""

    @staticmethod
    def create(boot_id: str, records: Iterable[Record] = ()) -> Journal:
        """A new one that holds ``records`` already; nobody else knows it yet."""
        try:
            fd = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        except OSError as error:
            raise JournalError(f"cannot make the journal: {error.strerror}") from error
        head = _HEADER.pack(_MAGIC, VERSION, _HEADER.size, boot_id.encode(), 0)[:-4]
        content = head + struct.pack("=I", zlib.crc32(head)) + b"".join(_pack(r.kind, r.body) for r in records)
        journal = Journal(fd, boot_id, 0)
        try:
            journal._write(content)
        except BaseException:
            os.close(fd)
            raise
        return journal

    @staticmethod
    def open(fd: int) -> tuple[Journal, list[Record]]:
        """Take over ``fd`` and read what is in it. A last record that was cut short is dropped and its place used."""
        data = _content(fd)
        boot_id = _read_header(data)
        records, end = _read_records(data)
        if end < len(data):
            os.ftruncate(fd, end)
        return Journal(fd, boot_id, end), records

    def __init__(self, fd: int, boot_id: str, size: int) -> None:
        self.fd, self.boot_id, self.size = fd, boot_id, size

    def append(self, kind: int, body: bytes) -> None:
        """Add a record; once this returns it outlives control. JournalError, with nothing added: memory is short."""
        self._write(_pack(kind, body))

    def compact(self, records: Iterable[Record]) -> Journal:
        """A new journal of the same boot that holds only ``records``. This one stays; Store tells how it goes."""
        return Journal.create(self.boot_id, records)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def _write(self, content: bytes) -> None:
        try:
            written = os.pwrite(self.fd, content, self.size)
            if written < len(content):  # memory ran out within it, or a limit was reached
                os.ftruncate(self.fd, self.size)
                raise JournalError(f"cannot write the journal: only {written} of {len(content)} bytes were taken")
        except OSError as error:
            raise JournalError(f"cannot write the journal: {error.strerror}") from error
        self.size += written


def _pack(kind: int, body: bytes) -> bytes:
    head = _HEAD.pack(len(body), VERSION, kind)
    return head + _SUMS.pack(zlib.crc32(head), zlib.crc32(body)) + body


def _content(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0)
    while len(data) < size:
        more = os.pread(fd, size - len(data), len(data))
        if not more:
            break
        data += more
    return data


def _read_header(data: bytes) -> str:
    if len(data) < _HEADER.size:
        raise JournalError("cannot read the journal: it has no complete header")
    magic, version, size, boot_id, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise JournalError("cannot read the journal: it is none")
    if zlib.crc32(data[: _HEADER.size - 4]) != crc:
        raise JournalError("cannot read the journal: its header is damaged")
    if version > VERSION or size != _HEADER.size:
        raise JournalError(_newer(version))
    return str(boot_id.rstrip(b"\0").decode("ascii", "replace"))


def _read_records(data: bytes) -> tuple[list[Record], int]:
    """All whole records, and where the last one ends."""
    records: list[Record] = []
    at = _HEADER.size
    while at < len(data):
        if len(data) - at < _RECORD:
            break
        length, version, kind = _HEAD.unpack_from(data, at)
        head_crc, body_crc = _SUMS.unpack_from(data, at + _HEAD.size)
        end = at + _RECORD + length
        sound = zlib.crc32(data[at : at + _HEAD.size]) == head_crc
        if sound and end > len(data):
            break
        if sound and version > VERSION:
            raise JournalError(_newer(version))
        if not sound or zlib.crc32(data[at + _RECORD : end]) != body_crc:
            if (sound and end < len(data)) or _record_after(data, at + 1):
                raise JournalError(f"cannot read the journal: it is damaged at byte {at}, and other records come after")
            break
        records.append(Record(kind, data[at + _RECORD : end]))
        at = end
    return records, at


def _record_after(data: bytes, start: int) -> bool:
    """Whether a whole record begins anywhere from ``start`` on. Slow, and only for a head that says nothing true."""
    for at in range(start, len(data) - _RECORD + 1):
        length, _, _ = _HEAD.unpack_from(data, at)
        end = at + _RECORD + length
        if end > len(data):
            continue
        head_crc, body_crc = _SUMS.unpack_from(data, at + _HEAD.size)
        if zlib.crc32(data[at : at + _HEAD.size]) == head_crc and zlib.crc32(data[at + _RECORD : end]) == body_crc:
            return True
    return False


def _newer(version: int) -> str:
    return (
        f"cannot read the journal: it was written by a newer version of vigil (format {version}, this one knows up to"
        f" {VERSION}); install that version again, services go on meanwhile"
    )
