"""``vigil logs``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from vigil.cli.arguments import Arguments
from vigil.cli.moment import LocalTime
from vigil.cli.terminal import Output, complain
from vigil.client.client import Client, Lagged, Restarted
from vigil.client.errors import ClientError
from vigil.model.api import LogEntry

_LAST = 100
_LAST_BEFORE_FOLLOWING = 10
_ALL = 10_000_000
_MOST_PARTS = 256  # of one line that are waited for: one of 4 MiB without an end is printed in two
_DIM, _RED = "2", "31"


def show(told: Arguments, client: Client, output: Output) -> int:
    """Show what is kept and, with ``-f``, what comes."""
    printer = _Printer(output, told.format)
    count = told.lines
    if count is None:
        count = _ALL if told.since is not None else _LAST_BEFORE_FOLLOWING if told.follow else _LAST
    if told.follow:
        if told.names:
            _explain_passthrough(told.names, client)
        reader = sys.stdout.fileno() if sys.stdout is not None else None
        for event in client.follow(told.names, count, told.since, reader=reader):
            match event:
                case Lagged():
                    complain(f"vigil: {event.count} lines are missing here: they came faster than they could be sent")
                case Restarted():
                    printer.finish()
                    output.flush()
                    complain("vigil: vigild was restarted; what follows was written since")
                case _:
                    printer.show(event)
            output.flush()
        return 0
    entries = client.logs(told.names, count, told.since)
    for entry in entries:
        printer.show(entry)
    printer.finish()
    if not entries:
        if told.format == "text":
            output.line("No log entries.")
            output.flush()
        _explain_passthrough(told.names, client)
    return 0


def _explain_passthrough(names: Sequence[str], client: Client) -> None:
    """Say of which services there cannot be any entries. It is an extra: where it cannot be found out, nothing."""
    try:
        silent = client.passthrough(names)
    except ClientError:
        return
    if silent:
        what = "writes" if len(silent) == 1 else "write"
        complain(f"vigil: {', '.join(silent)} {what} to vigild's own output, past its logs (logs-forward: passthrough)")


class _Printer:
    """One line for each line that a service wrote; a very long one comes in several entries."""

    def __init__(self, output: Output, form: str) -> None:
        self._output = output
        self._json = msgspec.json.Encoder() if form == "json" else None
        self._local = LocalTime()
        self._begun: dict[tuple[str, str], list[str]] = {}
        self._heads: dict[tuple[str, str], str] = {}

    def show(self, entry: LogEntry) -> None:
        if self._json is not None:
            self._output.json(self._json.encode(entry))
            return
        key = (entry.service, entry.stream)
        if entry.partial or self._begun:
            parts = self._begun.setdefault(key, [self._head(entry)])
            parts.append(self._output.safe(entry.message))
            if entry.partial and len(parts) <= _MOST_PARTS:
                return
            del self._begun[key]
            self._output.safe_line("".join(parts))
            return
        self._output.safe_line(self._head(entry) + self._output.safe(entry.message))

    def finish(self) -> None:
        """Print lines whose end has not come yet."""
        for parts in self._begun.values():
            self._output.safe_line("".join(parts))
        self._begun.clear()

    def _head(self, entry: LogEntry) -> str:
        """Time, service and stream: dim, in the colour of the service, and red for stderr."""
        output = self._output
        key = (entry.service, entry.stream)
        if key not in self._heads:
            service = output.named(output.safe(f"[{entry.service}]"), entry.service)
            stream = output.painted(output.safe(f"[{entry.stream}]"), _RED if entry.stream == "stderr" else _DIM)
            self._heads[key] = f"{service} {stream} "
        return f"{output.painted(output.safe(self._local(entry.timestamp)), _DIM)} {self._heads[key]}"
