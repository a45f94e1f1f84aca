"""The format of a log: limits, wrapping, pages given back, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.unit.log_writer import Writer, records

DATA, LEAST = 65536, 131072


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Closed at the end."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def make(testmod: ModuleType, fds: list[int], lines: int, size: int) -> int:
    fd = testmod.lib.ring_create(b"ring", lines, size)
    assert fd >= 0
    fds.append(fd)
    return int(fd)


def test_a_new_log_is_sealed_closed_on_exec_and_costs_one_page(testmod: ModuleType, fds: list[int]) -> None:
    fd = make(testmod, fds, 1000, 4 << 20)
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    status = os.fstat(fd)
    assert status.st_size == DATA + (4 << 20)
    assert status.st_blocks * 512 == os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize(
    ("asked", "given"), [(1, LEAST), (LEAST, LEAST), (LEAST + 1, LEAST + 65536), (5 << 20, 5 << 20)]
)
def test_sizes_are_rounded_up(testmod: ModuleType, fds: list[int], asked: int, given: int) -> None:
    assert os.fstat(make(testmod, fds, 10, asked)).st_size == DATA + given


def test_absurd_sizes_are_refused(testmod: ModuleType) -> None:
    assert testmod.lib.ring_create(b"ring", 10, 1 << 60) == -1
    assert testmod.ffi.errno == errno.EINVAL


def opened(testmod: ModuleType, fd: int) -> int:
    """errno of ring_open, 0 if it opens."""
    ring = testmod.ffi.new("struct ring *")
    if testmod.lib.ring_open(ring, fd, 0) < 0:
        return int(testmod.ffi.errno)
    testmod.lib.ring_close(ring)
    return 0


def test_what_is_not_a_log_of_ours_is_refused(testmod: ModuleType, fds: list[int]) -> None:
    good = make(testmod, fds, 10, LEAST)
    assert opened(testmod, good) == 0
    content = os.pread(good, DATA + LEAST, 0)
    seal = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK

    def copy(data: bytes, seals: int = seal) -> int:
        fd = os.memfd_create("copy", os.MFD_ALLOW_SEALING)
        fds.append(fd)
        os.write(fd, data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd

    assert opened(testmod, copy(content)) == 0
    assert opened(testmod, copy(content, fcntl.F_SEAL_GROW)) == errno.EINVAL, "could shrink under its readers"
    assert opened(testmod, copy(content[:-1])) == errno.EINVAL, "shorter than it says"
    assert opened(testmod, copy(b"?" + content[1:])) == errno.EINVAL, "another magic"
    assert opened(testmod, copy(content[:8] + b"\2" + content[9:])) == errno.EINVAL, "another version"
    assert opened(testmod, copy(content[:64] + b"\7" + content[65:])) == errno.EINVAL, "head not at a record"
    assert opened(testmod, copy(b"")) == errno.EINVAL
    read, write = os.pipe()
    fds += [read, write]
    assert opened(testmod, read) == errno.EINVAL, "no memfd at all"


def test_only_the_last_lines_are_kept(testmod: ModuleType, fds: list[int]) -> None:
    writer = Writer(testmod, make(testmod, fds, 10, LEAST))
    for number in range(1000):
        writer.write(b"line %d\n" % number)
    assert [message for *_, message in records(testmod.ffi, writer.ring)] == [b"line %d" % n for n in range(990, 1000)]
    assert writer.ring.header.lines == 1000
    writer.close()


def test_a_full_log_lets_the_oldest_go_and_wraps_without_a_tear(testmod: ModuleType, fds: list[int]) -> None:
    writer = Writer(testmod, make(testmod, fds, 1_000_000, LEAST))
    for number in range(5000):
        writer.write(b"%d " % number + b"x" * (number * 7 % 3000) + b"\n")
        kept = records(testmod.ffi, writer.ring)
        assert writer.ring.header.head - writer.ring.header.tail <= LEAST
        if number % 250 == 0:
            first = kept[0][1]
            for _, line, _, message in kept:
                assert message == b"%d " % line + b"x" * (line * 7 % 3000)
            assert [line for _, line, _, _ in kept] == list(range(first, number + 1))
    writer.close()


def test_records_behind_the_floor_only_are_trimmed(testmod: ModuleType, fds: list[int]) -> None:
    writer = Writer(testmod, make(testmod, fds, 1, LEAST))
    header = writer.ring.header
    out = writer.split(b"a\nb\nc\nd\n")
    header.head, header.lines = out.head, out.line
    testmod.lib.ring_trim(writer.ring, 80)
    assert [message for *_, message in records(testmod.ffi, writer.ring)] == [b"c", b"d"], "c is still to be forwarded"
    testmod.lib.ring_trim(writer.ring, header.head)
    assert [message for *_, message in records(testmod.ffi, writer.ring)] == [b"d"]
    writer.close()


def test_pages_behind_the_last_lines_are_given_back_and_nothing_else(testmod: ModuleType, fds: list[int]) -> None:
    fd = make(testmod, fds, 100, 4 << 20)
    writer = Writer(testmod, fd)
    most = 0
    for number in range(200_000):
        writer.write(b"%d " % number + b"x" * 90 + b"\n")
        if testmod.lib.ring_loose(writer.ring) >= 65536:
            testmod.lib.ring_give_back(writer.ring)
        if number % 1000 == 0:
            most = max(most, os.fstat(fd).st_blocks * 512)
            for _, line, _, message in records(testmod.ffi, writer.ring):
                assert message == b"%d " % line + b"x" * 90
    assert writer.ring.header.head > 3 * (4 << 20), "it wrapped several times"
    assert most < 120_000
    testmod.lib.ring_give_back(writer.ring)
    assert os.fstat(fd).st_blocks * 512 <= 32_768
    writer.close()


def test_a_full_log_never_gives_back_what_it_wrote_again(testmod: ModuleType, fds: list[int]) -> None:
    writer = Writer(testmod, make(testmod, fds, 1_000_000, LEAST))
    for number in range(4000):
        writer.write(b"%d " % number + b"y" * (number * 13 % 2000) + b"\n")
        testmod.lib.ring_give_back(writer.ring)
        if number % 100 == 0:
            for _, line, _, message in records(testmod.ffi, writer.ring):
                assert message == b"%d " % line + b"y" * (line * 13 % 2000)
    writer.close()
