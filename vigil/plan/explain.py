"""What is wrong with a file that is no YAML, in words that need no knowledge of how a parser works.

A parser says where it could not go on. What people want to know is what they did, and that often is some lines above:
a colon without a blank, a quote without its end, a line that is indented a little more than its neighbours. So the
text around the place is looked at again, as lines. Where nothing is found there the parser's own words remain.

The wordings of libyaml and of PyYAML's own parser differ in places; both are known here.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from vigil.model.suggest import quote
from vigil.plan.problems import lines_of, secret_line

_NOT_YAML = "not valid YAML: "
_LINE_MAX = 1000  # characters of a line that are looked at


class Told(NamedTuple):
    """A place, counted from 1, how many characters are meant there (0: not known), and a sentence."""

    line: int
    column: int
    text: str
    width: int = 0


def not_utf8(content: bytes, at: int) -> Told:
    """The first byte that is no UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Told(1, 1, "is UTF-16 (save it as UTF-8)")
    start = content.rfind(b"\n", 0, at) + 1
    column = len(content[start:at].decode("utf-8", "replace")) + 1
    text = f"byte 0x{content[at]:02x} is not valid UTF-8 (save the file as UTF-8)"
    return Told(content.count(b"\n", 0, at) + 1, column, text)


def unprintable(text: str) -> Told:
    """The first character that YAML does not allow."""
    at = next((index for index, letter in enumerate(text) if not _allowed(letter)), -1)
    if at < 0:
        return Told(1, 1, _NOT_YAML + "a character that it does not allow")
    before = lines_of(text[:at])
    code = ord(text[at])
    what = f"the character U+{code:04X} is not allowed (delete it, or in double quotes write \\x{code:02x})"
    return Told(len(before), len(before[-1]) + 1, _NOT_YAML + what, 1)


def template(opening: str) -> str:
    """What to say of ``{{`` and ``{%``."""
    return f"{quote(opening)} belongs to a template that was not filled in (vigil reads plain YAML: render it first)"


def syntax(error: Any, text: str, last: Any) -> Told:
    """A syntax error. ``error`` is yaml's MarkedYAMLError, ``last`` the event of the last scalar before it, if any."""
    problem, context = error.problem or "", error.context or ""
    mark = error.problem_mark or error.context_mark
    began = error.context_mark or mark
    lines = [line[:_LINE_MAX] for line in lines_of(text)]
    told = (
        _other_language(lines)
        or _quote_that_runs_on(problem, context, mark, began, lines, last)
        or _first_letter(problem, context, mark, began, lines)
        or _never_closed(problem, mark, began, lines)
        or _colon(problem, mark, lines)
        or _indentation(problem, mark, lines)
    )
    if told is None:
        letter = text[mark.index : mark.index + 1]
        told = Told(mark.line + 1, mark.column + 1, _sentence(problem, letter) + _comment_before(problem, text, last))
    return told._replace(text=_NOT_YAML + told.text)


_CONFLICT = re.compile(r"<{7} |>{7} |={7}$")
_CONFLICT_TEXT = "a conflict of version control that is not resolved (choose one side, and delete the marks)"
_SECTION = re.compile(r"\s*\[[\w:. -]+\]\s*$")
_TEMPLATE_TAG = re.compile(r"\{[%#]")


def _other_language(lines: list[str]) -> Told | None:
    """Things that are no YAML at all, and in which a parser stumbles over something else."""
    first = True
    for number, line in enumerate(lines, 1):
        if _CONFLICT.match(line):
            return Told(number, 1, _CONFLICT_TEXT, len(line))
        tag = _TEMPLATE_TAG.search(line)
        if tag is not None and (not line[: tag.start()].strip() or tag[0] == "{%"):
            return Told(number, tag.start() + 1, template(tag[0]), 2)
        if first and line.strip() and line.lstrip()[0] not in "#;":
            if _SECTION.match(line):
                what = "a section of an INI or TOML file (a layer is YAML: services:, below it names, below those keys)"
                return Told(number, len(line) - len(line.lstrip()) + 1, what, len(line.strip()))
            first = False
    return None


