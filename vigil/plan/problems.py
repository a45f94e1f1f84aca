"""Where something stands, and everything that was found wrong, so that all of it can be told at once.

A problem is a line ``FILE:LINE:COL: FIELD: what is wrong (the fix)``. This module owns that form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from vigil.model.errors import PlanError
from vigil.model.suggest import hint, quote

_FIELD_MAX = 200

# Looking for the nearest word takes time that grows with both: a hundred times a thousand words is about a second.
_HINTS_MAX = 100
_KNOWN_MAX = 1000


class Place(msgspec.Struct, frozen=True):
    """A place in a file, counted from 1 as editors do; line 0 is the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problems:
    """Collects errors, unknown keys and warnings of one plan; they come out by file (in merging order) and line."""

    def __init__(self, files: Iterable[str] = ()) -> None:
        self.broken = False
        """Whether a part of the plan could not even be taken apart: references to it cannot be judged."""
        self._files = {file: index for index, file in enumerate(files)}
        self._hints_left = _HINTS_MAX
        self._errors: dict[str, Place] = {}
        self._unknown: dict[str, Place] = {}
        self._warnings: dict[str, Place] = {}

    def error(self, place: Place, field: str, text: str) -> None:
        """Something that makes the plan unusable."""
        self._errors[_line(place, field, text)] = place

    def warn(self, place: Place, field: str, text: str) -> None:
        """Something that is probably not meant as it stands."""
        self._warnings[_line(place, field, text)] = place

    def hint(self, word: str, known: Collection[str]) -> str:
        """The nearest right word, for the end of a message. Only the first wrong words of a file get one."""
        if not self._hints_left or len(known) > _KNOWN_MAX:
            return ""
        self._hints_left -= 1
        return hint(word, known)

    def unknown_key(self, place: Place, field: str, key: str, known: Collection[str]) -> None:
        """A key that nobody reads: a warning, or an error where the plan is only checked."""
        self._unknown[_line(place, field, f"unknown key {quote(key)}{self.hint(key, known)}")] = place

    def conclude(self, *, check: bool) -> tuple[str, ...]:
        """The warnings, or PlanError with all errors and the warnings."""
        errors = {**self._errors, **self._unknown} if check else self._errors
        warnings = self._sorted(self._warnings if check else {**self._warnings, **self._unknown})
        if errors:
            raise PlanError(self._sorted(errors), warnings)
        return warnings

    def _sorted(self, lines: dict[str, Place]) -> tuple[str, ...]:
        def key(item: tuple[str, Place]) -> tuple[int, str, int, int]:
            place = item[1]
            return (self._files.get(place.file, len(self._files)), place.file, place.line, place.column)

        return tuple(line for line, _ in sorted(lines.items(), key=key))


def _line(place: Place, field: str, text: str) -> str:
    """One line, whatever the names in it hold."""
    if len(field) > _FIELD_MAX:
        field = field[:_FIELD_MAX] + "..."
    line = f"{place}: {field}: {text}" if field else f"{place}: {text}"
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
