"""One attempt: the body, the request, and what its answer means.

No sentence that comes out of here holds a URL, a header or a variable's value: they may be secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vigil.alert import formats, words
from vigil.alert.machine import Attempted
from vigil.alert.state import Job
from vigil.model import say
from vigil.model.errors import VigilError
from vigil.plan import secrets
from vigil.plan.types import Alert
from vigil.shim.program import Programs

if TYPE_CHECKING:
    import asyncio

    from vigil.http.fetch import Request, Response

AFTER_MOST = 86_400.0
"""No receiver is waited for longer, in seconds, whatever it asks for. (The job is too old long before.)"""

RENDERED_AT_ONCE = 4
"""So many templates are rendered at once. A hundred together would take one another's two seconds away."""

_REASON_MOST = 60  # characters of the word that comes with a status


class Impossible(VigilError):
    """The request cannot be made: the plan, or the environment it refers to, is wrong."""


class Courier:
    """Makes bodies and attempts, for all alerts."""

    __slots__ = ("_boot_id", "_environment", "_programs", "_rendering")

    def __init__(self, boot_id: str, environment: Mapping[str, str], programs: Programs) -> None:
        """``environment``: vigild's own."""
        self._boot_id, self._environment, self._programs = boot_id, environment, programs
        self._rendering: asyncio.Semaphore | None = None

    async def body(self, alert: Alert, job: Job) -> bytes:
        """What is sent for ``job``. Where the template of the alert makes none: a warning, and the default."""
        environment = self._environment
        message = formats.Message(
            alert=alert.name,
            job=job,
            id=formats.message_id(self._boot_id, alert.name, job) if alert.format == "cloud-events" else "",
            labels=words.resolve_all(alert.labels, environment),
            info=words.resolve_all(alert.send_info_fields, environment),
        )
        if alert.body_template is not None and alert.format == "webhook":
            import asyncio

            from vigil.alert.template import TemplateError, render

            self._rendering = self._rendering or asyncio.Semaphore(RENDERED_AT_ONCE)
            try:
                async with self._rendering:
                    return await render(self._programs, alert.name, alert.body_template, formats.variables(message))
            except TemplateError as error:
                say.warn("vigil.alert", f"sends the default body: body-template: {error}", alert=alert.name)
        return formats.body(alert.format, message)

    async def attempt(self, alert: Alert, job: Job, body: bytes) -> Attempted:
        """Send ``body`` once, and say what came of it."""
        from vigil.http.fetch import FetchError, fetch

        try:
            request = self.request(alert, body)
            response = await fetch(request)
        except Impossible as error:
            return Attempted(number=job.number, ok=False, error=str(error), ours=True)
        except FetchError as error:
            ours = error.kind == "url"
            return Attempted(number=job.number, ok=False, error=str(error), again=not ours, ours=ours)
        return _judged(job, urlsplit(request.url).netloc, response)

    def request(self, alert: Alert, body: bytes) -> Request:
        """The request, with all references replaced. Impossible."""
        from vigil.http.fetch import Request, Tls
        from vigil.http.proxy import proxy_for

        url = self._word(alert.url)
        if not url:
            raise Impossible("its url is empty" + (f" ({alert.url} is not set)" if alert.url else ""))
        if not url.lower().startswith(("http://", "https://")) or len(url.split()) > 1:
            raise Impossible(f"its url is no http:// or https:// URL ({secrets.masked_url(alert.url)})")
        proxy = self._word(alert.proxy) or None
        no_proxy = None if alert.no_proxy is None else words.resolve(alert.no_proxy, self._environment)
        if not no_proxy and alert.no_proxy:  # only references, to nothing: as if it were not there
            no_proxy = None
        try:
            through = proxy_for(url, proxy, no_proxy, self._environment)
        except ValueError:
            raise Impossible(f"its url names no host, or no port ({secrets.masked_url(alert.url)})") from None
        return Request(
            method="POST",
            url=url,
            headers=self._headers(alert),
            body=body,
            timeout=alert.timeout,
            tls=Tls(insecure=alert.tls_insecure, ca=self._word(alert.tls_ca) or None),
            proxy=through,
            proxy_tls=Tls(ca=self._word(alert.proxy_ca) or None),
            keep=0,  # a receiver that has answered has answered, however slowly or long it goes on to talk
        )

    def _word(self, text: str | None) -> str:
        return "" if text is None else words.resolve(text, self._environment).strip()

    def _headers(self, alert: Alert) -> dict[str, str]:
        headers = {"Content-Type": formats.CONTENT_TYPES[alert.format]}
        for name, text in alert.headers.items():
            value = self._word(text)
            if not all((letter.isprintable() or letter == "\t") and letter <= "\xff" for letter in value):
                raise Impossible(f"its header {name} holds a character that no header can")
            if name.lower() == "content-type":
                del headers["Content-Type"]
            headers[name] = value
        return headers


def _judged(job: Job, netloc: str, response: Response) -> Attempted:
    status = response.status
    if 200 <= status < 300:
        return Attempted(number=job.number, ok=True)
    error = f"{netloc.rpartition('@')[2]} answers {status} {response.reason[:_REASON_MOST]}".rstrip()
    if 300 <= status < 400 and "location" in response.headers:
        target = response.headers["location"]
        shown = secrets.masked_url(target) if "://" in target else secrets.MASK
        error += f", a redirect to {shown}, which is not followed: write that as url"
    again = status == 429 or status >= 500
    after = _after(response.headers.get("retry-after", "")) if again else 0.0
    return Attempted(number=job.number, ok=False, error=error, again=again, after=after)


def _after(text: str) -> float:
    """Seconds that Retry-After means: it is a number of them, or a date."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), AFTER_MOST)
    if not text:
        return 0.0
    import time
    from email.utils import parsedate_to_datetime

    try:
        ahead = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(ahead, 0.0), AFTER_MOST)
