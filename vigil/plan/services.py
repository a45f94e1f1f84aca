"""Merged fields become services; what one service says about another, or about a check, is judged here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from vigil.model.suggest import quote
from vigil.plan import env_file, graph
from vigil.plan.accounts import Request
from vigil.plan.fields import SERVICE, WHO
from vigil.plan.merge import Item, Merged
from vigil.plan.problems import Place, Problems
from vigil.plan.tree import Mapping as MappingNode
from vigil.plan.tree import Node, Scalar, Sequence
from vigil.plan.types import Account, Credentials, Policy, Rights, Service

_ORDER = ("after", "before", "requires")
RIGHTS = frozenset(("nice", "oom-score-adj", "limits"))
"""The keys of a service that take a right of vigild's, or may."""

_OUTSIDE = frozenset((*WHO, "env-file"))


class Outside(msgspec.Struct, frozen=True):
    """What was read beside the layers."""

    env_files: dict[str, bytes]
    certificates: dict[str, bytes]
    unread: dict[str, str]  # path to reason
    accounts: dict[Request, Account]
    rights: Rights | None = None


class Wanted(msgspec.Struct, frozen=True):
    """What is to be read beside the layers. Wrong values are left out: building the plan reports them."""

    env_files: tuple[str, ...]
    certificates: tuple[str, ...]
    accounts: tuple[Request, ...]
    rights: bool


def outside_of(merged: Merged) -> Wanted:
    """All that a plan needs."""
    ignored = Problems()
    env_files: dict[str, None] = {}
    certificates: list[str] = []
    requests: dict[Request | None, None] = {}
    for item in merged.kinds["services"].values():
        given = {key: SERVICE[key].parse(node, "", ignored) for key, node in item.fields.items() if key in _OUTSIDE}
        env_files.update(dict.fromkeys(given.get("env-file") or ()))
        requests[request(given)] = None
    if merged.kinds["checks"]:
        from vigil.plan import checks

        requests.update(dict.fromkeys(checks.requests(merged)))
    if merged.kinds["identities"]:
        from vigil.plan import identities

        certificates = identities.certificates(merged)
    requests.pop(None, None)
    rights = any(not RIGHTS.isdisjoint(item.fields) for item in merged.kinds["services"].values())
    accounts = tuple(one for one in requests if one is not None)
    return Wanted(tuple(env_files), tuple(dict.fromkeys(certificates)), accounts, rights)


def build(merged: Merged, outside: Outside, problems: Problems) -> dict[str, Service]:
    """All services, with defaults in place of what is wrong, so that everything else can be judged too."""
    services = {}
    cache: dict[str, dict[str, str]] = {}
    for item in merged.kinds["services"].values():
        services[item.name] = _service(item, outside, cache, problems)
    if not problems.broken:
        for item in merged.kinds["services"].values():
            _judge_names(item, services, merged.kinds["checks"], problems)
        _judge_cycles(merged.kinds["services"], services, problems)
    return services


def _service(item: Item, outside: Outside, cache: dict[str, dict[str, str]], problems: Problems) -> Service:
    at = f"services.{item.name}"
    given: dict[str, Any] = {}
    for key, node in item.fields.items():
        value = SERVICE[key].parse(node, f"{at}.{key}", problems)
        if value is not None:
            given[key] = value
    for key in _ORDER:
        if key in given:
            given[key] = tuple(dict.fromkeys(given[key]))
    if given.get("kill-delay") == float("inf"):
        given["kill-delay"] = None
    environment = _from_files(item, given.get("env-file", ()), outside, cache, problems)
    if given.get("type") == "oneshot":
        if given.get("on-success") is Policy.RESTART:
            text = "a oneshot that succeeded is done and cannot be restarted (write ignore, or type: simple)"
            problems.error(item.fields["on-success"].place, f"{at}.on-success", text)
        given.setdefault("on-success", Policy.IGNORE)
    _judge_command(item, given, problems)
    if outside.rights is not None and not RIGHTS.isdisjoint(given):
        from vigil.plan import rights  # few plans need it

        rights.judge(at, item.fields, given, outside.rights, problems)
    if "logs-push-socket" in item.fields and "logs-push-addr" in item.fields:
        text = "cannot go with logs-push-socket (logs are pushed to one place)"
        problems.error(item.fields["logs-push-addr"].place, f"{at}.logs-push-addr", text)
    if given.get("watchdog") in (0.0, float("inf")):
        del given["watchdog"]
    values = {key.replace("-", "_"): value for key, value in given.items() if key not in _OUTSIDE}
    values["environment"] = {**environment, **given.get("environment", {})}
    return Service(name=item.name, **values, user=credentials(at, item.fields, given, outside, problems))


