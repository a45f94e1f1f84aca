"""Answers that come in pieces: the chunks of a follower, without an end, and lists that are too long for one piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import ClassVar, Generic, TypeVar

from vigil.api import envelope
from vigil.api.answer import Answer
from vigil.api.needs import Follower

T = TypeVar("T")


class Items(Generic[T]):
    """A result that is a list of ``T``, from pieces of JSON with one item a line; the loop goes on between two."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._first = next(pieces, b"")
        self._second = next(pieces, b"")

    def whole(self) -> bytes | None:
        """The answer, where one piece is all of it."""
        return None if self._second else envelope.SYNC_HEAD + b"[" + _listed(self._first) + b"]" + envelope.SYNC_END

    async def begin(self) -> AsyncIterator[bytes]:
        """The answer piece by piece."""
        yield envelope.SYNC_HEAD + b"[" + _listed(self._first)
        piece = self._second
        while piece:
            yield b"," + _listed(piece)
            await asyncio.sleep(0)  # a client that takes everything at once would be served to the end first
            piece = next(self._pieces, b"")
        yield b"]" + envelope.SYNC_END


def _listed(piece: bytes) -> bytes:
    """Line ends become commas: within an item they are escaped."""
    return piece[:-1].replace(b"\n", b",")


class Stream:
    """What a responder gives instead of a result that has an end: the chunks of a follower.

    Comments in between tell silence from death.
    """

    TYPES: ClassVar[dict[str, str]] = {
        "json": "text/event-stream",
        "text": "text/event-stream",
        "ndjson": "application/x-ndjson",
    }

    def __init__(self, follower: Follower, format: str, ping_seconds: float) -> None:  # noqa: A002 - the word of the wire
        self.content_type = self.TYPES[format]
        self._follower = follower
        # In ndjson every line is an entry, so there is nothing to say in between.
        self._ping_seconds = ping_seconds if self.content_type == "text/event-stream" else None
        self._answer: Answer
        self._loop: asyncio.AbstractEventLoop
        self._head_sent = False
        self._sent = 0.0  # when something was sent, by the loop's clock
        self._pinger: asyncio.Task[None] | None = None

    def begin(self, answer: Answer) -> Stream:
        """Bind it to its request: when that ends, however it ends, the follower is closed."""
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        answer.at_end(self._end)
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk. The first is empty, which sends the head: the first line may be hours away."""
        if not self._head_sent:
            self._head_sent = True
            if self._ping_seconds is not None:
                self._pinger = self._loop.create_task(self._ping(self._ping_seconds))
            return b""
        while True:
            chunk = await self._follower.__anext__()
            if chunk:
                self._sent = self._loop.time()
                return chunk

    async def _ping(self, seconds: float) -> None:
        """Whoever has heard nothing for so long hears that."""
        self._sent = self._loop.time()
        while True:
            await asyncio.sleep(self._sent + seconds - self._loop.time())
            if self._loop.time() >= self._sent + seconds:
                self._sent = self._loop.time()
                await self._answer.aside(b": ping\n\n")

    def _end(self) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        self._follower.close()
