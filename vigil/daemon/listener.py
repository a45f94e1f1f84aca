"""The Unix socket of the API: where it is, how it gets there, and how it goes.

It is bound and listened on before anything is started, and served much later: what connects meanwhile waits in the
backlog. PID 1 keeps a copy, so it waits there as well while control is away; the next control takes the copy and binds
nothing.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

import msgspec

from vigil.client import places
from vigil.model import say
from vigil.model.errors import StartError
from vigil.shim.messages import Shim

PARKED_AS = "listener/unix"
KEY = "listener/unix"
"""Of the journal: path and inode, which the descriptor does not tell (it was bound under another name)."""

_BACKLOG = 1024
_PATH_MAX = 107  # bytes of sun_path, without the NUL
_ELSEWHERE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)
)


class Place(msgspec.Struct, frozen=True):
    """Where a listener is, as the journal has it."""

    path: str
    device: int
    inode: int


class Listener(msgspec.Struct):
    """A socket that listens at ``place``."""

    place: Place
    fd: int

    @property
    def missing(self) -> bool:
        """Whether its file is gone, so that nobody can connect any more. (Another's file in its place is another's.)"""
        try:
            os.lstat(self.place.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            pass
        return False

    def record(self) -> bytes:
        """Value of ``KEY``."""
        return msgspec.msgpack.encode(self.place)

    def park(self, shim: Shim) -> None:
        """Have PID 1 keep a copy."""
        shim.park(PARKED_AS, self.fd)

    def remove(self) -> None:
        """Remove the socket's file, unless it is another's by now."""
        try:
            if _identity(self.place.path) == (self.place.device, self.place.inode):
                os.unlink(self.place.path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                say.warn("vigil.daemon", f"cannot remove {self.place.path}: {error.strerror}")


def adopt(fd: int, record: bytes) -> Listener:
    """The listener that an earlier control parked."""
    return Listener(msgspec.msgpack.decode(record, type=Place), fd)


def bind(path: str | None, mode: int, group: str | None) -> Listener | None:
    """Listen at ``path``; without one, at the first of the usual places that can be made, None where none can.

    StartError: the path asked for cannot be used, or another daemon answers at a usual one.
    """
    gid = -1 if group is None else _group(group)
    if path is not None:
        try:
            _make_directory(os.path.dirname(path), 0o755)
            return _bind(path, mode, gid)
        except OSError as error:
            raise StartError(f"cannot listen on {path}: {error.strerror}") from error
    reasons = []
    for place in places.usual():
        try:
            private = place.startswith("/tmp/")  # where anybody can make directories
            _make_directory(os.path.dirname(place), 0o700 if private else 0o755)
            if private and not places.trusted(place):
                raise OSError(errno.EPERM, "the directory is another user's, or open to others")
            return _bind(place, mode, gid)
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise StartError(f"cannot listen on {place}: {error.strerror}") from error
            reasons.append(f"{place}: {error.strerror}")
    say.warn(
        "vigil.daemon",
        f"there is no place for the API's Unix socket, so there is no API ({'; '.join(reasons)}): mount a tmpfs on /run"
        " or /tmp, or name a place with --socket",
    )
    return None


def _bind(path: str, mode: int, gid: int) -> Listener:
    """Bind beside ``path`` and move it there: at no moment is there a socket with other permissions, or none."""
    if len(os.fsencode(path)) > _PATH_MAX:
        raise StartError(f"cannot listen on {path}: the path of a socket has at most {_PATH_MAX} bytes")
    if not os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))  # before asking who answers there: it is not for us
    _refuse_if_used(path)
    directory, name = os.path.split(path)
    # As short as the name itself where that is possible, so that what fits there fits here.
    fresh = os.path.join(directory, "." + os.urandom(4).hex()[: max(4, len(name) - 1)])
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    umask = os.umask(0o777)
    try:
        listener.bind(fresh)
    finally:
        os.umask(umask)
    try:
        if gid >= 0:
            os.chown(fresh, -1, gid)
        os.chmod(fresh, mode)
        listener.listen(_BACKLOG)
        device, inode = _identity(fresh)
        os.rename(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    return Listener(Place(path, device, inode), listener.detach())


def _refuse_if_used(path: str) -> None:
    """StartError where something is at ``path`` that must not be replaced."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StartError(f"cannot listen on {path}: it is there and no socket")
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    probe.setblocking(False)
    try:
        probe.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return  # nobody has it any more
    except BlockingIOError:
        pass  # a backlog that is full is somebody's
    except OSError as error:
        raise StartError(f"cannot listen on {path}: a socket is there: {error.strerror}") from error
    finally:
        probe.close()
    raise StartError(f"cannot listen on {path}: another daemon answers there")


def _make_directory(path: str, mode: int) -> None:
    if path:
        try:
            os.makedirs(path, mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _group(name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    import grp  # the user database is asked only where that was asked for

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise StartError(f'cannot listen: there is no group "{name}" (--socket-group)') from None
