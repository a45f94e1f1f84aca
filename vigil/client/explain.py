"""Why a socket cannot be used: the likely cause, from the error and from what is at its path. Imported only then."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from vigil.client.errors import Unreachable

PATH_MAX = 107  # bytes of sun_path, without the NUL


def explain(path: str, problem: OSError) -> Unreachable:
    """The sentence about ``problem``, which connecting to ``path`` gave."""
    if len(os.fsencode(path)) > PATH_MAX:  # which has no errno
        return Unreachable(
            f"the path of a socket has at most {PATH_MAX} bytes, and {path} has {len(os.fsencode(path))}"
        )
    if isinstance(problem, FileNotFoundError):
        return Unreachable(f"there is no socket {path} (is vigild running?)", gone=True)
    if isinstance(problem, PermissionError):
        return Unreachable(_permission(path))
    if isinstance(problem, ConnectionRefusedError):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            mode = stat.S_IFSOCK
        if not stat.S_ISSOCK(mode):
            return Unreachable(f"{path} is {'a directory' if stat.S_ISDIR(mode) else 'a file'}, not a socket")
        return Unreachable(f"nobody listens at the socket {path} (vigild has ended, and left it behind)", gone=True)
    if isinstance(problem, NotADirectoryError):
        return Unreachable(f"{os.path.dirname(path)} is not a directory, so there is no socket {path}")
    if problem.errno == errno.EPROTOTYPE:
        return Unreachable(f"the socket {path} is of another kind, so it is not that of vigild")
    return Unreachable(f"cannot connect to the socket {path}: {problem.strerror or problem}")


def why_nowhere(paths: Sequence[str]) -> str:
    """What to do where vigild can have made a socket at none of these places; empty where it can."""
    for path in paths:
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        if os.access(path, os.W_OK):
            return ""
    return "nothing can be written there, so vigild has no API: mount a tmpfs on /run or /tmp, or give it a --socket"


def silent(path: str, seconds: float) -> Unreachable:
    """Somebody listens, and says nothing."""
    return Unreachable(
        f"vigild at {path} does not answer within {seconds:.0f}s (it is starting, or hangs; its own log says more)"
        if seconds >= 1
        else f"vigild at {path} does not answer"
    )


def _permission(path: str) -> str:
    """Who may use the socket, and what to do."""
    you = f"you are {_user(os.geteuid())}"
    folder = os.path.dirname(os.path.abspath(path))
    try:
        info = os.stat(path)
    except OSError:
        while (above := os.path.dirname(folder)) != folder and not os.access(above, os.X_OK):
            folder = above
        return f"no permission to enter {folder}, where the socket {path} should be ({you})"
    owner = _user(info.st_uid)
    mode = f"{stat.S_IMODE(info.st_mode):04o}"
    if info.st_mode & stat.S_IWGRP and info.st_gid != 0:
        group = _group(info.st_gid)
        who, what = f"{owner} and the group {group}", f"become a member of that group, or {owner}"
    else:
        who, what = f"{owner} alone", f"become {owner}, or start vigild with --socket-group"
    return f"no permission to use the socket {path}: it is for {who} (mode {mode}), and {you} ({what})"


def _user(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"{gid}"
