"""What the API shows of services and of vigild."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vigil.model import api, say, signals
from vigil.overlord.order import Standing, standing
from vigil.overlord.settings import Settings
from vigil.overlord.steps import grouped, pending
from vigil.overlord.tree import Use
from vigil.plan import Plan
from vigil.service.actor import Actor
from vigil.service.state import LIVE, LastExit, shown
from vigil.shim.messages import Welcome


def services(actors: Sequence[Actor], uses: Mapping[str, Use], start_real_ns: int) -> list[api.Service]:
    """One for each actor. ``start_real_ns``: since when those are as they are that never changed."""
    return [_service(actor, uses.get(actor.name), start_real_ns) for actor in actors]


def _service(actor: Actor, use: Use | None, start_real_ns: int) -> api.Service:
    service, state = actor.service, actor.state
    running = state.phase in LIVE and not state.ended
    return api.Service(
        name=actor.name,
        startup=service.startup,
        current=shown(state),
        current_since=say.timestamp(state.since_real_ns or start_real_ns),
        cause=state.cause,
        waiting_for=list(state.waiting_for),
        status_text=None,
        pid=state.pid or None if running else None,
        restarts=state.restarts,
        exit=_exit(state.exit) if state.exit is not None else None,
        ready=standing(state, service) is Standing.UP,
        stop_signal=signals.name(service.stop_signal),
        on_success=service.on_success.value,
        on_failure=service.on_failure.value,
        pending_restart=pending(state, service),
        cpu=use.cpu if use is not None else None,
        memory=use.memory if use is not None else None,
    )


def _exit(last: LastExit) -> api.Exit:
    return api.Exit(
        code=None if last.signal else last.code,
        signal=signals.name(last.signal) if last.signal else None,
        reason=last.reason,
        time=say.timestamp(last.real_ns),
        output=list(last.output),
    )


def replan(steps: Sequence[api.Step], plan: Plan, change: api.Change | None) -> api.Replan:
    """What a replan does; without a change it is only what it would do."""
    found = grouped(steps)
    return api.Replan(
        dry_run=change is None,
        started=found["start"],
        stopped=found["stop"],
        restarted=found["restart"],
        updated=found["update"],
        pending_restart=found["pending-restart"],
        steps=list(steps),
        warnings=list(plan.warnings),
        change=change,
    )


def system_info(settings: Settings, boot_id: str, welcome: Welcome) -> api.SystemInfo:
    """About vigild as a whole."""
    return api.SystemInfo(
        boot_id=boot_id,
        version=settings.version,
        start_time=say.timestamp(settings.began_real_ns or welcome.start_real_ns),
        http_address=settings.http_address,
        https_address=settings.https_address,
        control_start_time=say.timestamp(welcome.control_real_ns),
        control_restarts=welcome.control_restarts,
        logger_restarts=welcome.logger_restarts,
        pid1_version=welcome.program,
    )
