"""The envelope around everything that the API says."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from vigil.model.api import Change, ErrorResult, Problem

_encoder = msgspec.json.Encoder()

# Where an error comes from a place that knows nothing but HTTP, its kind follows from its status.
_KINDS = {
    400: "bad-request",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    409: "conflict",
    411: "length-required",
    413: "too-large",
    414: "too-large",
    415: "unsupported-media-type",
    417: "bad-request",
    426: "bad-request",
    431: "too-large",
    500: "internal-error",
    501: "not-supported",
    503: "unavailable",
}

# Python 3.13 renamed two of these; the API says the same everywhere.
_PHRASES = {413: "Payload Too Large", 414: "URI Too Long"}


def phrase(status: int) -> str:
    """The words that belong to a status."""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


SYNC_HEAD = b'{"type":"sync","status-code":200,"status":"OK","result":'
SYNC_END = b"}\n"


def sync(result: object) -> bytes:
    """The answer to what is done at once."""
    return SYNC_HEAD + _encoder.encode(result) + SYNC_END


def accepted(change: Change) -> bytes:
    """The answer to what goes on after it."""
    head = b'{"type":"async","status-code":202,"status":"Accepted","change":'
    return head + _encoder.encode(change.id) + b',"result":' + _encoder.encode(change) + b"}\n"


def failure(status: int, message: str, kind: str | None = None, problems: Sequence[Problem] = ()) -> bytes:
    """The answer to what went wrong; ``problems`` are those of a plan."""
    told = _encoder.encode(message)
    head = b'{"type":"error","status-code":%d,"status":%b,"result":' % (status, _encoder.encode(phrase(status)))
    result = _encoder.encode(
        ErrorResult(message=message, kind=kind or _KINDS.get(status, "error"), problems=list(problems))
    )
    return head + result + b',"message":' + told + b"}\n"


def alone(status: int, message: str) -> bytes:
    """A whole answer, head and all, to what never reached the application. The connection is closed after it."""
    body = failure(status, message)
    return (
        f"HTTP/1.1 {status} {phrase(status)}\r\nServer: vigild\r\nContent-Type: application/json\r\n"
        f"Cache-Control: no-store\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode("latin-1") + body
