"""A file of YAML as a tree of nodes that know their place and keep the text of their scalars.

Owns the step from bytes to nodes, with anchors, aliases and ``<<`` resolved and duplicate keys refused. It works on the
parser's events and not on its documents, for four reasons: the text of a scalar stays what was written (``0755``,
``no``), every node has a place, aliases are counted instead of expanded, and nothing recurses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from vigil.model.suggest import quote
from vigil.plan.problems import Place, Problems

if TYPE_CHECKING:
    from vigil.plan import explain

NODES_MAX = 100_000
"""The most nodes that a file may have, aliases counted with all that they stand for."""

DEPTH_MAX = 100
"""The deepest nesting of a file."""

_COMMENT_MAX = 200  # characters of a comment behind a value that are looked at and shown

NULLS = frozenset(("", "~", "null", "Null", "NULL"))

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset((None, "!", *(_TAG + name for name in ("str", "int", "float", "bool", "null"))))
_STRING_TAGS = frozenset(("!", _TAG + "str"))


class Scalar(msgspec.Struct, frozen=True):
    """A text as it was written, less its quotes."""

    place: Place
    text: str
    is_null: bool
    plain: bool  # without quotes
    comment: str = ""  # what follows a plain text on its line, where that is a comment; with the blanks before it
    comment_place: Place | None = None  # of its "#"
    size = 1

    what = "a text"

    def part(self, at: int, width: int) -> Place:
        """Where some of the text stands; the place of all of it where that cannot be told (escapes, many lines)."""
        quotes = 0 if self.plain else 1
        if self.place.width == len(self.text) + 2 * quotes:
            return self.place.part(at + quotes, width)
        return self.place


class Sequence(msgspec.Struct, frozen=True):
    """A list."""

    place: Place
    items: tuple[Node, ...]
    size: int = 1

    what = "a list"


class Entry(msgspec.Struct, frozen=True):
    """A key and its value. ``inherited``: it came through ``<<``, and an own key wins over it."""

    key: str
    place: Place  # of the key
    value: Node
    inherited: bool = False


class Mapping(msgspec.Struct, frozen=True):
    """Keys and values, no key twice."""

    place: Place
    entries: tuple[Entry, ...]
    size: int = 1

    what = "a mapping"


Node = Scalar | Sequence | Mapping


def parse(file: str, content: bytes, problems: Problems) -> Node | None:
    """The tree of one file; None where it is empty or cannot be parsed, which is then among ``problems``."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        from vigil.plan import explain  # only wrong files need it

        told = explain.not_utf8(content, error.start)
        problems.error(Place(file, told.line, told.column, told.width), "", told.text)
        problems.broken = True
        return None
    problems.text(file, text)
    builder = _Builder(file, text, problems)
    try:
        return builder.build()
    except _Stop:
        problems.broken = True
        return None


class _Stop(Exception):
    """The file cannot be read on; the reason is among the problems."""


class _Frame:
    """A list or mapping that is not closed yet."""

    __slots__ = ("anchor", "entries", "is_mapping", "items", "key", "merged", "place", "size")

    def __init__(self, place: Place, is_mapping: bool, anchor: str | None) -> None:
        self.place = place
        self.is_mapping = is_mapping
        self.anchor = anchor
        self.size = 1
        self.items: list[Node] = []
        self.entries: dict[str, Entry] = {}
        self.key: Node | None = None  # of a mapping: the key whose value comes next
        self.merged: list[tuple[Place, Node]] = []  # of a mapping: what ``<<`` stands for, and where it is named


