"""From sources to a plan: all problems at once, or a plan that is right. Nothing here looks at the world outside."""

from __future__ import annotations

from typing import Any

from vigil.plan import services
from vigil.plan.accounts import Request
from vigil.plan.fields import SERVICE_LATER, TOP
from vigil.plan.merge import Merged, merge
from vigil.plan.problems import Place, Problems
from vigil.plan.types import Plan, Service, Sources

# What `read` has merged to find out which files and users to ask for is what the `load` after it needs: parsing is the
# better part of both. One slot, emptied by its first use, so nothing is kept for the life of a daemon.
_merged: tuple[Merged, Problems] | None = None


def take_apart(layers: tuple[tuple[str, bytes], ...]) -> Merged:
    """The merged layers, for ``read``; kept for the ``load`` of the very same layers."""
    global _merged
    problems = Problems(path for path, _ in layers)
    _merged = (merge(layers, problems), problems)
    return _merged[0]


def _take(layers: tuple[tuple[str, bytes], ...]) -> tuple[Merged, Problems]:
    global _merged
    kept, _merged = _merged, None
    if kept is not None and kept[0].layers is layers:
        return kept
    problems = Problems(path for path, _ in layers)
    return merge(layers, problems), problems


def load(sources: Sources, *, check: bool = False, templates: bool = False) -> Plan:
    """The plan that ``sources`` make.

    PlanError has every problem of all files; with ``check`` unknown keys and wrong body-templates are among them, else
    they are warnings. Whether templates parse is looked at with ``check`` or ``templates`` only: Jinja2 takes longer to
    import than all else here, and services do not wait for it.
    """
    merged, problems = _take(sources.layers)
    wanted = services.outside_of(merged)
    outside = services.Outside(
        dict(sources.env_files),
        dict(sources.certificates),
        dict(sources.unread),
        {Request(a.user, a.user_id, a.group, a.group_id): a for a in sources.accounts},
        sources.rights,
    )
    _judge_sources(sources, wanted, problems)
    found = services.build(merged, outside, problems)
    top = {key: TOP[key].parse(node, key, problems) or "" for key, node in merged.top.items()}
    others = _others(merged, outside, found, problems, templates=check or templates)
    for at, field, node in merged.discarded:
        field.parse(node, at, problems)
    if problems.right:
        _warn_of_later(sources, merged, problems)
    return Plan(
        summary=top.get("summary", ""),
        description=top.get("description", ""),
        services=found,
        warnings=problems.conclude(check=check),
        **others,
    )


def _others(
    merged: Merged, outside: services.Outside, known: dict[str, Service], problems: Problems, *, templates: bool
) -> dict[str, Any]:
    """Checks, alerts and identities. Their rooms are entered only where there are any."""
    found: dict[str, Any] = {}
    if merged.kinds["checks"]:
        from vigil.plan import checks

        found["checks"] = checks.build(merged, outside, known, problems)
    if merged.kinds["alerts"] or merged.settings:
        from vigil.plan import alerts

        found["alert_settings"] = alerts.settings(merged, problems)
        found["alerts"] = alerts.build(merged, problems, templates=templates)
    if merged.kinds["identities"]:
        from vigil.plan import identities

        found["identities"] = identities.build(merged, outside, problems)
    return found


def _judge_sources(sources: Sources, wanted: services.Wanted, problems: Problems) -> None:
    directory = Place(sources.directory)
    for path, why in sources.unread:
        if path not in wanted.env_files and path not in wanted.certificates:
            problems.error(Place(path), "", f"cannot read: {why}")
            problems.broken = True
    if sources.missing:
        problems.warn(directory, "", "there is no such directory, so the plan is empty")
    elif not sources.layers and not sources.unread:
        problems.warn(directory, "", "holds no layers (*.yaml, *.yml), so the plan is empty")


def _warn_of_later(sources: Sources, merged: Merged, problems: Problems) -> None:
    later = [kind for kind in ("checks", "alerts", "identities") if merged.kinds[kind]]
    if merged.settings and "alerts" not in later:
        later.append("alerts")
    for item in merged.kinds["services"].values():
        later.extend(f"services.{item.name}.{key}" for key in SERVICE_LATER if key in item.fields)
    if later:
        text = f"accepted, but not acted upon by this version: {', '.join(later)}"
        problems.warn(Place(sources.directory), "", text)
