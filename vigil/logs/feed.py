"""Followers. Those who ask for the same share one reader and its chunks: what is new is rendered once a tick for all.

A feed is one such reader, with the chunks it rendered lately. A follower first reads by itself what is to be replayed,
up to the seq at which it joined, then takes the feed's chunks. One that is slow and finds its next chunk gone reads by
itself again from where it was, as far as the logs reach, and joins anew: only what the logs themselves have overwritten
is lost to it, and it is told how much that was. So the chunks kept are few, whatever the followers do. Before a log is
dropped everybody who is behind begins to read by himself: his reader keeps what the log held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from vigil._native import lib
from vigil.logs.reader import Log, Places, Reader

if TYPE_CHECKING:
    import asyncio  # 30 ms that control does not have before its first SPAWN: imported where somebody follows

TICK = 0.025  # seconds
KEPT = 1 << 20  # bytes of chunks a feed keeps
DIAGNOSTICS = "vigild"

_START, _SEQ, _PLACE = int(lib.EXT_FROM_START), int(lib.EXT_FROM_SEQ), int(lib.EXT_FROM_PLACE)


class Asked(NamedTuple):
    """What followers share a feed for."""

    names: tuple[str, ...]  # sorted; empty: all but vigild's own
    format: str
    boot_id: str


class Chunk(NamedTuple):
    """Rendered entries, and where the reader was after them."""

    data: bytes
    places: Places


class Feed:
    """The shared reader of all who asked for the same."""

    def __init__(self, asked: Asked, logs: dict[str, Log]) -> None:
        import asyncio

        self.asked = asked
        self.followers: set[Follower] = set()
        self.chunks: deque[Chunk] = deque()
        self.first = 0  # number of chunks[0]
        self.size = 0
        self.news = asyncio.Event()
        self.stale = False  # logs have come
        self.closed = False
        self._logs = logs
        self._reader = Reader(asked.format, asked.boot_id)
        self._known: dict[int, Log] = {}
        # From a seq on, not from each log's end: whoever sees S sees all before it, so nothing falls between two looks.
        self.seq = max((log.last_seq() for log in self.wanted()), default=0)
        for log in self.wanted():
            self._add(log, _SEQ, self.seq)
        self._reader.limit(self.seq)
        self.places = self._reader.places()

    @property
    def end(self) -> int:
        """Number of the chunk that is next."""
        return self.first + len(self.chunks)

    def wanted(self) -> list[Log]:
        """The logs that are asked for, as far as they exist."""
        if not self.asked.names:
            return [log for name, log in self._logs.items() if name != DIAGNOSTICS]
        return [self._logs[name] for name in self.asked.names if name in self._logs]

    def lose(self, log: Log) -> None:
        """A log is dropped: what it still has is taken first, and held for those who are not there yet."""
        if log.serial in self._known:
            self.pump()
            for follower in self.followers:
                follower.fall_back()
            del self._known[log.serial]
            self._reader.remove(log)
            self.places = self._reader.places()

    def pump(self) -> None:
        """Render what is new."""
        if self.stale:
            self.stale = False
            for log in self.wanted():
                if log.serial not in self._known:
                    self._add(log, _START)  # made since: all of it is new
            self.places = self._reader.places()
        self.seq = self._reader.mark()
        self._take()

    def wake(self) -> None:
        """Let the followers take what is new."""
        import asyncio

        self.news.set()
        self.news = asyncio.Event()

    def apart(self, places: Places) -> Reader:
        """A reader for one follower that was at these places, up to where the feed is."""
        reader = Reader(self.asked.format, self.asked.boot_id)
        for serial, log in self._known.items():
            at, line = places.get(serial, (0, 0))
            reader.add(log, _PLACE, at, line, end=self.places[serial][1])
        reader.limit(self.seq)
        return reader

    def replay(self, n: int, start: tuple[int, int]) -> Reader | None:
        """A reader for what is to be given again, up to where the feed is."""
        if n <= 0:
            return None
        reader = Reader(self.asked.format, self.asked.boot_id)
        for log in self._known.values():
            reader.add(log, *start, end=self.places[log.serial][1])
        reader.limit(self.seq)
        reader.keep(n)
        if start[0] == _SEQ:
            reader.lost(self._gone(start[1], n))
        return reader

    def _gone(self, seq: int, n: int) -> int:
        """How many lines that came after ``seq``, and would be among the last ``n``, the logs have lost.

        A log does not know how many of its lost lines came after a seq, but all logs together know which seqs are
        missing. Only where logs that are followed and others have lost some at once can this be too many.
        """
        gone = sum(log.gone(seq) for log in self._known.values())
        if not gone:
            return 0
        there = {log.serial: log.after(seq, self.seq) for log in self._logs.values()}
        if sum(there[serial] for serial in self._known) >= n:
            return 0
        return max(min(gone, self.seq - seq - sum(there.values())), 0)

    def _add(self, log: Log, start: int, value: int = 0) -> None:
        self._known[log.serial] = log
        self._reader.add(log, start, value)

    def _take(self) -> None:
        came = False
        while data := self._reader.read():
            self.chunks.append(Chunk(data, self._reader.places()))
            self.size += len(data)
            came = True
        while self.size > KEPT and len(self.chunks) > 1:
            self.size -= len(self.chunks.popleft().data)
            self.first += 1
        if came:
            self.places = self._reader.places()
            self.wake()


class Follower:
    """An asynchronous iterator of chunks of whole entries; ends after ``close()``."""

    def __init__(self, feeds: Feeds, feed: Feed, reader: Reader | None) -> None:
        """Join the feed where it is; ``reader`` has what comes before."""
        self._feeds = feeds
        self._feed = feed
        self._own: deque[Reader] = deque([] if reader is None else [reader])  # read first, one after the other
        self._next = feed.end
        self._places = feed.places
        self._closed = False
        feed.followers.add(self)

    def __aiter__(self) -> Follower:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next entries; waits for them."""
        import asyncio

        while not self._closed and not self._feed.closed:
            if not self._own and self._next < self._feed.first:
                self._feed.pump()
                self.fall_back()
            while self._own:
                data = self._own[0].read()
                if data:
                    # A client that takes everything at once would be given all of it before anybody else is served.
                    await asyncio.sleep(0)
                    return data
                self._own.popleft()
            if self._feed.first <= self._next < self._feed.end:
                chunk = self._feed.chunks[self._next - self._feed.first]
                self._next += 1
                self._places = chunk.places
                return chunk.data
            if self._next >= self._feed.end:
                await self._feed.news.wait()
        raise StopAsyncIteration

    def fall_back(self) -> None:
        """If it is behind, read what it has not had from the logs, up to where the feed is, and join there."""
        if self._next < self._feed.end:
            self._own.append(self._feed.apart(self._places))
            self._next, self._places = self._feed.end, self._feed.places

    def close(self) -> None:
        """Give the place up; may be called twice."""
        if not self._closed:
            self._closed = True
            self._own.clear()
            self._feeds.left(self._feed, self)