def _quote_that_runs_on(problem: str, context: str, mark: Any, began: Any, lines: list[str], last: Any) -> Told | None:
    if "unexpected end of stream" in problem and "quoted" in context:
        return Told(began.line + 1, began.column + 1, "this quote is never closed (write one at its end)", 1)
    if last is None or last.style not in ("'", '"'):
        return None
    start, end = last.start_mark, last.end_mark
    if end.line > start.line:
        text = f"this quote is closed only in line {end.line + 1}, and more follows there (is its end missing?)"
        return Told(start.line + 1, start.column + 1, text, 1)
    line = _line(lines, end.line)
    rest = line[end.column :]
    if mark.line != end.line or not rest.strip() or rest.strip().startswith((":", "#", ",", "]", "}")):
        return None
    column = end.column + len(rest) - len(rest.lstrip()) + 1
    fix = "quote the whole value, or nothing of it"
    if last.style == "'" and rest[0].isalnum():
        fix = "inside single quotes write '' for one"
    elif last.style == '"' and rest[0].isalnum():
        fix = r"inside double quotes write \" for one"
    return Told(end.line + 1, column, f"text goes on after the closing quote ({fix})", len(rest.strip()))


_CRON = re.compile(r"[*/0-9,-]+(\s+[*/0-9A-Za-z,-]+){4}")


def _first_letter(problem: str, context: str, mark: Any, began: Any, lines: list[str]) -> Told | None:
    """A text without quotes that begins with a letter that means something in YAML."""
    at = mark
    if "cannot start any token" not in problem:
        if not any(words in context for words in ("scanning an alias", "scanning an anchor", "a tag", "a directive")):
            return None
        at = began
    line = _line(lines, at.line)
    letter = line[at.column : at.column + 1]
    if letter == "\t" or not letter:
        return None
    rest = line[at.column :].rstrip()
    if letter == "*" and _CRON.match(rest):
        text = "a schedule of cron is no YAML, and nothing here takes one (checks have a period: write period: 5m)"
        return Told(at.line + 1, at.column + 1, text, len(rest))
    if letter == "%" and at.column == 0:
        return None
    return Told(at.line + 1, at.column + 1, f"a text cannot begin with {quote(letter)} (quote it)", 1)


def _never_closed(problem: str, mark: Any, began: Any, lines: list[str]) -> Told | None:
    """A list or mapping in brackets that is still open where the next key comes."""
    inside = "expected ',' or" in problem or "got '<stream end>'" in problem or "expected node content" in problem
    opening = _line(lines, began.line)[began.column : began.column + 1]
    if not inside or opening not in ("[", "{") or not opening:
        return None
    closing = "]" if opening == "[" else "}"
    if mark.line > began.line:
        return Told(
            began.line + 1, began.column + 1, f"this {quote(opening)} is not closed (write {closing} at its end)", 1
        )
    return Told(mark.line + 1, mark.column + 1, f'expected "," or {quote(closing)} here')


_KEY = re.compile(r"(\s*(?:- +)*)([\w./-]+|\"[^\"]*\"|'[^']*')\s*:(?=\s|$)")
_TOUCHING = re.compile(r"\s*(?:- +)*([\w-]+):(?!//)(?=[^\s:])")


def _colon(problem: str, mark: Any, lines: list[str]) -> Told | None:
    """A colon that makes a key where none can be: in a text, or on a line that belongs to the text above it."""
    if "mapping values are not allowed" not in problem and "could not find expected ':'" not in problem:
        return None
    at, line = mark.line, _line(lines, mark.line)
    if "could not find" in problem:  # the key that lacks its colon is on a line before
        at = mark.line - 1
        while at > 0 and not _line(lines, at).strip():
            at -= 1
        if _KEY.match(_line(lines, at)) is None:
            return _touching(at, lines) or _no_colon(at, lines)
        return None
    own = _KEY.match(line)
    if own is not None and own.end() <= mark.column:
        value = line[own.end() :].strip()
        quoted = value if "'" not in value else value.replace("'", "''")
        short = len(value) <= 60 and not secret_line(line)
        fix = f"quote the whole: '{quoted}'" if short else "quote the whole"
        text = f'a ": " in a text without quotes makes a key ({fix})'
        return Told(mark.line + 1, mark.column + 1, text, 1)
    above = at - 1
    while above >= 0 and (not _line(lines, above).strip() or _line(lines, above).lstrip().startswith("#")):
        above -= 1
    if above < 0:
        return None
    told = _touching(above, lines)
    if told is not None:
        return told
    other = _KEY.match(_line(lines, above))
    if own is None:
        return None
    if other is None:
        return _no_colon(above, lines)
    if len(own[1]) > len(other[1]):
        text = f"{quote(own[2])} is indented deeper than {quote(other[2])} above it, which has a value already"
        return Told(
            at + 1, len(own[1]) + 1, f"{text} (write it below the first letter of {quote(other[2])})", len(own[2])
        )
    return None


