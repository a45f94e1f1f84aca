"""GET /v1/logs and /v1/logs/follow."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from vigil.api.needs import Logs as LogsNeeded
from vigil.api.needs import Overlord
from vigil.api.operation import Call, Noun, Query, op
from vigil.api.settings import Settings
from vigil.api.stream import Items, Stream
from vigil.model import api
from vigil.model.errors import BadRequest, NotFound
from vigil.model.states import Access
from vigil.model.suggest import hint, quote

DIAGNOSTICS = "vigild"
"""The log of vigild itself; shown only where it is named."""

Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
EVERYTHING = 10_000_000


class LogsQuery(Query, frozen=True):
    """Which entries: the last ``n`` of these services, after a seq or from a time on."""

    services: list[str] = msgspec.field(default_factory=list)
    n: Count = 100
    since: str | None = None


class FollowQuery(Query, frozen=True):
    """What to follow. With ``since`` and without ``n`` all entries since then are replayed first."""

    services: list[str] = msgspec.field(default_factory=list)
    format: Literal["json", "text", "ndjson"] = "json"
    n: Count | None = None
    since: str | None = None


class Logs(Noun):
    """What the services wrote."""

    def __init__(self, overlord: Overlord, logs: LogsNeeded) -> None:
        self._overlord = overlord
        self._logs = logs

    @op(Access.READ, "show logs", query=LogsQuery, result=Items[api.LogEntry])
    async def on_get(self, call: Call[LogsQuery, None]) -> Items[api.LogEntry]:
        """Show kept entries, oldest first."""
        query = call.query
        names = _names(query.services, self._overlord, self._logs)
        return Items(self._logs.tail(names, query.n, _since(query.since)))


class FollowLogs(Noun):
    """What the services write from now on."""

    def __init__(self, overlord: Overlord, logs: LogsNeeded, settings: Settings) -> None:
        self._overlord = overlord
        self._logs = logs
        self._settings = settings

    @op(Access.READ, "follow logs", query=FollowQuery, result=Stream)
    async def on_get(self, call: Call[FollowQuery, None]) -> Stream:
        """Follow. The place is fixed here, before the head of the answer is sent: nothing written after is missed."""
        query = call.query
        names = _names(query.services, self._overlord, self._logs) if query.services else []  # and what is to come
        since = _since(query.since)
        n = query.n if query.n is not None else (0 if since is None else EVERYTHING)
        last = call.request.get_header("Last-Event-ID")
        if last is not None:
            since, n = _resume(last, self._overlord.boot_id), EVERYTHING
        call.response.set_header("Vigil-Boot-ID", self._overlord.boot_id)  # who comes again sees whether it is another
        return Stream(self._logs.follow(names, query.format, n, since), query.format, self._settings.ping_seconds)


def _names(asked: list[str], overlord: Overlord, logs: LogsNeeded) -> list[str]:
    """The logs meant; NotFound names those that there are not."""
    kept = logs.names()
    if not asked:
        return [name for name in kept if name != DIAGNOSTICS]
    known = {*overlord.plan.services, *kept, DIAGNOSTICS}
    unknown = [name for name in asked if name not in known]
    if unknown:
        listed = ", ".join(quote(name) + hint(name, sorted(known)) for name in dict.fromkeys(unknown))
        raise NotFound(f"cannot show logs: there is no service {listed}")
    return list(dict.fromkeys(asked))


def _since(text: str | None) -> int | float | None:
    """A seq (exclusive) or a time (inclusive), in seconds since 1970."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 19:
        return int(text)
    date, blank, zone = text.rpartition(" ")
    if blank and ":" in zone and zone[:1].isdigit() and "T" in date:
        text = f"{date}+{zone}"  # a "+" in a query means a blank, and few remember
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None or ":" not in text:
        raise BadRequest(
            f'cannot read the query: since: "{text}" is neither a seq nor a time (write 2026-03-21T12:00:00Z)'
        )
    return when.timestamp()


def _resume(last: str, boot_id: str) -> int:
    """The seq of an event id ``BOOT-SEQ``. One of another boot: all that there is now is news to that client."""
    boot, dash, seq = last.strip().rpartition("-")
    if not dash or not (seq.isascii() and seq.isdigit() and len(seq) <= 19):
        raise BadRequest(f'cannot follow logs: "{last}" is not an event id of this API')
    return int(seq) if boot == boot_id else 0
