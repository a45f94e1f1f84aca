"""Resource limits of a service, ``nofile: 1024:4096``: their names and numbers."""

from __future__ import annotations

from vigil.model.suggest import quote
from vigil.plan.problems import Problems
from vigil.plan.tree import Mapping, Node, Scalar
from vigil.plan.types import RLIM_INFINITY
from vigil.plan.values import refusal, scalar

_DIGITS = frozenset("0123456789")
_INFINITE = frozenset(("infinity", "unlimited"))
_RESOURCES: dict[str, int] = {}

OURS = "locks"
"""The limit that is not a service's to set."""


def fold(name: str) -> str:
    """``RLIMIT_NOFILE`` and ``nofile`` are the same."""
    return name.lower().removeprefix("rlimit_")


def parse(node: Node, at: str, problems: Problems) -> tuple[tuple[int, int, int], ...] | None:
    """Resource limits: name of a resource to ``soft`` (then the hard one is the same) or ``soft:hard``."""
    if not isinstance(node, Mapping):
        problems.error(node.place, at, refusal(node, at, "a mapping (write nofile: 1024 or nofile: 1024:4096)"))
        return None
    known = resources()
    found: dict[int, tuple[int, int, int]] = {}
    for entry in node.entries:
        if isinstance(entry.value, Scalar) and entry.value.is_null:
            continue
        if fold(entry.key) == OURS:
            # The kernel does not use it; vigil marks a service's processes with it, so that a stop misses none.
            problems.error(
                entry.place, at, f"{quote(entry.key)} is kept for vigil's own use and limits nothing (leave it out)"
            )
            continue
        resource = known.get(fold(entry.key))
        if resource is None:
            problems.error(entry.place, at, f"{quote(entry.key)} is not a limit{problems.hint(entry.key, known)}")
            continue
        if resource in found:
            problems.error(entry.place, at, f"duplicate limit {quote(entry.key)} (it is there under another spelling)")
        pair = _limit(entry.value, f"{at}.{entry.key}", problems)
        if pair is not None:
            found[resource] = (resource, *pair)
    return tuple(found.values())


def _limit(node: Node, at: str, problems: Problems) -> tuple[int, int] | None:
    text = scalar(node, at, problems, "a limit (write 1024, 1024:4096 or unlimited)")
    if text is None:
        return None
    soft_text, colon, hard_text = text.partition(":")
    soft = _limit_number(soft_text)
    hard = _limit_number(hard_text) if colon else soft
    if soft is None or hard is None:
        fix = _meant(text) or "1024, 1024:4096 or unlimited"
        problems.error(node.place, at, f"{quote(text)} is not a limit (write {fix})")
        return None
    if soft > hard:
        problems.error(node.place, at, f"{quote(text)} has a soft limit above the hard one (write soft:hard)")
        return None
    return soft, hard


def _meant(text: str) -> str:
    """What to write instead: numbers are bytes, seconds or things, without units."""
    lowered = text.lower()
    if lowered in ("-1", "infinite", "inf", "max", "none", "no", "off"):
        return "unlimited"
    number, unit = lowered.removesuffix("ib").removesuffix("b"), 1
    if number[-1:] in ("k", "m", "g", "t"):
        number, unit = number[:-1], 1024 ** ("kmgt".index(number[-1]) + 1)
    if number and not set(number) - _DIGITS and len(number) < 12 and lowered != number:
        return str(int(number) * unit)
    for sign in ("-", "/", ",", " "):
        soft, found, hard = text.partition(sign)
        if found and _limit_number(soft) is not None and _limit_number(hard.strip()) is not None:
            return f"{soft}:{hard.strip()}"
    return ""


def _limit_number(text: str) -> int | None:
    if text in _INFINITE:
        return RLIM_INFINITY
    if not text or set(text) - _DIGITS or len(text) > 20 or int(text) >= RLIM_INFINITY:
        return None
    return int(text)


def resources() -> dict[str, int]:
    """``nofile`` and the others that this system has; their numbers differ between processors."""
    if not _RESOURCES:
        import resource  # most plans have no limits

        for name in dir(resource):
            if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE":
                _RESOURCES[name[7:].lower()] = getattr(resource, name)
    return _RESOURCES


def spell(found: tuple[tuple[int, int, int], ...]) -> str:
    """``nofile 1024:4096, core 0`` for the limits of a service."""
    names = {number: name for name, number in resources().items()}

    def amount(number: int) -> str:
        return "unlimited" if number == RLIM_INFINITY else str(number)

    return ", ".join(
        f"{names.get(number, number)} {amount(soft)}" + (f":{amount(hard)}" if hard != soft else "")
        for number, soft, hard in found
    )
