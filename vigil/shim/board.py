"""What services said of themselves by sd_notify: the board that logger keeps, as control reads it.

A notice is a state, not a message: each thing that can be said, with who said it last and when. It outlives control and
logger, and it is about one run and no other. So nothing is lost while nobody reads, a control that was restarted finds
all of it, and hearing of a notice twice means nothing.

PID 1 parks the board and the eventfd by which logger wakes control under ``BOARD`` and ``WAKE``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from vigil._native import ffi, lib
from vigil.shim.messages import Run

if TYPE_CHECKING:
    import asyncio

BOARD = "notify/board"
WAKE = "notify/wake"

# A service that has something else to say thousands of times a second wakes control no more often than that.
_PAUSE = 0.025


class Mark(msgspec.Struct, frozen=True):
    """When something was said last, and by whom."""

    seq: int  # over all runs, of what was said in which order
    real_ns: int  # when logger took it, CLOCK_REALTIME
    monotonic_ns: int  # CLOCK_MONOTONIC
    pid: int  # in vigild's namespace
    uid: int


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """All that the processes of one run said until now. None: never."""

    run: Run
    ready: Mark | None = None  # READY=1, the first
    ready_again: Mark | None = None  # and the last, which ends a reload
    reloading: Mark | None = None
    stopping: Mark | None = None
    status: str = ""  # STATUS=, at most 512 bytes; invalid UTF-8 as U+FFFD
    status_mark: Mark | None = None
    watchdog: Mark | None = None  # WATCHDOG=1: nobody is woken for that, look when the time is up
    trigger: Mark | None = None  # WATCHDOG=trigger: it calls itself sick
    period: float = 0.0  # WATCHDOG_USEC=, seconds
    period_mark: Mark | None = None
    extend: float = 0.0  # EXTEND_TIMEOUT_USEC=, seconds
    extend_mark: Mark | None = None
    taken: int = 0  # datagrams that were believed
    forged: int = 0  # that were sent by somebody else, and dropped
    senseless: int = 0  # empty, longer than 4096 bytes, or with a NUL, and dropped

    @property
    def is_reloading(self) -> bool:
        """Whether the last RELOADING=1 was not followed by a READY=1 yet."""
        if self.reloading is None:
            return False
        return self.ready_again is None or self.ready_again.seq < self.reloading.seq


class Board:
    """The board of this boot of the plan, read only."""

    def __init__(self, board: int, wake: int) -> None:
        """Map it. OSError where it is none. ``board`` may be closed afterwards; ``wake`` is taken over."""
        self._handle: Any = lib.ext_board_open(board)
        if self._handle == ffi.NULL:
            error = ffi.errno
            os.close(wake)
            raise OSError(error, f"cannot read the notifications of services: {os.strerror(error)}")
        self._wake = wake
        self._notice = ffi.new("struct vg_notice *")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handler: Callable[[Notice], None] | None = None
        self._pause: asyncio.TimerHandle | None = None

    def read(self, run: Run) -> Notice | None:
        """What the run said. None: logger has not taken up its socket yet, or was killed just now: ask again later."""
        if lib.ext_board_read(self._handle, run.slot, run.generation, self._notice) != 1:
            return None
        return _notice(run, self._notice)

    def drained_ns(self) -> int:
        """CLOCK_MONOTONIC: whatever services had sent by then is on the board, in a ``read`` that comes after this.

        It advances at least twice a second while logger lives. A service kept silent until T only where this is past T:
        a logger that was killed or hung would be blamed on the service.
        """
        return int(lib.ext_board_drained(self._handle))

    def changed(self) -> Iterator[Notice]:
        """The notices that say something new since they came out of here last; keepalives are nothing new."""
        slot = ffi.new("uint32_t *")
        while lib.ext_board_next(self._handle, slot, self._notice):
            yield _notice(Run(slot[0], self._notice.generation), self._notice)
            slot[0] += 1

    def listen(self, loop: asyncio.AbstractEventLoop, handler: Callable[[Notice], None]) -> None:
        """Give ``handler`` every notice there is, soon, and from then on each that says something new.

        Of a run that the handler does not know yet it is to ``read`` the notice when its Started comes.
        """
        self._loop, self._handler = loop, handler
        self._pause = loop.call_later(0, self._go_on)

    def close(self) -> None:
        """Stop listening, and unmap."""
        if self._loop is not None:
            self._loop.remove_reader(self._wake)
            if self._pause is not None:
                self._pause.cancel()
            self._loop = None
        if self._handle is not None:
            lib.ext_board_close(self._handle)
            os.close(self._wake)
            self._handle = None

    def _woken(self) -> None:
        assert self._loop is not None
        try:
            os.eventfd_read(self._wake)  # before the look: what comes after it wakes again
        except BlockingIOError:
            return
        self._loop.remove_reader(self._wake)
        self._pause = self._loop.call_later(_PAUSE, self._go_on)
        self._tell()

    def _go_on(self) -> None:
        """The pause is over. A notice that was being written when we looked is looked at again."""
        assert self._loop is not None
        self._pause = None
        self._loop.add_reader(self._wake, self._woken)
        self._tell()

    def _tell(self) -> None:
        assert self._handler is not None
        for notice in list(self.changed()):
            self._handler(notice)


def _mark(mark: Any) -> Mark | None:
    if not mark.seq:
        return None
    return Mark(seq=mark.seq, real_ns=mark.real_ns, monotonic_ns=mark.now_ns, pid=mark.pid, uid=mark.uid)


def _notice(run: Run, m: Any) -> Notice:
    return Notice(
        run=run,
        ready=_mark(m.ready),
        ready_again=_mark(m.ready_again),
        reloading=_mark(m.reloading),
        stopping=_mark(m.stopping),
        status=bytes(ffi.buffer(m.text, m.text_size)).decode("utf-8", "replace"),
        status_mark=_mark(m.status),
        watchdog=_mark(m.watchdog),
        trigger=_mark(m.trigger),
        period=m.period_usec / 1e6,
        period_mark=_mark(m.period),
        extend=m.extend_usec / 1e6,
        extend_mark=_mark(m.extend),
        taken=m.taken,
        forged=m.forged,
        senseless=m.senseless,
    )
