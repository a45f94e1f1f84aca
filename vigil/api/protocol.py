"""One HTTP connection: gunicorn's ASGIProtocol, made safe against its clients.

This is the only module that knows gunicorn's internals; tests/unit/test_api_protocol.py names every attribute used, so
a new gunicorn that renames one fails there and not in production. gunicorn's own Config is not used: it reads the
environment (WEB_CONCURRENCY, FORWARDED_ALLOW_IPS, PORT), which in a container belongs to the services.

What gunicorn leaves open and is closed here: the time a head may take, the size of a whole head, bodies (``Body``),
clients that half-close or stop reading, the number of connections, and errors that are not JSON. A refused request is
read on for a while and thrown away: a socket closed with unread input resets the connection, and the client would never
see why.
"""

from __future__ import annotations

import asyncio
import email.utils  # noqa: F401 - gunicorn imports it with the first answer, which would hold up the loop
import fcntl
import select
import socket
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import Any, cast

from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]

from vigil.api import envelope
from vigil.api.answer import Answer
from vigil.api.body import Body, Receive, Send
from vigil.api.caller import Caller, identify
from vigil.api.settings import Settings
from vigil.api.trace import where
from vigil.model import say
from vigil.model.states import Access

App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

_REFUSALS_EVERY = 60.0  # seconds between two warnings about refused connections
_STALL_LOOKS = 6  # how often a stalled reader is looked at before it is cut
_HALF_CLOSED_LOOK = 1.0  # seconds between looks whether a client that closed one direction closed the other too


class GunicornSettings:
    """The settings that ASGIProtocol reads. Nothing of a request is trusted to tell where it came from."""

    protocol = "http"
    http_protocols = ("h1",)
    http2_cleartext = "off"
    # The C parser is optional and would be a second one to test.
    http_parser = "python"
    is_ssl = False
    root_path = ""
    limit_request_line = 8190
    limit_request_field_size = 8190
    limit_request_fields = 100
    permit_unconventional_http_method = False
    permit_unconventional_http_version = False
    permit_obsolete_folding = False
    strip_header_spaces = False
    header_map = "drop"
    secure_scheme_headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    forwarder_headers: tuple[str, ...] = ()
    forwarded_allow_ips: tuple[str, ...] = ()
    proxy_protocol = "off"
    proxy_allow_ips: tuple[str, ...] = ()
    websocket_max_message_size = 1 << 20
    asgi_disconnect_grace_period = 0
    pre_request = None
    post_request = None

    def __init__(self, settings: Settings) -> None:
        self.keepalive = settings.idle_seconds
        self.timeout = settings.body_seconds + 5.0  # per wait for a piece; the deadline of Body comes first

    def forwarded_allow_networks(self) -> tuple[()]:
        """Nobody."""
        return ()

    def proxy_allow_networks(self) -> tuple[()]:
        """Nobody."""
        return ()


class GunicornLog:
    """What ASGIProtocol has to say goes into vigild's own diagnostics."""

    access_log_enabled = False

    def debug(self, message: str, *words: object) -> None:
        """Nothing: clients that go away are no news."""

    def info(self, message: str, *words: object) -> None:
        """Pass on."""
        say.info("vigil.api", message % words if words else message)

    def warning(self, message: str, *words: object) -> None:
        """Pass on."""
        say.warn("vigil.api", message % words if words else message)

    def error(self, message: str, *words: object) -> None:
        """Pass on."""
        say.error("vigil.api", message % words if words else message)

    def exception(self, message: str, *words: object) -> None:
        """Pass on, with the exception that is being handled."""
        problem = sys.exc_info()[1]
        say.error("vigil.api", message % words if words else message, error=repr(problem), at=where(problem))


