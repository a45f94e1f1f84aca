"""GET and POST /v1/services."""

from __future__ import annotations

from typing import Any

import msgspec

from vigil.api.needs import Overlord
from vigil.api.operation import Call, Noun, Query, op
from vigil.model import api
from vigil.model.errors import BadRequest
from vigil.model.states import Access

_KEY_LENGTH = 200


class ServicesQuery(Query, frozen=True):
    """Which services."""

    names: list[str] = msgspec.field(default_factory=list)


class Services(Noun):
    """The services of the plan."""

    def __init__(self, overlord: Overlord) -> None:
        self._overlord = overlord

    @op(Access.READ, "list services", query=ServicesQuery, result=list[api.Service])
    async def on_get(self, call: Call[ServicesQuery, None]) -> list[api.Service]:
        """Show them, in the order of the plan or of the names asked for."""
        return await self._overlord.measured(call.query.names)

    @op(Access.WRITE, "command services", body=api.ServicesAction, result=api.Change, status=202)
    async def on_post(self, call: Call[Query, api.ServicesAction]) -> api.Change:
        """Start, stop, restart or signal them, or replan; what comes again with its Idempotency-Key is done once."""
        action = call.body
        cause, key = str(call.caller), idempotency_key(call)
        if action.action != "replan":
            return self._overlord.act(action, cause, key)
        if action.services or action.signal is not None:
            raise BadRequest("cannot replan: a replan is of the whole plan, and takes neither services nor a signal")
        change = (await self._overlord.replan(api.ReplanAction(), cause, key)).change
        assert change is not None  # it was no dry run
        return change


def idempotency_key(call: Call[Any, Any]) -> str | None:
    """What the client will call this request when it asks again."""
    key: str | None = call.request.get_header("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= _KEY_LENGTH or not key.isascii():
        raise BadRequest(f"cannot read the request: an Idempotency-Key is 1 to {_KEY_LENGTH} ASCII characters")
    return key
