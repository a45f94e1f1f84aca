"""The keys of services, checks, alerts and identities: what their values may be, and how two layers become one.

Services are acted upon. Checks, alerts and identities are accepted: their shape is looked at, so that a wrong file is
found today and not the day they are acted upon.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from vigil.model import signals
from vigil.model.suggest import quote
from vigil.plan import limits, values
from vigil.plan.problems import Problems
from vigil.plan.tree import Mapping, Node, Scalar, Sequence
from vigil.plan.types import Policy
from vigil.plan.values import Parser


class Merge(Enum):
    """What a later layer's value does to an earlier one."""

    REPLACE = 1
    APPEND = 2  # a list of names: what is missing is appended
    UNION = 3  # a mapping: the later value of a key wins


class Field(msgspec.Struct, frozen=True):
    """One key."""

    parse: Parser[Any]
    merge: Merge = Merge.REPLACE
    single: bool = False  # with APPEND: one text stands for a list of one
    fold: Callable[[str], str] | None = None  # with UNION: names that fold to the same are the same


# kill(2) takes KILL and STOP from PID 1, CHLD means children, and the other three stop vigild.
_NOT_FORWARDED = frozenset(map(signals.parse, ("KILL", "STOP", "CHLD", "TERM", "INT", "QUIT")))


def _forward_signals(node: Node, at: str, problems: Problems) -> frozenset[int] | None:
    if isinstance(node, Scalar) and node.text == "none":
        return frozenset()
    if not isinstance(node, Sequence):
        shown = quote(node.text) if isinstance(node, Scalar) else node.what
        problems.error(node.place, at, f"{shown} is not a list of signals (write [HUP, USR1] or none)")
        return None
    return _signal_list(node, at, problems)


def _signal_list(node: Node, at: str, problems: Problems) -> frozenset[int] | None:
    numbers = values.listed(_forwardable)(node, at, problems)
    return None if numbers is None else frozenset(numbers)


def _forwardable(node: Node, at: str, problems: Problems) -> int | None:
    number = values.signal(node, at, problems)
    if number in _NOT_FORWARDED:
        problems.error(node.place, at, f"{signals.name(number)} cannot be forwarded (it acts on vigild itself)")
        return None
    return number


def _exit_codes(node: Node, at: str, problems: Problems) -> frozenset[int] | None:
    codes = values.listed(values.integer(0, 255))(node, at, problems)
    return None if codes is None else frozenset(codes)


def _ready(node: Node, at: str, problems: Problems) -> str | None:
    """``notify`` as it is, ``check: NAME`` as ``check NAME``."""
    if isinstance(node, Mapping):
        found = values.block({"check": values.string})(node, at, problems) or {}
        if found.get("check"):
            return f"check {found['check']}"
    elif isinstance(node, Scalar) and node.text == "notify":
        return "notify"
    problems.error(node.place, at, "is neither notify nor a check (write notify, or check: NAME)")
    return None


def _address(node: Node, at: str, problems: Problems) -> str | None:
    text = values.string(node, at, problems)
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or (":" in host and not bracketed) or not (port.isascii() and port.isdigit() and len(port) <= 5):
        problems.error(node.place, at, f"{quote(text)} is not an address (write HOST:PORT, IPv6 in brackets)")
        return None
    return text


_string, _duration, _boolean = values.string, values.duration, values.boolean
_positive = values.integer(1, 2**31 - 1)
_switch = values.choice("enabled", "disabled")
_override = Field(values.choice("merge", "replace"))
_names = Field(values.listed(_string), Merge.APPEND)
_id = Field(values.integer(0, 2**32 - 2))  # the last one means "leave it" to the kernel
_texts = values.mapped(_string)

