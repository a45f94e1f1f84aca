"""What a new plan changes of an old one. Pure; what follows from it for what runs is the overlord's to decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from vigil.plan.types import Credentials, Plan, Service

_DEFINITION = (
    "command",
    "environment",
    "user",
    "working_dir",
    "type",
    "limits",
    "nice",
    "umask",
    "oom_score_adj",
    "stdin",
    "watchdog",
)
"""What a start carries whatever its value is. The stop parameters are not among it: a live run can be given others."""

_NAMES_SHOWN = 5


class Changed(msgspec.Struct, frozen=True):
    """What changed of one service: sentences that name keys and never their values, which may be secret."""

    definition: tuple[str, ...] = ()  # what a start carries: only a new process has it
    in_place: tuple[str, ...] = ()  # all else


class Diff(msgspec.Struct, frozen=True):
    """What changed, by service. What is in none of the three is the same in both plans."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, Changed]


def diff(old: Plan, new: Plan) -> Diff:
    """From ``old`` to ``new``."""
    changed = {
        name: _changed(before, service)
        for name, service in new.services.items()
        if (before := old.services.get(name)) is not None and before != service
    }
    return Diff(
        added=tuple(name for name in new.services if name not in old.services),
        removed=tuple(name for name in old.services if name not in new.services),
        changed=changed,
    )


def digest(service: Service) -> str:
    """A number of the process definition: the same for two that start the same process.

    Keys that have their default are left out, so that a version of vigil with more keys gives the same one.
    """
    from hashlib import blake2b  # 2 ms, which no first start has to wait for

    carried, default = _carried(service), _carried(Service(name=service.name))
    text = repr([(key, _sorted(value)) for key, value in sorted(carried.items()) if value != default[key]])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _carried(service: Service) -> dict[str, object]:
    """The process definition, by field."""
    carried: dict[str, object] = {field: getattr(service, field) for field in _DEFINITION}
    carried["logs_forward"] = service.logs_forward == "passthrough"  # forwarded or not is told to a live run
    carried["ready"] = service.ready == "notify"
    return carried


def _sorted(value: object) -> object:
    return sorted(value.items()) if isinstance(value, dict) else value


def _changed(old: Service, new: Service) -> Changed:
    before, after = _carried(old), _carried(new)
    definition: list[str] = []
    in_place: list[str] = []
    for field in Service.__struct_fields__:
        was, now = getattr(old, field), getattr(new, field)
        if was == now:
            continue
        carried = field in before and before[field] != after[field]
        (definition if carried else in_place).append(_sentence(field, was, now))
    return Changed(tuple(definition), tuple(in_place))


def _sentence(field: str, was: object, now: object) -> str:
    match was, now:
        case dict(), dict() if field == "environment":
            return f"environment changed ({_listed(_differing(was, now))})"
        case Credentials(), Credentials() if (was.uid, was.home, was.name) == (now.uid, now.home, now.name):
            return "group changed"  # of a user's groups too
        case _:
            return f"{field.replace('_', '-')} changed"


def _differing(was: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return [name for name in dict.fromkeys((*was, *now)) if was.get(name) != now.get(name)]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names if more <= 1 else [*names[:_NAMES_SHOWN], f"{more} more"])