class _Builder:
    def __init__(self, file: str, text: str, problems: Problems) -> None:
        self.file = file
        self.text = text
        self.problems = problems
        self.frames: list[_Frame] = []
        self.anchors: dict[str, Node | None] = {}  # None: not closed yet
        self.root: Node | None = None
        self.documents = 0
        self.last: Any = None  # the last scalar's event, for guesses about what went wrong after it
        self.has_comments = "#" in text

    def build(self) -> Node | None:
        from yaml.error import MarkedYAMLError, YAMLError  # yaml takes longer to import than all of plan

        parser = None
        try:
            parser = _parser(self.text)
            while parser.check_event():
                self._take(parser.get_event())
        except MarkedYAMLError as error:
            from vigil.plan import explain  # only wrong files need it

            self._at(explain.syntax(error, self.text, self.last))
        except YAMLError:
            from vigil.plan import explain

            self._at(explain.unprintable(self.text))
        finally:
            if parser is not None:
                parser.dispose()
        return self.root

    def _take(self, event: Any) -> None:
        name = type(event).__name__
        if name == "ScalarEvent":
            self.last = event
            self._scalar(event)
        elif name == "MappingStartEvent" or name == "SequenceStartEvent":
            self._open(event, name == "MappingStartEvent")
        elif name == "MappingEndEvent" or name == "SequenceEndEvent":
            self._close(event)
        elif name == "AliasEvent":
            self._alias(event)
        elif name == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                self._stop(
                    self._place(event), "a second document begins here (a layer is one document: split the file)"
                )

    def _scalar(self, event: Any) -> None:
        place = self._place(event)
        if event.tag not in _SCALAR_TAGS:
            self._bad_tag(place, event.tag)
        value = event.value
        if "\0" in value or not (value.isascii() or _is_text(value)):
            self._error(place, "holds a character that no argument, variable or path can have (NUL, half a surrogate)")
            value = value.encode("utf-8", "replace").decode().replace("\0", "?")
        plain = event.style in (None, "")
        comment, comment_place = "", None
        if plain and self.has_comments:
            comment = self._comment_at(event.end_mark.index)
            if comment:
                comment_place = self._comment_place(event.end_mark, comment)
        is_null = (plain and value in NULLS and event.tag not in _STRING_TAGS) or event.tag == _TAG + "null"
        self._add(Scalar(place, value, is_null, plain, comment, comment_place), event.anchor)

    def _comment_at(self, at: int) -> str:
        if self.text[at : at + 1] not in (" ", "\t"):
            return ""
        rest = self.text[at : at + _COMMENT_MAX].splitlines()[0]
        return rest.rstrip() if rest.lstrip(" \t").startswith("#") else ""

    def _comment_place(self, end: Any, comment: str) -> Place:
        blanks = comment.index("#")
        return Place(self.file, end.line + 1, end.column + 1 + blanks, len(comment) - blanks)

    def _open(self, event: Any, is_mapping: bool) -> None:
        place = self._place(event)
        if event.tag not in (None, "!", _TAG + ("map" if is_mapping else "seq")):
            self._bad_tag(place, event.tag)
        if len(self.frames) >= DEPTH_MAX:
            self._stop(place, f"nested more than {DEPTH_MAX} deep")
        if event.anchor:
            self.anchors[event.anchor] = None
        self.frames.append(_Frame(place, is_mapping, event.anchor))

    def _close(self, event: Any) -> None:
        frame = self.frames.pop()
        node: Node
        end = event.end_mark
        if frame.place.line == end.line + 1 and self.text[end.index - 1 : end.index] in ("]", "}"):
            frame.place = msgspec.structs.replace(frame.place, width=end.column + 1 - frame.place.column)
        if frame.is_mapping:
            for place, merged in frame.merged:
                self._inherit(frame, place, merged)
            node = Mapping(frame.place, tuple(frame.entries.values()), frame.size)
        else:
            node = Sequence(frame.place, tuple(frame.items), frame.size)
        self._add(node, frame.anchor)

    def _alias(self, event: Any) -> None:
        place = self._place(event)
        node = self.anchors.get(event.anchor)
        if node is not None:
            self._add(node, None, place)
        elif event.anchor in self.anchors:
            self._stop(
                place, f"alias {quote('*' + event.anchor)} is part of what it stands for (nothing can hold itself)"
            )
        else:
            self._stop(
                place,
                f"alias {quote('*' + event.anchor)} has no anchor{self.problems.hint(event.anchor, self.anchors)}",
            )

    def _add(self, node: Node, anchor: str | None, alias: Place | None = None) -> None:
        if anchor:
            self.anchors[anchor] = node
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        self._grow(frame, node.size)
        if not frame.is_mapping:
            frame.items.append(node)
        elif frame.key is None:
            frame.key = node
        else:
            self._pair(frame, frame.key, node, alias or node.place)
            frame.key = None

    def _pair(self, frame: _Frame, key: Node, value: Node, at: Place) -> None:
        if isinstance(key, Mapping) and _touches(frame.place, key.place):
            from vigil.plan import explain  # only wrong files need it

            frame.key = None
            self._stop(msgspec.structs.replace(frame.place, width=2), explain.template("{{"))
        if not isinstance(key, Scalar) or key.is_null:
            frame.key = None  # it is no part of the path in the message
            what = "empty" if isinstance(key, Scalar) else key.what
            self._error(key.place, f"a key is {what}, not a text (quote it if it is meant)")
            return
        if key.text in frame.entries:
            first = frame.entries[key.text].place.line
            self._error(key.place, f"duplicate key {quote(key.text)} (it is in line {first} already)")
        elif key.text == "<<" and key.plain:
            if frame.merged:
                self._error(key.place, 'duplicate key "<<" (write <<: [*one, *other])')
            frame.merged.extend((at, node) for node in (value.items if isinstance(value, Sequence) else (value,)))
        else:
            frame.entries[key.text] = Entry(key.text, key.place, value)

    def _inherit(self, frame: _Frame, place: Place, node: Node) -> None:
        if not isinstance(node, Mapping):
            what = node.what if not isinstance(node, Scalar) or node.is_null else quote(node.text)
            self._error(
                place, f'"<<" takes a mapping or a list of mappings, and this is {what} (write <<: *NAME of one)'
            )
            return
        for entry in node.entries:
            if entry.key not in frame.entries:
                frame.entries[entry.key] = Entry(entry.key, entry.place, entry.value, True)

    def _grow(self, frame: _Frame, size: int) -> None:
        frame.size += size
        if frame.size > NODES_MAX:
            self._stop(frame.place, f"more than {NODES_MAX} nodes once its aliases are followed (use fewer of them)")

    def _place(self, event: Any) -> Place:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if start.line == end.line else 0
        return Place(self.file, start.line + 1, start.column + 1, width)

    def _path(self) -> str:
        return ".".join(frame.key.text for frame in self.frames[:6] if isinstance(frame.key, Scalar))

    def _error(self, place: Place, text: str) -> None:
        self.problems.error(place, self._path(), text)

    def _stop(self, place: Place, text: str) -> NoReturn:
        self._error(place, text)
        raise _Stop

    def _at(self, told: explain.Told) -> NoReturn:
        self.problems.error(Place(self.file, told.line, told.column, told.width), "", told.text)
        raise _Stop

    def _bad_tag(self, place: Place, tag: str) -> None:
        shown = tag.replace(_TAG, "!!")
        self._error(place, f"tag {quote(shown)} means nothing here (quote the text if the tag is part of it)")


def _touches(outer: Place, inner: Place) -> bool:
    """``{{``, which is a mapping as the key of a mapping, is meant by nobody who writes YAML."""
    return outer.line == inner.line and outer.column + 1 == inner.column


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parser(text: str) -> Any:
    """libyaml's parser of events, or PyYAML's own where libyaml is missing (some 30 times slower, the same events)."""
    try:
        from yaml._yaml import CParser  # see build()
    except ImportError:
        return _python_parser(text)
    return CParser(text)


def _python_parser(text: str) -> Any:
    from yaml.parser import Parser  # see build()
    from yaml.reader import Reader
    from yaml.scanner import Scanner

    class PythonParser(Reader, Scanner, Parser):
        def __init__(self, stream: str) -> None:
            Reader.__init__(self, stream)
            Scanner.__init__(self)
            Parser.__init__(self)

    return PythonParser(text)
