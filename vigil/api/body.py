"""The body of a request, with a size, a deadline and an end: what ASGI servers and Falcon leave open.

Falcon takes a lost connection for the end of a body, so half an order would be carried out as if it were a whole one.
Here a body that ends before its end is an error, whatever cut it short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import falcon

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


class Body:
    """The ``receive`` that Falcon gets. Nothing is taken from the client before somebody asks for the body."""

    __slots__ = ("_asked", "_deadline", "_ended", "_expected", "_limit", "_receive", "_taken")

    def __init__(self, receive: Receive, *, expected: bool, limit: int, deadline: float) -> None:
        self._receive = receive
        self._expected = expected
        self._limit = limit
        self._deadline = deadline  # on the loop's clock
        self._asked = False
        self._ended = not expected
        self._taken = 0

    async def __call__(self) -> Event:
        """The next event. Raises falcon.HTTPError: 400 cut short, 408 too slow, 413 too large."""
        if not self._asked:
            self._asked = True
            if self._expected:
                # Falcon wants a first event before it looks at anything else; a client that waits for "100 Continue"
                # must not be told to go on before access has been checked.
                return {"type": "http.request", "body": b"", "more_body": True}
        if self._ended:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._receive()
        except TimeoutError:
            raise falcon.HTTPError(408, description="cannot read the request: its body took too long") from None
        if event["type"] != "http.request":
            raise falcon.HTTPError(400, description="cannot read the request: its body was cut short")
        self._taken += len(event.get("body", b""))
        if self._taken > self._limit:
            raise too_large(self._limit)
        self._ended = not event.get("more_body", False)
        return event


def too_large(limit: int) -> falcon.HTTPError:
    """The error of a body over ``limit`` bytes."""
    return falcon.HTTPError(413, description=f"cannot read the request: its body is over {limit} bytes")
