"""POST /v1/vigild."""

from __future__ import annotations

import falcon

from vigil.api.needs import Overlord
from vigil.api.operation import Call, Noun, Query, op
from vigil.model import api, say
from vigil.model.errors import VigilError
from vigil.model.states import Access


class DaemonAnswer(api.Answer, frozen=True):
    """What will happen next."""

    action: str


class Daemon(Noun):
    """vigild itself."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.ADMIN, "command vigild", body=api.DaemonAction, result=DaemonAnswer)
    async def on_post(self, call: Call[Query, api.DaemonAction]) -> DaemonAnswer:
        """Stop or restart. The answer is sent before it happens: afterwards nobody is left to send it."""
        action = call.body.action
        if action == "upgrade":
            raise falcon.HTTPNotImplemented(
                description="cannot upgrade vigild: this version of vigild does not know how to"
            )
        cause = str(call.caller)
        # A bad plan is refused before anything is stopped.
        sources = await self._overlord.check_plan() if action == "restart" else None

        async def begin() -> None:
            try:
                self._overlord.shutdown(0, action == "restart", cause, sources)
            except VigilError as problem:
                say.error("vigil.api", f"cannot {action} vigild: {problem}")

        call.response.schedule(begin)
        return DaemonAnswer(action=action)
