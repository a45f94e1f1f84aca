"""What an exchange that failed is called: from requests', urllib3's and OpenSSL's exceptions to a sentence.

Those are wrapped in one another, and their own texts show addresses of Python objects and whole URLs.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

import requests

from vigil.http.connect import SHORTAGES, place, shortage, words
from vigil.http.fetch import FetchError, Request

_TUNNEL = "Tunnel connection failed: "  # how http.client begins what a proxy answered to CONNECT

_VERIFY = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed, and not trusted",
    19: "is of an authority that is not trusted",
    20: "is of an authority that is not trusted",
    21: "is of an authority that is not trusted",
    23: "is revoked",
    62: "is for another host",
    64: "is for another address",
}
"""OpenSSL's numbers of why a certificate was not accepted."""

_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"))


def explained(error: Exception, request: Request, peer: str, phase: str) -> FetchError:
    """What ``error`` means. ``peer``: whom the exchange is with; ``phase``: how far it is."""
    kind: Literal["proxy", "connection"] = "connection"
    whom = peer
    if request.proxy is not None and request.unix_socket is None:
        kind, whom = "proxy", f"the proxy {proxy_of(request)}"
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, FetchError):
            return cause
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            if kind == "proxy" and proxy_of(request) in phase:
                return FetchError("proxy", _tls(cause, whom))
            return FetchError("tls", _tls(cause, peer))
        if isinstance(cause, OSError) and str(cause).startswith(_TUNNEL):
            code, _, word = str(cause).removeprefix(_TUNNEL).partition(" ")
            return refused(code, word, request)
    for cause in causes:
        match cause:
            case http.client.RemoteDisconnected():
                return FetchError(kind, f"{whom} closed the connection without an answer")
            case http.client.IncompleteRead():
                return FetchError(kind, f"{whom} closed the connection in the middle of its answer")
            case http.client.BadStatusLine() | http.client.UnknownProtocol():
                return FetchError(kind, f"{whom} does not speak HTTP")
            case http.client.HTTPException():
                return FetchError(kind, f"{whom} answers with more headers than make sense")
            case requests.RequestException():
                pass  # an OSError too, but what it wraps says more
            case OSError() if cause.errno in SHORTAGES:
                return shortage(cause)
            case OSError() if cause.errno:
                return FetchError(kind, words(cause, whom))
    return FetchError(kind, f"{whom}: {type(causes[-1]).__name__}: {causes[-1]}")


def timed_out(error: Exception) -> bool:
    """Whether a socket's own timeout is behind it, which may be a moment early."""
    return any(isinstance(cause, TimeoutError) and cause.errno is None for cause in _chain(error))


def refused(code: int | str, word: str, request: Request) -> FetchError:
    """The proxy of ``request`` answered with ``code``."""
    if str(code) == "407":
        return FetchError("proxy", f"the proxy {proxy_of(request)} wants a user and a password, or others (407)")
    return FetchError("proxy", f"the proxy {proxy_of(request)} does not connect: {f'{code} {word}'.strip()}")


def proxy_of(request: Request) -> str:
    """The host and port of the proxy."""
    parts = urlsplit(request.proxy or "")
    return place(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it wraps, from the outside in: arguments, reasons, causes."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        found = queue.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        queue += [inner for inner in found.args if isinstance(inner, BaseException)]
        reason = getattr(found, "reason", None)
        queue += [reason if isinstance(reason, BaseException) else None, found.__cause__, found.__context__]


def _tls(error: ssl.SSLError, whom: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _VERIFY.get(error.verify_code, f"is not trusted: {error.verify_message}")
        return f"the certificate of {whom} {known}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return f"{whom} closed the connection in the TLS handshake"
    reason = error.reason or ""
    if reason in _NO_TLS:
        return f"{whom} does not speak TLS"
    return f"no TLS with {whom}: {reason.replace('_', ' ').lower() or error}"
