"""Splits a command as a POSIX shell splits words: quotes, backslashes, comments; no variables, patterns, pipes."""

from __future__ import annotations

import msgspec

from vigil.model.suggest import quote

_BLANKS = " \t\n"


class Word(msgspec.Struct, frozen=True):
    """One word. ``bare``: nothing in it was quoted, so ``[`` can be a bracket."""

    text: str
    bare: bool


class Words(msgspec.Struct, frozen=True):
    """The words of a text, and what was cut off as comments behind words of the same line."""

    words: tuple[Word, ...]
    cut: str = ""


def split(text: str) -> Words:
    """The words of ``text``; ValueError where a quote is not closed or a backslash quotes nothing.

    A ``#`` at the start of a word begins a comment up to the end of the line; a line that holds nothing else is a
    comment on purpose and not reported as ``cut``.
    """
    words: list[Word] = []
    cut: list[str] = []
    at, end = 0, len(text)
    line_has_words = False
    while at < end:
        letter = text[at]
        if letter in _BLANKS:
            line_has_words = line_has_words and letter != "\n"
            at += 1
        elif letter == "#":
            stop = text.find("\n", at)
            stop = end if stop < 0 else stop
            if line_has_words:
                cut.append(text[at:stop])
            at = stop
        elif text.startswith("\\\n", at):  # a line that goes on
            at += 2
        else:
            at = _word(text, at, words)
            line_has_words = True
    return Words(tuple(words), " ".join(cut))


def command(text: str) -> tuple[tuple[str, ...], str]:
    """The argv of a command string, and what was cut off as a comment; ValueError is a sentence.

    ``cmd [ --default args ]`` is ``cmd --default args``: the brackets mark arguments that something else may replace,
    which nothing here does. They are words of their own, unquoted, and the closing one is the last word.
    ``[ -e /file ]``, where the bracket is the program, is left alone.
    """
    found = split(text)
    words = found.words
    if not words:
        raise ValueError("is empty" if not text.strip() else "is nothing but a comment (quote the # if it is not)")
    opening = [index for index, word in enumerate(words) if word.bare and word.text == "["]
    closing = [index for index, word in enumerate(words) if word.bare and word.text == "]"]
    if (opening or closing) and opening[:1] != [0]:
        if len(opening) != 1 or closing != [len(words) - 1]:
            raise ValueError("has brackets other than one [ ... ] at its end (quote them if they are arguments)")
        words = words[: opening[0]] + words[opening[0] + 1 : -1]
    if not words[0].text:
        raise ValueError("begins with an empty word, which is no program")
    return tuple(word.text for word in words), found.cut


def _word(text: str, at: int, words: list[Word]) -> int:
    """Appends the word that begins at ``at`` and tells where it ends."""
    parts: list[str] = []
    bare = True
    end = len(text)
    while at < end and text[at] not in _BLANKS:
        letter = text[at]
        if letter == "'":
            stop = text.find("'", at + 1)
            if stop < 0:
                raise ValueError(f"has a ' that is not closed: {quote(text[at:])}")
            parts.append(text[at + 1 : stop])
            bare, at = False, stop + 1
        elif letter == '"':
            at = _double_quoted(text, at, parts)
            bare = False
        elif letter == "\\":
            if at + 1 == end:
                raise ValueError("ends in a backslash that quotes nothing")
            if text[at + 1] != "\n":
                parts.append(text[at + 1])
                bare = False
            at += 2
        else:
            parts.append(letter)
            at += 1
    words.append(Word("".join(parts), bare))
    return at


def _double_quoted(text: str, start: int, parts: list[str]) -> int:
    """A backslash is one, unless it stands before one of the five that it quotes."""
    at, end = start + 1, len(text)
    while at < end and text[at] != '"':
        if text[at] == "\\" and at + 1 < end and text[at + 1] in '$`"\\\n':
            if text[at + 1] != "\n":
                parts.append(text[at + 1])
            at += 2
        else:
            parts.append(text[at])
            at += 1
    if at == end:
        raise ValueError(f'has a " that is not closed: {quote(text[start:])}')
    return at + 1
