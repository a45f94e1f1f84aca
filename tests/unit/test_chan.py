"""One end of a link, in C: what is a message and what is not, descriptors, and room."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A link: ours, and the one that the C code has."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def receive(testmod: ModuleType, end: socket.socket) -> tuple[int, Any]:
    message = testmod.ffi.new("struct chan_message *")
    return testmod.lib.chan_receive(end.fileno(), message), message


def frame(size: int, kind: int = 7) -> bytes:
    return struct.pack("=IHH", size, kind, 0).ljust(size, b"x")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_message_comes_as_it_was_sent(testmod: ModuleType, ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    lib, ffi = testmod.lib, testmod.ffi
    assert receive(testmod, theirs)[0] == lib.CHAN_EMPTY
    ours.send(frame(24))
    result, message = receive(testmod, theirs)
    assert result == lib.CHAN_MESSAGE
    assert bytes(ffi.buffer(message.words, message.size)) == frame(24)
    assert lib.chan_send(theirs.fileno(), ffi.from_buffer(frame(32)), ffi.NULL, 0) == lib.CHAN_MESSAGE
    assert ours.recv(100) == frame(32)
    ours.close()
    assert receive(testmod, theirs)[0] == lib.CHAN_CLOSED
    assert lib.chan_send(theirs.fileno(), ffi.from_buffer(frame(32)), ffi.NULL, 0) == lib.CHAN_CLOSED


@pytest.mark.parametrize(
    "data",
    [b"a", b"abcdefg", frame(24)[:16], frame(24) + b"y", frame(8192), struct.pack("=IHH", 0, 7, 0)],
    ids=["one byte", "less than a head", "cut", "longer than it says", "longer than any", "size 0"],
)
def test_what_is_no_message_is_bad_and_its_descriptors_are_closed(
    testmod: ModuleType, ends: tuple[socket.socket, socket.socket], data: bytes
) -> None:
    ours, theirs = ends
    before = descriptors()
    socket.send_fds(ours, [data], [0, 0])
    result, message = receive(testmod, theirs)
    assert (result, message.count) == (testmod.lib.CHAN_BAD, 0)
    assert descriptors() == before


def test_more_descriptors_than_any_message_has_are_all_closed(
    testmod: ModuleType, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    before = descriptors()
    for count in (6, 16, 100):
        socket.send_fds(ours, [frame(16)], [0] * count)
        assert receive(testmod, theirs)[0] == testmod.lib.CHAN_BAD
        assert descriptors() == before


def test_descriptors_are_close_on_exec_and_somebodys(
    testmod: ModuleType, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    before = descriptors()
    socket.send_fds(ours, [frame(16)], [0, 0, 0, 0])
    result, message = receive(testmod, theirs)
    assert (result, message.count) == (testmod.lib.CHAN_MESSAGE, 4)
    taken = testmod.lib.chan_take_fd(message, 1)
    assert not os.get_inheritable(taken)
    assert testmod.lib.chan_take_fd(message, 4) == testmod.lib.chan_take_fd(message, -1) == -1
    testmod.lib.chan_drop(message)
    assert descriptors() == before + 1
    os.close(taken)


def test_a_full_socket_is_no_room_and_loses_nothing(
    testmod: ModuleType, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    sent = 0
    while testmod.lib.chan_send(theirs.fileno(), testmod.ffi.from_buffer(frame(512)), testmod.ffi.NULL, 0) == 1:
        sent += 1
        assert sent < 100_000
    for _ in range(sent):
        assert ours.recv(1024) == frame(512)
    assert testmod.lib.chan_send(theirs.fileno(), testmod.ffi.from_buffer(frame(512)), testmod.ffi.NULL, 0) == 1


def test_messages_of_a_dead_peer_are_read_before_its_end(
    testmod: ModuleType, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    testmod.lib.chan_send(theirs.fileno(), testmod.ffi.from_buffer(frame(16)), testmod.ffi.NULL, 0)  # never read
    for _ in range(3):
        ours.send(frame(16))
    ours.close()
    assert [receive(testmod, theirs)[0] for _ in range(4)] == [1, 1, 1, testmod.lib.CHAN_CLOSED]


def test_a_rule_wants_kind_phase_size_and_descriptors(
    testmod: ModuleType, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    ffi, lib = testmod.ffi, testmod.lib
    rules = ffi.new("struct chan_rule[2]", [(7, 1, 16, 0, 0), (8, 2, 24, 1, 2)])
    cases = [
        (7, 16, 0, 1, 0), (7, 16, 0, 2, -1), (7, 24, 0, 1, -1), (7, 16, 1, 1, -1),
        (8, 24, 1, 2, 1), (8, 24, 2, 2, 1), (8, 24, 3, 2, -1), (8, 24, 0, 2, -1), (9, 16, 0, 3, -1),
    ]  # fmt: skip
    for kind, size, count, phase, wanted in cases:
        socket.send_fds(ours, [frame(size, kind)], [0] * count)
        _, message = receive(testmod, theirs)
        assert lib.chan_check(rules, 2, message, phase) == wanted, (kind, size, count, phase)
        lib.chan_drop(message)
