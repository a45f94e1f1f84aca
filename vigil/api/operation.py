"""What a responder declares of itself: its level, what it takes and what it gives. ``@op`` holds it to that.

A responder is ``async def on_get(self, call: Call[Q, B], **path) -> R``; query and body reach it typed and complete.
The order is the order of trust: access first, then the query, and only then is anything of a body read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, get_origin
from urllib.parse import parse_qsl

import falcon
import falcon.asgi
import msgspec

from vigil.api import envelope
from vigil.api.answer import Answer
from vigil.api.body import too_large
from vigil.api.caller import Caller
from vigil.api.mismatch import explain
from vigil.api.stream import Items, Stream
from vigil.model.api import Change, Request
from vigil.model.errors import BadRequest
from vigil.model.states import Access
from vigil.model.suggest import hint

JSON = "application/json"
_MAX_PARAMETERS = 1000

Q = TypeVar("Q")
B = TypeVar("B")
Responder = Callable[..., Awaitable[None]]


class Query(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Base of what can stand behind the ``?``; as it is, nothing can."""


class Call(Generic[Q, B]):
    """One request, as a responder sees it."""

    __slots__ = ("answer", "body", "caller", "query", "request", "response")

    def __init__(self, request: falcon.asgi.Request, response: falcon.asgi.Response) -> None:
        self.request = request
        self.response = response
        self.caller: Caller = request.scope["vigil.caller"]
        self.answer: Answer = request.scope["vigil.answer"]
        self.query: Q
        self.body: B  # only where one is declared


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What ``@op`` was told; the documentation of the API is made from these."""

    access: Access
    doing: str  # completes "cannot ..."
    query: type[Query]
    body: type[Request] | None
    optional: bool  # the body
    result: Any
    status: int


def op(
    access: Access,
    doing: str,
    *,
    query: type[Query] = Query,
    body: type[Request] | None = None,
    optional: bool = False,
    result: Any,
    status: int = 200,
) -> Callable[[Callable[..., Awaitable[Any]]], Responder]:
    """Make a responder of a method. ``doing`` completes the sentence "cannot ...". ``optional``: no body is ``{}``."""
    declared = Operation(
        access=access, doing=doing, query=query, body=body, optional=optional, result=result, status=status
    )
    lists = {field.encode_name for field in msgspec.structs.fields(query) if get_origin(field.type) is list}
    names = [field.encode_name for field in msgspec.structs.fields(query)]
    decoder = msgspec.json.Decoder(body) if body is not None else None

    def decorate(method: Callable[..., Awaitable[Any]]) -> Responder:
        async def responder(self: object, req: falcon.asgi.Request, resp: falcon.asgi.Response, **path: str) -> None:
            call: Call[Any, Any] = Call(req, resp)
            call.caller.require(access, doing)
            call.query = _read_query(req.query_string, query, names, lists)
            if body is not None and decoder is not None:
                call.body = await _read_body(req, decoder, body, optional=optional)
            resp.content_type = JSON
            if req.method == "HEAD" and result is Stream:
                resp.content_type = Stream.TYPES.get(str(getattr(call.query, "format", "")), JSON)
                return
            given = await method(self, call, **path)
            if isinstance(given, Stream):
                resp.content_type = given.content_type
                resp.stream = given.begin(call.answer)
            elif isinstance(given, Items):
                resp.data = given.whole()
                if resp.data is None:
                    resp.stream = given.begin()
            elif status == 202 and isinstance(given, Change):
                resp.status = falcon.HTTP_202
                resp.data = envelope.accepted(given)
            else:
                resp.data = envelope.sync(given)

        responder.__doc__ = method.__doc__
        responder.operation = declared  # type: ignore[attr-defined]
        responder.method = method  # type: ignore[attr-defined]
        return responder

    return decorate


class Noun:
    """Base of all resources: whatever can be got can be asked about with HEAD."""

    def __init_subclass__(cls) -> None:
        got = cls.__dict__.get("on_get")
        if got is not None and "on_head" not in cls.__dict__:
            cls.on_head = got  # type: ignore[attr-defined]


def _read_query(text: str, shape: type[Query], names: list[str], lists: set[str]) -> Query:
    """The query as its declared type. Lists are comma-separated or repeated, everything else stands once."""
    values: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS) if text else []
    except ValueError:
        raise BadRequest(f"cannot read the query: it has more than {_MAX_PARAMETERS} parameters") from None
    for name, value in pairs:
        if name not in names:
            known = f" (there are {', '.join(names)})" if names else " (there are none here)"
            raise BadRequest(f'cannot read the query: "{name}" is not a parameter{hint(name, names) or known}')
        if name in lists:
            values.setdefault(name, []).extend(word.strip() for word in value.split(",") if word.strip())
        elif name in values:
            raise BadRequest(f'cannot read the query: "{name}" is given twice')
        else:
            values[name] = value
    try:
        return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as problem:
        raise BadRequest(f"cannot read the query: {explain(problem, shape)}") from None


async def _read_body(
    req: falcon.asgi.Request, decoder: msgspec.json.Decoder[Request], shape: type[Request], *, optional: bool
) -> Request:
    limit = req.scope["vigil.answer"].body_limit
    if (req.content_length or 0) > limit:
        raise too_large(limit)
    encoding = req.get_header("Content-Encoding")
    if encoding and encoding.lower() != "identity":
        raise falcon.HTTPUnsupportedMediaType(
            description=f'cannot read the request: its body is encoded as "{encoding}", and only JSON is understood'
        )
    sent = (req.content_type or "").partition(";")[0].strip().lower()
    if sent and sent != JSON and not (sent.startswith("application/") and sent.endswith("+json")):
        raise falcon.HTTPUnsupportedMediaType(
            description=f'cannot read the request: its body is "{sent}", and only JSON is understood '
            '(send "Content-Type: application/json")'
        )
    text = await req.stream.read()
    if not text.strip():
        if optional:
            return shape()
        raise BadRequest("cannot read the request: it has no body, and one of JSON is needed")
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as problem:
        raise BadRequest(f"cannot read the request: {explain(problem, shape)}") from None
    except msgspec.DecodeError as problem:
        raise BadRequest(f"cannot read the request: its body is not JSON: {problem}") from None
    except UnicodeDecodeError:
        raise BadRequest("cannot read the request: its body is not UTF-8") from None
    except RecursionError:
        raise BadRequest("cannot read the request: its body is nested too deeply") from None
