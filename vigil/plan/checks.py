"""Checks: their keys, and how merged fields become them. Entered only by a plan that has checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vigil.model import duration as durations
from vigil.model.suggest import quote
from vigil.plan import services, values, web
from vigil.plan.accounts import Request
from vigil.plan.fields import SERVICE, WHO, Field, override, positive, switch
from vigil.plan.merge import Item, Merged
from vigil.plan.problems import Problems
from vigil.plan.services import Outside
from vigil.plan.tree import Mapping as MappingNode
from vigil.plan.tree import Node
from vigil.plan.types import Check, ExecProbe, HttpProbe, Service, TcpProbe

_IDS = (("user", "user-id"), ("group", "group-id"))


def status(node: Node, at: str, problems: Problems) -> range | None:
    """A status code, ``204``, or all that begin with a digit, ``2xx``."""
    text = values.scalar(node, at, problems, "a status code (write 200 or 2xx)")
    if text is None:
        return None
    if len(text) == 3 and text[0] in "12345":
        if text[1:].lower() == "xx":
            return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
        if text.isascii() and text.isdigit():
            return range(int(text), int(text) + 1)
    problems.error(node.place, at, f"{quote(text)} is not a status code (write 200 or 2xx)")
    return None


_statuses = values.OneOrListed(status)


def statuses(node: Node, at: str, problems: Problems) -> frozenset[int] | None:
    """Status codes, one or a list."""
    found = _statuses(node, at, problems)
    if found == ():
        problems.error(node.place, at, "is an empty list, so no answer would be right")
        return None
    return None if found is None else frozenset(code for codes in found for code in codes)


def host(node: Node, at: str, problems: Problems) -> str | None:
    """A host's name or address, without a port."""
    text = values.string(node, at, problems)
    if text is None:
        return None
    letters = frozenset(text)
    if not text or "/" in text or text.count(":") == 1 or any(map(str.isspace, letters)) or letters & frozenset("[]@"):
        fix = "a name or an address; the port goes under port:"
        problems.error(node.place, at, f"{quote(text)} is not a host ({fix})")
        return None
    return text


HTTP = values.Block(
    {
        "url": web.Url(),
        "headers": web.Headers(web.header),
        "method": values.Choice("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"),
        "success-statuses": statuses,
        "no-follow-redirects": values.boolean,
        "insecure": values.boolean,
        "ca": values.path,
        "proxy": web.Url(),
        "insecure-proxy": values.boolean,
        "body-contains": values.string,
        "unix-socket": values.path,
    },
    required=("url",),
)

TCP = values.Block({"host": host, "port": values.Integer(1, 65535)}, required=("port",))

EXEC = values.Block(
    {
        "command": values.command,
        "service-context": values.string,
        "environment": values.environment,
        **WHO,
        "working-dir": values.path,
    },
    required=("command",),
)

PROBES = ("http", "tcp", "exec")
"""The kinds of checks."""

CHECK: dict[str, Field] = {
    "override": override,
    "level": Field(values.Choice("alive", "ready", "none")),
    "startup": Field(switch),
    "delay": Field(values.duration),
    "period": Field(values.positive_duration),
    "timeout": Field(values.positive_duration),
    "threshold": Field(positive),
    "success-threshold": Field(positive),
    "http": Field(HTTP),
    "tcp": Field(TCP),
    "exec": Field(EXEC),
}


def requests(merged: Merged) -> list[Request | None]:
    """The accounts that exec checks name."""
    ignored = Problems()
    found = []
    for item in merged.kinds["checks"].values():
        node = item.fields.get("exec")
        if isinstance(node, MappingNode):
            found.append(services.request(_who(EXEC(node, "", ignored) or {}, merged, ignored)))
    return found


def build(merged: Merged, outside: Outside, known: Mapping[str, Service], problems: Problems) -> dict[str, Check]:
    """All checks that are right. ``known`` are the services of the plan."""
    checks = {}
    for item in merged.kinds["checks"].values():
        check = _check(item, merged, outside, known, problems)
        if check is not None:
            checks[item.name] = check
    return checks


