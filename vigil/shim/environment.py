"""The environment that a process of vigild's gets."""

from __future__ import annotations

from collections.abc import Mapping

from vigil.plan.types import Credentials

_HIDDEN = (b"VIGIL_", b"WATCHDOG_", b"LISTEN_")


def inherited(environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What processes see of vigild's own environment: nothing that is meant for vigild itself."""
    return {
        key: value
        for key, value in environment.items()
        if key == b"VIGIL_SOCKET" or not (key.startswith(_HIDDEN) or key == b"NOTIFY_SOCKET")
    }


def entries(user: Credentials | None, own: Mapping[str, str], base: Mapping[bytes, bytes]) -> list[bytes]:
    """``KEY=VALUE`` of ``base``, then what the user implies, then its own."""
    merged = dict(base)
    if user is not None and user.home is not None:
        merged[b"HOME"] = _bytes(user.home)
        for key in (b"USER", b"LOGNAME"):
            merged.pop(key, None)
            if user.name is not None:
                merged[key] = _bytes(user.name)
    for name, value in own.items():
        merged[_bytes(name)] = _bytes(value)
    return [key + b"=" + value for key, value in merged.items()]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
