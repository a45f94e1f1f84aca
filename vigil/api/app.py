"""The Falcon application: which noun stands where."""

from __future__ import annotations

from typing import Any

import falcon.asgi

from vigil.api import errors
from vigil.api.changes import Change, Changes, ChangeWait
from vigil.api.daemon import Daemon
from vigil.api.logs import FollowLogs, Logs
from vigil.api.needs import Logs as LogsNeeded
from vigil.api.needs import Overlord
from vigil.api.operation import Noun
from vigil.api.plan import Plan, Replan
from vigil.api.protocol import App
from vigil.api.services import Services
from vigil.api.settings import Settings
from vigil.api.system_info import SystemInfo


def routes(overlord: Overlord, logs: LogsNeeded, settings: Settings) -> dict[str, Noun]:
    """Every path of the API and the noun behind it."""
    return {
        "/v1/system-info": SystemInfo(overlord),
        "/v1/services": Services(overlord),
        "/v1/plan": Plan(overlord),
        "/v1/replan": Replan(overlord),
        "/v1/changes": Changes(overlord),
        "/v1/changes/{id}": Change(overlord),
        "/v1/changes/{id}/wait": ChangeWait(overlord),
        "/v1/logs": Logs(overlord, logs),
        "/v1/logs/follow": FollowLogs(overlord, logs, settings),
        "/v1/vigild": Daemon(overlord),
    }


def build(overlord: Overlord, logs: LogsNeeded, settings: Settings) -> App:
    """The application, ready to be called."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(media_type="application/json")
    app.req_options.strip_url_path_trailing_slash = True
    nouns = routes(overlord, logs, settings)
    errors.install(app, [path for path in nouns if "{" not in path])
    for path, noun in nouns.items():
        app.add_route(path, noun)
    return app
