"""``env:NAME`` in the texts of an alert: replaced when they are used, and told beforehand where there is nothing.

A word is what stands between blanks, commas and semicolons; only whole words are references. A variable that is not set
is the same as an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from vigil.model import say
from vigil.plan.types import Alert
from vigil.plan.web import REFERENCE

_BETWEEN = " \t\r\n,;"


class Missing(msgspec.Struct, frozen=True):
    """A reference to nothing."""

    alert: str
    field: str  # "url", "headers.Authorization"
    env_var: str


def decoded(environment: Mapping[bytes, bytes]) -> dict[str, str]:
    """vigild's environment as text; what is no UTF-8 survives in file names (surrogateescape)."""
    return {
        name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
        for name, value in environment.items()
    }


def resolve(text: str, environment: Mapping[str, str]) -> str:
    """``text`` with its references replaced."""
    if REFERENCE not in text:
        return text
    return "".join(part if name is None else environment.get(name, "") for part, name in _parts(text))


def resolve_all(texts: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """All values of ``texts`` with their references replaced."""
    return {name: resolve(text, environment) for name, text in texts.items()}


def missing(alerts: Iterable[Alert], environment: Mapping[str, str]) -> list[Missing]:
    """Every reference in ``alerts`` that is not set or empty, once for each field it stands in."""
    return [
        Missing(alert.name, field, name)
        for alert in alerts
        for field, text in _fields(alert)
        for name in dict.fromkeys(name for _, name in _parts(text) if name is not None)
        if not environment.get(name)
    ]


def warn(alerts: Iterable[Alert], environment: Mapping[str, str]) -> None:
    """Say which references are to nothing: at start, and at each replan."""
    for found in missing(alerts, environment):
        say.warn(
            "vigil.alert",
            "an alert refers to a variable that is unset or empty: the field will be empty",
            alert=found.alert,
            field=found.field,
            env_var=found.env_var,
        )


def _fields(alert: Alert) -> Iterator[tuple[str, str]]:
    yield "url", alert.url
    for field, texts in (
        ("headers", alert.headers),
        ("labels", alert.labels),
        ("send-info-fields", alert.send_info_fields),
    ):
        for name, text in texts.items():
            yield f"{field}.{name}", text
    for field, given in (
        ("proxy", alert.proxy),
        ("no-proxy", alert.no_proxy),
        ("tls-ca", alert.tls_ca),
        ("proxy-ca", alert.proxy_ca),
    ):
        if given is not None:
            yield field, given


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    """Words and what is between them, in order; with the name that a word refers to."""
    start = 0
    for at in range(len(text) + 1):
        if at == len(text) or text[at] in _BETWEEN:
            word = text[start:at]
            yield word, _name(word)
            if at < len(text):
                yield text[at], None
            start = at + 1


def _name(word: str) -> str | None:
    name = word.removeprefix(REFERENCE)
    known = word.startswith(REFERENCE) and name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
    return name if known else None
