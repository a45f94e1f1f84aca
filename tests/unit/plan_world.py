"""Plans out of texts, for the tests of vigil.plan."""

from __future__ import annotations

import textwrap

import pytest

from vigil.model.errors import PlanError
from vigil.plan import Account, Plan, Service, Sources, load


def sources(
    *layers: str | bytes,
    env_files: tuple[tuple[str, bytes], ...] = (),
    accounts: tuple[Account, ...] = (),
) -> Sources:
    """Layers /l/0.yaml, /l/1.yaml and so on."""
    texts = [layer if isinstance(layer, bytes) else textwrap.dedent(layer).encode() for layer in layers]
    named = tuple((f"/l/{number}.yaml", text) for number, text in enumerate(texts))
    return Sources("/l", named, env_files, accounts)


def plan(*layers: str | bytes, check: bool = False) -> Plan:
    return load(sources(*layers), check=check)


def warnings(*layers: str | bytes) -> tuple[str, ...]:
    """The warnings of layers that are right, each as its line."""
    return tuple(map(str, plan(*layers).warnings))


def problems(*layers: str | bytes, check: bool = False) -> tuple[str, ...]:
    """The problems of layers that must have some, each as its line."""
    with pytest.raises(PlanError) as caught:
        load(sources(*layers), check=check)
    found = tuple(map(str, caught.value.problems))
    assert found
    assert all(line.isprintable() for line in found)
    assert str(caught.value) == "\n".join(found)
    return found


def layer(*lines: str, name: str = "web") -> str:
    """A layer with one service, its keys from line 3 on, in column 5."""
    return f"services:\n  {name}:\n" + "".join(f"    {line}\n" for line in lines)


def service(*lines: str) -> Service:
    """A service with these keys, in a plan that has nothing to say about it."""
    made = plan(layer("command: run", *lines))
    assert made.warnings == ()
    return made.services["web"]


def problem(*lines: str) -> str:
    """The one problem of a service with these keys; the first is in line 4."""
    found = problems(layer("command: run", *lines))
    assert len(found) == 1, found
    return found[0]


def warning(*lines: str) -> str:
    """The one warning of a service with these keys; the first is in line 4."""
    found = warnings(layer("command: run", *lines))
    assert len(found) == 1, found
    return found[0]
