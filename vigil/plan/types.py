"""What a plan is once it is read, merged and found to be right; and what was read from outside to make it.

All times are seconds, ids and signals are numbers, names are resolved: whoever starts a service asks nobody else.
"""

from __future__ import annotations

import signal
from enum import Enum
from typing import Literal

import msgspec

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


class Sources(msgspec.Struct, frozen=True):
    """Everything that was read from outside to make a plan: it gives the same plan again at any time.

    It can be encoded as MessagePack.
    """

    directory: str
    layers: tuple[tuple[str, bytes], ...] = ()  # path and content, in the order of merging
    env_files: tuple[tuple[str, bytes], ...] = ()  # path and content
    accounts: tuple[Account, ...] = ()
    missing: bool = False  # the directory does not exist, which is an empty plan and a warning
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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that was found to be right. ``services`` is in the order in which the layers name them."""

    summary: str = ""
    description: str = ""
    services: dict[str, Service] = {}
    warnings: tuple[str, ...] = ()  # complete lines, as the problems of PlanError are
