"""The latest value of each key, kept in the journal: what a control that comes after this one goes on from.

A change of keys is one record. It is in the journal before ``put``, ``delete`` or ``write`` returns, and so before
anything is done because of it.

Compaction replaces the journal by one with the latest values only. The order that makes it safe to die at any instant:

1. the new memfd is written whole, while the old one is still the parked one;
2. PARK is handed to the kernel. If the socket does not take it at once the new memfd is thrown away, and it is tried
   again when the journal has grown some more. It must not wait in a queue of ours: control could go on to append to the
   new one, answer a client, and die with PARK unsent, and the next control would get the old journal, without that;
3. from then on records go to the new one. PID 1 handles all that a dead control had sent before it lets the next one
   attach, and it swaps the two in one step; so the next control gets the new memfd, with everything appended to it
   since, even if this one dies before PID 1 has looked at PARK.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from vigil.journal.journal import Journal, JournalError, Record

PARKED_AS = "journal"

_WRITE = 1  # kind of record: msgpack map of key to new value, nil where the key goes
_SLACK = 4  # compact once the journal is so many times as large as what is in force
_SMALL = 256 * 1024  # and larger than this

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(dict[str, bytes | None]).decode

TryPark = Callable[[str, int], bool]


class Store:
    """Latest values, in front of a journal."""

    @staticmethod
    def create(boot_id: str, values: Mapping[str, bytes] | None = None) -> Store:
        """With a new journal, which the caller parks under ``PARKED_AS`` before it acts upon anything."""
        kept = dict(values or {})
        return Store(Journal.create(boot_id, _records(kept)), kept)

    @staticmethod
    def open(fd: int) -> Store:
        """Over the journal in ``fd``, which becomes the store's."""
        journal, records = Journal.open(fd)
        values: dict[str, bytes] = {}
        for record in records:
            if record.kind != _WRITE:
                raise JournalError(f"cannot read the journal: a record of unknown kind {record.kind}")
            try:
                changes = _decode(record.body)
            except msgspec.MsgspecError as error:
                raise JournalError(f"cannot read the journal: {error}") from error
            _apply(values, changes)
        return Store(journal, values)

    def __init__(self, journal: Journal, values: dict[str, bytes]) -> None:
        self._journal, self._values = journal, values
        self._live = sum(_size(key, value) for key, value in values.items())
        self._try_park: TryPark | None = None
        self._compact_at = 0  # size of the journal before which it is not tried again

    @property
    def boot_id(self) -> str:
        """Of the boot that the journal belongs to."""
        return self._journal.boot_id

    @property
    def fd(self) -> int:
        """The journal's descriptor, to be parked."""
        return self._journal.fd

    def compact_with(self, try_park: TryPark) -> None:
        """Compact by itself from now on; ``try_park`` is ``Link.try_park``."""
        self._try_park = try_park

    def get(self, key: str) -> bytes | None:
        """The latest value."""
        return self._values.get(key)

    def items(self, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """All keys that begin with ``prefix``, oldest first, with their values; the store may be changed meanwhile."""
        return iter([(key, value) for key, value in self._values.items() if key.startswith(prefix)])

    def put(self, key: str, value: bytes) -> None:
        """Set one key."""
        self.write({key: value})

    def delete(self, key: str) -> None:
        """Remove one key; nothing is written where it is not there."""
        if key in self._values:
            self.write({key: None})

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        """Set the keys with a value and remove those with None, all or none. JournalError: none, memory is short."""
        if not changes:
            return
        record = _encode(changes)
        try:
            self._journal.append(_WRITE, record)
        except JournalError:  # memory is short, or files may not be so large: it may be much smaller
            if self._journal.size < 2 * self._live or not self._compact():
                raise
            self._journal.append(_WRITE, record)
        for key, value in changes.items():
            old = self._values.get(key)
            self._live += (0 if value is None else _size(key, value)) - (0 if old is None else _size(key, old))
        _apply(self._values, changes)
        if self._journal.size > max(_SMALL, _SLACK * self._live, self._compact_at):
            self._compact()

    def close(self) -> None:
        """Close the journal's descriptor; the parked copy stays."""
        self._journal.close()

    def _compact(self) -> bool:
        if self._try_park is None:
            return False
        self._compact_at = self._journal.size + _SMALL
        try:
            fresh = self._journal.compact(_records(self._values))
        except JournalError:
            return False  # memory or descriptors are short; the old one still serves
        taken = self._try_park(PARKED_AS, fresh.fd)
        if taken:
            self._journal.close()
            self._journal, self._compact_at = fresh, 0
        else:
            fresh.close()
        return taken


def _apply(values: dict[str, bytes], changes: Mapping[str, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value


def _records(values: Mapping[str, bytes]) -> Iterator[Record]:
    return (Record(_WRITE, _encode({key: value})) for key, value in values.items())


def _size(key: str, value: bytes) -> int:
    """Roughly what the pair takes in a journal."""
    return len(key) + len(value) + 24
