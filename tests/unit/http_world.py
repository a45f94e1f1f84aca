"""Servers on loopback that do to a client whatever a test wants, each connection in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Handler = Callable[[Any, bytes], None]
"""Gets a connection and the head of the request; the connection is closed when it returns."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def answer(status: str = "200 OK", body: bytes = b"", **headers: str) -> Handler:
    """Answers at once."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def handle(connection: Any, _: bytes) -> None:
        connection.sendall(data)

    return handle


def say(data: bytes) -> Handler:
    """Sends these bytes."""

    def handle(connection: Any, _: bytes) -> None:
        connection.sendall(data)

    return handle


class Server:
    """Listens on 127.0.0.1 (or at a path) until it is closed; then every connection ends too."""

    def __init__(self, handler: Handler, *, path: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.handler, self.tls = handler, tls
        self.heads: list[bytes] = []
        self.over = threading.Event()
        self.most = 0  # connections at once
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.socket = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self.socket.bind(("127.0.0.1", 0) if path is None else str(path))
        self.socket.listen(512)
        self.port = self.socket.getsockname()[1] if path is None else 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/"

    def hang(self, connection: Any, _: bytes) -> None:
        """Does nothing until the end."""
        self.over.wait(60)

    def drip(self, before: bytes = b"") -> Handler:
        """Sends ``before``, then a byte now and then for ever."""

        def handle(connection: Any, _: bytes) -> None:
            connection.sendall(before)
            while not self.over.wait(0.02):
                connection.sendall(b"x")

        return handle

    def pour(self, before: bytes = b"") -> Handler:
        """Sends ``before``, then as much as is taken, for ever."""

        def handle(connection: Any, _: bytes) -> None:
            connection.sendall(before)
            piece = b"x" * 1_000_000
            while not self.over.is_set():
                connection.sendall(piece)

        return handle

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
            self.most = max(self.most, len(self._open))
        wrapped: Any = connection
        try:
            if self.tls is not None:
                wrapped = self.tls.wrap_socket(connection, server_side=True, suppress_ragged_eofs=True)
                with self._lock:
                    self._open.add(wrapped)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = wrapped.recv(65536)
                if not piece:
                    return
                head += piece
            self.heads.append(head)
            self.handler(wrapped, head)
        except OSError:
            pass  # the client has gone
        finally:
            with self._lock:
                self._open -= {connection, wrapped}
            wrapped.close()
            connection.close()

    def close(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Proxy(Server):
    """A forward proxy as squid is one: CONNECT, and requests with the whole URL, with a password where it wants one."""

    def __init__(self, *, wants: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.wants = wants  # the value of Proxy-Authorization
        super().__init__(self._forward, tls=tls)

    def _forward(self, connection: Any, head: bytes) -> None:
        line, *headers = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        if self.wants and f"Proxy-Authorization: {self.wants}" not in headers:
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        place = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = place.partition(":")
        try:
            other = socket.create_connection((host, int(port or 80)), 10)
        except OSError:
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            return
        with other:
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [each for each in headers if not each.startswith("Proxy-")]
                other.sendall("\r\n".join([f"{method} /{target.split('/', 3)[3]} HTTP/1.1", *kept]).encode("latin-1"))
            back = threading.Thread(target=_copy, args=(other, connection), daemon=True)
            back.start()
            _copy(connection, other)
            back.join(10)


def _copy(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
