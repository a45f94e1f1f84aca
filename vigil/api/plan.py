"""GET /v1/plan and POST /v1/replan."""

from __future__ import annotations

from typing import Any

from vigil.api.needs import Overlord
from vigil.api.operation import Call, Noun, Query, op
from vigil.api.services import idempotency_key
from vigil.model import api
from vigil.model.states import Access


class Plan(Noun):
    """The plan in force."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.READ, "show the plan", result=dict[str, Any])
    async def on_get(self, call: Call[Query, None]) -> dict[str, Any]:
        """Show it as one layer would say it; what looks secret is masked for callers below admin."""
        return await self._overlord.shown_plan(secrets=call.caller.access.allows(Access.ADMIN))


class Replan(Noun):
    """The next plan."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.WRITE, "replan", body=api.ReplanAction, optional=True, result=api.Replan)
    async def on_post(self, call: Call[Query, api.ReplanAction]) -> api.Replan:
        """Put the layers, as they are now, in force, and tell what that starts, stops, restarts and changes.

        The change in the answer tells when that is done. With dry-run nothing is done.
        """
        return await self._overlord.replan(call.body, str(call.caller), idempotency_key(call))
