"""What does not fit its declared type, told in the words of users: msgspec's messages speak of Python and of paths."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from vigil.model.suggest import hint, quote

_PLACE = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$?(?P<path>[^`]*)`)?", re.DOTALL)
_WORD = re.compile(r"[Ii]nvalid enum value '(.*)'", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_TYPES = re.compile(r"`([a-z| ]+)`")
_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def explain(problem: msgspec.ValidationError, shape: type[msgspec.Struct]) -> str:
    """One clause that names the field and what could stand there."""
    place = _PLACE.fullmatch(str(problem))
    assert place is not None  # every part of the pattern may be empty
    what, path = place["what"], (place["path"] or "").removeprefix(".")
    fields = [field.encode_name for field in msgspec.structs.fields(shape)]
    if word := _WORD.fullmatch(what):
        choices = _choices(shape, path)
        listed = " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1]))) if choices else "one of its values"
        return f"{path}: {quote(word[1])} is not {listed}{hint(word[1], choices)}"
    if unknown := _UNKNOWN.fullmatch(what):
        known = f" (there are {', '.join(fields)})" if fields and not path else ""
        return f"{quote(unknown[1])} is not a field{hint(unknown[1], fields) or known}"
    if missing := _MISSING.fullmatch(what):
        return f"the field {quote(missing[1])} is missing"
    told = _TYPES.sub(_name, what[:1].lower() + what[1:])
    return f"{path}: {told}" if path else told


def _name(types: re.Match[str]) -> str:
    words = [word.strip() for word in types[1].split("|")]
    return " or ".join(_NAMES.get(word, word) for word in words)


def _choices(shape: type[msgspec.Struct], path: str) -> list[str]:
    for field in msgspec.structs.fields(shape):
        if field.encode_name == path:
            return _literals(get_type_hints(shape)[field.name])
    return []


def _literals(type_: Any) -> list[str]:
    if get_origin(type_) is Literal:
        return [str(choice) for choice in get_args(type_)]
    return [choice for part in get_args(type_) for choice in _literals(part)]
