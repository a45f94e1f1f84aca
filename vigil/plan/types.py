"""What a plan is once it is read, merged and found to be right; and what was read from outside to make it.

All times are seconds, ids and signals are numbers, names are resolved: whoever starts a service asks nobody else.
"""

from __future__ import annotations

import signal
from enum import Enum
from typing import Literal

import msgspec

from vigil.model.api import Problem

RLIM_INFINITY = 2**64 - 1
"""A limit of ``Service.limits`` that is none."""

NAME_MAX = 128
"""The longest name of a service, in characters (which are all ASCII)."""

RESERVED_NAME = "vigild"
"""The log of vigild's own diagnostics has this name, so no service can."""

FORWARDED = frozenset(map(int, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)))
"""The signals that are passed on to a service whose plan says nothing about them."""


class Policy(Enum):
    """What happens when a service's main process has ended."""

    RESTART = "restart"
    IGNORE = "ignore"
    SHUTDOWN = "shutdown"
    FAILURE_SHUTDOWN = "failure-shutdown"
    SUCCESS_SHUTDOWN = "success-shutdown"


class ReadyCheck(msgspec.Struct, frozen=True):
    """``ready: {check: NAME}``: ready once that check is up."""

    check: str


class Credentials(msgspec.Struct, frozen=True):
    """The user a service runs as.

    ``home`` None: only the group changes, so HOME, USER and LOGNAME stay what they are. Otherwise HOME is ``home``, and
    USER and LOGNAME are ``name``, or are absent where ``name`` is None (a user id without passwd entry). The service's
    own environment wins over all three.

    ``switch`` False: this is who vigild is already, and it may not change its ids (not even to what they are): leave
    the ids alone, only the environment counts.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]  # the whole list of supplementary groups, ``gid`` among them
    home: str | None
    name: str | None
    switch: bool = True


class Account(msgspec.Struct, frozen=True):
    """What one choice of user, user-id, group and group-id resolved to when the plan was read: credentials or error."""

    user: str | None
    user_id: int | None
    group: str | None
    group_id: int | None
    credentials: Credentials | None
    error: str | None = None
    error_key: str = "user"  # which of the four keys the error is about
    forbidden: bool = False  # the error is that vigild, as it is, may not do it


class Rights(msgspec.Struct, frozen=True):
    """What vigild may give to a service, as it was when the plan was read."""

    nice: int  # the lowest
    oom_score_adj: int  # the lowest
    hard: tuple[tuple[int, int], ...]  # resource, its highest hard limit; one that is not there has no end
    files: int  # the highest limit of open files that the kernel has, whoever asks


class Sources(msgspec.Struct, frozen=True):
    """Everything that was read from outside to make a plan: it gives the same plan again at any time.

    It can be encoded as MessagePack.
    """

    directory: str
    layers: tuple[tuple[str, bytes], ...] = ()  # path and content, in the order of merging
    env_files: tuple[tuple[str, bytes], ...] = ()  # path and content
    accounts: tuple[Account, ...] = ()
    certificates: tuple[tuple[str, bytes], ...] = ()  # path and content of what `ca-cert` of identities names
    missing: bool = False  # the directory does not exist, which is an empty plan and a warning
    rights: Rights | None = None  # None: nothing in the plan takes any
    unread: tuple[tuple[str, str], ...] = ()  # path and reason of what could not be read; each is a problem of ``load``


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service of a plan, complete: every key has its value or its default."""

    name: str
    summary: str = ""
    description: str = ""
    command: tuple[str, ...] | None = None  # argv; None: cannot be started (and is not enabled)
    startup: Literal["enabled", "disabled"] = "disabled"
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # env-files, then environment, merged; not vigild's own
    user: Credentials | None = None  # None: as vigild
    working_dir: str = "/"
    stop_signal: int = 15
    kill_delay: float | None = 5.0  # None: for ever
    forward_signals: frozenset[int] = FORWARDED
    on_success: Policy = Policy.RESTART
    on_failure: Policy = Policy.RESTART
    success_exit_codes: frozenset[int] = frozenset({0})
    backoff_delay: float = 0.5
    backoff_factor: float = 2.0
    backoff_limit: float = 30.0
    restart_limit: int | None = None  # None: never give up
    type: Literal["simple", "oneshot"] = "simple"
    logs_forward: Literal["enabled", "disabled", "passthrough"] = "enabled"
    limits: tuple[tuple[int, int, int], ...] = ()  # resource, soft, hard; RLIM_INFINITY is none
    nice: int | None = None
    umask: int | None = None
    oom_score_adj: int | None = None
    stdin: Literal["null", "inherit"] = "null"
    on_check_failure: dict[str, Policy] = {}
    ready: Literal["notify"] | ReadyCheck | None = None
    ready_timeout: float = 60.0
    watchdog: float | None = None  # None: off
    logs_push_socket: str | None = None
    logs_push_addr: str | None = None  # HOST:PORT, IPv6 in brackets
    logs_push_format: Literal["ndjson"] = "ndjson"


