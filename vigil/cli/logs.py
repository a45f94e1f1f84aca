"""``vigil logs``."""

from __future__ import annotations

import msgspec

from vigil.cli.arguments import Arguments
from vigil.cli.moment import LocalTime
from vigil.cli.terminal import Output, complain
from vigil.client.client import Client, Lagged
from vigil.model.api import LogEntry

_LAST = 100
_LAST_BEFORE_FOLLOWING = 10
_ALL = 10_000_000
_MOST_PARTS = 256  # of one line that are waited for: one of 4 MiB without an end is printed in two


def show(told: Arguments, client: Client, output: Output) -> int:
    """Show what is kept and, with ``-f``, what comes."""
    printer = _Printer(output, told.format)
    count = told.lines
    if count is None:
        count = _ALL if told.since is not None else _LAST_BEFORE_FOLLOWING if told.follow else _LAST
    if told.follow:
        for entry in client.follow(told.names, count, told.since):
            if isinstance(entry, Lagged):
                complain(f"vigil: {entry.count} lines are missing here: they came faster than they could be sent")
            else:
                printer.show(entry)
            output.flush()
        return 0
    entries = client.logs(told.names, count, told.since)
    for entry in entries:
        printer.show(entry)
    printer.finish()
    if not entries and told.format == "text":
        output.line("No log entries.")
    return 0


class _Printer:
    """One line for each line that a service wrote; a very long one comes in several entries."""

    def __init__(self, output: Output, form: str) -> None:
        self._output = output
        self._json = msgspec.json.Encoder() if form == "json" else None
        self._local = LocalTime()
        self._begun: dict[tuple[str, str], list[str]] = {}

    def show(self, entry: LogEntry) -> None:
        if self._json is not None:
            self._output.json(self._json.encode(entry))
            return
        key = (entry.service, entry.stream)
        if entry.partial or self._begun:
            parts = self._begun.setdefault(key, [self._head(entry)])
            parts.append(entry.message)
            if entry.partial and len(parts) <= _MOST_PARTS:
                return
            del self._begun[key]
            self._output.line("".join(parts))
            return
        self._output.line(self._head(entry) + entry.message)

    def finish(self) -> None:
        """Print lines whose end has not come yet."""
        for parts in self._begun.values():
            self._output.line("".join(parts))
        self._begun.clear()

    def _head(self, entry: LogEntry) -> str:
        return f"{self._local(entry.timestamp)} [{entry.service}] [{entry.stream}] "