class Feeds:
    """All feeds, and the task that ticks while somebody follows."""

    def __init__(self, logs: dict[str, Log]) -> None:
        self._logs = logs
        self._feeds: dict[Asked, Feed] = {}
        self._ticker: asyncio.Task[None] | None = None

    def follow(
        self,
        names: Sequence[str],
        format: str,  # noqa: A002 - the word users know
        boot_id: str,
        n: int,
        start: tuple[int, int],
    ) -> Follower:
        """See LogStore.follow."""
        asked = Asked(tuple(sorted(set(names))), format, boot_id)
        feed = self._feeds.get(asked)
        if feed is None:
            feed = self._feeds[asked] = Feed(asked, self._logs)
        else:
            feed.pump()
        follower = Follower(self, feed, feed.replay(n, start))
        if self._ticker is None:
            import asyncio

            self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="logs: tick")
        return follower

    def left(self, feed: Feed, follower: Follower) -> None:
        """A follower is gone."""
        feed.followers.discard(follower)
        feed.wake()  # if it waits, it ends
        if not feed.followers and self._feeds.get(feed.asked) is feed:
            del self._feeds[feed.asked]
        if not self._feeds and self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def changed(self, gone: Log | None = None) -> None:
        """Logs came, or one goes."""
        for feed in self._feeds.values():
            if gone is None:
                feed.stale = True
            else:
                feed.lose(gone)

    def close(self) -> None:
        """End the ticking, and all followers."""
        for feed in self._feeds.values():
            feed.closed = True
            feed.wake()
        self._feeds.clear()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    async def _tick(self) -> None:
        import asyncio

        while True:
            await asyncio.sleep(TICK)
            for feed in list(self._feeds.values()):
                feed.pump()