def _touching(at: int, lines: list[str]) -> Told | None:
    """``command:nginx``."""
    found = _TOUCHING.match(_line(lines, at))
    if found is None:
        return None
    value = _line(lines, at)[found.end() :].strip()
    fix = f" (write {found[1]}: {value})" if len(value) <= 60 and not secret_line(_line(lines, at)) else ""
    return Told(at + 1, found.end(), f'a ":" makes a key only with a blank behind it{fix}', 1)


def _no_colon(at: int, lines: list[str]) -> Told | None:
    line = _line(lines, at)
    word = line.strip()
    if not word or word[0] in "[]{}#\"'|>":
        return None
    return Told(at + 1, len(line) - len(line.lstrip()) + 1, 'this is no key: a ":" is missing', len(word))


def _indentation(problem: str, mark: Any, lines: list[str]) -> Told | None:
    """A line whose beginning is below none of those above it that are still open."""
    if not any(words in problem for words in ("expected key", "expected <block end>", "expected '-' indicator")):
        return None
    line = _line(lines, mark.line)
    if line[: mark.column].strip():
        return None
    indent = len(line) - len(line.lstrip(" "))
    open_: list[int] = []
    for above in reversed(lines[: mark.line]):
        word = above.lstrip(" ")
        if not word or word.startswith("#"):
            continue
        other = len(above) - len(word)
        if not open_ or other < open_[-1]:
            open_.append(other)
        if other == 0:
            break
    if not open_ or indent in open_ or indent > open_[0]:
        return None
    wanted = " or ".join(map(str, open_))
    text = f"this line begins after {_blanks(indent)}, and the keys above after {wanted} (put it below one of them)"
    return Told(mark.line + 1, indent + 1, text, len(line.strip()))


def _blanks(count: int) -> str:
    return "1 blank" if count == 1 else f"{count} blanks"


def _sentence(problem: str, letter: str) -> str:
    if "cannot start any token" in problem or "tab character that violates" in problem:
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
        ("expected node content", "expected a value here (is there a comma or a bracket too much?)"),
        ("expected the node content", "expected a value here (is there a comma or a bracket too much?)"),
        ("maximum nesting depth", "nested too deep"),
        ("incompatible YAML document", "a version of YAML that is not known"),
    ):
        if words in problem:
            return sentence
    return problem


def _comment_before(problem: str, text: str, last: Any) -> str:
    """What follows a ``#`` often was meant to be text."""
    if last is None or last.style in ("'", '"'):
        return ""
    end = text.find("\n", last.end_mark.index)
    rest = text[last.end_mark.index : end if end >= 0 else len(text)].lstrip(" \t")
    if rest.startswith("#") and ("':'" in problem or "expected" in problem):
        return f" (what follows # in line {last.end_mark.line + 1} is a comment: quote the text if it is not)"
    return ""


def _line(lines: list[str], index: int) -> str:
    return lines[index] if 0 <= index < len(lines) else ""


def _allowed(letter: str) -> bool:
    return (
        letter in "\t\n\r\x85"
        or " " <= letter <= "~"
        or "\xa0" <= letter <= "\ud7ff"
        or ("\ue000" <= letter <= "\ufffd" and letter != "\ufeff")
        or letter >= "\U00010000"
    )
