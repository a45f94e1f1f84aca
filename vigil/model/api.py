"""The JSON shapes of the API: the one contract of server, client and CLI.

Fields are kebab-case on the wire. Times are RFC 3339 UTC with microseconds and ``Z``, durations are seconds.
Answers may grow: clients ignore fields they do not know. Requests may not: an unknown field is a 400 that names it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from vigil.model.states import ChangeStatus, ServiceState


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", omit_defaults=False):
    """Base of everything the daemon sends."""


class Request(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """Base of everything a client sends."""


class LastUpgrade(Answer, frozen=True):
    """How the last upgrade of control ended."""

    time: str
    ok: bool
    error: str | None = None


class SystemInfo(Answer, frozen=True):
    """GET /v1/system-info."""

    boot_id: str
    version: str
    start_time: str
    http_address: str | None
    https_address: str | None
    control_start_time: str
    control_restarts: int
    logger_restarts: int
    pid1_version: str
    last_upgrade: LastUpgrade | None = None


class Exit(Answer, frozen=True):
    """How the main process of a service's last run ended, or why it could not be started (then code is 127 or 126)."""

    code: int | None  # exit code; None when a signal ended it
    signal: str | None  # "SIGKILL"; None when it exited
    reason: str  # a sentence: "exited with code 7", "killed by SIGKILL", "exec /nope: No such file or directory"
    time: str
    output: list[str]  # its last lines, 5 at most


class Service(Answer, frozen=True):
    """GET /v1/services, one item."""

    name: str
    startup: Literal["enabled", "disabled"]
    current: ServiceState
    current_since: str
    cause: str  # why it is in this state, a sentence
    waiting_for: list[str]
    status_text: str | None
    pid: int | None
    restarts: int  # automatic ones since the last manual start
    exit: Exit | None
    ready: bool
    stop_signal: str
    on_success: str
    on_failure: str
    pending_restart: bool
    cpu: float | None  # seconds, of the whole tree
    memory: int | None  # bytes, of the whole tree


class Task(Answer, frozen=True):
    """What a change does to one service."""

    service: str
    kind: str  # start, stop, restart, signal
    status: ChangeStatus
    err: str | None = None


class Change(Answer, frozen=True):
    """GET /v1/changes, one item."""

    id: str
    kind: str  # start, stop, restart, autostart, signal, replan
    summary: str
    status: ChangeStatus
    spawn_time: str
    ready_time: str | None  # when it ended
    err: str | None
    cause: str  # who asked: "uid 0 over the Unix socket", "vigild: autostart"
    tasks: list[Task]


class ServicesAction(Request, frozen=True):
    """POST /v1/services. An empty list of services means all."""

    action: Literal["start", "stop", "restart", "autostart", "replan", "signal"]
    services: list[str] = []
    signal: str | None = None


class DaemonAction(Request, frozen=True):
    """POST /v1/vigild."""

    action: Literal["stop", "restart", "upgrade"]


class ReplanAction(Request, frozen=True):
    """POST /v1/replan; the body is optional."""

    dry_run: bool = False  # only say what would happen
    no_restart: bool = False  # leave running what changed, flagged as pending-restart


class Problem(Answer, frozen=True):
    """One thing that is wrong with a plan, or probably not meant as it stands.

    ``str()`` is the line ``FILE:LINE:COL: FIELD: MESSAGE``, which is printable, whatever the plan holds.
    """

    file: str
    line: int  # 1 is the first; 0: about the file as a whole
    column: int  # 1 is the first, in characters; 0: about the line as a whole
    field: str  # "services.web.kill-delay"; "" where it is about no field
    message: str  # what is wrong, and how to put it right
    excerpt: str = ""  # the line itself, for people; "" where there is none, or where it may hold a secret
    width: int = 0  # how many characters of it, from ``column`` on, are meant; 0: not known

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class Step(Answer, frozen=True):
    """What a replan does to one service, and why."""

    service: str
    action: Literal["start", "stop", "restart", "update", "pending-restart"]
    why: list[str]  # sentences: "command changed", "new, and enabled", "db is restarted, which it requires"


class Replan(Answer, frozen=True):
    """POST /v1/replan: what the new plan makes of the running services. With dry-run nothing was done."""

    dry_run: bool
    started: list[str]
    stopped: list[str]
    restarted: list[str]
    updated: list[str]  # changed in place, their processes untouched
    pending_restart: list[str]  # changed, and left running with what they were started with
    steps: list[Step]  # the reasons for all of these, in the order of the plan
    warnings: list[Problem]  # of the new plan
    change: Change | None  # that starts, stops and restarts; None with dry-run


class LogEntry(Answer, frozen=True, omit_defaults=True):
    """One kept line, or a part of a very long one."""

    seq: int
    timestamp: str
    service: str
    stream: Literal["stdout", "stderr"]
    message: str
    partial: bool = False


class ErrorResult(Answer, frozen=True, omit_defaults=True):
    """What went wrong, for people and for programs."""

    message: str
    kind: str
    problems: list[Problem] = []  # of a plan that is refused


class Failure(Answer, frozen=True):
    """The envelope of every error."""

    status_code: int
    status: str
    result: ErrorResult
    message: str
    type: Literal["error"] = "error"