SERVICE: dict[str, Field] = {
    "override": _override,
    "summary": Field(_string),
    "description": Field(_string),
    "command": Field(values.command),
    "startup": Field(_switch),
    "after": _names,
    "before": _names,
    "requires": _names,
    "environment": Field(values.environment, Merge.UNION),
    "env-file": Field(values.one_or_listed(values.path), Merge.APPEND, single=True),
    "user": Field(_string),
    "user-id": _id,
    "group": Field(_string),
    "group-id": _id,
    "working-dir": Field(values.path),
    "stop-signal": Field(values.signal),
    "kill-delay": Field(values.duration_or("infinity")),
    "forward-signals": Field(_forward_signals),
    "on-success": Field(values.enum(Policy)),
    "on-failure": Field(values.enum(Policy)),
    "success-exit-codes": Field(_exit_codes),
    "on-check-failure": Field(values.mapped(values.enum(Policy)), Merge.UNION),
    "backoff-delay": Field(_duration),
    "backoff-factor": Field(values.factor),
    "backoff-limit": Field(_duration),
    "restart-limit": Field(values.integer(0, 2**31 - 1)),
    "ready": Field(_ready),
    "ready-timeout": Field(_duration),
    "watchdog": Field(values.duration_or("off")),
    "type": Field(values.choice("simple", "oneshot")),
    "logs-forward": Field(values.choice("enabled", "disabled", "passthrough")),
    "logs-push-socket": Field(values.path),
    "logs-push-addr": Field(_address),
    "logs-push-format": Field(values.choice("ndjson")),
    "limits": Field(limits.parse, Merge.UNION, fold=limits.fold),
    "nice": Field(values.integer(-20, 19)),
    "umask": Field(values.octal),
    "oom-score-adj": Field(values.integer(-1000, 1000)),
    "stdin": Field(values.choice("null", "inherit")),
}

SERVICE_LATER = (
    *("ready", "ready-timeout", "watchdog", "on-check-failure"),
    *("logs-push-socket", "logs-push-addr", "logs-push-format"),
)
"""Keys of a service that are accepted and not acted upon yet."""

CHECK_KINDS = ("http", "tcp", "exec")

CHECK: dict[str, Field] = {
    "override": _override,
    "level": Field(values.choice("alive", "ready", "none")),
    "startup": Field(_switch),
    "delay": Field(_duration),
    "period": Field(_duration),
    "timeout": Field(_duration),
    "threshold": Field(_positive),
    "success-threshold": Field(_positive),
    "http": Field(
        values.block(
            {
                "url": _string,
                "headers": _texts,
                "method": _string,
                "success-statuses": values.one_or_listed(_string),
                "no-follow-redirects": _boolean,
                "insecure": _boolean,
                "ca": _string,
                "proxy": _string,
                "insecure-proxy": _boolean,
                "body-contains": _string,
                "unix-socket": values.path,
            }
        )
    ),
    "tcp": Field(values.block({"host": _string, "port": values.integer(1, 65535)})),
    "exec": Field(
        values.block(
            {
                "command": values.command,
                "service-context": _string,
                "environment": values.environment,
                "user": _string,
                "user-id": _id.parse,
                "group": _string,
                "group-id": _id.parse,
                "working-dir": values.path,
            }
        )
    ),
}

ALERT_SETTINGS: dict[str, Field] = {"max-queue-depth": Field(_positive), "max-queue-time": Field(_duration)}

ALERT: dict[str, Field] = {
    "override": _override,
    "url": Field(_string),
    "format": Field(values.choice("webhook", "alertmanager", "cloud-events", "otlp-logs")),
    "on-check": _names,
    "headers": Field(_texts, Merge.UNION),
    "labels": Field(_texts, Merge.UNION),
    "send-info-fields": Field(_texts, Merge.UNION),
    "tls-insecure": Field(_boolean),
    "tls-ca": Field(_string),
    "proxy": Field(_string),
    "proxy-ca": Field(_string),
    "no-proxy": Field(_string),
    "retry-attempts": Field(values.integer(0, 2**31 - 1)),
    "retry-backoff": Field(values.listed(_duration)),
    "timeout": Field(_duration),
    "body-template": Field(_string),
}

IDENTITY: dict[str, Field] = {
    "override": _override,
    "access": Field(values.choice("open", "metrics", "read", "write", "admin")),
    "local": Field(values.block({"user-id": _id.parse})),
    "basic": Field(values.block({"password-hash": _string})),
    "tls": Field(values.block({"ca-cert": _string})),
}

KINDS: dict[str, dict[str, Field]] = {"services": SERVICE, "checks": CHECK, "alerts": ALERT, "identities": IDENTITY}

TOP: dict[str, Field] = {"summary": Field(_string), "description": Field(_string)}

ALIASES = {"override-mode": "override"}
