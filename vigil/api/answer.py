"""The ``send`` that Falcon gets: what is added to every answer, and what happens at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from vigil.api.body import Event, Send


class Connection(Protocol):
    """What an answer needs of the connection it goes out on."""

    @property
    def body_limit(self) -> int:
        """How many bytes a body may have."""

    @property
    def writing_paused(self) -> bool:
        """Whether the client is behind."""

    def no_more_requests(self) -> None:
        """Close after this answer."""

    def flush_head(self) -> None:
        """Send the head now."""


class Answer:
    """The ``send`` that Falcon gets, and what has to happen when the request is over."""

    __slots__ = ("_closers", "_connection", "_receiver", "_send")

    def __init__(self, connection: Connection, send: Send, receiver: Any) -> None:
        self._connection = connection
        self._send = send
        self._receiver = receiver
        self._closers: list[Callable[[], None]] = []

    @property
    def body_limit(self) -> int:
        """How many bytes the body of the request may have."""
        return self._connection.body_limit

    async def __call__(self, event: Event) -> None:
        """Pass an event of the answer on."""
        if event["type"] == "http.response.start":
            event["headers"] = [*event["headers"], (b"server", b"vigild"), (b"cache-control", b"no-store")]
            if not self._receiver._complete:
                # Nobody knows where the next request begins.
                event["headers"].append((b"connection", b"close"))
                self._connection.no_more_requests()
        await self._send(event)
        if event.get("more_body") and not event.get("body"):
            self._connection.flush_head()

    async def aside(self, chunk: bytes) -> None:
        """Send ``chunk`` between two chunks of the app; not at all while the client is behind."""
        if not self._connection.writing_paused:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    def at_end(self, close: Callable[[], None]) -> None:
        """Call ``close`` when the request is over, however it ends."""
        self._closers.append(close)

    def close(self) -> None:
        """Do what ``at_end`` was told."""
        while self._closers:
            self._closers.pop()()
