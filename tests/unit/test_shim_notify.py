"""Sockets for notifications, and the board as control reads it: logger is played by the test."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from tests.channel.notices import Notices
from vigil._native import lib
from vigil.shim import notify
from vigil.shim.board import Board, Notice
from vigil.shim.messages import Run

WEB, DB = Run(3, 7), Run(4, 1)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name: that of a socket has at most 107 bytes."""
    return tmp_path_factory.mktemp("n")


@pytest.fixture
def notices() -> Iterator[Notices]:
    made = Notices()
    yield made
    made.close()


@pytest.fixture
def board(notices: Notices) -> Iterator[Board]:
    made = notices.board()
    yield made
    made.close()


def heard(fd: int, address: str) -> bool:
    """Whether what is sent to the address comes out of the socket, with its sender."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, socket.socket(fileno=os.dup(fd)) as mine:
        sender.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
        data, ancillary, _, _ = mine.recvmsg(100, 100)
        return data == b"READY=1" and ancillary[0][:2] == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)


# --- sockets ---


def test_a_socket_has_a_secret_name_in_a_directory_that_nobody_lists(folder: Path) -> None:
    sockets = notify.Sockets(f"{folder}/s.notify")
    fds, addresses = zip(*(sockets.open(token, None) for token in (1, 0xAB, 2**63)), strict=True)
    assert all(heard(fd, address) for fd, address in zip(fds, addresses, strict=True))
    assert [address.rpartition("/")[2].partition("-")[0] for address in addresses] == ["1", "ab", "8000000000000000"]
    assert len({address.rpartition("-")[2] for address in addresses}) == 3
    assert stat.S_IMODE((folder / "s.notify").stat().st_mode) == 0o711
    assert {stat.S_IMODE(os.stat(address).st_mode) for address in addresses} == {0o600}
    assert not os.get_inheritable(fds[0])
    sockets.close(0xAB)
    sockets.close(0xAB)
    assert sorted(f"{folder}/s.notify/{name}" for name in os.listdir(folder / "s.notify")) == sorted(addresses[::2])
    sockets.remove()
    assert list(folder.iterdir()) == []
    for fd in fds:
        os.close(fd)


def test_the_next_control_keeps_the_files_of_live_runs_and_removes_the_others(folder: Path) -> None:
    place = folder / "n"
    before = notify.Sockets(str(place))
    opened = [before.open(token, None) for token in (5, 6)]
    for name in ("5", "x-" + "0" * 32, "readme"):
        (place / name).touch()
    sockets = notify.Sockets(str(place))
    sockets.adopt({6})
    assert not os.path.exists(opened[0][1])
    assert heard(*opened[1])
    assert {"5", "x-" + "0" * 32, "readme"} < set(os.listdir(place)), "what is not ours stays"
    sockets.close(6)
    assert not os.path.exists(opened[1][1])
    for fd, _ in opened:
        os.close(fd)


@pytest.mark.parametrize("why", ["no place", "no parent", "a file", "a link", "long"])
def test_where_no_path_can_be_the_name_is_abstract(folder: Path, why: str) -> None:
    place = {"no place": None, "no parent": f"{folder}/not/there", "long": f"{folder}/{'x' * 90}"}.get(
        why, f"{folder}/n"
    )
    if why == "a file":
        (folder / "n").touch()
    if why == "a link":
        (folder / "n").symlink_to(folder)
    sockets = notify.Sockets(place)
    fd, address = sockets.open(1, None)
    assert address.startswith("@vigil/notify/")
    assert len(address) == len("@vigil/notify/") + 32
    assert heard(fd, address)
    sockets.close(1)
    sockets.adopt(())
    sockets.remove()
    os.close(fd)


def test_a_user_who_does_not_get_to_the_directory_has_an_abstract_name(folder: Path, root: None) -> None:
    """Of pytest's own folder only root knows more than the name."""
    sockets = notify.Sockets(f"{folder}/n")
    fd, address = sockets.open(1, 65534)
    assert address.startswith("@")
    os.close(fd)
    fd, address = sockets.open(2, 0)
    assert address.startswith("/")
    sockets.remove()
    os.close(fd)


# --- the board ---


