"""What checks and alerts say about HTTP: URLs, headers, and ``env:NAME`` in place of a text."""

from __future__ import annotations

from vigil.model.suggest import quote
from vigil.plan import secrets, values
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


class Url:
    """An ``http://`` or ``https://`` URL. Of one that may be ``secret`` itself a message shows the host at most."""

    __slots__ = ("secret",)

    def __init__(self, *, secret: bool = False) -> None:
        self.secret = secret

    def __call__(self, node: Node, at: str, problems: Problems) -> str | None:
        """The URL as it was written."""
        text = values.string(node, at, problems)
        fault = "" if text is None else _fault(text)
        if text is None or not fault:
            return text
        shown = secrets.masked_url(text) if self.secret else secrets.masked_text(text)
        if "://" not in text and shown == text and shown.isprintable() and shown:
            fault += f": write http://{shown}"
        problems.error(node.place, at, f"{quote(shown)} is not a URL ({fault})")
        return None


def header(node: Node, at: str, problems: Problems) -> str | None:
    """The value of a header. It is in no message: it may be a secret."""
    text = values.string(node, at, problems)
    if text is None or all((letter.isprintable() or letter == "\t") and letter <= "\xff" for letter in text):
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
    """What is wrong with a URL."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return "it does not begin with http:// or https://"
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        return "it holds a blank or a control character: write %20"
    for end in "/?#":
        rest = rest.partition(end)[0]
    host = rest.rpartition("@")[2]
    name, colon, port = (host, "", "") if host.endswith("]") else host.rpartition(":")
    if colon and not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        return f"{quote(port)} is no port"
    name = name if colon else host
    return "" if _is_host(name) else f"{quote(name)} is no host"


def _is_host(name: str) -> bool:
    if name.startswith("[") and name.endswith("]"):
        address = name[1:-1].partition("%")[0]  # what follows is the name of an interface
        return ":" in address and not set(address) - frozenset("0123456789abcdefABCDEF:.")
    return bool(name) and all(letter.isalnum() or letter in "-._" for letter in name)
