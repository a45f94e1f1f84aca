"""vigild's own environment, as the bytes it came in."""

from __future__ import annotations

from collections.abc import Mapping

_LINK = b"VIGIL_LINK"  # vigild puts it behind everything else, for control alone


def of_vigild(environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """``os.environb`` of control, without what vigild and Python have added to it.

    Python sets LC_CTYPE where the locale is C (PEP 538). A service must not inherit that: vigild had none. What was
    added stands behind VIGIL_LINK, since setenv appends; a user's own LC_CTYPE stands before it. (One that was C has
    become C.UTF-8 in its place: that cannot be told, and services get the better one.)
    """
    names = list(environ)
    added = names[names.index(_LINK) :] if _LINK in names else []
    return {name: value for name, value in environ.items() if name not in added or name not in (_LINK, b"LC_CTYPE")}
