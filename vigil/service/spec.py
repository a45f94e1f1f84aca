"""From a service of the plan to the SPAWN that starts it, and back from a run's note to the service."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vigil.plan import limits
from vigil.plan.types import Service
from vigil.shim.environment import entries
from vigil.shim.environment import inherited as inherited
from vigil.shim.messages import Format, LogMode, SpawnSpec, Step

_LOG_MODES = {"enabled": LogMode.ENABLED, "disabled": LogMode.DISABLED, "passthrough": LogMode.PASSTHROUGH}


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What a run carries with it, for a control whose journal does not know it."""

    service: str


_note = msgspec.msgpack.Decoder(Note).decode


def note(name: str) -> bytes:
    """The note of a run of service ``name``."""
    return msgspec.msgpack.encode(Note(name))


def noted(data: bytes) -> str | None:
    """The service whose run has that note; None where it is none of ours."""
    try:
        return _note(data).service
    except msgspec.MsgspecError:
        return None


def environment(service: Service, base: Mapping[bytes, bytes]) -> list[bytes]:
    """The entries that the service's process gets: ``base``, then what its user implies, then its own."""
    return entries(service.user, service.environment, base)


def captured(service: Service) -> bool:
    """Whether its output is kept in a log."""
    return service.logs_forward != "passthrough"


def log_mode(service: Service) -> LogMode:
    """What becomes of its output."""
    return _LOG_MODES[service.logs_forward]


def spawn(
    service: Service, token: int, order: tuple[int, int], base: Mapping[bytes, bytes], forward_format: Format
) -> SpawnSpec:
    """The start of ``service``, which has a command."""
    assert service.command is not None
    user = service.user if service.user is not None and service.user.switch else None
    return SpawnSpec(
        token=token,
        name=service.name,
        argv=service.command,
        env=environment(service, base),
        cwd=service.working_dir,
        stdin_inherit=service.stdin == "inherit",
        uid=user.uid if user is not None else None,
        gid=user.gid if user is not None else None,
        groups=user.groups if user is not None else (),
        umask=service.umask,
        nice=service.nice,
        oom_score_adj=service.oom_score_adj,
        limits=service.limits,
        stop_signal=service.stop_signal,
        kill_delay=service.kill_delay,
        component=order[0],
        rank=order[1],
        forward=service.forward_signals,
        log_mode=log_mode(service),
        log=service.name if captured(service) else "",
        prefix=f"[{service.name}] ",
        forward_format=forward_format,
        note=note(service.name),
    )


def value_of(service: Service, step: Step) -> str:
    """What a step of a start sets or executes, for the message about one that failed; empty where it is nothing."""
    user = service.user
    match step:
        case Step.EXEC | Step.INTERPRETER:
            return service.command[0] if service.command else ""
        case Step.CHDIR:
            return service.working_dir
        case Step.NICE:
            return str(service.nice)
        case Step.OOM:
            return str(service.oom_score_adj)
        case Step.LIMIT:
            return limits.spell(service.limits)
        case Step.UID:
            return str(user.uid) if user is not None else ""
        case Step.GID:
            return str(user.gid) if user is not None else ""
    return ""
