"""The journal, the store over it, and the counters: nothing that was written is lost, nothing damaged is believed."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import struct
import time
import zlib

import pytest

from vigil.journal import Counters, Journal, JournalError, Record, Store
from vigil.journal import journal as journal_module
from vigil.journal import store as store_module
from vigil.model.errors import StartError

BOOT = "6f1c2a34-0000-4000-8000-0123456789ab"
RECORDS = [Record(1, b"first"), Record(2, b""), Record(1, bytes(range(200))), Record(3, b"last one")]


def content(fd):
    return os.pread(fd, os.fstat(fd).st_size, 0)


def memfd(data):
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(fd, data)
    return fd


def written(records=RECORDS):
    """A journal's bytes, and where each record begins (and the last ends)."""
    journal = Journal.create(BOOT)
    places = [journal.size]
    for record in records:
        journal.append(record.kind, record.body)
        places.append(journal.size)
    data = content(journal.fd)
    journal.close()
    return data, places


def reopen(data):
    journal, records = Journal.open(memfd(data))
    journal.close()
    return records


def test_what_was_appended_comes_back_with_its_boot():
    data, _ = written()
    journal, records = Journal.open(memfd(data))
    assert records == RECORDS
    assert journal.boot_id == BOOT
    assert journal.size == len(data)
    journal.append(9, b"more")
    again, records = Journal.open(os.dup(journal.fd))
    assert records == [*RECORDS, Record(9, b"more")]
    journal.close()
    again.close()


def test_a_new_journal_can_hold_records_from_the_start():
    journal = Journal.create(BOOT, RECORDS)
    assert reopen(content(journal.fd)) == RECORDS
    smaller = journal.compact(RECORDS[:1])
    assert (reopen(content(smaller.fd)), smaller.boot_id) == (RECORDS[:1], BOOT)
    assert reopen(content(journal.fd)) == RECORDS
    journal.close()
    smaller.close()


def test_a_last_record_cut_at_any_byte_is_dropped_and_overwritten():
    data, places = written()
    for cut in range(places[0], len(data)):
        whole = sum(place <= cut for place in places[1:])
        journal, records = Journal.open(memfd(data[:cut]))
        assert records == RECORDS[:whole], cut
        journal.append(7, b"after")
        assert reopen(content(journal.fd)) == [*RECORDS[:whole], Record(7, b"after")], cut
        journal.close()


def test_a_header_cut_at_any_byte_is_refused():
    data, places = written()
    for cut in range(places[0]):
        with pytest.raises(JournalError, match="no complete header"):
            reopen(data[:cut])


def test_any_flipped_bit_before_the_last_record_is_refused():
    data, places = written()
    for at in range(places[-2]):
        for bit in range(8):
            bad = bytearray(data)
            bad[at] ^= 1 << bit
            with pytest.raises(JournalError, match="cannot read the journal"):
                reopen(bytes(bad))


def test_any_flipped_bit_in_the_last_record_drops_only_that():
    data, places = written()
    for at in range(places[-2], len(data)):
        for bit in range(8):
            bad = bytearray(data)
            bad[at] ^= 1 << bit
            assert reopen(bytes(bad)) == RECORDS[:-1], (at, bit)


def test_zeros_in_the_middle_are_refused():
    data, places = written()
    bad = data[: places[1]] + bytes(places[2] - places[1]) + data[places[2] :]
    with pytest.raises(JournalError, match=f"damaged at byte {places[1]}"):
        reopen(bad)


def test_a_newer_record_is_refused_wherever_it_is():
    data, places = written()
    head = struct.pack("=IHH", 3, journal_module.VERSION + 1, 1)
    record = head + struct.pack("=II", zlib.crc32(head), zlib.crc32(b"new")) + b"new"
    for place in places:
        with pytest.raises(JournalError, match="newer version of vigil"):
            reopen(data[:place] + record + data[place:])


def test_a_newer_header_is_refused_with_what_to_do():
    head = struct.pack("=8sII40s", b"vigiljnl", 2, 60, BOOT.encode())
    with pytest.raises(JournalError, match="install that version again"):
        reopen(head + struct.pack("=I", zlib.crc32(head)))


def test_something_else_is_refused():
    for bad in (b"", b"x" * 100):
        with pytest.raises(JournalError, match="cannot read the journal"):
            reopen(bad)
    assert issubclass(JournalError, StartError)


