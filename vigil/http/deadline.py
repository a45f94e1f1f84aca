"""The end of an exchange, as it reaches a thread that waits for the other side.

A socket's own timeout is for one operation: whoever drips a byte a second never meets it. So each socket is known here
by a duplicate (wrapping one in TLS takes the original away), and shutting that down wakes the thread in any phase.
"""

from __future__ import annotations

import socket
import threading
import time


class Expired(Exception):
    """The deadline has passed; the thread is to end."""


class Deadline:
    """Of one exchange. The loop calls ``expire``, the exchange's thread everything else."""

    __slots__ = ("_begun", "_end", "_lock", "_sockets", "_stuck", "expired", "phase")

    def __init__(self, timeout: float) -> None:
        self.phase = ""  # what is being waited for, to come after "still "
        self.expired = False
        self._stuck: str | None = None
        self._begun = False
        self._end = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def begin(self) -> bool:
        """The thread begins; False: it is too late for that."""
        with self._lock:
            self._begun = not self.expired
            return self._begun

    def left(self) -> float:
        """Seconds; Expired where there are none."""
        left = self._end - time.monotonic()
        if self.expired or left <= 0:
            raise Expired
        return left

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return self.expired or time.monotonic() >= self._end

    @property
    def stuck(self) -> str:
        """What was being waited for at the deadline, or is."""
        return self.phase if self._stuck is None else self._stuck

    def watch(self, connection: socket.socket) -> None:
        """``connection`` is shut down at the deadline, which may be now. OSError where no descriptor is left."""
        twin = connection.dup()
        with self._lock:
            if not self.expired:
                self._sockets.append(twin)
                return
        twin.close()
        raise Expired

    def expire(self) -> bool:
        """The deadline is now. Returns whether the thread has begun."""
        with self._lock:
            if not self.expired:
                self._stuck = self.phase  # a socket that is shut down lets the thread go on a little
            self.expired = True
            for twin in self._sockets:
                try:
                    twin.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # not connected, or not any more
            return self._begun

    def close(self) -> None:
        """The thread has let go of its sockets."""
        with self._lock:
            for twin in self._sockets:
                twin.close()
            self._sockets.clear()