def test_a_notice_is_about_one_run(notices: Notices, board: Board) -> None:
    assert board.read(WEB) is None
    notices.begin(WEB)
    assert board.read(WEB) == Notice(run=WEB)
    notices.say(WEB, "READY=1\nSTATUS=up", pid=12, uid=33)
    notice = board.read(WEB)
    assert notice is not None
    assert notice.ready is not None
    assert (notice.ready.pid, notice.ready.uid, notice.status) == (12, 33, "up")
    assert board.read(Run(WEB.slot, WEB.generation + 1)) is None
    assert board.read(Run(lib.VG_NO_SLOT, 0)) is None
    assert board.read(Run(5, 0)) is None


def test_a_reload_lasts_until_the_next_ready(notices: Notices, board: Board) -> None:
    notices.begin(WEB)
    seen = []
    for text in ("READY=1", "RELOADING=1", "READY=1"):
        notices.say(WEB, text, pid=1)
        notice = board.read(WEB)
        assert notice is not None
        seen.append(notice.is_reloading)
    assert seen == [False, True, False]
    assert notice.ready != notice.ready_again


def test_what_is_being_written_is_not_known_now_and_told_later(notices: Notices, board: Board) -> None:
    notices.begin(WEB)
    notices.say(WEB, "READY=1", pid=1)
    notices.of(WEB).version += 1
    assert board.read(WEB) is None
    assert list(board.changed()) == []
    notices.of(WEB).version += 1
    assert [notice.run for notice in board.changed()] == [WEB]
    assert list(board.changed()) == []


def test_only_what_says_something_new_is_told(notices: Notices, board: Board) -> None:
    for run in (WEB, DB):
        notices.begin(run)
        notices.say(run, "READY=1", pid=1)
    assert [notice.run for notice in board.changed()] == [WEB, DB]
    notices.say(WEB, "WATCHDOG=1", pid=1)
    assert list(board.changed()) == []
    notices.say(DB, "STATUS=x", pid=1)
    assert [notice.status for notice in board.changed()] == ["x"]


def test_what_is_no_board_is_refused(notices: Notices) -> None:
    for fd in (os.memfd_create("x"), os.memfd_create("x", os.MFD_ALLOW_SEALING), os.open("/dev/null", os.O_RDONLY)):
        with pytest.raises(OSError, match="cannot read the notifications of services"):
            Board(fd, os.dup(notices.wake))
        os.close(fd)
    notices.header.version += 1
    with pytest.raises(OSError, match="cannot read the notifications"):
        notices.board()


def run_listening(board: Board, act: Callable[[asyncio.Queue[Notice]], Coroutine[None, None, None]]) -> None:
    """Run ``act(heard)`` while the board is listened to."""

    async def main() -> None:
        heard: asyncio.Queue[Notice] = asyncio.Queue()
        board.listen(asyncio.get_running_loop(), heard.put_nowait)
        await asyncio.wait_for(act(heard), 20)

    asyncio.run(main())


def test_a_control_that_comes_later_hears_what_was_said_before_and_then_what_is_new(
    notices: Notices, board: Board
) -> None:
    notices.begin(WEB)
    notices.say(WEB, "READY=1", pid=1)

    async def act(heard: asyncio.Queue[Notice]) -> None:
        assert (await heard.get()).run == WEB
        notices.begin(DB)
        notices.say(DB, "READY=1", pid=2)
        assert (await heard.get()).run == DB

    run_listening(board, act)
    assert not select.select([notices.wake], [], [], 0)[0]


def test_a_service_that_never_stops_talking_wakes_control_forty_times_a_second_and_nothing_is_missed(
    notices: Notices, board: Board
) -> None:
    notices.begin(WEB)
    begun = time.monotonic()

    async def act(heard: asyncio.Queue[Notice]) -> None:
        number = 0
        while time.monotonic() < begun + 1:
            for _ in range(20):
                number += 1
                notices.say(WEB, f"STATUS={number}", pid=1)
            await asyncio.sleep(0)
        count = 1
        while (await heard.get()).status != str(number):
            count += 1
        assert 3 <= count <= 2 * (time.monotonic() - begun) / 0.025 + 3  # at its beginning and at the end of a pause

    run_listening(board, act)