def test_an_append_that_finds_no_room_leaves_the_journal_as_it_was():
    journal = Journal.create(BOOT, RECORDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 20, hard))  # one record of 4 bytes
        with pytest.raises(JournalError, match="cannot write the journal"):
            journal.append(1, bytes(5000))
        assert reopen(content(journal.fd)) == RECORDS
        journal.append(1, b"fits")
        with pytest.raises(JournalError, match=os.strerror(errno.EFBIG)):
            journal.append(1, b"no byte of it fits")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert reopen(content(journal.fd)) == [*RECORDS, Record(1, b"fits")]
    journal.close()


def test_a_writer_killed_anywhere_leaves_whole_records_in_order():
    """Records of 1 MB, so that most kills fall within a write (400 us); the phase is random over ten of them."""
    body = bytes(1_000_000)
    chance = random.Random(7)
    cut = 0
    for _ in range(25):
        journal = Journal.create(BOOT)
        pid = os.fork()
        if pid == 0:
            try:
                for number in range(100):
                    journal.append(number, body)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.008))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        size = os.fstat(journal.fd).st_size
        again, records = Journal.open(journal.fd)
        assert [record.kind for record in records] == list(range(len(records)))
        assert all(record.body == body for record in records)
        cut += again.size < size
        again.close()
    assert cut > 0, "no kill fell within a write: the test shows nothing"


# --- store ---


def test_the_last_value_of_each_key_wins():
    store = Store.create(BOOT, {"boot": b"1"})
    store.put("a", b"1")
    store.put("b", b"2")
    store.put("a", b"3")
    store.write({"c": b"4", "b": None})
    store.delete("never there")
    again = Store.open(os.dup(store.fd))
    assert dict(again.items()) == dict(store.items()) == {"boot": b"1", "a": b"3", "c": b"4"}
    assert (again.get("a"), again.get("b"), again.boot_id) == (b"3", None, BOOT)
    assert list(store.items("c")) == [("c", b"4")]
    store.close()
    again.close()


def test_several_keys_are_one_record_so_that_none_comes_alone():
    store = Store.create(BOOT)
    start = os.fstat(store.fd).st_size
    store.write({"a": b"1" * 50, "b": b"2" * 50})
    data = content(store.fd)
    store.close()
    for cut in range(start, len(data)):
        store = Store.open(memfd(data[:cut]))
        assert dict(store.items()) == {}
        store.close()


def test_a_record_of_unknown_kind_or_shape_is_refused():
    for record in (Record(99, b"\x80"), Record(1, b"\xc1"), Record(1, b"\x93\x01\x02\x03")):
        journal = Journal.create(BOOT, [record])
        with pytest.raises(JournalError, match="cannot read the journal"):
            Store.open(journal.fd)
        journal.close()


class Parking:
    """try_park that a test lets fail."""

    def __init__(self):
        self.taken = True
        self.asked = 0
        self.fd = -1

    def __call__(self, name, fd):
        assert name == store_module.PARKED_AS
        self.asked += 1
        if self.taken:
            if self.fd >= 0:
                os.close(self.fd)
            self.fd = os.dup(fd)
        return self.taken


def test_it_compacts_by_itself_and_what_is_parked_is_always_complete():
    parking = Parking()
    store = Store.create(BOOT)
    parking("journal", store.fd)
    store.compact_with(parking)
    for number in range(3000):
        store.write({f"k{number % 10}": b"%d" % number + bytes(1000), "one": b"1"})
        if number % 100 == 0 or parking.asked > 1:
            seen = Store.open(os.dup(parking.fd))
            assert dict(seen.items()) == dict(store.items())
            seen.close()
            parking.asked = 1
    assert os.fstat(store.fd).st_size < 300 * 1024
    assert os.path.sameopenfile(store.fd, parking.fd) or os.fstat(store.fd).st_ino == os.fstat(parking.fd).st_ino
    store.close()
    os.close(parking.fd)


def test_while_nobody_takes_the_new_journal_the_old_one_goes_on():
    parking = Parking()
    store = Store.create(BOOT)
    parking("journal", store.fd)
    parking.taken = False
    store.compact_with(parking)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1500):
        store.put("key", b"%d" % number + bytes(1000))
    assert 2 <= parking.asked <= 10  # tried again as it grows, not at each change
    assert len(os.listdir("/proc/self/fd")) == before
    seen = Store.open(os.dup(parking.fd))
    assert seen.get("key") == store.get("key")
    parking.taken = True
    for _ in range(300):
        store.put("key", b"x" + bytes(1000))
    assert os.fstat(store.fd).st_size < 600 * 1024
    seen.close()
    store.close()
    os.close(parking.fd)


