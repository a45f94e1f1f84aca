"""One HTTP request, from a loop's point of view: one deadline for all of it, an answer or a sentence about what failed.

The exchange itself runs in a thread (``exchange``; requests does the HTTP), which a deadline wakes in whatever it waits
for by shutting its socket down. Nothing of the surroundings is used: no proxy of the environment, no netrc, no cookies.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from vigil.http.deadline import Deadline
from vigil.http.threads import Threads
from vigil.model import duration
from vigil.model.errors import VigilError

Kind = Literal["timeout", "connection", "tls", "proxy", "redirects", "url", "shortage"]

REDIRECTS_MAX = 10
"""So many redirects are followed in one exchange."""

THREADS_MAX = 512
"""So many exchanges go on at once, each in a thread: more targets than that have to hang before others are delayed."""

_threads = Threads("vigil-http", THREADS_MAX)


class Tls(msgspec.Struct, frozen=True):
    """How the other side of a TLS connection is verified."""

    insecure: bool = False  # not at all
    ca: str | None = None  # path of the certificates that are trusted, a file or a directory; None: the system's


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    method: str
    url: str
    headers: dict[str, str] = {}
    body: bytes | None = None
    timeout: float  # seconds, for the whole exchange, name resolution and all redirects included
    tls: Tls = Tls()
    proxy: str | None = None  # http://[USER:PASSWORD@]HOST:PORT, or https://
    proxy_tls: Tls = Tls()  # of an https:// proxy
    follow_redirects: bool = False
    unix_socket: str | None = None  # is connected to instead of the URL's host and port; then no proxy is used
    keep: int = 65536  # bytes of the body that are read; with 0 nothing of it is waited for


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered."""

    status: int
    reason: str = ""  # the word that came with the status
    headers: dict[str, str] = {}  # names in lower case
    body: bytes = b""  # as it came: never unpacked
    cut: bool = False  # the body was not read to its end


class FetchError(VigilError):
    """No answer. ``str()`` says why, in words to come after "down: ". It holds no part of URL but host and port.

    ``shortage``: the machine has no threads, memory or descriptors left for it; the other side was not even asked.
    """

    kind: Kind

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


async def fetch(request: Request) -> Response:
    """The answer to ``request``, whatever its status. FetchError where there is none in time."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Response] = loop.create_future()
    deadline = Deadline(request.timeout)

    def settle(response: Response | None, error: BaseException | None) -> None:
        if answer.done():
            return  # the deadline was faster, or nobody waits any more
        if error is not None:
            answer.set_exception(error)
        elif response is not None:
            answer.set_result(response)

    def work() -> None:
        response: Response | None = None
        failed: BaseException | None = None
        try:
            if deadline.begin():
                from vigil.http.exchange import exchange  # requests: 67 ms, and this thread may take them

                response = exchange(request, deadline)
        except (MemoryError, OSError) as error:  # of the import: the exchange has words for its own
            failed = FetchError("shortage", f"no room for an exchange: {error}")
        except BaseException as error:
            failed = error
        deadline.close()
        try:
            loop.call_soon_threadsafe(settle, response, failed)
        except RuntimeError:
            pass  # the loop has ended meanwhile

    def expire() -> None:
        begun = deadline.expire()
        if not answer.done():
            answer.set_exception(late(request, deadline) if begun else FetchError("shortage", _BUSY))

    if not _threads.submit(work):
        raise FetchError("shortage", "no thread can be started")
    timer = loop.call_later(request.timeout, expire)
    try:
        return await answer
    finally:
        timer.cancel()
        deadline.expire()  # cancelled, or nobody needs the connection any more


def late(request: Request, deadline: Deadline) -> FetchError:
    """What is said when the deadline of ``request`` has passed."""
    phase = f" (still {deadline.stuck})" if deadline.stuck else ""
    return FetchError("timeout", f"no answer within {duration.spell(request.timeout)}{phase}")


_BUSY = f"not asked: {THREADS_MAX} other requests are under way, and none ended"
