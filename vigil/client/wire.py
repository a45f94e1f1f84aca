"""HTTP/1.1 over a Unix socket, as much of it as vigild speaks.

``http.client`` would do, but it costs 18 ms of import (email, ssl), a third of what a command may take in all.
Sockets stay blocking, with the kernel's own timeouts: a connect() that finds the backlog full then waits in it, as it
must while control is being replaced, where a non-blocking one fails at once.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterator

from vigil.client.errors import BadAnswer, Lost, Unreachable

_HEAD_LIMIT = 64 * 1024
_PIECE = 64 * 1024


class Answer:
    """One answer whose head has been read; ``pieces`` reads the body as it comes."""

    def __init__(self, sock: socket.socket, status: int, headers: dict[str, str], rest: bytes) -> None:
        self.status = status
        self.headers = headers
        self._sock = sock
        self._rest = rest

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def body(self) -> bytes:
        """The whole body. Lost where it ends too early."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The body in pieces, without its framing."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
            return
        size = self.headers.get("content-length")
        if size is None:
            while piece := self._more():
                yield piece
            return
        if not size.isdecimal():
            raise BadAnswer(f'its Content-Length is "{size}"')
        left = int(size)
        while left:
            piece = self._more()
            if not piece:
                raise Lost("the answer was cut short")
            yield piece[:left]
            left -= min(left, len(piece))

    def _more(self) -> bytes:
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        return receive(self._sock)

    def _chunks(self) -> Iterator[bytes]:
        buffer = b""
        while True:
            while b"\r\n" not in buffer:
                buffer = self._join(buffer)
            line, _, buffer = buffer.partition(b"\r\n")
            try:
                left = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadAnswer("a chunk of it has no size") from None
            if left == 0:
                return  # trailers are nobody's business: the connection is closed
            while left:
                if not buffer:
                    buffer = self._join(buffer)
                yield buffer[:left]
                buffer, left = buffer[left:], left - min(left, len(buffer))
            while len(buffer) < 2:
                buffer = self._join(buffer)
            buffer = buffer[2:]

    def _join(self, buffer: bytes) -> bytes:
        piece = self._more()
        if not piece:
            raise Lost("the answer was cut short")
        return buffer + piece


def ask(path: str, method: str, target: str, headers: dict[str, str], body: bytes | None, seconds: float) -> Answer:
    """Send one request to the socket at ``path``, read the head of its answer; ``seconds`` for each step of waiting.

    Raises Unreachable, Lost, BadAnswer, and TimeoutError where nothing happens for that long.
    """
    sock = connect(path, seconds)
    try:
        lines = [f"{method} {target} HTTP/1.1", "Host: vigild", "Connection: close", "User-Agent: vigil"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        try:
            sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))
        except BlockingIOError:
            raise TimeoutError from None
        except OSError:
            pass  # refused before it was read to the end, perhaps: then the answer says so
        return _read_head(sock)
    except BaseException:
        sock.close()
        raise


def connect(path: str, seconds: float) -> socket.socket:
    """A connection to the socket at ``path``; Unreachable says why not, TimeoutError that nobody accepts."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6) or (0 if seconds >= 1 else 1))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        raise TimeoutError from None
    except OSError as problem:
        sock.close()
        raise _explain(path, problem) from None
    return sock


def receive(sock: socket.socket) -> bytes:
    """What has come; b"" at the end. Lost, or TimeoutError."""
    try:
        return sock.recv(_PIECE)
    except BlockingIOError:
        raise TimeoutError from None
    except OSError as problem:
        raise Lost(f"the connection broke ({problem.strerror})") from None


def _read_head(sock: socket.socket) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = receive(sock)
        if not piece:
            raise Lost("the connection was closed without an answer")
        data += piece
        if len(data) > _HEAD_LIMIT or not data.startswith(b"HTTP/1."[: len(data)]):
            raise BadAnswer("what answers there does not speak HTTP")
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[1].isdecimal():
        raise BadAnswer(f'its first line is "{lines[0]}"')
    if words[1].startswith("1"):
        raise BadAnswer("it answers with an interim status that nobody asked for")
    pairs = (line.partition(":") for line in lines[1:])
    return Answer(sock, int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}, rest)


def _explain(path: str, problem: OSError) -> Unreachable:
    """The likely cause, from the error and from what is at ``path``."""
    if isinstance(problem, FileNotFoundError):
        return Unreachable(f"there is no socket {path} (is vigild running?)", gone=True)
    if isinstance(problem, PermissionError):
        return Unreachable(f"no permission to use the socket {path} (you are uid {os.geteuid()})")
    if isinstance(problem, ConnectionRefusedError):
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            is_socket = True
        if not is_socket:
            return Unreachable(f"{path} is not a socket")
        return Unreachable(f"nobody listens at the socket {path} (vigild has ended, and left it behind)", gone=True)
    if isinstance(problem, NotADirectoryError):
        return Unreachable(f"{os.path.dirname(path)} is not a directory, so there is no socket {path}")
    reason = problem.strerror or str(problem)
    return Unreachable(f"cannot connect to the socket {path}: {reason}")
