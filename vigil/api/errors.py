"""The one place where exceptions become answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import falcon
import falcon.asgi

from vigil.api import envelope
from vigil.api.operation import JSON
from vigil.api.trace import where
from vigil.model import say
from vigil.model.api import Problem
from vigil.model.errors import PlanError, VigilError
from vigil.model.suggest import hint


def install(app: falcon.asgi.App[Any, Any], paths: Sequence[str]) -> None:
    """Make every error of ``app`` an envelope; ``paths`` are the ones there are, for hints."""

    async def known(req: falcon.asgi.Request, resp: falcon.asgi.Response, problem: VigilError, params: object) -> None:
        problems = problem.problems if isinstance(problem, PlanError) else ()
        _answer(resp, problem.http_status, str(problem), problem.kind, problems)
        if problem.http_status >= 500 and problem.http_status != 503:
            _report(req, problem)

    async def http(
        req: falcon.asgi.Request, resp: falcon.asgi.Response, problem: falcon.HTTPError, params: object
    ) -> None:
        if problem.headers:
            resp.set_headers(problem.headers)
        _answer(resp, problem.status_code, _message(req, resp, problem, paths))

    async def bug(req: falcon.asgi.Request, resp: falcon.asgi.Response, problem: Exception, params: object) -> None:
        _report(req, problem)
        _answer(resp, 500, "cannot answer: this is a bug in vigild, and its log says more (vigil logs vigild)")

    app.add_error_handler(Exception, bug)
    app.add_error_handler(falcon.HTTPError, http)
    app.add_error_handler(VigilError, known)


def _answer(
    resp: falcon.asgi.Response, status: int, message: str, kind: str | None = None, problems: Sequence[Problem] = ()
) -> None:
    resp.status = f"{status} {envelope.phrase(status)}"
    resp.content_type = JSON
    resp.stream = None
    resp.data = envelope.failure(status, message, kind, problems)


def _message(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, problem: falcon.HTTPError, paths: Sequence[str]
) -> str:
    told = str(problem.description or "")
    if told.startswith("cannot "):
        return told  # one of ours
    if problem.status_code == 404:
        return f"cannot find {req.path}: the API has nothing there{hint(req.path, paths)}"
    if problem.status_code == 405:
        return f"cannot {req.method} {req.path}: allowed are {resp.get_header('allow')}"
    return f"cannot read the request: {told or problem.title or envelope.phrase(problem.status_code)}"


def _report(req: falcon.asgi.Request, problem: Exception) -> None:
    say.error("vigil.api", f"{req.method} {req.path}: {problem!r}", at=where(problem))
