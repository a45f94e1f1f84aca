"""Who is calling, and what they may do."""

from __future__ import annotations

import socket
import struct

from vigil.model.errors import Forbidden
from vigil.model.states import Access

_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Caller:
    """The peer of one connection. It cannot change while the connection lives."""

    __slots__ = ("access", "pid", "uid")

    def __init__(self, access: Access, uid: int | None = None, pid: int | None = None) -> None:
        self.access = access
        self.uid = uid
        self.pid = pid

    def __str__(self) -> str:
        if self.uid is None:
            return "a caller over the network"
        return f"uid {self.uid} over the Unix socket"

    def require(self, needed: Access, doing: str) -> None:
        """Forbidden where this caller's level is below ``needed``."""
        if not self.access.allows(needed):
            raise Forbidden(
                f"cannot {doing}: this needs the access level {needed.value}, and {self} has {self.access.value}"
            )


def identify(sock: socket.socket | None, owner: int) -> Caller:
    """Uid 0 and ``owner`` are admin on a Unix socket, everybody else is open.

    The kernel remembers the peer's credentials as of its connect(), and translates the uid into our user namespace: one
    that has no number here arrives as the overflow uid, never as 0.
    """
    if sock is None or sock.family != socket.AF_UNIX:
        return Caller(Access.OPEN)
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Caller(Access.ADMIN if uid in (0, owner) else Access.OPEN, uid, pid)
