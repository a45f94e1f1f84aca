"""What checks and alerts say about HTTP: URLs, headers, and ``env:NAME`` in place of a text."""

from __future__ import annotations

from vigil.model.suggest import quote
from vigil.plan import values
from vigil.plan.problems import Problems
from vigil.plan.tree import Mapping, Node, Scalar
from vigil.plan.values import Parser

REFERENCE = "env:"
"""``env:NAME``, alone or as a word of a text, stands for a variable of vigild's environment when the text is used."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VARIABLE = frozenset(_LETTERS + "0123456789_")
_TOKEN = frozenset(_LETTERS + "0123456789!#$%&'*+-.^_`|~")


class Referring:
    """What ``inner`` takes, or a reference. What stands behind it is nobody's business before it is used."""

    __slots__ = ("inner",)

    def __init__(self, inner: Parser[str]) -> None:
        self.inner = inner

    def __call__(self, node: Node, at: str, problems: Problems) -> str | None:
        """The text as it was written."""
        if not isinstance(node, Scalar) or not node.text.startswith(REFERENCE) or len(node.text.split()) > 1:
            return self.inner(node, at, problems)
        name = node.text.removeprefix(REFERENCE)
        if name and not name[0].isdigit() and not set(name) - _VARIABLE:
            return node.text
        why = "is not a reference to a variable (write env:NAME, with letters, digits and _)"
        problems.error(node.place, at, f"{quote(node.text)} {why}")
        return None


def url(node: Node, at: str, problems: Problems) -> str | None:
    """An ``http://`` or ``https://`` URL."""
    text = values.string(node, at, problems)
    fault = "" if text is None else _fault(text)
    if fault:
        problems.error(node.place, at, fault)
        return None
    return text


def header(node: Node, at: str, problems: Problems) -> str | None:
    """The value of a header. It is in no message: it may be a secret."""
    text = values.string(node, at, problems)
    if text is None or (_is_latin(text) and all(letter.isprintable() or letter == "\t" for letter in text)):
        return text
    problems.error(node.place, at, "holds a character that no header can (a line end, or one beyond Latin-1)")
    return None


class Headers(values.Mapped[str]):
    """Headers. Their names are the same whatever their case."""

    __slots__ = ()

    def __call__(self, node: Node, at: str, problems: Problems) -> dict[str, str] | None:
        """The values that are right, under their names."""
        seen: set[str] = set()
        for entry in node.entries if isinstance(node, Mapping) else ():
            name = entry.key.lower()
            if not name or set(name) - _TOKEN:
                problems.error(entry.place, at, f"{quote(entry.key)} cannot be the name of a header")
            elif name in seen:
                problems.error(entry.place, at, f"duplicate header {quote(entry.key)} (case makes no difference)")
            seen.add(name)
        return super().__call__(node, at, problems)


def _fault(text: str) -> str:
    """What is wrong with a URL; its user and password are in no message."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        meant = f"write http://{text}" if not separator and text.isprintable() and "@" not in text else "http or https"
        return f"{quote(_shown(text))} is not a URL ({meant})"
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        return f"{quote(_shown(text))} holds a blank or a control character, which no URL can (write %20)"
    authority = rest
    for end in "/?#":
        authority = authority.partition(end)[0]
    host = authority.rpartition("@")[2]
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name = host
    if colon and not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        return f"{quote(_shown(text))} is not a URL ({quote(port)} is no port)"
    if not _is_host(name):
        return f"{quote(_shown(text))} is not a URL ({quote(name)} is no host)"
    return ""


def _is_host(name: str) -> bool:
    if name.startswith("[") and name.endswith("]"):
        address = name[1:-1].partition("%")[0]  # what follows is the name of an interface
        return ":" in address and not set(address) - frozenset("0123456789abcdefABCDEF:.")
    return bool(name) and all(letter.isalnum() or letter in "-._" for letter in name)


def _shown(text: str) -> str:
    return text if "@" not in text else "..." + text[text.rindex("@") :]


def _is_latin(text: str) -> bool:
    return not text or max(text) <= "\xff"
