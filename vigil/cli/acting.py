"""Commands to services: begin a change, wait for its end, say what became of it."""

from __future__ import annotations

import signal
import time

import msgspec

from vigil.cli.arguments import Arguments
from vigil.cli.terminal import Output, Progress, complain
from vigil.client.client import Client, ended
from vigil.client.errors import ClientError
from vigil.model import api, duration
from vigil.model.errors import VigilError
from vigil.model.states import ChangeStatus

_LOOK = 10.0  # seconds that one question waits for the end
_LOOK_ON_TERMINAL = 0.5  # and where somebody watches

_FAILED = (ChangeStatus.ERROR, ChangeStatus.HOLD)
_DONE = {"start": "started", "stop": "stopped", "restart": "restarted"}


class CommandError(VigilError):
    """A command that failed; the message is complete, and may have several lines."""


def act(told: Arguments, client: Client, output: Output) -> int:
    """Begin what is asked for and wait for it. CommandError says why it failed, with the last output of what did."""
    action = api.ServicesAction(action=told.command, services=told.names, signal=told.signal)  # type: ignore[arg-type] # one of them
    change = client.act(action)
    if told.wait and not ended(change):
        change = _wait(change, told, client)
    if told.format != "table":
        from vigil.cli.commands import result

        result(msgspec.json.encode(change), told.format, output)
    elif not told.wait:
        output.line(f"Change {change.id}: {change.summary} ({change.status.value}).")
    if change.status in _FAILED:
        raise CommandError(_why(change, client))
    if told.wait and told.format == "table":
        for task in change.tasks:
            output.line(f"{task.service}: {_DONE.get(task.kind, 'signal sent')}")
    return 0


def _wait(change: api.Change, told: Arguments, client: Client) -> api.Change:
    began = time.monotonic()
    progress = Progress()
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # there is something to say then
    try:
        while not ended(change):
            look = _LOOK_ON_TERMINAL if progress else _LOOK
            if told.timeout is not None:
                left = told.timeout - (time.monotonic() - began)
                if left <= 0:
                    waited = duration.spell(told.timeout)
                    raise CommandError(
                        f"cannot {told.command} {', '.join(told.names)}: not done after {waited} "
                        f"(it goes on: vigil changes {change.id})"
                    )
                look = min(look, left)
            if progress:
                parts = ", ".join(f"{task.service} {task.status.value}" for task in change.tasks)
                progress.show(f"{change.kind}: {parts or change.summary} ({time.monotonic() - began:.0f}s)")
            change = client.wait(change.id, look)
    except KeyboardInterrupt:
        progress.clear()
        complain(f"vigil: interrupted, the change goes on (vigil changes {change.id})")
        raise
    finally:
        progress.clear()
        signal.signal(signal.SIGINT, interrupt)
    return change


def _why(change: api.Change, client: Client) -> str:
    """A line for each service that failed, with its last lines of output below it."""
    failed = [task for task in change.tasks if task.status in _FAILED]
    if not failed:
        return _sentence(change.kind, "", change.err or "no reason given")
    outputs: dict[str, list[str]] = {}
    if not any(task.err and "\n" in task.err for task in failed):
        try:
            services = client.services([task.service for task in failed])
            outputs = {service.name: service.exit.output for service in services if service.exit is not None}
        except ClientError:
            pass  # the reason is known, the output is an extra
    lines = []
    for task in failed:
        first, *more = (task.err or change.err or "no reason given").split("\n")
        yet = " yet" if task.status is ChangeStatus.HOLD else ""
        lines.append(_sentence(task.kind, task.service + yet, first))
        lines += [f"  {line.removeprefix('  ')}" for line in more or outputs.get(task.service, [])]
    return "\n".join(lines)


def _sentence(kind: str, service: str, why: str) -> str:
    return why if why.startswith("cannot ") else f"cannot {kind}{' ' * bool(service)}{service}: {why}"
