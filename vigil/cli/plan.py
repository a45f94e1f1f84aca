"""``vigil plan``: the plan in force, a plan that is looked at before it is, and how plans are written."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from vigil.cli.acting import CommandError
from vigil.cli.arguments import Arguments
from vigil.cli.terminal import Output, complain, result
from vigil.client.client import Client
from vigil.model import api

_LAYERS = "/etc/vigil/layers"


def plan(told: Arguments, client: Client, output: Output) -> int:
    """Show, check, or print the schema; the last two ask nobody."""
    if told.action == "check":
        return _check(told.folder, output)
    if told.action == "schema":
        from vigil.plan.schema import schema

        return result(msgspec.json.encode(schema()), told.format, output)
    return result(client.get("/v1/plan"), told.format, output)


def tell(problems: Sequence[api.Problem], warnings: Sequence[api.Problem] = ()) -> str:
    """Show on standard error what is wrong, as a compiler would; how many there are, in words."""
    from vigil.plan.problems import shown

    lines = [*(f"warning: {shown(warning)}" for warning in warnings), *(shown(problem) for problem in problems)]
    if lines:
        complain("\n".join(lines))
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _check(given: str | None, output: Output) -> int:
    from vigil.model.errors import PlanError
    from vigil.plan import load, read

    folder = given or os.environ.get("VIGIL_LAYERS") or _LAYERS
    if given and not os.path.exists(given):  # a missing one is an empty plan to vigild; here it is a slip
        raise CommandError(f"cannot check {given}: there is no such directory")
    try:
        loaded = load(read(folder, check=True), check=True)
    except PlanError as bad:
        raise CommandError(f"cannot use the plan in {folder}: {tell(bad.problems, bad.warnings)}") from None
    tell((), loaded.warnings)
    count = "1 service" if len(loaded.services) == 1 else f"{len(loaded.services)} services"
    output.line(f"The plan in {folder} is right: {count}.")
    return 0
