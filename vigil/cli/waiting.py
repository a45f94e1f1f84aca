"""A client for people: on a terminal it says so once where vigild takes long to answer."""

from __future__ import annotations

import _thread

from vigil.cli.terminal import Progress, complain
from vigil.client.client import PATIENCE, Client

_LONG = 3.0  # seconds; a control that was killed is back in a tenth of that


class TellingClient(Client):
    """One that is used where standard error is a terminal."""

    _told = False

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        slack: float = 0.0,
        again: bool = True,
    ) -> bytes:
        """As a Client's."""
        answered = _thread.allocate_lock()  # held until then: "threading" would take longer to import than an answer
        answered.acquire()
        _thread.start_new_thread(self._watch, (answered, _LONG + slack))
        try:
            return super().request(method, target, body, headers, slack=slack, again=again)
        finally:
            answered.release()

    def _watch(self, answered: _thread.LockType, seconds: float) -> None:
        if not answered.acquire(timeout=seconds) and not self._told:
            self._told = True
            Progress().clear()
            complain(f"vigil: vigild does not answer; waiting for up to {PATIENCE:.0f}s (Ctrl-C ends that)")
