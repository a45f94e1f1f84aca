"""What the commands do, but for those about logs and changes under way."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vigil.cli import moment
from vigil.cli.arguments import CHANGES, Arguments
from vigil.cli.terminal import Output, result
from vigil.client.client import Client
from vigil.client.errors import Refused
from vigil.model import api, duration
from vigil.model.states import ServiceState
from vigil.model.suggest import hint

_REASONS = 3  # of a change, in a line of a table
_OUTPUT = 3  # last lines of a service that does not run


def doing(told: Arguments) -> str:
    """What the command does, to complete "cannot ..."."""
    if told.command == "vigild":
        return "show the state of vigild" if told.action == "status" else f"{told.action} vigild"
    if told.command in CHANGES:
        return f"{told.command} {', '.join(told.names)}"
    if told.command == "changes" and told.change is not None:
        return f"show change {told.change}"
    return {
        "services": "list services",
        "logs": "follow logs" if told.follow else "show logs",
        "changes": "list changes",
        "system-info": "show the system",
        "replan": "replan",
        "plan": f"{told.action} the plan",
        "completion": "print the completion",
    }[told.command]


def run(told: Arguments, client: Client, output: Output) -> int:
    """Do it; the exit code."""
    match told.command:
        case "services":
            return _services(told, client, output)
        case "changes":
            return _changes(told, client, output)
        case "system-info":
            return _system_info(told, client, output)
        case "vigild":
            return _vigild(told, client, output)
        case "logs":
            from vigil.cli import logs

            return logs.show(told, client, output)
        case "replan":
            from vigil.cli import replan

            return replan.replan(told, client, output)
        case "plan":
            from vigil.cli import plan

            return plan.plan(told, client, output)
        case "completion":
            from vigil.cli.completion import script

            output.raw(script(told.action).encode())
            return 0
        case _:
            from vigil.cli import acting

            return acting.act(told, client, output)


def _services(told: Arguments, client: Client, output: Output) -> int:
    if told.format != "table":
        return result(client.get("/v1/services", names=told.names), told.format, output)
    try:
        services = client.services(told.names)
    except Refused as problem:
        near = hint(told.names[0], CHANGES) if problem.status == 404 and told.names and "(" not in str(problem) else ""
        raise Refused(problem.status, problem.kind, f"{problem}{near}") from None  # "services strat web"
    if not services:
        output.line("No services.")
        return 0
    heads = ("Service", "Startup", "Status", "PID", "Uptime", "Restarts", "On-Success", "On-Failure", "Stop-Signal")
    output.table(heads, [_row(service) for service in services], colored=2)
    notes = [note for service in services for note in _notes(service, bool(told.names))]
    if notes:
        output.line("")
    for note in notes:
        output.line(note)
    return 0


def _notes(service: api.Service, asked: bool) -> list[str]:
    """What no column says: why a service is not as it should be, or, where it was ``asked`` for by name, as it is."""
    said = []
    if service.waiting_for:
        said.append(f"waits for {' and '.join(service.waiting_for)}")
    if service.pending_restart:
        said.append("pending restart: it runs with what the plan said before")
    if service.status_text:
        said.append(service.status_text)
    ill = service.current in (ServiceState.BACKOFF, ServiceState.ERROR)
    if (asked or ill) and service.cause and not service.waiting_for:
        said.append(service.cause)
    notes = [f"{service.name}: {'; '.join(said)}"] if said else []
    if asked and service.exit is not None and service.exit.reason not in service.cause:
        notes.append(f"  its last run {service.exit.reason} at {moment.LocalTime()(service.exit.time)}")
    if (asked or ill) and service.exit is not None:
        notes += [f"  {line}" for line in service.exit.output[-_OUTPUT:]]
    return notes


def _row(service: api.Service) -> Sequence[str]:
    return (
        service.name,
        service.startup,
        service.current.value,
        str(service.pid) if service.pid is not None else "-",
        _age(service.current_since) if service.current is ServiceState.ACTIVE else "-",
        str(service.restarts),
        service.on_success,
        service.on_failure,
        service.stop_signal,
    )


def _changes(told: Arguments, client: Client, output: Output) -> int:
    if told.change is None:
        if told.format != "table":
            return result(client.get("/v1/changes"), told.format, output)
        changes = client.changes()
        if not changes:
            output.line("No changes.")
            return 0
        local = moment.LocalTime()
        heads = ("ID", "Status", "Spawn", "Ready", "Summary")
        lines = [
            (c.id, c.status.value, local(c.spawn_time), local(c.ready_time) if c.ready_time else "-", _summary(c))
            for c in changes
        ]
        output.table(heads, lines, colored=1)
        return 0
    if told.format != "table":
        return result(client.change_as_sent(told.change), told.format, output)
    change = client.change(told.change)
    local = moment.LocalTime()
    output.pairs(
        [
            ("ID", change.id),
            ("Kind", change.kind),
            ("Summary", change.summary),
            ("Status", change.status.value),
            ("Cause", change.cause),
            ("Spawn", local(change.spawn_time)),
            ("Ready", local(change.ready_time) if change.ready_time else "-"),
            *([("Error", _first(change.err))] if change.err and not change.tasks else []),
        ]
    )
    if change.tasks:
        output.line("")
        rows = [(task.service, task.kind, task.status.value, _first(task.err)) for task in change.tasks]
        output.table(("Service", "Task", "Status", "Error"), rows, colored=2)
    return 0


def _summary(change: api.Change) -> str:
    reasons = [(task.service, _first(task.err)) for task in change.tasks if task.err]
    if not reasons:
        return f"{change.summary}: {_first(change.err)}" if change.err else change.summary
    if len(change.tasks) == 1:
        return f"{change.summary}: {reasons[0][1]}"
    told = [f"{service} {reason.removeprefix('it ')}" for service, reason in reasons[:_REASONS]]  # "it requires db"
    if len(reasons) > _REASONS:
        told.append(f"and {len(reasons) - _REASONS} more (vigil changes {change.id})")
    return f"{change.summary}: {'; '.join(told)}"


def _first(text: str | None) -> str:
    """The reason without the output that follows it."""
    return text.partition("\n")[0].removesuffix("; its last lines:") if text else "-"


def _system_info(told: Arguments, client: Client, output: Output) -> int:
    if told.format != "table":
        return result(client.get("/v1/system-info"), told.format, output)
    info = client.system_info()
    local = moment.LocalTime()
    output.pairs(
        [
            ("Version", info.version),
            ("Boot-ID", info.boot_id),
            ("Start-Time", local(info.start_time)),
            ("HTTP-Address", info.http_address or "-"),
            ("HTTPS-Address", info.https_address or "-"),
            ("Control-Start-Time", local(info.control_start_time)),
            ("Control-Restarts", str(info.control_restarts)),
            ("Logger-Restarts", str(info.logger_restarts)),
            ("PID1-Version", info.pid1_version),
            ("Last-Upgrade", _upgrade(info.last_upgrade, local)),
        ]
    )
    return 0


def _vigild(told: Arguments, client: Client, output: Output) -> int:
    if told.action == "status":
        if told.format != "table":
            return result(client.get("/v1/system-info"), told.format, output)
        info = client.system_info()
        output.pairs(
            [
                ("Version", info.version),
                ("Boot-ID", info.boot_id),
                ("Uptime", duration.full(time.time() - moment.seconds(info.start_time))),
                ("HTTP-Address", info.http_address or "-"),
                ("HTTPS-Address", info.https_address or "-"),
                ("Control-Restarts", str(info.control_restarts)),
                ("Logger-Restarts", str(info.logger_restarts)),
                ("Last-Upgrade", _upgrade(info.last_upgrade, moment.LocalTime())),
            ]
        )
        return 0
    action = "stop" if told.action == "stop" else "restart"
    answer = client.vigild(action)  # type: ignore[arg-type] # mypy widens the literals
    if told.format != "table":
        return result(answer, told.format, output)
    output.line(f"Daemon {action} initiated.")
    return 0


def _upgrade(last: api.LastUpgrade | None, local: moment.LocalTime) -> str:
    if last is None:
        return "never"
    return f"{local(last.time)} {'ok' if last.ok else f'failed: {last.error}'}"


def _age(since: str) -> str:
    return duration.brief(time.time() - moment.seconds(since))
