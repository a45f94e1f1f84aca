"""From sources to a plan: all problems at once, or a plan that is right. Nothing here looks at the world outside."""

from __future__ import annotations

from vigil.model.suggest import quote
from vigil.plan import services
from vigil.plan.accounts import Request
from vigil.plan.fields import ALERT_SETTINGS, CHECK_KINDS, KINDS, SERVICE_LATER, TOP
from vigil.plan.merge import Merged, merge
from vigil.plan.problems import Place, Problems
from vigil.plan.tree import Mapping, Scalar, Sequence
from vigil.plan.types import Plan, Sources

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


def load(sources: Sources, *, check: bool = False) -> Plan:
    """The plan that ``sources`` make.

    PlanError has every problem of all files; with ``check`` unknown keys are among them, else they are warnings.
    """
    merged, problems = _take(sources.layers)
    outside = services.Outside(
        dict(sources.env_files),
        dict(sources.unread),
        {Request(a.user, a.user_id, a.group, a.group_id): a for a in sources.accounts},
    )
    _judge_sources(sources, merged, problems)
    found = services.build(merged, outside, problems)
    top = {key: TOP[key].parse(node, key, problems) or "" for key, node in merged.top.items()}
    for at, field, node in merged.discarded:
        field.parse(node, at, problems)
    _judge_others(merged, problems)
    _warn_of_later(sources, merged, problems)
    return Plan(
        summary=top.get("summary", ""),
        description=top.get("description", ""),
        services=found,
        warnings=problems.conclude(check=check),
    )


def _judge_sources(sources: Sources, merged: Merged, problems: Problems) -> None:
    directory = Place(sources.directory)
    env_files, _ = services.outside_of(merged)
    for path, why in sources.unread:
        if path not in env_files:
            problems.error(Place(path), "", f"cannot read: {why}")
            problems.broken = True
    if sources.missing:
        problems.warn(directory, "", "there is no such directory, so the plan is empty")
    elif not sources.layers and not sources.unread:
        problems.warn(directory, "", "holds no layers (*.yaml, *.yml), so the plan is empty")


def _judge_others(merged: Merged, problems: Problems) -> None:
    """Checks, alerts and identities: types, kinds of checks, and names."""
    for kind in ("checks", "alerts", "identities"):
        for item in merged.kinds[kind].values():
            for key, node in item.fields.items():
                KINDS[kind][key].parse(node, f"{kind}.{item.name}.{key}", problems)
    for key, node in merged.settings.items():
        ALERT_SETTINGS[key].parse(node, f"alerts.{key}", problems)
    checks, known = merged.kinds["checks"], merged.kinds["services"]
    for item in checks.values():
        kinds = [key for key in item.fields if key in CHECK_KINDS]
        if len(kinds) != 1:
            text = f"has {' and '.join(kinds)} (one of them)" if kinds else "has none of http, tcp and exec"
            problems.error(item.fields[kinds[1]].place if kinds else item.place, f"checks.{item.name}", text)
    if problems.broken:
        return
    for item in checks.values():
        probe = item.fields.get("exec")
        for entry in probe.entries if isinstance(probe, Mapping) else ():
            name = entry.value
            if entry.key.replace("_", "-") == "service-context" and isinstance(name, Scalar) and name.text not in known:
                text = f"there is no service {quote(name.text)}{problems.hint(name.text, known)}"
                problems.error(name.place, f"checks.{item.name}.exec.service-context", text)
    for item in merged.kinds["alerts"].values():
        watched = item.fields.get("on-check")
        for name in watched.items if isinstance(watched, Sequence) else ():
            if isinstance(name, Scalar) and name.text not in checks:
                text = f"there is no check {quote(name.text)}{problems.hint(name.text, checks)}"
                problems.error(name.place, f"alerts.{item.name}.on-check", text)


def _warn_of_later(sources: Sources, merged: Merged, problems: Problems) -> None:
    later = [kind for kind in ("checks", "alerts", "identities") if merged.kinds[kind]]
    if merged.settings and "alerts" not in later:
        later.append("alerts")
    for item in merged.kinds["services"].values():
        later.extend(f"services.{item.name}.{key}" for key in SERVICE_LATER if key in item.fields)
    if later:
        text = f"accepted, but not acted upon by this version: {', '.join(later)}"
        problems.warn(Place(sources.directory), "", text)
