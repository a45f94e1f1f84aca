"""Where something stands, and everything that was found wrong, so that all of it can be told at once.

A problem is a line ``FILE:LINE:COL: FIELD: what is wrong (the fix)``, and for people the line of the file with a mark
under what is meant. This module owns both forms. An excerpt that may hold a secret is never made: problems go to the
log and to whoever asks for a replan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from vigil.model.api import Problem
from vigil.model.errors import PlanError
from vigil.model.suggest import hint, quote
from vigil.plan.secrets import last_word, looks_secret

if TYPE_CHECKING:
    from vigil.plan.tree import Node

_FIELD_MAX = 200

# Looking for the nearest word takes time that grows with both: a hundred times a thousand words is about a second.
_HINTS_MAX = 100
_KNOWN_MAX = 1000

# Nobody reads more of them, and a file may be one line of 16 MiB with ten thousand problems in it.
_EXCERPTS_MAX = 100
_EXCERPT_MAX = 500

_ANY_KEY = " (vigil plan schema shows all that there are)"

_ABOVE_MAX = 1000  # lines that are looked through for the name that one stands below
_OPEN = frozenset(("access", "override", "user-id", "ca-cert"))  # of an identity: what of it is no secret

_WINDOW = 100  # characters of a line that are shown

_ENDS = "\n\r\x85\u2028\u2029"  # what ends a line in YAML


class Place(msgspec.Struct, frozen=True):
    """A place in a file, counted from 1 as editors do; line 0 is the file as a whole.

    ``width`` characters of that line are meant; 0 where that is not known, or where it is more than one line.
    """

    file: str
    line: int = 0
    column: int = 0
    width: int = 0

    def part(self, start: int, width: int) -> Place:
        """Some of it; ``start`` counts from 0."""
        return Place(self.file, self.line, self.column + start, width)


class _Found(NamedTuple):
    place: Place
    field: str
    text: str


class Problems:
    """Collects errors, unknown keys and warnings of one plan; they come out by file (in merging order) and line."""

    def __init__(self, files: Iterable[str] = ()) -> None:
        self.broken = False
        """Whether a part of the plan could not even be taken apart: references to it cannot be judged."""
        self._files = {file: index for index, file in enumerate(files)}
        self._texts: dict[str, str] = {}
        self._hints_left = _HINTS_MAX
        # Dictionaries, because the same thing may be found twice: through an alias, or on the way through the layers.
        self._errors: dict[_Found, None] = {}
        self._doubts: dict[_Found, str] = {}  # to the field that an unknown key stands in; "" for all others
        self._forbidden: dict[_Found, None] = {}
        self._consequences: dict[_Found, tuple[str, tuple[str, ...]]] = {}
        self._causes: set[tuple[str, str]] = set()
        self._warnings: dict[_Found, None] = {}

    @property
    def right(self) -> bool:
        """Whether there is no error so far."""
        return not self._errors and not self._forbidden and not self._consequences

    def text(self, file: str, text: str) -> None:
        """What is in a file, for excerpts."""
        self._texts[file] = text

    def error(self, place: Place, field: str, text: str) -> None:
        """Something that makes the plan unusable."""
        self._errors[_Found(place, field, text)] = None

    def warn(self, place: Place, field: str, text: str) -> None:
        """Something that is probably not meant as it stands."""
        self._warnings[_Found(place, field, text)] = None

    def hint(self, word: str, known: Collection[str]) -> str:
        """The nearest right word, for the end of a message. Only the first wrong words of a file get one."""
        if not self._hints_left or len(known) > _KNOWN_MAX:
            return ""
        self._hints_left -= 1
        return hint(word, known)

    def forbidden(self, place: Place, field: str, text: str) -> None:
        """Something that vigild, as it is, may not do: a warning where the plan is only checked.

        A plan is checked where an image is built, by a user who is not the one that vigild will run as.
        """
        self._forbidden[_Found(place, field, text)] = None

    def absent(self, what: str, name: str, known: Collection[str]) -> str:
        """A message about a name that nothing has, with the nearest there is, or all."""
        some = ", ".join(sorted(known)[:5]) + (", ..." if len(known) > 5 else "") if known else ""
        fix = self.hint(name, known) or (f" (there is {some})" if some else f" (there are no {what}s)")
        return f"there is no {what} {quote(name)}{fix}"

    def doubt(self, place: Place, field: str, text: str) -> None:
        """Something that is wrong, and that services can start without: an error where the plan is only checked."""
        self._doubts[_Found(place, field, text)] = ""

    def unknown_key(self, place: Place, field: str, key: str, known: Collection[str], value: Node | None) -> None:
        """A key that nobody reads, with what to write instead where that can be guessed."""
        from vigil.plan import foreign  # only wrong plans need it

        advice = foreign.key(key, value, field, known)
        if advice is not None and advice.cause:
            if (place.file, advice.cause) in self._causes:
                return
            self._causes.add((place.file, advice.cause))
        fix = f" ({advice.text})" if advice is not None else self.hint(key, known) or _ANY_KEY
        self._doubts[_Found(place, field, f"unknown key {quote(key)}{fix}")] = field[: -len(key)].rstrip(".")

    def consequence(self, place: Place, field: str, text: str, owner: str, *words: str) -> None:
        """An error that may be due to an unknown key of the field ``owner`` whose message has one of ``words``.

        Where both are errors that one is enough: who misspells ``command`` need not be told that it is missing.
        """
        self._consequences[_Found(place, field, text)] = (owner, words)

    def conclude(self, *, check: bool) -> tuple[Problem, ...]:
        """The warnings, or PlanError with all errors and the warnings."""
        if check:
            errors: list[_Found] = [*self._errors, *self._doubts, *filter(self._stands, self._consequences)]
            warnings: list[_Found] = [*self._warnings, *self._forbidden]
        else:
            errors = [*self._errors, *self._forbidden, *self._consequences]
            warnings = [*self._warnings, *self._doubts]
        if not errors and not warnings:
            return ()
        excerpt = _Excerpts(self._texts)
        told = self._told(errors, excerpt)
        warned = self._told(warnings, excerpt)
        if errors:
            raise PlanError(told, warned)
        return warned

    def _stands(self, found: _Found) -> bool:
        owner, words = self._consequences[found]
        return not any(
            other == owner and any(word in doubt.text for word in words) for doubt, other in self._doubts.items()
        )

    def _told(self, all_found: Iterable[_Found], excerpt: Callable[[_Found], str]) -> tuple[Problem, ...]:
        def key(found: _Found) -> tuple[int, str, int, int]:
            place = found.place
            return (self._files.get(place.file, len(self._files)), place.file, place.line, place.column)

        told = []
        for found in sorted(all_found, key=key):
            place, field, text = found
            if len(field) > _FIELD_MAX:
                field = field[:_FIELD_MAX] + "..."
            line = excerpt(found)
            width = min(place.width, len(line) - place.column + 1) if line else 0
            told.append(
                Problem(
                    file=_printable(place.file),
                    line=place.line,
                    column=place.column,
                    field=_printable(field),
                    message=_printable(text),
                    excerpt=line,
                    width=max(width, 0),
                )
            )
        return tuple(told)


class _Excerpts:
    """Lines of files. They are split only when there is a problem."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._lines: dict[str, list[str]] = {}
        self._left = _EXCERPTS_MAX

    def __call__(self, found: _Found) -> str:
        place = found.place
        if not place.line or not self._left or place.file not in self._texts:
            return ""
        if place.file not in self._lines:
            self._lines[place.file] = lines_of(self._texts[place.file])
        lines = self._lines[place.file]
        line = lines[place.line - 1][:_EXCERPT_MAX] if place.line <= len(lines) else ""
        if (
            not line.strip()
            or place.column > _EXCERPT_MAX
            or secret_line(line)
            or looks_secret(last_word(found.field))
            or _of_secret(lines, place.line)
            or (found.field.startswith("alerts.") and _has_path(line))  # which is often a key there
            or (found.field.startswith("identities.") and last_word(found.field) not in _OPEN)
        ):
            return ""
        self._left -= 1
        return line


