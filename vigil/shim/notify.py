"""The sockets on which services notify: made here, one for each start, sent with SPAWN, read by logger alone.

A socket is a path in a directory beside the API's socket, with a name that cannot be guessed and for the service's user
only; where that cannot be, or the user could not get there, it is an abstract name of 128 random bits. Either way
logger looks at who sent what: a name is no secret from those who may read /proc/net/unix.
"""

from __future__ import annotations

import _socket
import os
import stat
from collections.abc import Container

_PATH_MAX = 107  # bytes of sun_path, without the NUL


def make(path: str | None, uid: int | None) -> tuple[int, str]:
    """A socket at ``path``, for ``uid`` (None: vigild's own), and its address as in NOTIFY_SOCKET.

    Without a path, or where none can be made there, it is abstract. OSError where descriptors lack.
    """
    if path is not None and len(os.fsencode(path)) <= _PATH_MAX:
        made = _socket_for_notices()
        bound = False
        try:
            made.bind(path)  # nobody knows the name before the mode is right
            bound = True
            if uid is not None and uid != os.geteuid():
                os.chown(path, uid, -1)
            os.chmod(path, 0o600)
            return made.detach(), path
        except OSError:
            made.close()
            if bound:
                _remove(path)
    made = _socket_for_notices()
    try:
        name = "vigil/notify/" + os.urandom(16).hex()
        made.bind("\0" + name)
        return made.detach(), "@" + name
    finally:
        made.close()  # where it was not detached


def _socket_for_notices() -> _socket.socket:
    made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    # Before anybody can send: without it the kernel notes no sender.
    made.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    return made


class Sockets:
    """Those whose address is a path, by the token of their SPAWN: somebody has to remove the files."""

    def __init__(self, place: str | None) -> None:
        """``place``: the directory, made when needed; ``NAME.notify`` beside the API's socket NAME. None: nowhere."""
        self._place = place
        self._paths: dict[int, str] = {}

    def open(self, token: int, uid: int | None) -> tuple[int, str]:
        """A socket for the run that is to be spawned with ``token``, as ``make``. The caller closes the descriptor."""
        path = None
        if self._place is not None and _usable(self._place, uid):
            path = f"{self._place}/{token:x}-{os.urandom(16).hex()}"
        fd, address = make(path, uid)
        if address == path:
            self._paths[token] = address
        return fd, address

    def close(self, token: int) -> None:
        """The run is over: nobody needs the address any more."""
        path = self._paths.pop(token, None)
        if path is not None:
            _remove(path)

    def adopt(self, tokens: Container[int]) -> None:
        """After attach: files of these runs are ours to remove later, all others are left from earlier ones."""
        if self._place is None:
            return
        try:
            names = os.listdir(self._place)
        except OSError:
            return
        for name in names:
            path = f"{self._place}/{name}"
            token = _token(name)
            if token in tokens:
                self._paths[token] = path
            elif token >= 0:
                _remove(path)

    def remove(self) -> None:
        """At vigild's end: all files, and the directory."""
        self.adopt(())
        if self._place is not None:
            try:
                os.rmdir(self._place)
            except OSError:
                pass


def _token(name: str) -> int:
    """Of a file's name; -1: not one of ours."""
    token, dash, secret = name.partition("-")
    try:
        return int(token, 16) if dash and len(secret) == 32 else -1
    except ValueError:
        return -1


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # the directory is gone, or read-only by now: it costs a name


def _usable(place: str, uid: int | None) -> bool:
    """Whether the directory is there, ours alone to write, and the user gets there."""
    try:
        try:
            os.mkdir(place, 0o711)
        except FileExistsError:
            pass
        found = os.lstat(place)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        if stat.S_IMODE(found.st_mode) != 0o711:
            os.chmod(place, 0o711)
        return uid is None or uid in (0, os.geteuid()) or _reaches(os.path.realpath(place), uid)
    except OSError:
        return False


def _reaches(place: str, uid: int) -> bool:
    """Whether every directory on the way lets the user through (by group alone does not count)."""
    while True:
        found = os.stat(place)
        if not found.st_mode & (stat.S_IXUSR if found.st_uid == uid else stat.S_IXOTH):
            return False
        if place == "/":
            return True
        place = os.path.dirname(place)
