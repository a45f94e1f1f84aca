"""Threads for what blocks: as many as are needed at once, up to a bound, and none that nobody needs.

They are daemons: whatever they wait for, control can end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

_IDLE = 10.0  # seconds after which a thread that has nothing to do ends


class Threads:
    """A pool."""

    __slots__ = ("_changed", "_count", "_idle", "_jobs", "_most", "_name")

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._count = self._idle = 0

    def __len__(self) -> int:
        return self._count

    def submit(self, job: Callable[[], None]) -> bool:
        """Have ``job``, which raises nothing, called in a thread; where all are busy it waits for one.

        False: there is no thread and none can be started.
        """
        with self._changed:
            if self._idle <= len(self._jobs) and self._count < self._most:
                try:
                    threading.Thread(target=self._run, name=self._name, daemon=True).start()
                    self._count += 1
                except RuntimeError:  # processes or memory are short: those that are there must do
                    if self._count == 0:
                        return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._idle += 1
                    woken = self._changed.wait(_IDLE)
                    self._idle -= 1
                    if not woken and not self._jobs:
                        self._count -= 1
                        return
                job = self._jobs.popleft()
            job()
            del job  # or an idle thread would keep all that it knows
