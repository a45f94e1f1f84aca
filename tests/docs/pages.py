"""What a page shows: its fenced blocks, the commands in them, and whether an output is the one that is shown.

The convention, which is plain Markdown:

* ``console``: a line ``$ command`` and below it what the command prints, on both outputs. A command that ends in a
  backslash, or begins a here-document, goes on in the next lines. ``...`` stands for what varies: within a line for any
  part of it, alone for any number of lines. Times, process ids, uptimes, boot-ids and sequence numbers are shown as one
  run gave them, and any other of the same shape is right too. ``^C`` as the last line: somebody pressed it then.
* ``yaml``, ``dockerfile``, ``text``: a block whose first line is a comment that holds nothing but a path, as in
  ``# /etc/vigil/layers/10-app.yaml``, is the file of that name (``text`` needs one). Any other ``yaml`` is a plan, the
  keys of one service, or a manifest of Kubernetes.

There is no other kind of block: what stands on a page is tested or refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("console", "yaml", "dockerfile", "text")
PAGES = (ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "architecture.md"))

_FENCE = re.compile(r"```([^`]*)")
_PATH = re.compile(r"# ((?:/|\.?[\w-]+(?=[/.]))[\w./-]*|[A-Z]\w+)")
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")


class PageError(Exception):
    """A page has something that no test would look at."""


@dataclass(frozen=True)
class Example:
    """A command and what it prints."""

    where: str  # PAGE:LINE
    command: str
    output: list[str]
    interrupted: bool  # with Ctrl-C, once the output is there


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    where: str
    language: str
    text: str

    @property
    def path(self) -> str | None:
        """The file that the block is, where its first line names one."""
        found = _PATH.fullmatch(self.text.partition("\n")[0])
        return found[1] if found and self.language != "console" else None

    def examples(self) -> list[Example]:
        """The commands of a console block."""
        page, _, number = self.where.rpartition(":")
        found: list[Example] = []
        lines = self.text.removesuffix("\n").split("\n")
        at = 0
        while at < len(lines):
            if not lines[at].startswith("$ "):
                raise PageError(
                    f"{page}:{int(number) + at}: a console block begins with a command, after a $ and a blank"
                )
            begin = at
            command = [lines[at][2:]]
            here = _HERE.search(command[0])
            while at + 1 < len(lines) and (command[-1].endswith("\\") or (here and command[-1] != here[2])):
                at += 1
                command.append(lines[at])
            at += 1
            output = []
            while at < len(lines) and not lines[at].startswith("$ "):
                output.append(lines[at].rstrip())
                at += 1
            interrupted = output[-1:] == ["^C"]
            text = "\n".join(command)
            found.append(
                Example(f"{page}:{int(number) + begin}", text, output[:-1] if interrupted else output, interrupted)
            )
        return found


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order; PageError where something looks like one and is none that can be tested."""
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        where = f"{name}:{at + 1}"
        at += 1
        if re.match(r"( {4}|\t)\S", line) or "<pre" in line or "~~~" in line:
            raise PageError(f"{where}: code stands in a fenced block of its own, else nothing tests it")
        if "```" not in line:
            continue
        fence = _FENCE.fullmatch(line)
        if fence is None:
            raise PageError(f"{where}: a fence begins its line")
        if fence[1] not in LANGUAGES:
            raise PageError(
                f"{where}: nobody tests a block of {fence[1] or 'no language'} (there are {', '.join(LANGUAGES)})"
            )
        begin = at
        while at < len(lines) and lines[at] != "```":
            at += 1
        if at == len(lines):
            raise PageError(f"{where}: the block has no end")
        block = Block(f"{name}:{begin + 1}", fence[1], "".join(f"{text}\n" for text in lines[begin:at]))
        if block.language == "text" and block.path is None:
            raise PageError(f"{where}: a text is a file, which its first line names in a comment")
        found.append(block)
        at += 1
    return found


# What differs from one run to the next.
_SHAPES = (
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
    r"\d+d \d+h \d+m \d+s",
    r"after \d+m?s\b",
    r"(?<![\w-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?:-\d+)?",
)
_NUMBERS = r'(?P<name>\bpid[= ]|"(?:pid|seq|cpu|memory)": ?)[\d.]+'
_VARIES = re.compile(
    "|".join((r"(?P<dots>\.\.\.)", *(f"(?P<s{i}>{shape})" for i, shape in enumerate(_SHAPES)), _NUMBERS))
)
_CELLS = {"PID": r"\d+", "Uptime": r"(?:\d+[dhms] ?){1,2}"}


def matches(output: list[str], shown: list[str]) -> bool:
    """Whether ``output`` is what a page shows."""
    head: str | None = None
    pattern = ""
    for line in shown:
        if line == "...":
            pattern += r"(?:.*\n)+?"
            continue
        head = line if re.match(r"Service +Startup ", line) else head if line else None
        pattern += _line(line, head if head is not line else None) + r" *\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in output)) is not None


def _line(line: str, head: str | None) -> str:
    """A pattern for one line that is shown; ``head`` is that of the table in which it stands."""
    pieces: dict[int, tuple[int, str]] = {}  # where one begins, where it ends, what is right there
    for name, shape in _CELLS.items() if head else ():
        assert head is not None
        start = head.find(name)
        cell = re.compile(shape).match(line, start) if start >= 0 else None
        if cell:
            pieces[start] = (start + len(cell[0].rstrip()), shape)
    for found in _VARIES.finditer(line):
        kind = found.lastgroup
        if kind == "dots":
            right = ".*?"
        elif kind == "name":
            right = _literal(found["name"]) + r"[\d.]+"
        else:
            assert kind is not None
            right = _SHAPES[int(kind[1:])]
        pieces[found.start()] = (found.end(), right)
    pattern, at = "", 0
    for start, (end, right) in sorted(pieces.items()):
        pattern += _literal(line[at:start]) + right
        at = end
    return pattern + _literal(line[at:])


def _literal(text: str) -> str:
    """Columns are as wide as what stands in them: two blanks stand for two or more."""
    return re.sub(r"(?:\\ ){2,}", lambda _: " {2,}", re.escape(text))
