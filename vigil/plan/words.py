"""Splits a command as a POSIX shell splits words: quotes, backslashes, comments; no variables, patterns, pipes."""

from __future__ import annotations

import msgspec

from vigil.model.suggest import quote
from vigil.plan.secrets import masked_text, quoted

_BLANKS = " \t\n"


class Word(msgspec.Struct, frozen=True):
    """One word, and where it begins and ends. ``bare``: nothing in it was quoted, so ``[`` can be a bracket."""

    text: str
    bare: bool
    start: int = 0
    end: int = 0


class Part(msgspec.Struct, frozen=True):
    """Some of a text, or what there is to say about it."""

    text: str
    at: int
    width: int


class Words(msgspec.Struct, frozen=True):
    """The words of a text, and what was cut off as comments behind words of the same line (``at``: the first)."""

    words: tuple[Word, ...]
    cut: Part | None = None


class Fault(ValueError):
    """Why a text is no command: a sentence, what to do about it, and what part of it is to blame."""

    def __init__(self, text: str, fix: str, at: int, width: int) -> None:
        super().__init__(text)
        self.fix = f" ({fix})"
        self.at = at
        self.width = width


def split(text: str) -> Words:
    """The words of ``text``; Fault where a quote is not closed or a backslash quotes nothing.

    A ``#`` at the start of a word begins a comment up to the end of the line; a line that holds nothing else is a
    comment on purpose and not reported as ``cut``.
    """
    words: list[Word] = []
    cut: list[Part] = []
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
                cut.append(Part(text[at:stop], at, stop - at))
            at = stop
        elif text.startswith("\\\n", at):  # a line that goes on
            at += 2
        else:
            at = _word(text, at, words)
            line_has_words = True
    if not cut:
        return Words(tuple(words))
    return Words(tuple(words), Part(" ".join(part.text for part in cut), cut[0].at, cut[0].width))


def command(text: str) -> tuple[tuple[str, ...], Part | None]:
    """The argv of a command string, and what was cut off as a comment; Fault.

    ``cmd [ --default args ]`` is ``cmd --default args``: the brackets mark arguments that something else may replace,
    which nothing here does. They are words of their own, unquoted, and the closing one is the last word.
    ``[ -e /file ]``, where the bracket is the program, is left alone.
    """
    found = split(text)
    words = found.words
    if not words:
        if not text.strip():
            raise Fault("is empty", "write the program and its arguments", 0, len(text))
        raise Fault("is nothing but a comment", "quote the # if it is not", 0, len(text))
    opening = [index for index, word in enumerate(words) if word.bare and word.text == "["]
    closing = [index for index, word in enumerate(words) if word.bare and word.text == "]"]
    if (opening or closing) and opening[:1] != [0]:
        if len(opening) != 1 or closing != [len(words) - 1]:
            last = words[max((*opening, *closing))]
            fault, fix = "has brackets other than one [ ... ] at its end", "quote them if they are arguments"
            raise Fault(fault, fix, last.start, last.end - last.start)
        words = words[: opening[0]] + words[opening[0] + 1 : -1]
    if not words[0].text:
        width = words[0].end - words[0].start
        raise Fault("begins with an empty word, which is no program", "write the program", words[0].start, width)
    return tuple(word.text for word in words), found.cut


def _word(text: str, at: int, words: list[Word]) -> int:
    """Appends the word that begins at ``at`` and tells where it ends."""
    parts: list[str] = []
    bare = True
    start, end = at, len(text)
    while at < end and text[at] not in _BLANKS:
        letter = text[at]
        if letter == "'":
            stop = text.find("'", at + 1)
            if stop < 0:
                fault = f"has a ' that is not closed: {quoted(text[at:])}"
                raise Fault(fault, "close it, or write \\' for the letter", at, end - at)
            parts.append(text[at + 1 : stop])
            bare, at = False, stop + 1
        elif letter == '"':
            at = _double_quoted(text, at, parts)
            bare = False
        elif letter == "\\":
            if at + 1 == end:
                raise Fault("ends in a backslash that quotes nothing", "leave it out", at, 1)
            if text[at + 1] != "\n":
                parts.append(text[at + 1])
                bare = False
            at += 2
        else:
            parts.append(letter)
            at += 1
    words.append(Word("".join(parts), bare, start, at))
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
        fault = f'has a " that is not closed: {quoted(text[start:])}'
        raise Fault(fault, 'close it, or write \\" for the letter', start, end - start)
    return at + 1


