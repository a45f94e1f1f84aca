"""What a value of a plan may be: functions that take a node and give the value, or report what is wrong and give None.

Nodes that are null never come here: null removes a key, and merging has done that. What has parameters is an object
that shows them, so that ``vigil.plan.schema`` can tell the same to an editor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Generic, TypeVar

from vigil.model import duration as durations
from vigil.model import signals
from vigil.model.suggest import quote
from vigil.plan import words
from vigil.plan.problems import Problems
from vigil.plan.secrets import last_word, looks_secret, masked, quoted
from vigil.plan.tree import Entry, Mapping, Node, Scalar, Sequence

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
Parser = Callable[[Node, str, Problems], T | None]
"""Takes a node, the field's name for messages, and where to report."""

_DIGITS = frozenset("0123456789")
_ENDLESS = frozenset(("infinity", "infinite", "inf", "unlimited", "forever", "never", "none", "off", "no", "false"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def string(node: Node, at: str, problems: Problems) -> str | None:
    """The text as it was written."""
    text = scalar(node, at, problems, "a text (write one, in quotes if need be)")
    if text is not None and isinstance(node, Scalar):
        warn_of_cut(node, at, problems, careful=False)
    return text


def boolean(node: Node, at: str, problems: Problems) -> bool | None:
    """YAML 1.2's true and false, and no other words for them."""
    text = scalar(node, at, problems, "true or false")
    if text is None or text in _BOOLEANS:
        return None if text is None else _BOOLEANS[text]
    meant = _OLD_BOOLEANS.get(text.lower())
    problems.error(node.place, at, f"{quote(text)} is not true or false" + (f" (write {meant})" if meant else ""))
    return None


class Integer:
    """A whole number from ``low`` to ``high``."""

    __slots__ = ("high", "low")

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def __call__(self, node: Node, at: str, problems: Problems) -> int | None:
        """The number."""
        text = scalar(node, at, problems, "a whole number")
        if text is None:
            return None
        digits = text[1:] if text[:1] in ("-", "+") else text
        limit = f"from {self.low} to {self.high}"
        if not digits or set(digits) - _DIGITS:
            problems.error(node.place, at, f"{quote(text)} is not a whole number (write one {limit})")
        elif len(digits) > 20 or not self.low <= int(text) <= self.high:
            problems.error(node.place, at, f"{quote(text)} is out of range (it must be {limit})")
        else:
            return int(text)
        return None


def factor(node: Node, at: str, problems: Problems) -> float | None:
    """A number, 1.0 or more."""
    text = scalar(node, at, problems, "a number")
    if text is None:
        return None
    try:
        value = float(text) if not set(text) - set("0123456789.eE+-") else None
    except ValueError:
        value = None
    if value is None:
        problems.error(node.place, at, f"{quote(text)} is not a number (write 2.0)")
    elif not 1.0 <= value < float("inf"):
        problems.error(node.place, at, f"{quote(text)} is out of range (it must be 1.0 or more)")
        value = None
    return value


def octal(node: Node, at: str, problems: Problems) -> int | None:
    """A file mode mask, ``022``."""
    text = scalar(node, at, problems, "an octal number")
    if text is None:
        return None
    digits = text.removeprefix("0o").lstrip("0") or "0"
    if text in ("", "0o") or set(digits) - set("01234567") or len(digits) > 3:
        problems.error(node.place, at, f"{quote(text)} is not an octal mask (write 022; 0777 at most)")
        return None
    return int(digits, 8)


class Duration:
    """Seconds, or infinity for one of the words that mean that there is none."""

    __slots__ = ("positive", "words_for_none")

    def __init__(self, *words_for_none: str, positive: bool = False) -> None:
        self.words_for_none = words_for_none
        self.positive = positive

    def __call__(self, node: Node, at: str, problems: Problems) -> float | None:
        """The seconds."""
        text = scalar(node, at, problems, f"a duration ({durations.EXAMPLES})")
        if text is None:
            return None
        if text in self.words_for_none:
            return float("inf")
        if text.lower() in _ENDLESS:
            fix = f"write {self.words_for_none[0]}" if self.words_for_none else "it must end: write 1h, or leave it out"
            problems.error(node.place, at, f"{quote(text)} is not a duration ({fix})")
            return None
        try:
            seconds = durations.parse(text)
        except ValueError as error:
            problems.error(node.place, at, str(error))
            return None
        if self.positive and not seconds:
            problems.error(node.place, at, f"{quote(text)} is out of range (it must be more than 0)")
            return None
        return seconds


duration = Duration()
positive_duration = Duration(positive=True)


class Choice:
    """One of some words."""

    __slots__ = ("options",)

    def __init__(self, *options: str) -> None:
        self.options = options

    def __call__(self, node: Node, at: str, problems: Problems) -> str | None:
        """The word."""
        options = self.options
        expected = " or ".join((", ".join(options[:-1]), options[-1])) if len(options) > 1 else options[0]
        text = scalar(node, at, problems, expected)
        if text is None or text in options:
            return text
        from vigil.plan import foreign  # only wrong plans need it

        fix = foreign.value(text, options) or problems.hint(text, options)
        problems.error(node.place, at, f"{quote(text)} is not {expected}{fix}")
        return None


class Member(Generic[E]):
    """A member of an enum, spelled by its value."""

    __slots__ = ("choice", "kind")

    def __init__(self, kind: type[E]) -> None:
        self.kind = kind
        self.choice = Choice(*(member.value for member in kind))

    def __call__(self, node: Node, at: str, problems: Problems) -> E | None:
        """The member."""
        word = self.choice(node, at, problems)
        return None if word is None else self.kind(word)


def signal(node: Node, at: str, problems: Problems) -> int | None:
    """The number of a signal."""
    text = scalar(node, at, problems, "a signal (write SIGTERM, TERM, 15 or SIGRTMIN+3)")
    if text is None:
        return None
    try:
        if text.isascii() and text.isprintable() and len(text) <= 40:
            return signals.parse(text)
        problems.error(node.place, at, f"{quote(text)} is not a signal (write SIGTERM, TERM, 15 or SIGRTMIN+3)")
    except ValueError as error:
        problems.error(node.place, at, str(error))
    return None


def path(node: Node, at: str, problems: Problems) -> str | None:
    """An absolute path."""
    text = string(node, at, problems)
    if text is None or text.startswith("/"):
        return text
    filled = text[:1] == "~" or _is_placeholder(text.partition("/")[0])
    fix = "nothing is filled in here: write it out" if filled else "it must begin with /"
    problems.error(node.place, at, f"{quote(text)} is not an absolute path ({fix})")
    return None


def command(node: Node, at: str, problems: Problems) -> tuple[str, ...] | None:
    """The argv of a command: a text that is split into words, or a list that is taken as it is."""
    if isinstance(node, Sequence):
        listed = _texts(node, at, problems)
        if listed is None:
            return None
        if not listed or not listed[0]:
            fault = "begins with an empty word, which is no program" if listed else "is an empty list"
            fault += " (write the program and its arguments)"
            problems.error(node.place, at, fault)
            return None
        if len(listed) == 1 and " " in listed[0].strip():
            fault = (
                "is one word with blanks, and so the name of a program (write a text without brackets, or each word)"
            )
            problems.warn(node.place, at, fault)
        return listed
    text = scalar(node, at, problems, "a text or a list of texts (write command: run --it)")
    if text is None or not isinstance(node, Scalar):
        return None
    try:
        argv, cut = words.command(text)
    except words.Fault as error:
        # A quote is often open only because YAML took the rest of the line for a comment.
        ends = (
            f" (YAML cut off {quote(node.comment.strip())} as a comment: quote the whole)"
            if node.comment
            else error.fix
        )
        problems.error(node.part(error.at, error.width) if text else node.place, at, str(error) + ends)
        return None
    warn_of_cut(node, at, problems, careful=True)
    if cut:
        what = f"{quote(cut.text)} is cut off as a comment (quote the # if it is part of the command)"
        problems.warn(node.part(cut.at, cut.width), at, what)
    odd = words.oddity(text, argv)
    if odd:
        problems.warn(node.part(odd.at, odd.width), at, odd.text)
    return argv


class Listed(Generic[T]):
    """A list of values."""

    __slots__ = ("item",)

    def __init__(self, item: Parser[T]) -> None:
        self.item = item

    def __call__(self, node: Node, at: str, problems: Problems) -> tuple[T, ...] | None:
        """The values, if all of them are right."""
        if not isinstance(node, Sequence):
            shown = f"{quote(node.text)} is" if isinstance(node, Scalar) else f"is {node.what},"
            problems.error(node.place, at, f"{shown} not a list{_as_list(node)}")
            return None
        values = []
        for entry in node.items:
            if isinstance(entry, Scalar) and entry.is_null:
                problems.error(entry.place, at, 'an item is empty (null; write "" or quote it if a text is meant)')
                continue
            value = self.item(entry, at, problems)
            if value is not None:
                values.append(value)
        return tuple(values) if len(values) == len(node.items) else None


def _as_list(node: Node) -> str:
    if isinstance(node, Mapping):
        names = [entry.key for entry in node.entries]
    elif isinstance(node, Scalar) and node.text[:1] == "-" and node.text[1:2].isalnum():
        return f" (write a blank behind the dash: - {node.text[1:]})" if len(node.text) < 40 else ""
    else:
        names = node.text.replace(",", " ").split() if isinstance(node, Scalar) else []
    simple = all(name.replace("-", "").replace(".", "").replace("_", "").isalnum() for name in names)
    return f" (write [{', '.join(names)}])" if names and simple and sum(map(len, names)) < 60 else ""


class OneOrListed(Listed[T]):
    """A list of values, or a single one."""

    __slots__ = ()

    def __call__(self, node: Node, at: str, problems: Problems) -> tuple[T, ...] | None:
        """The values, if all of them are right."""
        if isinstance(node, Sequence):
            return super().__call__(node, at, problems)
        value = self.item(node, at, problems)
        return None if value is None else (value,)


class Mapped(Generic[T]):
    """A mapping from names to values; null values are left out."""

    __slots__ = ("item",)

    def __init__(self, item: Parser[T]) -> None:
        self.item = item

    def __call__(self, node: Node, at: str, problems: Problems) -> dict[str, T] | None:
        """The values that are right, under their names."""
        if not isinstance(node, Mapping):
            dashes = ", without dashes" if isinstance(node, Sequence) else ""
            problems.error(node.place, at, refusal(node, at, f"a mapping (write NAME: value{dashes})"))
            return None
        values = {}
        for entry in node.entries:
            if isinstance(entry.value, Scalar) and entry.value.is_null:
                continue
            value = self.item(entry.value, f"{at}.{entry.key}", problems)
            if value is not None:
                values[entry.key] = value
        return values


_texts = Listed(string)
texts_by_name = Mapped(string)


def keyed(
    node: Mapping, known: Collection[str], at: str, problems: Problems, aliases: dict[str, str] | None = None
) -> dict[str, Entry]:
    """The entries of a mapping whose keys are ours: kebab-case or snake_case, none twice, unknown ones left out."""
    found: dict[str, Entry] = {}
    prefix = f"{at}." if at else ""
    for entry in node.entries:
        key = entry.key.replace("_", "-")
        key = aliases.get(key, key) if aliases else key
        if key not in known:
            problems.unknown_key(entry.place, f"{prefix}{entry.key}", entry.key, known, entry.value)
        elif key not in found or (found[key].inherited and not entry.inherited):
            found[key] = entry
        elif not entry.inherited:
            first = found[key]
            both = f"{quote(entry.key)} and {quote(first.key)} (line {first.place.line})"
            text = f"duplicate key: {both} are the same (leave out one)"
            problems.error(entry.place, f"{prefix}{key}", text)
    return found


class Block:
    """A mapping with keys of ours, some of them required."""

    __slots__ = ("fields", "required")

    def __init__(self, fields: dict[str, Parser[Any]], required: tuple[str, ...] = ()) -> None:
        self.fields = fields
        self.required = required

    def __call__(self, node: Node, at: str, problems: Problems) -> dict[str, Any] | None:
        """The values of the keys that are right."""
        if not isinstance(node, Mapping):
            main = self.required[0] if self.required else next(iter(self.fields))
            name, fix = f"{at}.{main}" if looks_secret(main) else at, ""
            if isinstance(node, Scalar) and len(node.text) <= 60:
                fix = f" (write {{{main}: {masked(last_word(name), node.text)}}})"
            problems.error(node.place, at, refusal(node, name, f"a mapping{fix}"))
            return None
        found = self.nodes(node, at, problems)
        for key in self.required:
            if key not in found:
                problems.consequence(node.place, f"{at}.{key}", f"is missing (write {key}: and its value)", at, key)
        values = {key: self.fields[key](value, f"{at}.{key}", problems) for key, value in found.items()}
        return {key: value for key, value in values.items() if value is not None}

    def nodes(self, node: Mapping, at: str, problems: Problems) -> dict[str, Node]:
        """What stands under each key that is not null."""
        entries = keyed(node, self.fields, at, problems).items()
        return {key: entry.value for key, entry in entries if not is_null(entry.value)}


def environment(node: Node, at: str, problems: Problems) -> dict[str, str] | None:
    """Variables; a name is not empty and holds no ``=``."""
    if isinstance(node, Mapping):
        for entry in node.entries:
            if not entry.key or "=" in entry.key:
                shown = quoted(entry.key)
                problems.error(entry.place, at, f'{shown} cannot be a variable\'s name (it is empty or holds a "=")')
    return texts_by_name(node, at, problems)


def is_null(node: Node) -> bool:
    """Whether it is a null, which stands for nothing."""
    return isinstance(node, Scalar) and node.is_null


def scalar(node: Node, at: str, problems: Problems, expected: str) -> str | None:
    """The text of a node that must be one."""
    if not isinstance(node, Scalar):
        problems.error(node.place, at, refusal(node, at, expected))
    elif not expected.startswith("a text") and _is_placeholder(node.text):
        text = f"{quote(node.text)} is a placeholder, and nothing fills it in here (write what it stands for)"
        problems.error(node.place, at, text)
    else:
        return node.text
    return None


def _is_placeholder(text: str) -> bool:
    return text.startswith(("${", "{{", "%(")) or (text[:1] == "$" and text[1:].isidentifier())


def refusal(node: Node, at: str, expected: str) -> str:
    """What to say of a node that is not what was expected at that field."""
    if isinstance(node, Scalar):
        return f"{quoted(node.text, last_word(at))} is not {expected}"
    return f"is {node.what}, not {expected}"


def warn_of_cut(node: Scalar, at: str, problems: Problems, *, careful: bool) -> None:
    """Warns where YAML may have taken the end of a text for a comment.

    ``text #more`` is suspicious everywhere: people who comment put a blank behind the ``#``. In a command (``careful``)
    ``text # more`` is too, where only one blank is before it: comments are set apart.
    """
    comment = node.comment
    if not comment:
        return
    sharp = comment.index("#")
    spaced = comment[sharp + 1 : sharp + 2] in ("", " ", "\t", "#")
    set_apart = sharp > 1 or comment[:sharp] == "\t"
    if spaced and (set_apart or not careful):
        return
    shown = "what follows the #" if looks_secret(last_word(at)) else quote(comment.strip())
    text = f"{shown} is cut off as a comment (quote the whole if it is part of the text)"
    problems.warn(node.comment_place or node.place, at, text)
