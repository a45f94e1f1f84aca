"""The splitter: what becomes of text as it came out of a pipe."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.unit.log_writer import FORWARD, PARTIAL, STDERR, Writer, records

MAX = 16384


@pytest.fixture
def writer(testmod: ModuleType) -> Iterator[Writer]:
    fd = testmod.lib.ring_create(b"lines", 100_000, 4 << 20)
    made = Writer(testmod, fd)
    os.close(fd)
    yield made
    made.close()


def entries(writer: Writer) -> list[tuple[bytes, bool]]:
    """(message, partial)."""
    return [(message, bool(flags & PARTIAL)) for _, _, flags, message in records(writer.ffi, writer.ring)]


def reference(text: bytes, *, end: bool) -> tuple[list[tuple[bytes, bool]], bytes]:
    """The same in a few slow words, given all the text at once."""
    *lines, rest = text.split(b"\n")
    lines = [line.removesuffix(b"\r") for line in lines]
    found = []
    for line in lines:
        while len(line) > MAX:
            found.append((line[:MAX], True))
            line = line[MAX:]
        found.append((line, False))
    while len(rest) > MAX + 1 or (len(rest) == MAX + 1 and (end or not rest.endswith(b"\r"))):
        found.append((rest[:MAX], True))
        rest = rest[MAX:]
    if end and rest:
        found.append((rest, False))
        rest = b""
    return found, rest


@pytest.mark.parametrize(
    ("pieces", "messages", "held"),
    [
        ([b"a\nb\n"], [b"a", b"b"], b""),
        ([b"a\r\nb\r\n"], [b"a", b"b"], b""),
        ([b"a\r", b"\nb"], [b"a"], b"b"),
        ([b"a\r", b"b\n"], [b"a\rb"], b""),
        ([b"\n\r\n\n"], [b"", b"", b""], b""),
        ([b"a\r\r\n"], [b"a\r"], b""),
        ([b"\0\xff\xfe\n"], [b"\0\xff\xfe"], b""),
        ([b"one", b" and ", b"two\n", b"thr"], [b"one and two"], b"thr"),
        ([b"\n", b"\r", b"\n"], [b"", b""], b""),
    ],
)
def test_ends_of_lines_are_removed_wherever_reads_cut_them(
    writer: Writer, pieces: list[bytes], messages: list[bytes], held: bytes
) -> None:
    for piece in pieces:
        writer.write(piece)
    assert entries(writer) == [(message, False) for message in messages]
    assert writer.held == held


@pytest.mark.parametrize("length", [MAX - 1, MAX, MAX + 1, MAX + 2, 2 * MAX - 1, 2 * MAX, 2 * MAX + 1])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r\r\n", b""])
@pytest.mark.parametrize("first", [1, MAX - 1, MAX, MAX + 1, MAX + 2])
def test_a_long_line_is_cut_at_16_kib_however_it_comes(writer: Writer, length: int, ending: bytes, first: int) -> None:
    text = b"x" * length + ending
    writer.write(text[:first])
    writer.write(text[first:])
    writer.write(b"", end=True)
    assert entries(writer) == reference(text, end=True)[0]
    assert writer.held == b""


def test_what_is_unterminated_waits_and_the_end_of_the_run_ends_it(writer: Writer) -> None:
    writer.write(b"prompt> ")
    assert entries(writer) == []
    assert writer.held == b"prompt> "
    writer.write(b"", end=True)
    assert entries(writer) == [(b"prompt> ", False)]
    writer.write(b"", end=True)
    assert len(entries(writer)) == 1, "an end without text makes no line"


def test_random_text_in_random_pieces_is_split_as_the_reference_does(writer: Writer) -> None:
    chance = random.Random(8)
    for _ in range(150):
        words = [b"\n", b"\r\n", b"\r", b"\0", b"\xc3\xa9", b"abc", b"x" * 5000, b"y" * MAX, b"z" * 40]
        text = b"".join(chance.choices(words, weights=[9, 5, 3, 2, 3, 20, 3, 1, 9], k=chance.randrange(1, 40)))
        before = writer.ring.header.lines
        at = 0
        while at < len(text):
            size = chance.choice([1, 7, 100, 4096, MAX, 65536])
            writer.write(text[at : at + size])
            at += size
        end = chance.random() < 0.5
        if end:
            writer.write(b"", end=True)
        new = [
            (message, bool(flags & PARTIAL))
            for _, line, flags, message in records(writer.ffi, writer.ring)
            if line >= before
        ]
        expected, rest = reference(text, end=end)
        assert new == expected
        assert writer.held == rest
        if rest:
            writer.write(b"\n")


def test_records_count_on_in_seq_index_and_what_is_forwarded(writer: Writer) -> None:
    writer.seq[0] = 1000
    writer.write(b"a\nb\n", flags=FORWARD)
    writer.write(b"c\n", flags=0)
    writer.write(b"d\n", flags=FORWARD | STDERR)
    found = records(writer.ffi, writer.ring)
    assert [(seq, line, message) for seq, line, _, message in found] == [
        (1000, 0, b"a"),
        (1001, 1, b"b"),
        (1002, 2, b"c"),
        (1003, 3, b"d"),
    ]
    assert [flags for _, _, flags, _ in found] == [FORWARD, FORWARD, 0, FORWARD | STDERR]
    assert writer.nth == 3


def test_an_intake_done_again_writes_the_same_bytes(writer: Writer) -> None:
    chance = random.Random(5)
    writer.write(b"held ")
    for round_ in range(30):
        text = b"".join(chance.choices([b"line\n", b"q" * 20000, b"\r\n", b"rest"], k=50))
        once = writer.split(text)
        size = once.head - writer.ring.header.head
        at = writer.ring.header.head % writer.ring.capacity
        first = (
            bytes(writer.ffi.buffer(writer.ring.data + at, size)),
            (once.head, once.line, once.seq, once.nth, once.rest_length),
        )
        again = writer.split(text)
        assert first == (
            bytes(writer.ffi.buffer(writer.ring.data + at, size)),
            (again.head, again.line, again.seq, again.nth, again.rest_length),
        ), round_
        writer.publish(again)


def test_the_place_after_the_last_complete_line_is_told(writer: Writer) -> None:
    writer.write(b"a\n" + b"x" * (MAX + 10))
    assert writer.whole == 40, "after the first record; the long line is not complete"
    writer.write(b"\n")
    assert writer.whole == writer.ring.header.head
