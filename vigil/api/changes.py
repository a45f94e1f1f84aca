"""GET /v1/changes, /v1/changes/ID, /v1/changes/ID/wait."""

from __future__ import annotations

from vigil.api.needs import Overlord
from vigil.api.operation import Call, Noun, Query, op
from vigil.model import api, duration
from vigil.model.errors import BadRequest
from vigil.model.states import Access


class WaitQuery(Query, frozen=True):
    """How long to wait: seconds, or a duration such as 1m30s; for ever without it."""

    timeout: str | None = None


class Changes(Noun):
    """What was asked of the services, and what became of it."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.READ, "list changes", result=list[api.Change])
    async def on_get(self, call: Call[Query, None]) -> list[api.Change]:
        """Show all that are remembered, oldest first."""
        return self._overlord.changes()


class Change(Noun):
    """One change."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.READ, "show a change", result=api.Change)
    async def on_get(self, call: Call[Query, None], id: str) -> api.Change:  # noqa: A002 - the word of the wire
        """Show it as it is now."""
        return self._overlord.change(id)


class ChangeWait(Noun):
    """The end of a change."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.READ, "wait for a change", query=WaitQuery, result=api.Change)
    async def on_get(self, call: Call[WaitQuery, None], id: str) -> api.Change:  # noqa: A002 - the word of the wire
        """Answer at the end of the change, or with the change as it is when the time is over."""
        timeout = _seconds(call.query.timeout)
        if call.request.method == "HEAD":
            return self._overlord.change(id)
        return await self._overlord.wait(id, timeout)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text) if text.replace(".", "", 1).isdecimal() else duration.parse(text)
    except ValueError as problem:
        raise BadRequest(f"cannot read the query: timeout: {problem}") from None
    return min(seconds, duration.LONGEST)
