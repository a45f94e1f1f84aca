"""What is wrong with a file that is no YAML, in words that need no knowledge of how a parser works.

The wordings of libyaml and of PyYAML's own parser differ in places; both are known here, others are passed on.
Every function gives line and column, counted from 1, and a sentence.
"""

from __future__ import annotations

from typing import Any

from vigil.model.suggest import quote

_NOT_YAML = "not valid YAML: "


def not_utf8(content: bytes, at: int) -> tuple[int, int, str]:
    """The first byte that is no UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return 1, 1, "is UTF-16 (save it as UTF-8)"
    start = content.rfind(b"\n", 0, at) + 1
    column = len(content[start:at].decode("utf-8", "replace")) + 1
    return (
        content.count(b"\n", 0, at) + 1,
        column,
        f"byte 0x{content[at]:02x} is not valid UTF-8 (save the file as UTF-8)",
    )


def unprintable(text: str) -> tuple[int, int, str]:
    """The first character that YAML does not allow."""
    line, column = 1, 1
    for letter in text:
        if not _allowed(letter):
            break
        if letter == "\n":
            line, column = line + 1, 1
        else:
            column += 1
    else:
        return 1, 1, _NOT_YAML + "a character that it does not allow"
    return (
        line,
        column,
        f"{_NOT_YAML}the character U+{ord(letter):04X} is not allowed (in double quotes write \\x{ord(letter):02x})",
    )


def syntax(error: Any, text: str, last: Any) -> tuple[int, int, str]:
    """A syntax error. ``error`` is yaml's MarkedYAMLError, ``last`` the event of the last scalar before it, if any."""
    problem, context = error.problem or "", error.context or ""
    mark = error.problem_mark or error.context_mark
    letter = text[mark.index : mark.index + 1]
    sentence = _sentence(problem, letter)
    if "unexpected end of stream" in problem and "quoted" in context:
        mark = error.context_mark
        sentence = "this quote is never closed"
    elif error.context_mark is not None and ("expected ',' or" in problem or "got '<stream end>'" in problem):
        sentence += f" in what begins at line {error.context_mark.line + 1}"
    return mark.line + 1, mark.column + 1, _NOT_YAML + sentence + _guess(problem, text, mark.index, last)


def _sentence(problem: str, letter: str) -> str:
    if "cannot start any token" in problem:
        if letter == "\t":
            return "a tab where only spaces may stand (indent with spaces)"
        return f"a text cannot begin with {quote(letter)} (quote it)"
    for words, sentence in (
        (
            "mapping values are not allowed",
            'a ":" that makes no key here (is the line indented wrongly, or a quote missing?)',
        ),
        ("sequence entries are not allowed", 'a list item "- " cannot begin here (put it on a line of its own)'),
        ("mapping keys are not allowed", 'a "?" cannot begin a text here (quote it)'),
        ("expected key", "expected a key here (is the line indented wrongly?)"),
        ("expected <block end>", "expected the next key or item here (is the line indented wrongly?)"),
        ("expected '-' indicator", 'expected the next list item "- " here (is the line indented wrongly?)'),
        ("expected ':'", 'expected a ":" after this'),
        ("expected ',' or ']'", 'expected "," or "]"'),
        ("expected ',' or '}'", 'expected "," or "}"'),
        ("<document start>", "expected nothing more here (is the line indented wrongly?)"),
        (
            "unknown escape character",
            r"an escape that double quotes do not know (write \\ for a backslash, or use single quotes)",
        ),
        ("expected node content", "expected a value here"),
        ("expected the node content", "expected a value here"),
        ("maximum nesting depth", "nested too deep"),
        ("incompatible YAML document", "a version of YAML that is not known"),
    ):
        if words in problem:
            return sentence
    return problem


def _guess(problem: str, text: str, at: int, last: Any) -> str:
    """What happened just before often is the reason."""
    if last is None:
        return ""
    if last.style in ("'", '"'):
        if last.end_mark.line > last.start_mark.line:
            return f" (the quote that opens in line {last.start_mark.line + 1} ends in line {last.end_mark.line + 1})"
        return " (text goes on after the closing quote)" if text[last.end_mark.index : at] == "" else ""
    end = text.find("\n", last.end_mark.index)
    rest = text[last.end_mark.index : end if end >= 0 else len(text)].lstrip(" \t")
    if rest.startswith("#") and ("':'" in problem or "expected" in problem):
        return f" (what follows # in line {last.end_mark.line + 1} is a comment: quote the text if it is not)"
    return ""


def _allowed(letter: str) -> bool:
    return (
        letter in "\t\n\r\x85"
        or " " <= letter <= "~"
        or "\xa0" <= letter <= "\ud7ff"
        or ("\ue000" <= letter <= "\ufffd" and letter != "\ufeff")
        or letter >= "\U00010000"
    )
