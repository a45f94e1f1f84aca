"""GET /v1/system-info."""

from __future__ import annotations

from vigil.api.needs import Overlord
from vigil.api.operation import Call, Noun, Query, op
from vigil.model import api
from vigil.model.states import Access


class SystemInfo(Noun):
    """What vigild is, since when, and how often its parts were started again."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.OPEN, "show the system", result=api.SystemInfo)
    async def on_get(self, call: Call[Query, None]) -> api.SystemInfo:
        """Show it."""
        return self._overlord.system_info()
