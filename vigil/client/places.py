"""Where the socket of vigild is, when nobody says so."""

from __future__ import annotations

import os
import stat

NAME = "vigild.sock"


def usual() -> list[str]:
    """The places where vigild puts its socket, best first."""
    places = [f"/run/vigil/{NAME}"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        places.append(f"{runtime}/vigil/{NAME}")
    places.append(f"/tmp/vigil-{os.geteuid()}/{NAME}")
    return places


def trusted(path: str) -> bool:
    """Whether a socket found at one of the usual places is to be spoken to: anybody can make a directory in /tmp."""
    if not path.startswith("/tmp/"):
        return True
    try:
        info = os.lstat(os.path.dirname(path))
    except OSError:
        return True  # then there is nothing to speak to either
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077