class Worker:
    """What ASGIProtocol calls its worker: here the state that all connections of the API share."""

    max_requests = sys.maxsize

    def __init__(self, app: App, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.asgi = app
        self.loop = loop
        self.cfg = GunicornSettings(settings)
        self.log = GunicornLog()
        self.alive = True
        self.nr = 0
        self.nr_conns = 0
        self.state: dict[str, Any] = {}
        self.settings = settings
        self.connections: set[Connection] = set()
        self._refused_until = 0.0  # no word about refusals before that time

    def admits(self, caller: Caller) -> bool:
        """Whether there is room for one more: a flood of others leaves room for those who can end it."""
        room = self.settings.connections
        if caller.access is Access.ADMIN:
            room += self.settings.reserved
        if len(self.connections) < room:
            return True
        if self.loop.time() >= self._refused_until:
            self._refused_until = self.loop.time() + _REFUSALS_EVERY
            say.warn("vigil.api", f"refuses connections: there are {len(self.connections)} already", caller=caller)
        return False


class Connection(ASGIProtocol):  # type: ignore[misc] # gunicorn carries no types
    """One client."""

    # gunicorn's, as far as they are used here.
    transport: asyncio.Transport
    _closed: bool
    _keepalive: float
    _response_buffer: bytes | None
    _current_request: Any
    _body_receiver: Any
    _callback_parser: Any
    _flow_control: Any
    _task: asyncio.Task[None] | None
    _request_ready: asyncio.Event

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self._hall = worker
        self._settings = worker.settings
        self._caller = Caller(Access.OPEN)
        self._served_app: App = worker.asgi
        self.app = self._serve
        self._refused = False
        self._socket: socket.socket | None = None
        self._head_seen = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._half_closed = False
        self._half_closed_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._stall_size = 0
        self._stall_looks = 0
        self._complained = False  # an error was sent that did not come from the app
        self._drained = -1  # bytes thrown away; -1: not draining
        self._drain_timer: asyncio.TimerHandle | None = None

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is, and whether there is room."""
        self._socket = transport.get_extra_info("socket")
        self._caller = identify(self._socket, self._settings.owner)
        if not self._hall.alive:
            self._refused = True  # it was accepted just before the end: closed without a word, it is tried again
            transport.close()
            return
        if not self._hall.admits(self._caller):
            self._refuse(cast(asyncio.Transport, transport))
            return
        self._hall.connections.add(self)
        super().connection_made(transport)
        # The first byte that the socket does not take pauses writing: a reader costs one chunk, and the stall timer
        # sees every one that has stopped reading.
        self.transport.set_write_buffer_limits(high=0)
        self._head_timer = self._hall.loop.call_later(self._settings.head_seconds, self._head_late)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, or throw away what belongs to a refused request."""
        if self._refused:
            return
        if self._drained >= 0:
            self._drained += len(data)
            if self._drained > self._settings.drain_bytes:
                self.transport.abort()
            return
        super().data_received(data)

    def eof_received(self) -> bool:
        """The client sends nothing more. It still gets the answers to what it has sent."""
        if self._refused or self._drained >= 0 or self._closed or self._current_request is None:
            return False
        self._half_closed = True
        self._keepalive = 0  # no request can follow
        if not self._body_receiver._complete:
            self._body_receiver.signal_disconnect()
        self._half_closed_timer = self._hall.loop.call_later(_HALF_CLOSED_LOOK, self._look_at_half_closed)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        for timer in (self._head_timer, self._half_closed_timer, self._stall_timer, self._drain_timer):
            if timer is not None:
                timer.cancel()
        if not self._refused:
            self._hall.connections.discard(self)
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not keep up: watch that it takes anything at all."""
        super().pause_writing()
        self._stall_size = self._untaken()
        self._stall_looks = 0
        self._look_at_stalled_later()

    def resume_writing(self) -> None:
        """It has taken everything."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    # What gunicorn calls.

    def _feed_callback_parser(self, data: bytes) -> bool:
        """Feed the parser, at most as much as a head may have while it is in a head."""
        while data:
            if not self._in_head():
                return bool(super()._feed_callback_parser(data))
            room = self._settings.head_bytes - self._head_seen
            if room <= 0:
                self._send_error_response(431, f"its head is over {self._settings.head_bytes} bytes")
                self._close_transport()
                return False
            piece, data = data[:room], data[room:]
            self._head_seen += len(piece)
            if not super()._feed_callback_parser(piece):
                return False
            if not self._in_head():
                self._head_seen = 0
                self._cancel_head_timer()
        if self._in_head() and self._head_timer is None:
            self._head_timer = self._hall.loop.call_later(self._settings.head_seconds, self._head_late)
        return True

    def _is_websocket_upgrade(self, request: object) -> bool:
        """Never: an upgrade that is not offered is a plain request (RFC 9110, 7.8)."""
        return False

    def _send_error_response(self, status: int, message: str, extra_headers: object = ()) -> None:
        """Say what is wrong with a request that never reached the app, in the same words as everywhere."""
        self._complained = True
        part = _UNNAMED.get(type(sys.exc_info()[1]).__name__)
        what = f'its {part} "{message}" makes no sense' if part else message
        self._safe_write(envelope.alone(status, f"cannot read the request: {what}" if status != 500 else _BUG))

    def _close_transport(self) -> None:
        """Close, but let a client that may still be sending see why."""
        if self._closed:
            return
        unread = self._body_receiver is not None and not self._body_receiver._complete
        if self._half_closed or not (unread or self._complained):
            super()._close_transport()
            return
        self._closed = True
        self._drained = 0
        try:
            if self.transport.can_write_eof():
                self.transport.write_eof()
        except (OSError, RuntimeError):
            self.transport.abort()  # it is gone already
            return
        self._resume_reading()
        self._drain_timer = self._hall.loop.call_later(self._settings.drain_seconds, self.transport.abort)

    # What only we call.

    def shut(self) -> None:
        """End this connection now; what is written already is still sent."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
        self.transport.close()

    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Run the app for one request."""
        request = self._current_request
        if scope["path"].startswith(("http://", "https://")):  # the absolute form, which every server has to accept
            scope["path"] = "/" + scope["path"].split("://", 1)[1].partition("/")[2]
        settings = self._settings
        deadline = self._hall.loop.time() + settings.body_seconds
        expected = bool(request.chunked or request.content_length)
        body = Body(receive, expected=expected, limit=settings.body_bytes, deadline=deadline)
        answer = Answer(self, send, self._body_receiver)
        scope["vigil.caller"] = self._caller
        scope["vigil.answer"] = answer
        try:
            await self._served_app(scope, body, answer)
        finally:
            answer.close()
            if self._callback_parser is not None and self._callback_parser.remaining() and self._head_timer is None:
                # The next head has begun already, and gunicorn feeds it to the parser by itself.
                self._head_timer = self._hall.loop.call_later(settings.head_seconds, self._head_late)

    def flush_head(self) -> None:
        """Send the head of an answer whose first byte may be long in coming; gunicorn holds it back for that byte."""
        if self._response_buffer:
            self._safe_write(self._response_buffer)
            self._response_buffer = None

    def no_more_requests(self) -> None:
        """Close after this answer."""
        self._keepalive = 0

    @property
    def body_limit(self) -> int:
        """How many bytes a body may have."""
        return self._settings.body_bytes

    @property
    def writing_paused(self) -> bool:
        """Whether the client is behind."""
        return bool(self._flow_control is not None and self._flow_control.write_paused)

    def _in_head(self) -> bool:
        return self._current_request is None

    def _refuse(self, transport: asyncio.Transport) -> None:
        """Say that there is no room. No draining: that would take the room that is not there."""
        self._refused = True
        message = f"cannot serve more than {self._settings.connections} connections: close some, or try again"
        transport.write(envelope.alone(503, message))
        transport.close()

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if self._closed or self._current_request is not None:
            return
        if self._head_seen:
            self._send_error_response(408, f"its head took over {self._settings.head_seconds:g} seconds")
        self._complained = False  # whoever is this slow is not read on
        self._close_transport()
        self._request_ready.set()  # wakes gunicorn's loop, which ends

    def _look_at_half_closed(self) -> None:
        """A Unix socket tells whether the other direction is closed too; then nobody waits for the answer."""
        if self._socket is None or self._socket.family != socket.AF_UNIX or self._socket.fileno() < 0:
            return
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)  # POLLHUP comes unasked
        if poll.poll(0):
            self.transport.abort()
            return
        self._half_closed_timer = self._hall.loop.call_later(_HALF_CLOSED_LOOK, self._look_at_half_closed)

    def _look_at_stalled_later(self) -> None:
        self._stall_timer = self._hall.loop.call_later(
            self._settings.stall_seconds / _STALL_LOOKS, self._look_at_stalled
        )

    def _untaken(self) -> int:
        """How many bytes the client has not read: ours and those in the kernel, which shrink first."""
        size = self.transport.get_write_buffer_size()
        if self._socket is not None and self._socket.fileno() >= 0:
            size += int.from_bytes(fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return size

    def _look_at_stalled(self) -> None:
        size = self._untaken()
        self._stall_looks = self._stall_looks + 1 if size >= self._stall_size else 0
        self._stall_size = size
        if self._stall_looks >= _STALL_LOOKS:
            say.info("vigil.api", f"cut off a reader that took nothing for {self._settings.stall_seconds:g} s")
            self.transport.abort()
            return
        self._look_at_stalled_later()


# Errors of gunicorn's parser whose message is nothing but what stood there.
_UNNAMED = {
    "InvalidRequestMethod": "method",
    "InvalidHTTPVersion": "version",
    "InvalidHeaderName": "field",
    "UnsupportedTransferCoding": "Transfer-Encoding",
}
_BUG = "cannot answer: this is a bug in vigild, and its log says more (vigil logs vigild)"