def _judge_command(item: Item, given: dict[str, Any], problems: Problems) -> None:
    if "command" in item.fields:
        return
    at = f"services.{item.name}.command"
    null = item.removed.get("command")
    if null is not None and null.comment:
        problems.error(null.place, at, "is nothing but a comment (quote it if the # is part of the command)")
    elif given.get("startup") == "enabled":
        place = null.place if null is not None else item.fields["startup"].place
        text = "is missing, and the service is enabled (write command: and what to run)"
        problems.consequence(place, at, text, f"services.{item.name}", "command")


def _from_files(
    item: Item, paths: tuple[str, ...], outside: Outside, cache: dict[str, dict[str, str]], problems: Problems
) -> dict[str, str]:
    environment: dict[str, str] = {}
    for path in paths:
        content = outside.env_files.get(path)
        if content is None:
            why = outside.unread.get(path, "it was not read with the plan")
            place = _item_place(item, "env-file", path)
            problems.error(
                place, f"services.{item.name}.env-file", f"cannot read {path}: {why} (it is read with the plan)"
            )
            continue
        if path not in cache:
            cache[path] = env_file.parse(path, content, problems)
        environment.update(cache[path])
    return environment


def request(given: Mapping[str, Any]) -> Request | None:
    """As whom something runs, by its parsed keys; None where none of them says."""
    who = [given.get(key) for key in WHO]
    return Request(*who) if any(value is not None for value in who) else None


def credentials(
    at: str, nodes: Mapping[str, Node], given: Mapping[str, Any], outside: Outside, problems: Problems
) -> Credentials | None:
    """What ``request`` resolved to. ``nodes`` are the keys as they stand in the plan at ``at``."""
    wanted = request(given)
    if wanted is None or any(key in nodes and key not in given for key in WHO):
        return None
    account = outside.accounts.get(wanted)
    if account is not None and account.error is None:
        return account.credentials
    own = [key for key in WHO if key in nodes]
    key, why = own[0], "it was not looked up with the plan"
    if account is not None and account.error is not None:
        key, why = account.error_key if account.error_key in own else key, account.error
    tell = problems.forbidden if account is not None and account.forbidden else problems.error
    tell(nodes[key].place, f"{at}.{key}", why)
    return None


def _judge_names(item: Item, services: Collection[str], checks: Collection[str], problems: Problems) -> None:
    at = f"services.{item.name}"
    for key in _ORDER:
        node = item.fields.get(key)
        for entry in node.items if isinstance(node, Sequence) else ():
            if not isinstance(entry, Scalar) or entry.is_null:
                continue
            if entry.text == item.name:
                problems.error(
                    entry.place, f"{at}.{key}", "the service names itself, which is a cycle of one (leave it out)"
                )
            elif entry.text not in services:
                from vigil.plan import foreign  # only wrong plans need it

                fix = foreign.no_service(entry.text, services, checks)
                text = (
                    f"there is no service {quote(entry.text)}{fix}"
                    if fix
                    else problems.absent("service", entry.text, services)
                )
                problems.consequence(entry.place, f"{at}.{key}", text, "", "services:", '"services"')
    for key, name, place in _check_names(item):
        if name not in checks:
            problems.consequence(place, f"{at}.{key}", problems.absent("check", name, checks), "", "checks")


def _check_names(item: Item) -> list[tuple[str, str, Place]]:
    found: list[tuple[str, str, Place]] = []
    policies = item.fields.get("on-check-failure")
    if isinstance(policies, MappingNode):
        found.extend(("on-check-failure", entry.key, entry.place) for entry in policies.entries)
    ready = item.fields.get("ready")
    if isinstance(ready, MappingNode):
        check = next((entry.value for entry in ready.entries if entry.key == "check"), None)
        if isinstance(check, Scalar) and not check.is_null:
            found.append(("ready", check.text, check.place))
    return found


def _judge_cycles(items: dict[str, Item], services: dict[str, Service], problems: Problems) -> None:
    for cycle in graph.cycles(graph.edges(services.values())):
        first, second = cycle[0], cycle[1]
        for name, key, other in ((first, "after", second), (first, "requires", second), (second, "before", first)):
            if other in getattr(services[name], key):
                text = f"dependency cycle: {_chain(cycle)} (each waits for the next)"
                problems.error(_item_place(items[name], key, other), f"services.{name}.{key}", text)
                break


def _chain(cycle: tuple[str, ...]) -> str:
    if len(cycle) > 50:
        cycle = (*cycle[:40], f"({len(cycle) - 48} more)", *cycle[-8:])
    return " -> ".join(cycle)


def _item_place(item: Item, key: str, text: str) -> Place:
    """Where a list of an item names ``text``."""
    node = item.fields[key]
    for entry in node.items if isinstance(node, Sequence) else ():
        if isinstance(entry, Scalar) and entry.text == text:
            return entry.place
    return node.place
