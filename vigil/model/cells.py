"""How many columns of a terminal a text takes."""

from __future__ import annotations


def cells(text: str) -> int:
    """Columns of ``text``: two for a wide character, none for one that joins the letter before it."""
    if text.isascii():
        return len(text)
    import unicodedata  # a megabyte of tables that hardly any text needs

    total = 0
    for letter in text:
        if unicodedata.category(letter) not in ("Mn", "Me", "Cf"):
            total += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
    return total


def clip(text: str, width: int) -> str:
    """The beginning of ``text`` that fits into ``width`` columns."""
    if text.isascii():
        return text[:width]
    end, total = 0, 0
    for letter in text:
        total += cells(letter)
        if total > width:
            break
        end += 1
    return text[:end]
