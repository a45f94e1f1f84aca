"""A connection within what is left of an exchange's time: each address is tried, and each name and phase is told."""

from __future__ import annotations

import errno
import os
import socket
import struct

from vigil.http import resolve
from vigil.http.deadline import Deadline, Expired
from vigil.http.fetch import FetchError

SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN))
"""Errors of making a socket that say nothing about the other side."""

_WORDS = {
    errno.ECONNREFUSED: "connection refused by {}",
    errno.ECONNRESET: "connection reset by {}",
    errno.EHOSTUNREACH: "no route to {}",
    errno.ENETUNREACH: "the network of {} is unreachable",
    errno.ETIMEDOUT: "no answer from {}",
}


def place(host: str, port: int) -> str:
    """``HOST:PORT``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words(error: OSError, whom: str) -> str:
    """An error of a connection, as people say it."""
    pattern = _WORDS.get(error.errno or 0)
    return pattern.format(whom) if pattern is not None else f"{whom}: {error.strerror or error}"


def shortage(error: OSError) -> FetchError:
    """There is no socket to be had."""
    return FetchError("shortage", f"no socket can be made: {error.strerror}")


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to one of the addresses of ``host``, watched by ``deadline``. FetchError, Expired."""
    deadline.phase = f"resolving {host}"
    try:
        addresses = resolve.wait(host, port, deadline.left())
    except resolve.ResolveError as error:
        if error.shortage:
            raise FetchError("shortage", str(error)) from None
        raise FetchError("connection", f"cannot resolve {host}: {error}") from None
    if addresses is None:
        raise Expired
    failed: OSError | None = None
    refuser = ""
    for i, (family, address) in enumerate(addresses):
        whom = place(address[0], port)
        deadline.phase = f"connecting to {whom}"
        # What does not answer leaves the others their share of the time.
        share = deadline.left() / (len(addresses) - i)
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            if error.errno in SHORTAGES:
                raise shortage(error) from None
            if failed is None:  # no IPv6 here: what another address says is worth more
                failed, refuser = error, whom
            continue
        try:
            deadline.watch(connection)
            connection.settimeout(share)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(deadline.left())
        except OSError as error:
            connection.close()
            if error.errno in SHORTAGES:
                raise shortage(error) from None
            timed_out = isinstance(error, TimeoutError) and error.errno is None
            if timed_out and i == len(addresses) - 1:
                raise Expired from None
            failed, refuser = OSError(errno.ETIMEDOUT, "") if timed_out else error, whom
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    deadline.left()
    if failed is None:
        raise FetchError("connection", f"cannot resolve {host}: it has no address")
    raise FetchError("connection", words(failed, refuser))


def connect_unix(path: str, deadline: Deadline) -> socket.socket:
    """A connection to the socket at ``path``, watched by ``deadline``. FetchError, Expired."""
    deadline.phase = f"connecting to {path}: it accepts no connections"
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise shortage(error) from None
    try:
        deadline.watch(connection)
        # A non-blocking connect would fail at once where the backlog is full; SO_SNDTIMEO bounds a blocking one.
        left = max(deadline.left(), 0.001)
        seconds, rest = divmod(round(left * 1e6), 1_000_000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", seconds, rest))
        connection.connect(path)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
        connection.settimeout(deadline.left())
    except OSError as error:
        connection.close()
        if error.errno == errno.EAGAIN:
            raise Expired from None
        if error.errno in SHORTAGES:
            raise shortage(error) from None
        if error.errno == errno.ECONNREFUSED:
            raise FetchError("connection", f"connection refused by {path}: nobody listens there") from None
        raise FetchError("connection", f"{path}: {os.strerror(error.errno or 0)}") from None
    except BaseException:
        connection.close()
        raise
    return connection