def _check(
    item: Item, merged: Merged, outside: Outside, known: Mapping[str, Service], problems: Problems
) -> Check | None:
    at = f"checks.{item.name}"
    parsed = {key: CHECK[key].parse(node, f"{at}.{key}", problems) for key, node in item.fields.items()}
    given = {key: value for key, value in parsed.items() if value is not None}
    _judge_timeout(item, given, problems)
    kinds = [key for key in item.fields if key in PROBES]
    if len(kinds) != 1:
        if kinds:
            text = f"has {' and '.join(kinds)}, and a check has one of them (make two checks of it)"
            problems.error(item.fields[kinds[1]].place, at, text)
        else:
            text = "has none of http, tcp and exec (write tcp: {port: 80}, or the like)"
            problems.consequence(item.place, at, text, at, *PROBES)
        return None
    kind = kinds[0]
    node = item.fields[kind]
    if kind not in given or not isinstance(node, MappingNode):
        return None
    values_of_kind: dict[str, Any] = given.pop(kind)
    probe: HttpProbe | TcpProbe | ExecProbe | None
    if kind == "exec":
        probe = _exec(f"{at}.exec", node, values_of_kind, merged, outside, known, problems)
    elif any(key not in values_of_kind for key in (HTTP if kind == "http" else TCP).required):
        probe = None
    else:
        attributes = {key.replace("-", "_"): value for key, value in values_of_kind.items()}
        probe = HttpProbe(**attributes) if kind == "http" else TcpProbe(**attributes)
    if probe is None:
        return None
    if given.get("level") == "none":
        del given["level"]
    return Check(name=item.name, probe=probe, **{key.replace("-", "_"): value for key, value in given.items()})


def _judge_timeout(item: Item, given: dict[str, Any], problems: Problems) -> None:
    """Puts the default in, which depends on the period."""
    period = given.get("period", 10.0)
    timeout = given.setdefault("timeout", min(3.0, period))
    if timeout > period:
        text = f"{durations.spell(timeout)} is longer than the period ({durations.spell(period)})"
        fix = "probes never overlap, so the period stretches"
        problems.warn(item.fields["timeout"].place, f"checks.{item.name}.timeout", f"{text}: {fix}")


def _who(given: dict[str, Any], merged: Merged, problems: Problems) -> dict[str, Any]:
    """The four keys that say who, those of the service below the probe's own; a user is given by name or by id."""
    service = merged.kinds["services"].get(given.get("service-context", ""))
    fields = service.fields if service is not None else {}
    found = {}
    for pair in _IDS:
        own = {key: given[key] for key in pair if key in given}
        found.update(own or {key: SERVICE[key].parse(fields[key], "", problems) for key in pair if key in fields})
    return found


def _exec(
    at: str,
    node: MappingNode,
    given: dict[str, Any],
    merged: Merged,
    outside: Outside,
    known: Mapping[str, Service],
    problems: Problems,
) -> ExecProbe | None:
    ignored = Problems()
    nodes = EXEC.nodes(node, at, ignored)
    context = known.get(given.get("service-context", ""))
    if "service-context" in given and context is None and not problems.broken:
        name = given["service-context"]
        place = nodes["service-context"].place
        problems.consequence(place, f"{at}.service-context", problems.absent("service", name, known), "", "services")
    user = context.user if context is not None else None
    own = {key: value for key, value in nodes.items() if key in WHO}
    if own:
        user = services.credentials(at, own, _who(given, merged, ignored), outside, problems)
    if "command" not in given:
        return None
    inherited = context if context is not None else Service(name="")
    return ExecProbe(
        command=given["command"],
        service_context=given.get("service-context"),
        environment={**inherited.environment, **given.get("environment", {})},
        user=user,
        working_dir=given.get("working-dir", inherited.working_dir),
    )