class HttpProbe(msgspec.Struct, frozen=True, kw_only=True, tag="http"):
    """One request; healthy is what answers with one of ``success_statuses`` (and ``body_contains``, where given)."""

    url: str
    headers: dict[str, str] = {}
    method: str = "GET"
    success_statuses: frozenset[int] = frozenset(range(200, 300))
    no_follow_redirects: bool = True
    insecure: bool = False
    ca: str | None = None  # path
    proxy: str | None = None
    insecure_proxy: bool = False
    body_contains: str | None = None
    unix_socket: str | None = None  # path of a socket that is connected to instead of the url's host and port


class TcpProbe(msgspec.Struct, frozen=True, kw_only=True, tag="tcp"):
    """One connection."""

    host: str = "localhost"
    port: int


class ExecProbe(msgspec.Struct, frozen=True, kw_only=True, tag="exec"):
    """One run of a program; healthy is exit code 0.

    What ``service_context`` brings is in the other fields already, the check's own keys over it.
    """

    command: tuple[str, ...]
    service_context: str | None = None
    environment: dict[str, str] = {}  # not vigild's own
    user: Credentials | None = None  # None: as vigild
    working_dir: str = "/"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a plan, complete."""

    name: str
    level: Literal["alive", "ready"] | None = None
    startup: Literal["enabled", "disabled"] = "enabled"
    delay: float = 3.0
    period: float = 10.0
    timeout: float = 3.0
    threshold: int = 3
    success_threshold: int = 1
    probe: HttpProbe | TcpProbe | ExecProbe


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a plan, complete. ``env:NAME`` in its texts is as it was written: it is replaced at send time."""

    name: str
    url: str
    format: Literal["webhook", "alertmanager", "cloud-events", "otlp-logs"] = "webhook"
    on_check: tuple[str, ...]
    headers: dict[str, str] = {}
    labels: dict[str, str] = {}
    send_info_fields: dict[str, str] = {}
    tls_insecure: bool = False
    tls_ca: str | None = None
    proxy: str | None = None
    proxy_ca: str | None = None
    no_proxy: str | None = None
    retry_attempts: int = 3
    retry_backoff: tuple[float, ...] = (1.0, 2.0)  # the last one stands for all that follow
    timeout: float = 10.0
    body_template: str | None = None


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all alerts."""

    max_queue_depth: int = 256
    max_queue_time: float = 60.0


class LocalAuth(msgspec.Struct, frozen=True):
    """Whoever comes over the Unix socket with this uid."""

    user_id: int | None = None  # None: any


class BasicAuth(msgspec.Struct, frozen=True):
    """Whoever knows the password; the user name is the identity's."""

    password_hash: str


class TlsAuth(msgspec.Struct, frozen=True):
    """Whoever has a client certificate that was issued under this one."""

    ca_cert: str  # PEM


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One identity of a plan: at least one of the three ways to prove it."""

    name: str
    access: Literal["open", "metrics", "read", "write", "admin"]
    local: LocalAuth | None = None
    basic: BasicAuth | None = None
    tls: TlsAuth | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that was found to be right. Everything is in the order in which the layers name it."""

    summary: str = ""
    description: str = ""
    services: dict[str, Service] = {}
    checks: dict[str, Check] = {}
    alerts: dict[str, Alert] = {}
    alert_settings: AlertSettings = AlertSettings()
    identities: dict[str, Identity] = {}
    warnings: tuple[Problem, ...] = ()
