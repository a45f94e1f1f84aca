"""Counters that only go up and that outlive control: 8-byte slots in a memfd that PID 1 keeps.

A count is one aligned store into shared memory: no record, no system call, and a control killed at any instruction
leaves the old number or the new one. Which slot is whose stands in the store, as ``slot/NAME``. A slot is zeroed
before it gets a name, not when it loses one, so that a kill in between never shows one counter's number under another's
name.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import msgspec

from vigil.journal.journal import JournalError
from vigil.journal.store import Store

PARKED_AS = "counters"

_PREFIX = "slot/"
_SLOT = 8
_PAGE = 64 * 1024
_LAST = 2**64 - 1

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(int).decode


class Counters:
    """All counters, by name."""

    @staticmethod
    def create(store: Store) -> Counters:
        """New ones in a new memfd, which the caller parks under ``PARKED_AS``. Names of older ones are dropped."""
        store.write({key: None for key, _ in store.items(_PREFIX)})
        try:
            fd = os.memfd_create("vigil-counters", os.MFD_CLOEXEC)
            os.ftruncate(fd, _PAGE)
        except OSError as error:
            raise JournalError(f"cannot make the counters: {error.strerror}") from error
        return Counters(fd, store)

    @staticmethod
    def open(fd: int, store: Store) -> Counters:
        """Over the memfd in ``fd``, which becomes theirs. JournalError where the store names slots that it has not."""
        size = os.fstat(fd).st_size
        if size < _PAGE or size % _SLOT:
            raise JournalError(f"cannot read the counters: they have {size} bytes")
        return Counters(fd, store)

    def __init__(self, fd: int, store: Store) -> None:
        self.fd, self._store = fd, store
        self._index = {key[len(_PREFIX) :]: _decode(value) for key, value in store.items(_PREFIX)}
        self._map()
        if any(not 0 <= slot < len(self._slots) for slot in self._index.values()):
            raise JournalError("cannot read the counters: the journal names more than there are")
        self._free = self._unused()

    def add(self, name: str, count: int = 1) -> None:
        """Add to a counter; a new name begins at 0."""
        slot = self._index.get(name)
        if slot is None:
            slot = self._take(name)
        self._slots[slot] = self._slots[slot] + count & _LAST

    def get(self, name: str) -> int:
        """The number, 0 for a name that was never counted."""
        slot = self._index.get(name)
        return 0 if slot is None else self._slots[slot]

    def items(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """All names that begin with ``prefix``, with their numbers."""
        return ((name, self._slots[slot]) for name, slot in list(self._index.items()) if name.startswith(prefix))

    def drop(self, prefix: str) -> None:
        """Forget all counters whose names begin with ``prefix`` (what is counted is gone)."""
        names = [name for name in self._index if name.startswith(prefix)]
        self._store.write({_PREFIX + name: None for name in names})
        for name in names:
            self._free.append(self._index.pop(name))

    def close(self) -> None:
        """Close the descriptor; the parked copy stays."""
        self._unmap()
        os.close(self.fd)

    def _take(self, name: str) -> int:
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._slots[slot] = 0
        self._store.put(_PREFIX + name, _encode(slot))
        self._index[name] = slot
        return slot

    def _grow(self) -> None:
        size = len(self._slots) * _SLOT
        self._unmap()
        os.ftruncate(self.fd, size + _PAGE)
        self._map()
        self._free = list(range(len(self._slots) - 1, size // _SLOT - 1, -1))

    def _unused(self) -> list[int]:
        """Free slots, the lowest last: it is taken first, so that few pages are touched."""
        used = set(self._index.values())
        return [slot for slot in range(len(self._slots) - 1, -1, -1) if slot not in used]

    def _map(self) -> None:
        self._memory = mmap.mmap(self.fd, 0)
        self._slots = memoryview(self._memory).cast("Q")

    def _unmap(self) -> None:
        self._slots.release()
        self._memory.close()
