"""The http probe: does one request get the right answer?"""

from __future__ import annotations

from vigil.check.outcome import Probed
from vigil.http.fetch import FetchError, Request, Tls, fetch
from vigil.plan.types import HttpProbe

_BODY_MAX = 262_144  # bytes that ``body-contains`` looks at


async def probe(asked: HttpProbe, timeout: float) -> Probed:  # noqa: ASYNC109 - the exchange's own deadline
    """One exchange within ``timeout`` seconds."""
    wanted = None if asked.body_contains is None else asked.body_contains.encode("utf-8", "surrogateescape")
    request = Request(
        method=asked.method,
        url=asked.url,
        headers=asked.headers,
        timeout=timeout,
        tls=Tls(asked.insecure, asked.ca),
        proxy=asked.proxy,
        proxy_tls=Tls(asked.insecure_proxy),
        follow_redirects=not asked.no_follow_redirects,
        unix_socket=asked.unix_socket,
        keep=0 if wanted is None else _BODY_MAX,
    )
    try:
        answer = await fetch(request)
    except FetchError as error:
        return Probed(False, str(error), short=error.kind == "shortage")
    if answer.status not in asked.success_statuses:
        told = f"answered {answer.status} {answer.reason}".rstrip()
        redirected = "location" in answer.headers and 300 <= answer.status < 400 and asked.no_follow_redirects
        return Probed(False, f"{told} (a redirect, which is not followed)" if redirected else told)
    if wanted is not None and wanted not in answer.body:
        where = f"the first {_BODY_MAX // 1024} KiB of the body" if answer.cut else "the body"
        return Probed(False, f"answered {answer.status}, but {where} does not hold what body-contains wants")
    return Probed(True)
