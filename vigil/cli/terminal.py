"""Where output goes: a terminal gets colours and is kept safe, everything else gets the bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vigil.model.cells import cells, clip

_COLORS = {
    "active": "32",
    "exited": "32",
    "done": "32",
    "starting": "33",
    "stopping": "33",
    "backoff": "33",
    "doing": "33",
    "hold": "33",
    "error": "31",
    "failed": "31",
    "inactive": "2",
    "start": "32",
    "started": "32",
    "stop": "31",
    "stopped": "31",
    "restart": "33",
    "restarted": "33",
    "pending restart": "33",
}

# Of names: neither the red of stderr nor what a terminal may have as its background.
_NAMES = ("36", "32", "35", "34", "33", "96", "92", "95", "94")

# What a terminal acts upon: C0, DEL and C1. A service must not be able to move the cursor of whoever reads its log.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}
_CONTROLS.update({10: "\\n", 13: "\\r"})
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in range(128, 160)}


class Output:
    """Standard output."""

    def __init__(self, color: bool) -> None:
        self._stream = sys.stdout.buffer if sys.stdout is not None else None
        self.terminal = sys.stdout is not None and sys.stdout.isatty()
        self.color = color and self.terminal and os.environ.get("TERM") != "dumb"

    def line(self, text: str) -> None:
        """Write one line."""
        self.safe_line(self.safe(text))

    def safe_line(self, text: str) -> None:
        """Write one line whose parts are safe already, and coloured perhaps."""
        if self._stream is not None:
            self._stream.write(text.encode("utf-8", "replace") + b"\n")

    def raw(self, text: bytes) -> None:
        """Write bytes as they are."""
        if self._stream is not None:
            self._stream.write(text)

    def json(self, text: bytes) -> None:
        """Write JSON and a line end. JSON escapes C0 by itself, but neither DEL nor C1."""
        if self.terminal and not text.isascii():
            text = text.decode("utf-8", "replace").translate(_JSON_CONTROLS).encode()
        self.raw(text.replace(b"\x7f", b"\\u007f") + b"\n")

    def flush(self) -> None:
        """Write out what is held back."""
        if self._stream is not None:
            self._stream.flush()

    def safe(self, text: str) -> str:
        """``text`` as a terminal may get it."""
        return text if not self.terminal or text.isprintable() else text.translate(_CONTROLS)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], colored: int = -1) -> None:
        """Columns that line up. Cells of the column ``colored`` are states."""
        lines = [heads, *([self.safe(cell.replace("\n", " ")) for cell in row] for row in rows)]
        sizes = [[cells(cell) for cell in line] for line in lines]
        widths = [max(column) for column in zip(*sizes, strict=True)]
        for line, taken in zip(lines, sizes, strict=True):
            parts = []
            for number, (cell, size, width) in enumerate(zip(line, taken, widths, strict=True)):
                if number == colored and line is not heads:
                    cell = self.painted(cell, _COLORS.get(cell))
                parts.append(cell + " " * (width - size))
            self.safe_line("  ".join(parts).rstrip())

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values, the values in one column."""
        width = max(len(name) for name, _ in pairs) + 1
        for name, value in pairs:
            self.line(f"{name + ':':<{width}}  {value}")

    def painted(self, text: str, code: str | None) -> str:
        """``text``, which is safe already, in a colour where there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if code and self.color else text

    def named(self, text: str, name: str) -> str:
        """``text`` in the colour of ``name``, the same in every run."""
        return self.painted(text, _NAMES[sum(name.encode()) % len(_NAMES)]) if self.color else text


def result(text: bytes, form: str, output: Output) -> int:
    """Print a result of the API as JSON or YAML, with all that it has, known here or not."""
    import msgspec

    if form == "json":
        output.json(msgspec.json.format(text, indent=2))
    else:
        import yaml

        # Folded lines would be the same to YAML, and not to whoever copies a command.
        shown = yaml.safe_dump(msgspec.json.decode(text), sort_keys=False, allow_unicode=True, width=sys.maxsize)
        output.raw(shown.encode())
    return 0


class Progress:
    """One line on standard error, where that is a terminal, that is gone at the end."""

    def __init__(self) -> None:
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def __bool__(self) -> bool:
        return self._shown

    def show(self, text: str) -> None:
        """Replace what it says."""
        if self._shown:
            try:
                width = os.get_terminal_size(2).columns
            except OSError:
                width = 80
            sys.stderr.write("\r\x1b[K" + clip(text.translate(_CONTROLS), max(10, width - 1)))
            sys.stderr.flush()

    def clear(self) -> None:
        """Take it away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def complain(text: str) -> None:
    """Write to standard error; nothing else is left to do where that fails."""
    try:
        if sys.stderr is not None:
            if sys.stderr.isatty():
                text = "\n".join(line.translate(_CONTROLS) for line in text.split("\n"))
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
    except OSError:
        pass


def blame(text: str) -> None:
    """Complain in the name of this program; lines that are indented belong to the one above."""
    complain("\n".join(line if line[:1] == " " else f"vigil: {line}" for line in text.split("\n")))
