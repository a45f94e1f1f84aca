"""Addresses of names. ``getaddrinfo`` knows no deadline and cannot be interrupted, so it runs in threads of its own.

Who asks for a name that is being looked up already waits for the same answer: a dead name server holds one thread for
each name, not one for each probe. Addresses and ``localhost`` are looked up nowhere.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

from vigil.http.threads import Threads

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]
"""A family, and what ``connect`` takes."""

_threads = Threads("vigil-resolve", 64)
_lock = threading.Lock()
_lookups: dict[str, _Lookup] = {}


class ResolveError(Exception):
    """``str()`` says why, to come after "cannot resolve NAME: "."""

    def __init__(self, reason: str, *, shortage: bool = False) -> None:
        super().__init__(reason)
        self.shortage = shortage


class _Lookup:
    """One name that is being looked up. ``done`` are called in the thread that did it."""

    def __init__(self) -> None:
        self.found: list[Address] = []
        self.error: ResolveError | None = None
        self.done: list[Callable[[], None]] | None = []

    def addresses(self, port: int) -> list[Address]:
        """What was found; raises what went wrong."""
        if self.error is not None:
            raise ResolveError(str(self.error), shortage=self.error.shortage)
        return [_at(address, port) for address in self.found]


def at_once(host: str, port: int) -> list[Address] | None:
    """The addresses where they take no waiting, else None."""
    if host.rstrip(".").lower() == "localhost":
        return [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]
    try:
        return _ask(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None


def wait(host: str, port: int, timeout: float) -> list[Address] | None:
    """The addresses of ``host``; None: not within ``timeout`` seconds. ResolveError."""
    found = at_once(host, port)
    if found is not None:
        return found
    ended = threading.Event()
    lookup = _begin(host, ended.set)
    return lookup.addresses(port) if ended.wait(timeout) else None


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of ``host``, however long that takes. ResolveError."""
    found = at_once(host, port)
    if found is not None:
        return found
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(ended.set)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    lookup = _begin(host, tell)
    await ended.wait()
    return lookup.addresses(port)


def _begin(host: str, done: Callable[[], None]) -> _Lookup:
    with _lock:
        lookup = _lookups.get(host)
        if lookup is None:
            lookup = _lookups[host] = _Lookup()
            if not _threads.submit(lambda: _look_up(host)):
                del _lookups[host]
                raise ResolveError("no thread can be started", shortage=True)
        assert lookup.done is not None
        lookup.done.append(done)
        return lookup


def _look_up(host: str) -> None:
    found: list[Address] = []
    error: ResolveError | None = None
    try:
        found = _ask(host, 0, 0)
    except socket.gaierror as failed:
        error = ResolveError(_WORDS.get(failed.errno or 0, failed.strerror or str(failed)))
    except (OSError, UnicodeError) as failed:
        error = ResolveError(str(failed))
    with _lock:
        lookup = _lookups.pop(host)
        lookup.found, lookup.error = found, error
        done, lookup.done = lookup.done, None
    for call in done or ():
        call()


def _ask(host: str, port: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found if _usable(family, address)))  # type: ignore[misc]


def _usable(family: int, address: tuple[object, ...]) -> bool:
    return family in (socket.AF_INET, socket.AF_INET6) and isinstance(address[0], str)


def _at(address: Address, port: int) -> Address:
    family, place = address
    return (family, (place[0], port)) if len(place) == 2 else (family, (place[0], port, place[2], place[3]))


_WORDS = {
    socket.EAI_NONAME: "there is no such name",
    socket.EAI_AGAIN: "no name server answers",
}