def shown(problem: Problem) -> str:
    """All of a problem, for people: its line, the line of the file, and a mark under what is meant.

    What is not printable in the line of the file is made visible, a tab as ``\\t``.
    """
    if not problem.excerpt:
        return str(problem)
    from vigil.model.cells import cells

    at = problem.column - 1
    before, meant, after = (
        problem.excerpt[:at],
        problem.excerpt[at : at + max(problem.width, 1)],
        problem.excerpt[at + max(problem.width, 1) :],
    )
    before, meant, after = _visible(before), _visible(meant), _visible(after.rstrip())
    if len(meant) > _WINDOW:
        meant, after = meant[:_WINDOW] + "...", ""
    room = max(20, _WINDOW - len(meant))
    if len(before) > room:
        before = "..." + before[-room:]
    room = max(20, room - len(before))
    if len(after) > room:
        after = after[:room] + "..."
    mark = "^" * max(cells(meant), 1)
    return f"{problem}\n    {before}{meant}{after}\n    {' ' * cells(before)}{mark}"


def lines_of(text: str) -> list[str]:
    """Lines as YAML counts them: ``splitlines`` knows some ends that YAML does not."""
    text = text.replace("\r\n", "\n")
    for end in _ENDS[1:]:
        text = text.replace(end, "\n")
    return text.split("\n")


def secret_line(line: str) -> bool:
    """Whether a name in the line looks like a secret's, or an address in it has a password."""
    if "://" in line and "@" in line.partition("://")[2]:
        return True
    names = "".join(letter if letter.isalnum() or letter in "_-" else " " for letter in line)
    return any(map(looks_secret, names.split()))


def _of_secret(lines: list[str], number: int) -> bool:
    """Whether the line stands below a name that looks like a secret's: as its value, or as a part of that."""
    indent = _indent(lines[number - 1])
    for above in reversed(lines[max(0, number - _ABOVE_MAX) : number - 1]):
        if above.strip() and _indent(above) < indent:
            return secret_line(above)
    return False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _has_path(line: str) -> bool:
    """Whether a URL in the line goes on behind its host."""
    return any(rest.partition("/")[2][:1].isalnum() or "?" in rest for rest in line.split("://")[1:])


def _printable(text: str) -> str:
    """On one line and without what a terminal acts upon, whatever the names in it hold."""
    return text if text.isprintable() else _visible(text)


def _visible(text: str) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
