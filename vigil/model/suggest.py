"""How messages show a wrong word, and which right one they propose."""

from __future__ import annotations

from collections.abc import Iterable


def quote(text: str) -> str:
    """``text`` in double quotes, on one line and at most some sixty characters long, whatever it holds."""
    if len(text) > 60:
        text = text[:57] + "..."
    return '"' + "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text) + '"'


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``word`` was probably meant to be, or None where none is near. The first wins a tie."""
    best, best_distance = None, max(1, min(3, len(word) // 3)) + 1
    lowered = _plain(word)
    for candidate in known:
        plain = _plain(candidate)
        if plain == lowered:
            return candidate
        if abs(len(plain) - len(lowered)) >= best_distance:
            continue
        distance = _distance(lowered, plain, best_distance)
        # A word of two letters is at distance 2 of every other: at least half of it must be right.
        if distance < best_distance and distance * 2 <= max(len(plain), len(lowered)):
            best, best_distance = candidate, distance
    return best


def hint(word: str, known: Iterable[str]) -> str:
    """`` (did you mean "right"?)`` to put at the end of a message, or nothing."""
    found = nearest(word, known)
    return f" (did you mean {quote(found)}?)" if found is not None else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")


def _distance(left: str, right: str, enough: int) -> int:
    """How many letters to insert, drop, change or swap with their neighbour; ``enough`` or more is not told apart."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        above, before = before, row
        row = [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == right[j - 2] and left[i - 2] == other:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
        # A swap looks two rows back, so both must be too far before all that follows is.
        if min(row) >= enough and min(before) >= enough:
            return enough
    return row[-1]
