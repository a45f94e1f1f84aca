"""The board of notifications as a test writes it, in place of logger."""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from typing import Any

from vigil._native import ffi, lib
from vigil.shim.board import Board
from vigil.shim.messages import Run

_SIZE = lib.VG_BOARD_FIRST + lib.VG_BOARD_NOTICES * ffi.sizeof("struct vg_notice")


class Notices:
    """A board, and what wakes its readers. Times are those of ``now_ns``, which a test moves; None: the real ones."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, _SIZE)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._memory = mmap.mmap(self.fd, _SIZE)
        self._bytes = ffi.from_buffer(self._memory)
        self.header = ffi.cast("struct vg_board *", self._bytes)
        self.header.magic, self.header.version = lib.VG_BOARD_MAGIC, lib.VG_BOARD_VERSION
        self.now_ns: int | None = None  # CLOCK_MONOTONIC
        self.real_ns: int | None = None
        self._seq = 0

    def board(self) -> Board:
        """A reader, as a control that has attached has it."""
        return Board(self.fd, os.dup(self.wake))

    def begin(self, run: Run) -> None:
        """logger has taken up the run's socket."""
        notice = self.of(run)
        ffi.memmove(notice, bytes(ffi.sizeof("struct vg_notice")), ffi.sizeof("struct vg_notice"))
        notice.generation = run.generation
        self.header.top = max(self.header.top, run.slot + 1)
        self.drained()

    def drained(self) -> None:
        """logger has looked at all sockets."""
        self.header.drained_ns = time.monotonic_ns() if self.now_ns is None else self.now_ns

    def of(self, run: Run) -> Any:
        """The notice itself."""
        at = self._bytes + lib.VG_BOARD_FIRST + run.slot * ffi.sizeof("struct vg_notice")
        return ffi.cast("struct vg_notice *", at)

    def say(self, run: Run, text: str, pid: int, uid: int = 0) -> None:
        """A datagram of a process of the run."""
        notice = self.of(run)
        assert notice.generation == run.generation, "the run has no socket"
        self.drained()
        self._seq += 1
        real_ns = time.time_ns() if self.real_ns is None else self.real_ns
        mark = (self._seq, real_ns, self.header.drained_ns, pid, uid)
        notice.version += 1
        notice.taken += 1
        told = False
        for line in text.split("\n"):
            told |= self._line(notice, mark, *line.partition("=")[::2])
        if told:
            notice.told = self._seq
        notice.version += 1
        if told:
            os.eventfd_write(self.wake, 1)

    @staticmethod
    def _line(notice: Any, mark: tuple[int, ...], key: str, value: str) -> bool:
        """Whether control is to be woken."""
        places = {
            ("READY", "1"): "ready_again",
            ("RELOADING", "1"): "reloading",
            ("STOPPING", "1"): "stopping",
            ("WATCHDOG", "1"): "watchdog",
            ("WATCHDOG", "trigger"): "trigger",
        }
        if (key, value) in places:
            if key == "READY" and not notice.ready.seq:
                notice.ready = mark
            setattr(notice, places[key, value], mark)
            return (key, value) != ("WATCHDOG", "1")
        if key == "STATUS":
            content = value.encode()[: lib.VG_STATUS_MAX]
            notice.text = content.ljust(lib.VG_STATUS_MAX, b"\0")
            notice.text_size, notice.status = len(content), mark
            return True
        if key in ("WATCHDOG_USEC", "EXTEND_TIMEOUT_USEC"):
            place = "period" if key == "WATCHDOG_USEC" else "extend"
            setattr(notice, f"{place}_usec", int(value))
            setattr(notice, place, mark)
            return True
        return False

    def close(self) -> None:
        """Its descriptors and its memory. No notice may be used any more."""
        os.close(self.fd)
        os.close(self.wake)