def test_without_a_descriptor_for_the_new_journal_the_old_one_goes_on(monkeypatch):
    parking = Parking()
    store = Store.create(BOOT)
    store.compact_with(parking)

    def none(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", none)
    for number in range(600):
        store.put("key", b"%d" % number + bytes(1000))
    assert os.fstat(store.fd).st_size > 600_000
    monkeypatch.undo()
    for _ in range(300):
        store.put("key", b"last" + bytes(1000))
    assert os.fstat(store.fd).st_size < 300 * 1024
    store.close()
    os.close(parking.fd)


def test_a_journal_that_may_not_grow_is_compacted_sooner():
    parking = Parking()
    store = Store.create(BOOT)
    store.compact_with(parking)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        for number in range(300):
            store.put("key", b"%d" % number + bytes(1000))
        parking.taken = False
        while os.fstat(store.fd).st_size + 1100 < 50_000:
            store.put("key", bytes(1000))
        with pytest.raises(JournalError):
            store.put("key", bytes(1100))
        parking.taken = True
        store.put("key", b"in the end")
        with pytest.raises(JournalError):
            store.put("huge", bytes(60_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    seen = Store.open(os.dup(parking.fd))
    assert dict(seen.items()) == {"key": b"in the end"}
    seen.close()
    store.close()
    os.close(parking.fd)


@pytest.mark.parametrize("made", ["memfd_create", "ftruncate"])
def test_where_nothing_can_be_made_the_reason_is_one_sentence(monkeypatch, made):
    store = Store.create(BOOT)

    def none(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, made, none)
    with pytest.raises(JournalError, match="cannot make the counters: Too many open files"):
        Counters.create(store)
    if made == "memfd_create":
        with pytest.raises(JournalError, match="cannot make the journal: Too many open files"):
            Store.create(BOOT)
    store.close()


def test_a_large_state_is_not_compacted_for_nothing():
    parking = Parking()
    store = Store.create(BOOT)
    store.compact_with(parking)
    for number in range(1000):
        store.put(f"key{number}", bytes(1000))
    assert parking.asked == 0
    store.close()


# --- counters ---


def test_counters_go_on_where_they_were():
    store = Store.create(BOOT)
    counters = Counters.create(store)
    counters.add("starts/web")
    counters.add("starts/web", 4)
    counters.add("starts/db")
    again = Counters.open(os.dup(counters.fd), Store.open(os.dup(store.fd)))
    assert dict(again.items("starts/")) == {"starts/web": 5, "starts/db": 1}
    again.add("starts/db")
    assert counters.get("starts/db") == 2
    assert counters.get("never") == 0
    again.close()
    counters.close()
    store.close()


def test_a_slot_used_anew_begins_at_zero():
    store = Store.create(BOOT)
    counters = Counters.create(store)
    counters.add("a/x", 7)
    counters.drop("a/")
    assert list(counters.items()) == []
    counters.add("b")
    assert counters.get("b") == 1
    assert dict(Counters.open(os.dup(counters.fd), store).items()) == {"b": 1}
    counters.close()
    store.close()


def test_more_counters_than_fit_make_more_room():
    store = Store.create(BOOT)
    counters = Counters.create(store)
    for number in range(9000):
        counters.add(f"n{number}", number)
    assert counters.get("n1") == 1
    assert counters.get("n8999") == 8999
    again = Counters.open(os.dup(counters.fd), store)
    assert dict(again.items()) == {f"n{number}": number for number in range(9000)}
    again.close()
    counters.close()
    store.close()


def test_counters_that_do_not_fit_the_journal_are_refused():
    store = Store.create(BOOT)
    for size in (0, 100, 64 * 1024 + 1):
        fd = memfd(bytes(size))
        with pytest.raises(JournalError, match="counters"):
            Counters.open(fd, store)
        os.close(fd)
    counters = Counters.create(store)
    store.put("slot/far", b"\xcd\xff\xff")
    with pytest.raises(JournalError, match="more than there are"):
        Counters.open(counters.fd, store)
    store.close()


def test_a_counter_wraps_rather_than_fails():
    store = Store.create(BOOT)
    counters = Counters.create(store)
    counters.add("n", 2**64 - 1)
    counters.add("n", 2)
    assert counters.get("n") == 1
    counters.close()
    store.close()
