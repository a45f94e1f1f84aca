"""One exchange, from the first name to the last byte that is wanted, in a thread that may wait.

requests does the HTTP: an adapter of its own for each exchange, with connections that know the deadline. Its Session
is left out: it reads the environment, keeps cookies, and the body of a redirect to its end, which may never come.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.sessions import SessionRedirectMixin
from requests.utils import requote_uri
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from vigil import __version__
from vigil.http import tls
from vigil.http.connect import SHORTAGES, connect, connect_unix, place, shortage
from vigil.http.deadline import Deadline, Expired
from vigil.http.fetch import REDIRECTS_MAX, FetchError, Request, Response, Tls, late
from vigil.http.reasons import explained, refused, timed_out

_PIECE = 65536
_HEADERS = {"User-Agent": f"vigil/{__version__}", "Accept": "*/*", "Connection": "close"}
_OTHER_SITE = frozenset(("authorization", "cookie", "proxy-authorization", "host"))
_BODY = frozenset(("content-length", "content-type", "content-encoding", "transfer-encoding"))
_redirects = SessionRedirectMixin()


def exchange(request: Request, deadline: Deadline) -> Response:
    """The answer. FetchError."""
    adapter = _Adapter(request, deadline)
    try:
        return _follow(request, adapter, deadline)
    except Expired:
        raise late(request, deadline) from None
    except FetchError:
        raise
    except Exception as error:
        if deadline.over or timed_out(error):  # what a socket that is shut down makes of it, or its own timeout
            raise late(request, deadline) from None
        raise explained(error, request, adapter.peer, deadline.phase) from error
    finally:
        adapter.close()


def _follow(request: Request, adapter: _Adapter, deadline: Deadline) -> Response:
    prepared = _prepare(request.method, request.url, request.headers, request.body)
    proxies = {} if request.proxy is None or request.unix_socket else {"all": request.proxy}
    for _ in range(REDIRECTS_MAX + 1):
        adapter.peer = _peer(request, prepared)
        answer = adapter.send(prepared, stream=True, timeout=deadline.left(), proxies=proxies)
        try:
            target = _redirects.get_redirect_target(answer) if request.follow_redirects else None
            if target is None:
                if answer.status_code == 407 and proxies and urlsplit(prepared.url or "").scheme == "http":
                    raise refused(407, "", request)
                return _read(answer, request, deadline)
            prepared = _next(prepared, answer, target, request.body)
        finally:
            answer.close()
    raise FetchError("redirects", f"more than {REDIRECTS_MAX} redirects")


def _read(answer: requests.Response, request: Request, deadline: Deadline) -> Response:
    kept = bytearray()
    cut = request.keep == 0
    if not cut:
        deadline.phase = "reading the body of the answer"
        while len(kept) <= request.keep:
            piece = answer.raw.read(min(_PIECE, request.keep + 1 - len(kept)))
            if not piece:
                break
            kept += piece
            deadline.left()
        cut = len(kept) > request.keep
    if deadline.expired:
        raise Expired
    return Response(
        status=answer.status_code,
        reason=answer.reason or "",
        headers={name.lower(): value for name, value in answer.headers.items()},
        body=bytes(kept[: request.keep]),
        cut=cut,
    )


def _prepare(method: str, url: str, headers: dict[str, str], body: bytes | None) -> requests.PreparedRequest:
    given = {name.lower() for name in headers}
    whole = {name: value for name, value in _HEADERS.items() if name.lower() not in given} | headers
    try:
        prepared = requests.Request(method, url, headers=whole, data=body).prepare()
        for value in prepared.headers.values():
            value.encode("latin-1")
    except requests.exceptions.InvalidHeader:
        raise FetchError("url", "a header holds what no header can (a line end)") from None
    except UnicodeEncodeError:
        raise FetchError("url", "a header holds a character that no header can") from None
    except (ValueError, UnicodeError):  # requests' own errors are among them, and their words show the URL
        raise FetchError("url", "the URL makes no sense") from None
    if prepared.url is None or urlsplit(prepared.url).scheme not in ("http", "https"):
        raise FetchError("url", "the URL is neither http:// nor https://")
    return prepared


def _next(
    prepared: requests.PreparedRequest, answer: requests.Response, target: str, body: bytes | None
) -> requests.PreparedRequest:
    """The request that a redirect asks for."""
    assert prepared.url is not None
    old = urldefrag(prepared.url)[0]
    url = requote_uri(urldefrag(urljoin(old, target))[0])
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError("redirects", "it redirects to what is neither http:// nor https://")
    headers = {name: value for name, value in prepared.headers.items() if name.lower() != "content-length"}
    if _redirects.should_strip_auth(old, url):  # type: ignore[no-untyped-call]
        headers = {name: value for name, value in headers.items() if name.lower() not in _OTHER_SITE}
    if prepared.body is None or answer.status_code not in (307, 308):
        body = None
        headers = {name: value for name, value in headers.items() if name.lower() not in _BODY}
    _redirects.rebuild_method(prepared, answer)
    return _prepare(prepared.method or "GET", url, headers, body)


# --- connections that know the deadline ---


class _Plain(HTTPConnection):
    def __init__(self, *args: Any, deadline: Deadline, unix_socket: str | None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.deadline, self.unix_socket = deadline, unix_socket

    def _new_conn(self) -> socket.socket:
        return _connect(self, self.deadline, self.unix_socket)


class _Secure(HTTPSConnection):
    def __init__(self, *args: Any, deadline: Deadline, unix_socket: str | None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.deadline, self.unix_socket = deadline, unix_socket

    def _new_conn(self) -> socket.socket:
        made = _connect(self, self.deadline, self.unix_socket)
        if self.proxy is None or self.proxy.scheme == "https":
            self.deadline.phase = f"in the TLS handshake with {place(self.host, self.port or 443)}"
        return made

    def _tunnel(self) -> None:
        host, port = self._tunnel_host or "", self._tunnel_port or 443
        self.deadline.phase = f"waiting for the proxy {place(self.host, self.port or 443)} to connect"
        super()._tunnel()
        self.deadline.phase = f"in the TLS handshake with {place(host, port)}"

    def connect(self) -> None:
        host = self._tunnel_host or self.host
        super().connect()
        self.is_verified = True  # as far as the plan wants: no warning about it at each connection
        self.deadline.phase = f"waiting for the answer of {host}"


def _connect(connection: HTTPConnection, deadline: Deadline, unix_socket: str | None) -> socket.socket:
    if unix_socket is not None:
        made = connect_unix(unix_socket, deadline)
    else:
        try:
            made = connect(connection._dns_host, connection.port or 80, deadline)
        except FetchError as error:
            if connection.proxy is None or error.kind != "connection":
                raise
            raise FetchError("proxy", f"the proxy: {error}") from None
    deadline.phase = f"waiting for the answer of {unix_socket or place(connection.host, connection.port or 80)}"
    return made


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    """For one exchange."""

    def __init__(self, request: Request, deadline: Deadline) -> None:
        self._request = request
        more: dict[str, Any] = {"deadline": deadline, "unix_socket": request.unix_socket}
        self._pools = {"http": partial(_PlainPool, **more), "https": partial(_SecurePool, **more)}
        self.peer = ""
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self._equip(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> PoolManager:
        if urlsplit(proxy).scheme == "https":
            more["proxy_ssl_context"] = _context(self._request.proxy_tls)
        manager: PoolManager = super().proxy_manager_for(proxy, **more)
        self._equip(manager)
        return manager

    def _equip(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = self._pools  # type: ignore[assignment]

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        parts = urlsplit(request.url or "")
        host = {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}
        return host, {"ssl_context": _context(self._request.tls)} if parts.scheme == "https" else {}

    def cert_verify(self, *_: Any) -> None:
        """The context does it."""


def _context(settings: Tls) -> ssl.SSLContext:
    try:
        return tls.context(insecure=settings.insecure, ca=settings.ca)
    except ssl.SSLError:
        raise FetchError("tls", f"{settings.ca} holds no certificate in PEM") from None
    except OSError as error:
        if error.errno in SHORTAGES:
            raise shortage(error) from None
        raise FetchError("tls", f"cannot read the certificates in {settings.ca}: {error.strerror}") from None


def _peer(request: Request, prepared: requests.PreparedRequest) -> str:
    """Whom the exchange is with, for its messages."""
    parts = urlsplit(prepared.url or "")
    return request.unix_socket or place(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
