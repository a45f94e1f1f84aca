"""The tcp probe: can a connection be made? No thread waits for it, but for names that have to be looked up."""

from __future__ import annotations

import asyncio
import errno
import socket

from vigil.check.outcome import Probed
from vigil.http import resolve
from vigil.http.connect import SHORTAGES, place, words
from vigil.model import duration
from vigil.plan.types import TcpProbe


async def probe(asked: TcpProbe, timeout: float) -> Probed:  # noqa: ASYNC109 - one clock for all of it
    """Connect to one of the addresses of the host within ``timeout`` seconds, and close."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    phase = f"resolving {asked.host}"
    failed: OSError | None = None
    refuser = ""
    try:
        async with asyncio.timeout_at(end):
            addresses = await resolve.resolve(asked.host, asked.port)
            for i, (family, address) in enumerate(addresses):
                whom = place(address[0], asked.port)
                phase = f"connecting to {whom}"
                try:
                    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                except OSError as error:
                    if error.errno in SHORTAGES:
                        return Probed(False, f"no socket can be made: {error.strerror}", short=True)
                    if failed is None:  # no IPv6 here: what another address says is worth more
                        failed, refuser = error, whom
                    continue
                with connection:
                    try:
                        # What does not answer leaves the others their share of the time.
                        async with asyncio.timeout_at(loop.time() + (end - loop.time()) / (len(addresses) - i)):
                            await loop.sock_connect(connection, address)
                    except TimeoutError as error:
                        if error.errno is None and i == len(addresses) - 1:
                            raise
                        failed, refuser = error if error.errno else OSError(errno.ETIMEDOUT, ""), whom
                    except OSError as error:
                        failed, refuser = error, whom
                    else:
                        return Probed(True)
    except TimeoutError:
        return Probed(False, f"no connection within {duration.spell(timeout)} (still {phase})")
    except resolve.ResolveError as error:
        return Probed(False, f"cannot resolve {asked.host}: {error}", short=error.shortage)
    if failed is None:
        return Probed(False, f"cannot resolve {asked.host}: it has no address")
    return Probed(False, words(failed, refuser))
