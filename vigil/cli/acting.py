"""Commands to services: begin a change, wait for its end, say what became of it."""

from __future__ import annotations

import signal
import time

from vigil.cli.arguments import Arguments
from vigil.cli.terminal import Output, Progress, complain, result
from vigil.client.client import Client, ended
from vigil.client.errors import ClientError
from vigil.model import api, duration
from vigil.model.errors import VigilError
from vigil.model.states import ChangeStatus

_LOOK = 10.0  # seconds that one question waits for the end
_LOOK_ON_TERMINAL = 0.5  # and where somebody watches
_WATCHED = 3  # services whose state is told while a change runs

_FAILED = (ChangeStatus.ERROR, ChangeStatus.HOLD)
_DONE = {"start": "started", "stop": "stopped", "restart": "restarted"}


class CommandError(VigilError):
    """A command that failed; the message is complete, and may have several lines."""


def act(told: Arguments, client: Client, output: Output) -> int:
    """Begin what is asked for and wait for it. CommandError says why it failed, with the last output of what did."""
    action = api.ServicesAction(action=told.command, services=told.names, signal=told.signal)  # type: ignore[arg-type] # one of them
    change = wait(client.act(action), told, client, f"{told.command} {', '.join(told.names)}")
    if told.format != "table":
        result(client.change_as_sent(change.id), told.format, output)
    elif not told.wait:
        output.line(f"Change {change.id}: {change.summary} ({change.status.value}).")
    if told.wait and told.format == "table":
        for task in change.tasks:
            if task.status is ChangeStatus.DONE:
                output.line(f"{task.service}: {_DONE.get(task.kind, 'signal sent')}")
    if change.status in _FAILED:
        output.flush()
        raise CommandError(why(change, client))
    return 0


def wait(change: api.Change, told: Arguments, client: Client, doing: str) -> api.Change:
    """The change at its end, unless ``--no-wait`` was given. CommandError after ``--timeout``: cannot ``doing``..."""
    if not told.wait:
        return change
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
                        f"cannot {doing}: not done after {waited} (it goes on: vigil changes {change.id})"
                    )
                look = min(look, left)
            change = client.wait(change.id, look)
            if progress and not ended(change):
                progress.show(f"{_going_on(change, client)} ({time.monotonic() - began:.0f}s)")
    except KeyboardInterrupt:
        progress.clear()
        complain(f"vigil: interrupted, the change goes on (vigil changes {change.id})")
        raise
    finally:
        progress.clear()
        signal.signal(signal.SIGINT, interrupt)
    return change


def _going_on(change: api.Change, client: Client) -> str:
    """What is being done, and what it waits for: ``start: web is starting, waits for db; 1 of 3 done``."""
    names = [task.service for task in change.tasks if task.status is ChangeStatus.DOING]
    if not names:
        return f"{change.kind}: {change.summary}"
    parts = []
    try:
        for service in client.services(names[:_WATCHED]):
            waits = f", waits for {' and '.join(service.waiting_for)}" if service.waiting_for else ""
            parts.append(f"{service.name} is {service.current.value}{waits}")
    except ClientError:
        parts = names[:_WATCHED]  # one of them is no longer in the plan, perhaps
    if len(names) > _WATCHED:
        parts.append(f"{len(names) - _WATCHED} more")
    if len(change.tasks) > 1:
        parts.append(f"{len(change.tasks) - len(names)} of {len(change.tasks)} done")
    return f"{change.kind}: {'; '.join(parts)}"


def failed(task: api.Task) -> bool:
    """Whether what was asked of this service was not done."""
    return task.status in _FAILED


def why(change: api.Change, client: Client) -> str:
    """A line for each service that failed, with its last lines of output below it."""
    tasks = [task for task in change.tasks if failed(task)]
    if not tasks:
        return _sentence(change.kind, "", change.err or "no reason given")
    outputs: dict[str, list[str]] = {}
    if not any(task.err and "\n" in task.err for task in tasks):
        try:
            services = client.services([task.service for task in tasks])
            outputs = {service.name: service.exit.output for service in services if service.exit is not None}
        except ClientError:
            pass  # the reason is known, the output is an extra
    lines = []
    for task in tasks:
        first, *more = (task.err or change.err or "no reason given").split("\n")
        yet = " yet" if task.status is ChangeStatus.HOLD else ""
        lines.append(_sentence(task.kind, task.service + yet, first))
        lines += [f"  {line.removeprefix('  ')}" for line in more or outputs.get(task.service, [])]
    return "\n".join(lines)


def _sentence(kind: str, service: str, reason: str) -> str:
    return reason if reason.startswith("cannot ") else f"cannot {kind}{' ' * bool(service)}{service}: {reason}"
