"""``vigil replan``: what the new plan made of the services, or would make of them, and why."""

from __future__ import annotations

import msgspec

from vigil.cli import acting
from vigil.cli.arguments import Arguments
from vigil.cli.terminal import Output, blame, result
from vigil.client.client import Client, ended
from vigil.model import api

WAITING = "wait for what the new plan, which is in force, starts and stops"
_PAST = {"start": "started", "stop": "stopped", "restart": "restarted", "update": "updated"}


def replan(told: Arguments, client: Client, output: Output) -> int:
    """Do it and wait for what follows from it. Services that fail afterwards are told, and are no failure of this."""
    raw = client.replan(api.ReplanAction(dry_run=told.dry_run, no_restart=told.no_restart))
    done = client.typed(raw, api.Replan)
    change = done.change
    if done.warnings:
        from vigil.cli import plan

        plan.tell((), done.warnings)
    if change is not None:
        change = acting.wait(change, told, client, WAITING)
    if told.format != "table":
        whole = msgspec.json.decode(raw)
        if change is not None:
            whole["change"] = msgspec.Raw(client.change_as_sent(change.id))
        result(msgspec.json.encode(whole), told.format, output)
    else:
        _table(done, change, output)
    if change is not None and any(acting.failed(task) for task in change.tasks):
        output.flush()
        blame(acting.why(change, client))
    return 0


def _table(done: api.Replan, change: api.Change | None, output: Output) -> None:
    if done.dry_run:
        output.line("Nothing was done. A replan would do this:" if done.steps else "A replan would change nothing.")
    elif change is not None and not ended(change):
        output.line(f"Replan completed; what it starts and stops goes on (vigil changes {change.id}).")
    else:
        output.line("Replan completed." if done.steps else "Replan completed. Nothing has changed.")
    if done.steps:
        failed = {task.service for task in change.tasks if acting.failed(task)} if change is not None else set()
        going_on = done.dry_run or change is None or not ended(change)
        rows = [
            (
                step.service,
                "failed" if step.service in failed else _word(step.action, going_on),
                "; ".join(step.why),
            )
            for step in done.steps
        ]
        output.line("")
        output.table(("Service", "Action", "Why"), rows, colored=1)


def _word(action: str, going_on: bool) -> str:
    return action.replace("-", " ") if going_on else _PAST.get(action, action.replace("-", " "))
