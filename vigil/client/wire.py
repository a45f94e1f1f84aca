"""HTTP/1.1 over a Unix socket, as much of it as vigild speaks.

``http.client`` would do, but it costs 18 ms of import (email, ssl), a third of what a command may take in all, and
``socket`` 2 ms more than the module below it.
Sockets stay blocking, with the kernel's own timeouts: a connect() that finds the backlog full then waits in it, as it
must while control is being replaced, where a non-blocking one fails at once.
"""

from __future__ import annotations

import _socket
import struct
from collections.abc import Iterator

from vigil.client.errors import BadAnswer, Lost

_HEAD_LIMIT = 64 * 1024
_PIECE = 64 * 1024


class Answer:
    """One answer whose head has been read; ``pieces`` reads the body as it comes.

    ``reader`` is a descriptor whose other end somebody reads: where that is closed, nobody wants the rest, and
    ``pieces`` raises BrokenPipeError instead of waiting for it.
    """

    def __init__(self, sock: _socket.socket, status: int, headers: dict[str, str], rest: bytes) -> None:
        self.status = status
        self.headers = headers
        self.reader: int | None = None
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
        if self.reader is not None:
            _wait(self._sock, self.reader)
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


def connect(path: str, seconds: float) -> _socket.socket:
    """A connection to the socket at ``path``; Unreachable says why not, TimeoutError that nobody accepts."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    try:
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6) or (0 if seconds >= 1 else 1))
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, limit)
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        raise TimeoutError from None
    except OSError as problem:
        sock.close()
        from vigil.client.explain import explain

        raise explain(path, problem) from None
    return sock


def receive(sock: _socket.socket) -> bytes:
    """What has come; b"" at the end. Lost, or TimeoutError."""
    try:
        return sock.recv(_PIECE)
    except BlockingIOError:
        raise TimeoutError from None
    except OSError as problem:
        raise Lost(f"the connection broke ({problem.strerror})") from None


def _wait(sock: _socket.socket, reader: int) -> None:
    """Until there is something to receive, or its own timeout is over; BrokenPipeError where ``reader`` is gone."""
    import select

    seconds, micros = struct.unpack("ll", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, 16))
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    poll.register(reader, 0)
    ready = [fd for fd, _ in poll.poll(seconds * 1000 + micros / 1000)]
    if reader in ready:
        raise BrokenPipeError
    if not ready:
        raise TimeoutError


def _read_head(sock: _socket.socket) -> Answer:
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
