"""The keys of a plan: what their values may be, and how two layers become one.

Those of services are here. The rooms of checks, alerts and identities have theirs, and are entered only by a plan that
has any: vigild starts services before it has time for more.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import msgspec

from vigil.model import signals
from vigil.model.suggest import quote
from vigil.plan import limits, values
from vigil.plan.problems import Problems
from vigil.plan.tree import Mapping, Node, Scalar, Sequence
from vigil.plan.types import Policy, ReadyCheck
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


# kill(2) takes KILL and STOP from PID 1, CHLD means children, the next three stop vigild; then there are those that a
# terminal or a pipe sends to vigild itself, and faults. ``sig_forwardable`` in csrc/init/sig.c has the same.
NOT_FORWARDED = frozenset(
    map(
        signals.parse,
        (
            *("KILL", "STOP", "CHLD", "TERM", "INT", "QUIT", "PIPE", "TTIN", "TTOU"),
            *("SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS"),
        ),
    )
)


def forward_signals(node: Node, at: str, problems: Problems) -> frozenset[int] | None:
    """A list of signals, or ``none``."""
    if isinstance(node, Scalar) and node.text == "none":
        return frozenset()
    if not isinstance(node, Sequence):
        shown = quote(node.text) if isinstance(node, Scalar) else node.what
        problems.error(node.place, at, f"{shown} is not a list of signals (write [HUP, USR1] or none)")
        return None
    numbers = _forwardables(node, at, problems)
    return None if numbers is None else frozenset(numbers)


def _forwardable(node: Node, at: str, problems: Problems) -> int | None:
    number = values.signal(node, at, problems)
    if number in NOT_FORWARDED:
        problems.error(node.place, at, f"{signals.name(number)} cannot be forwarded (it acts on vigild itself)")
        return None
    return number


_forwardables = values.Listed(_forwardable)
_exit_codes = values.Listed(values.Integer(0, 255))


def exit_codes(node: Node, at: str, problems: Problems) -> frozenset[int] | None:
    """A list of exit codes."""
    codes = _exit_codes(node, at, problems)
    return None if codes is None else frozenset(codes)


_check_block = values.Block({"check": values.string}, required=("check",))


def ready(node: Node, at: str, problems: Problems) -> Literal["notify"] | ReadyCheck | None:
    """``notify``, or ``check: NAME``."""
    if isinstance(node, Mapping):
        found = _check_block(node, at, problems) or {}
        return ReadyCheck(found["check"]) if "check" in found else None
    if isinstance(node, Scalar) and node.text == "notify":
        return "notify"
    shown = quote(node.text) if isinstance(node, Scalar) else node.what
    problems.error(node.place, at, f"{shown} is neither notify nor a check (write notify, or check: NAME)")
    return None


def address(node: Node, at: str, problems: Problems) -> str | None:
    """``HOST:PORT``."""
    text = values.string(node, at, problems)
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not host or (":" in host and not bracketed) or not digits:
        problems.error(node.place, at, f"{quote(text)} is not an address (write HOST:PORT, IPv6 in brackets)")
    elif not 0 < int(port) < 65536:
        problems.error(node.place, at, f"{quote(text)} is not an address (a port is from 1 to 65535)")
    else:
        return text
    return None


positive = values.Integer(1, 2**31 - 1)
switch = values.Choice("enabled", "disabled")
override = Field(values.Choice("merge", "replace"))
names = Field(values.Listed(values.string), Merge.APPEND)

WHO: dict[str, Parser[Any]] = {
    "user": values.string,
    "user-id": values.Integer(0, 2**32 - 2),  # the last one means "leave it" to the kernel
    "group": values.string,
    "group-id": values.Integer(0, 2**32 - 2),
}
"""The keys that say as whom something runs."""

_duration = Field(values.duration)
_string = Field(values.string)
_policy = Field(values.Member(Policy))

SERVICE: dict[str, Field] = {
    "override": override,
    "summary": _string,
    "description": _string,
    "command": Field(values.command),
    "startup": Field(switch),
    "after": names,
    "before": names,
    "requires": names,
    "environment": Field(values.environment, Merge.UNION),
    "env-file": Field(values.OneOrListed(values.path), Merge.APPEND, single=True),
    **{key: Field(parse) for key, parse in WHO.items()},
    "working-dir": Field(values.path),
    "stop-signal": Field(values.signal),
    "kill-delay": Field(values.Duration("infinity")),
    "forward-signals": Field(forward_signals),
    "on-success": _policy,
    "on-failure": _policy,
    "success-exit-codes": Field(exit_codes),
    "on-check-failure": Field(values.Mapped(_policy.parse), Merge.UNION),
    "backoff-delay": _duration,
    "backoff-factor": Field(values.factor),
    "backoff-limit": _duration,
    "restart-limit": Field(values.Integer(0, 2**31 - 1)),
    "ready": Field(ready),
    "ready-timeout": Field(values.positive_duration),
    "watchdog": Field(values.Duration("off")),
    "type": Field(values.Choice("simple", "oneshot")),
    "logs-forward": Field(values.Choice("enabled", "disabled", "passthrough")),
    "logs-push-socket": Field(values.path),
    "logs-push-addr": Field(address),
    "logs-push-format": Field(values.Choice("ndjson")),
    "limits": Field(limits.parse, Merge.UNION, fold=limits.fold),
    "nice": Field(values.Integer(-20, 19)),
    "umask": Field(values.octal),
    "oom-score-adj": Field(values.Integer(-1000, 1000)),
    "stdin": Field(values.Choice("null", "inherit")),
}

SERVICE_LATER = (
    *("ready", "ready-timeout", "watchdog", "on-check-failure"),
    *("logs-push-socket", "logs-push-addr", "logs-push-format"),
)
"""Keys of a service that are accepted and not acted upon yet."""

KINDS = ("services", "checks", "alerts", "identities")
"""What a plan has by name."""


def fields_of(kind: str) -> dict[str, Field]:
    """The keys of one of ``KINDS``."""
    match kind:
        case "checks":
            from vigil.plan.checks import CHECK

            return CHECK
        case "alerts":
            from vigil.plan.alerts import ALERT

            return ALERT
        case "identities":
            from vigil.plan.identities import IDENTITY

            return IDENTITY
    return SERVICE


TOP: dict[str, Field] = {"summary": _string, "description": _string}

ALIASES = {"override-mode": "override"}
