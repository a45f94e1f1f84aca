"""The pages say all there is: keys of a plan with their defaults, endpoints, options; and links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.docs.pages import PAGES, ROOT
from tests.unit.plan_world import plan as load
from vigil.api.app import routes
from vigil.cli import usage
from vigil.daemon import options
from vigil.plan import alerts, checks, identities
from vigil.plan.fields import SERVICE

DOCS = ROOT / "docs"


def cells(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []


def code(cell: str) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


class Row(NamedTuple):
    """What the plan's page says of a key."""

    kind: str
    key: str
    values: list[str]
    default: str | None


def rows() -> Iterator[Row]:
    """Every key in the tables of docs/plan.md that have a column of defaults."""
    kind, inside = "service", False
    for line in (DOCS / "plan.md").read_text(encoding="utf-8").splitlines():
        found = re.match(r"A \*\*check\*\*|An \*\*alert\*\*", line)
        kind = found[0].split("*")[2] if found else kind
        row = cells(line)
        if not row:
            inside = False
        elif row[0].startswith("key"):
            inside = "default" in row
        elif inside and not row[0].startswith("---"):
            names, defaults = code(row[0]), code(row[2])
            for index, name in enumerate(names):
                yield Row(kind, name, code(row[1]), (defaults + [None] * len(names))[index])


ROWS = list(rows())
SINGLE = [row for row in ROWS if row.key not in ("override", *checks.PROBES)]  # that are no block, and say what is so


def test_every_key_is_explained() -> None:
    for kind, keys in (("service", SERVICE), ("check", checks.CHECK), ("alert", alerts.ALERT)):
        assert set(keys) - {"override"} - {row.key for row in ROWS if row.kind == kind} == set(), kind
    page = set(code(prose(DOCS / "plan.md")))
    words = {word for text in page for word in re.split(r"[:{} ]+", text)}
    for keys in (checks.HTTP.fields, checks.TCP.fields, checks.EXEC.fields, alerts.SETTINGS, identities.IDENTITY):
        assert set(keys) - words == set()


def plan_with(row: Row, value: str | None) -> Mapping[str, Any]:
    """What comes of a plan in which that key has that value, or is not written."""
    service: dict[str, Any] = {"command": ["app"]}
    check: dict[str, Any] = {"tcp": {"port": 80}}
    alert: dict[str, Any] = {"url": "http://alerts", "on-check": ["probe"]}
    mine = {"service": service, "check": check, "alert": alert}[row.kind]
    text = msgspec.json.encode(
        {"services": {"x": service}, "checks": {"probe": check}, "alerts": {"a": alert}}
    ).decode()
    if value is not None:
        at = msgspec.json.encode(mine).decode()
        text = text.replace(at, f'{at[:-1]}, "{row.key}": {value}}}')
    loaded = load(text, check=True)
    return {"service": loaded.services["x"], "check": loaded.checks["probe"], "alert": loaded.alerts["a"]}


@pytest.mark.parametrize("row", [row for row in SINGLE if row.default], ids=lambda row: f"{row.kind}-{row.key}")
def test_a_default_is_what_there_is_without_the_key(row: Row) -> None:
    assert plan_with(row, row.default) == plan_with(row, None)


@pytest.mark.parametrize("row", SINGLE, ids=lambda row: f"{row.kind}-{row.key}")
def test_each_word_that_a_key_may_have_is_taken(row: Row) -> None:
    for word in row.values:
        if re.fullmatch(r"[a-z][a-z-]*", word):
            assert (plan_with(row, word) == plan_with(row, None)) is (word == row.default)


def test_every_endpoint_is_explained() -> None:
    page = prose(DOCS / "api.md")
    nothing: Any = None
    for path, noun in routes(nothing, nothing, nothing).items():
        for method in ("GET", "POST", "DELETE"):
            responder = getattr(noun, f"on_{method.lower()}", None)
            if responder is not None:
                shown = path.replace("{id}", "ID")
                assert re.search(rf"`{method} {re.escape(shown)}`", page), f"{method} {shown}"


def test_every_option_is_explained() -> None:
    page = set(code(prose(DOCS / "cli.md")))
    words = {word for text in page for word in re.split(r"[ ,=\[\]|]+", text)}
    for text in (options.USAGE, usage.TEXT):
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)) - words == set()
        assert set(re.findall(r"VIGIL_[A-Z_]+", text)) - words == set()


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked by."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, DOCS / "architecture.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
