"""The overlord's clock, with an end for what must not happen in its calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from vigil.service.clock import LoopClock


def crash(error: BaseException) -> NoReturn:
    """End this control with the traceback of ``error``.

    An exception that nobody expected leaves the overlord's state somewhere between two steps. The journal has the last
    whole one, and the next control begins there; going on from here could act on half of something. So it ends at once,
    without the cleaning up that would run with that state.
    """
    try:
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
    finally:
        os._exit(1)


def guarded(call: Callable[[], None]) -> Callable[[], None]:
    """``call``, but an exception in it ends control."""

    def run() -> None:
        try:
            call()
        except Exception as error:
            crash(error)

    return run


class GuardedClock(LoopClock):
    """The clock of real life; what it calls is guarded."""

    def soon(self, call: Callable[[], None]) -> None:
        """See Clock."""
        super().soon(guarded(call))

    def alarm(self, deadline_ns: int | None, call: Callable[[], None]) -> None:
        """See Clock."""
        super().alarm(deadline_ns, guarded(call))