_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "busybox"))
_OPERATORS = frozenset(
    ("&&", "||", "|", "|&", ";", "&", ">", ">>", "<", "<<", "2>", "2>>", "&>", "2>&1", ">&2", "1>&2")
)
_BUILTINS = frozenset(
    ("cd", "source", ".", "export", "exec", "ulimit", "umask", "set", "trap", "alias", "eval", "unset")
)
_NAME_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_NAME_REST = _NAME_FIRST | frozenset("0123456789")
_AFTER_DOLLAR = _NAME_FIRST | frozenset("({")
_CURLY = "\u201c\u201d\u2018\u2019"
_LETTERS = frozenset(_CURLY + "$`&|;<>~*\\\x07\x08\x0b\x0c\r\x1b{=")  # without any of these there is nothing odd


def oddity(text: str, argv: tuple[str, ...]) -> Part | None:
    """The first thing in a command that only a shell would act upon, or that somebody typed without meaning it.

    No shell reads a command, so such a thing reaches the program as it stands. Where the command runs a shell itself,
    variables and the like are that shell's business. What is in single quotes, or behind a backslash, is meant.
    """
    if argv[0] in _BUILTINS:
        return Part(_shell(argv[0], "is a word of the shell, and no program", text), 0, len(argv[0]))
    if _LETTERS.isdisjoint(text):
        return None
    words = split(text).words
    shell = any(word.text.rpartition("/")[2] in _SHELLS for word in words)
    for index, word in enumerate(words):
        found = _odd_word(text, word, index == 0, shell)
        if found is not None:
            return found
    return None


def _odd_word(text: str, word: Word, first: bool, shell: bool) -> Part | None:
    raw = text[word.start : word.end]

    def all_of_it(what: str) -> Part:
        return Part(what, word.start, word.end - word.start)

    control = next((letter for letter in word.text if letter < " " and letter not in "\t\n"), None)
    if control is not None:
        fix = r"in double quotes a backslash begins an escape: use single quotes, or write \\"
        return all_of_it(f"holds the control character U+{ord(control):04X} ({fix})")
    curly = next((at for at, letter in enumerate(raw) if letter in _CURLY), None)
    if curly is not None:
        return Part(f"{quote(raw[curly])} is no quote here (write \" or ')", word.start + curly, 1)
    if raw.startswith("\\ ") and word.text.startswith(" "):
        fix = "leave the backslash out: in a text without quotes YAML joins the lines"
        return Part(f"a backslash before a blank makes it a part of the next word ({fix})", word.start, 2)
    if "{{" in raw and word.bare:
        return all_of_it(f"{quote(raw)} looks like a template that was not filled in (quote it if it is meant)")
    operator = word.text.rstrip(";") if word.text.endswith(";") and len(word.text) > 1 else ""
    redirection = raw.lstrip("012&").startswith((">", "<")) and len(raw) > 1 and raw[:1] in "012&<>"
    if word.bare and (word.text in _OPERATORS or operator or (redirection and not raw.endswith(">"))):
        sign = ";" if operator else word.text
        at = word.end - 1 if operator else word.start
        return Part(_shell(sign, "is nothing special here: no shell reads the command", text), at, len(sign))
    if first and word.bare and _assignment(word.text):
        fix = f"write environment: {{{word.text.partition('=')[0]}: ...}}"
        return all_of_it(f"{quoted(word.text)} is taken as the program's name ({fix})")
    if word.bare and word.text.startswith(("~/", "/", "./")) and ("*" in word.text or word.text[0] == "~"):
        return all_of_it(_shell(word.text, "is taken as it stands: no shell reads the command", text))
    dollar = None if shell else _substitution(raw)
    if dollar is None:
        return None
    return Part(
        _shell(raw[dollar:], "is taken as it stands: no shell reads the command", text),
        word.start + dollar,
        len(raw) - dollar,
    )


def _shell(word: str, what: str, text: str) -> str:
    fix = f"sh -c '{masked_text(text)}'" if len(text) <= 60 and "'" not in text and "\n" not in text else "sh -c '...'"
    return f"{quoted(word)} {what} (write {fix} if one should)"


def _assignment(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals and name) and name[0] in _NAME_FIRST and not set(name) - _NAME_REST


def _substitution(raw: str) -> int | None:
    """Where a shell would put something else in: ``$NAME``, ``${...}``, ``$(...)``, a backtick."""
    at, single = 0, False
    while at < len(raw):
        letter, following = raw[at], raw[at + 1 : at + 2]
        if letter == "'":
            single = not single
        elif not single and letter == "\\":
            at += 1
        elif not single and (letter == "`" or (letter == "$" and following and following in _AFTER_DOLLAR)):
            return at
        at += 1
    return None
