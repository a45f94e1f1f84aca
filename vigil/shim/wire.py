"""Bytes of the link's messages, made and read with the structs of ``csrc/protocol.h`` itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from vigil._native import ffi, lib
from vigil.model.errors import VigilError
from vigil.shim.messages import (
    Exited,
    Gone,
    LogMode,
    Message,
    Refused,
    Run,
    RunKind,
    RunPhase,
    RunState,
    Settings,
    Signalled,
    SpawnFailed,
    SpawnSpec,
    Started,
    Step,
    StopCause,
    Stopping,
    Target,
    Usage,
    Welcome,
)

MESSAGE_MAX: int = lib.VG_MESSAGE_MAX
BLOB_MAX: int = lib.VG_BLOB_MAX
_TEN_YEARS = 3650 * 86400  # PID 1 takes no longer kill delay


class WireError(VigilError):
    """Bytes that are no message of the contract: PID 1 and control do not belong together, or one has a bug."""

    kind = "wire-error"


class Parked(msgspec.Struct, frozen=True):
    """SNAPSHOT_PARKED: a descriptor comes with it."""

    name: str


class SnapshotEnd(msgspec.Struct, frozen=True):
    """SNAPSHOT_END."""


class Ping(msgspec.Struct, frozen=True):
    """PING: to be answered with PONG of the same value."""

    value: int


Incoming = Message | Welcome | RunState | Parked | SnapshotEnd | Ping

# --- what control sends ---


def hello(settings: Settings) -> bytes:
    """HELLO."""
    message = _new("struct vg_hello", lib.VG_HELLO)
    message.version = lib.VG_PROTOCOL
    message.log_format = settings.log_format
    message.log_level = settings.log_level
    message.watchdog_ms = _milliseconds(settings.watchdog)
    message.forward_format = settings.forward_format
    message.stop_budget_ms = _milliseconds(settings.stop_budget)
    message.forward_stall_ms = _milliseconds(settings.forward_stall)
    return _bytes(message)


def spawn(spec: SpawnSpec) -> tuple[bytes, bytes]:
    """SPAWN and the content of its blob. ValueError where a string holds a NUL or is longer than it may be."""
    environment = environment_entries(spec.env)
    strings = [_text(spec.name), _text(spec.log), _text(spec.prefix), _text(spec.cwd)]
    strings += [_text(word) for word in spec.argv]
    strings += environment
    for string in strings:
        if b"\0" in string:
            raise ValueError("an argument or variable holds a NUL byte")
    if len(strings[0]) > lib.VG_NAME_MAX or len(strings[1]) > lib.VG_NAME_MAX:
        raise ValueError(f"a name is longer than {lib.VG_NAME_MAX} bytes")
    if len(strings[2]) > lib.VG_PREFIX_MAX:
        raise ValueError(f"a prefix is longer than {lib.VG_PREFIX_MAX} bytes")
    if len(spec.note) > lib.VG_NOTE_MAX:
        raise ValueError(f"a note is longer than {lib.VG_NOTE_MAX} bytes")
    blob = _numbers(spec.groups, spec.limits) + b"\0".join(strings) + b"\0"

    message = _new("struct vg_spawn", lib.VG_SPAWN)
    message.token = spec.token
    message.kind = spec.kind
    message.flags = _spawn_flags(spec)
    message.uid, message.gid = spec.uid or 0, spec.gid or 0
    message.umask = spec.umask or 0
    message.nice, message.oom_score_adj = spec.nice or 0, spec.oom_score_adj or 0
    message.stop_signal = spec.stop_signal
    message.kill_delay_ms = _milliseconds(spec.kill_delay)
    message.component, message.rank = spec.component, spec.rank
    message.forward_mask = _mask(spec.forward)
    message.deadline_ns = lib.VG_FOREVER if spec.deadline is None else spec.deadline
    message.log_mode = spec.log_mode
    message.forward_format = spec.forward_format
    message.groups, message.limits = len(spec.groups), len(spec.limits)
    message.argc, message.envc = len(spec.argv), len(environment)
    message.blob_size = len(blob)
    message.note_size = len(spec.note)
    ffi.memmove(message.note, spec.note, len(spec.note))
    return _bytes(message), blob


def update(
    run: Run,
    stop: tuple[int, float | None] | None,
    order: tuple[int, int] | None,
    forward: frozenset[int] | None,
    log_mode: LogMode | None,
) -> bytes:
    """UPDATE of what is not None."""
    message = _about("struct vg_update_run", lib.VG_UPDATE, run)
    if stop is not None:
        message.set |= lib.VG_UPDATE_STOP
        message.stop_signal, message.kill_delay_ms = stop[0], _milliseconds(stop[1])
    if order is not None:
        message.set |= lib.VG_UPDATE_ORDER
        message.component, message.rank = order
    if forward is not None:
        message.set |= lib.VG_UPDATE_FORWARD
        message.forward_mask = _mask(forward)
    if log_mode is not None:
        message.set |= lib.VG_UPDATE_LOG
        message.log_mode = log_mode
    return _bytes(message)


def signal(run: Run, signo: int, target: Target) -> bytes:
    """SIGNAL."""
    message = _about("struct vg_signal", lib.VG_SIGNAL, run)
    message.signal, message.target = signo, target
    return _bytes(message)


def stop(run: Run, token: int = 0) -> bytes:
    """STOP: the stop signal goes to the main process's group first. With NO_RUN it is the run of ``token``."""
    message = _about("struct vg_stop", lib.VG_STOP, run)
    message.target, message.token = lib.VG_GROUP, token
    return _bytes(message)


def release(run: Run) -> bytes:
    """RELEASE."""
    return _bytes(_about("struct vg_release", lib.VG_RELEASE, run))


def park(name: str) -> bytes:
    """PARK: the descriptor goes with it."""
    return _named(lib.VG_PARK, name)


def unpark(name: str) -> bytes:
    """UNPARK."""
    return _named(lib.VG_UNPARK, name)


def ready() -> bytes:
    """READY."""
    return _bytes(_new("struct vg_plain", lib.VG_READY))


def pong(value: int) -> bytes:
    """PONG with the value of a PING."""
    message = _new("struct vg_plain", lib.VG_PONG)
    message.value = value
    return _bytes(message)


def shutdown(code: int, restart: bool) -> bytes:
    """SHUTDOWN."""
    message = _new("struct vg_shutdown_now", lib.VG_SHUTDOWN)
    message.code, message.action = code, lib.VG_RESTART if restart else lib.VG_EXIT
    return _bytes(message)


def environment_entries(env: Mapping[str, str] | Iterable[bytes]) -> list[bytes]:
    """Complete ``KEY=VALUE`` entries."""
    if isinstance(env, Mapping):
        return [_text(f"{key}={value}") for key, value in env.items()]
    return list(env)


def _spawn_flags(spec: SpawnSpec) -> int:
    flags = 0
    for wanted, flag in (
        (spec.ephemeral, lib.VG_EPHEMERAL),
        (spec.ctty, lib.VG_CTTY),
        (spec.uid is not None, lib.VG_SET_USER),
        (spec.umask is not None, lib.VG_SET_UMASK),
        (spec.nice is not None, lib.VG_SET_NICE),
        (spec.oom_score_adj is not None, lib.VG_SET_OOM),
        (spec.stdin_inherit, lib.VG_STDIN_INHERIT),
        (spec.fds[0] is not None, lib.VG_FD_0),
        (spec.fds[1] is not None, lib.VG_FD_1),
        (spec.fds[2] is not None, lib.VG_FD_2),
        (spec.notify is not None, lib.VG_NOTIFY),
    ):
        if wanted:
            flags |= flag
    return flags


def _numbers(groups: Iterable[int], limits: Iterable[tuple[int, int, int]]) -> bytes:
    """The blob's head: groups, padded to 8 bytes, then limits."""
    array = ffi.new("uint32_t[]", list(groups))
    head = bytes(ffi.buffer(array))
    head += bytes(-len(head) % 8)
    rows = ffi.new("struct vg_limit[]", [(resource, 0, soft, hard) for resource, soft, hard in limits])
    return head + bytes(ffi.buffer(rows))


def _new(ctype: str, kind: int) -> Any:
    message = ffi.new(ctype + " *")
    message.head.size = ffi.sizeof(ctype)
    message.head.kind = kind
    return message


def _about(ctype: str, kind: int, run: Run) -> Any:
    message = _new(ctype, kind)
    message.run.slot, message.run.generation = run.slot, run.generation
    return message


def _named(kind: int, name: str) -> bytes:
    encoded = _text(name)
    if not 0 < len(encoded) <= lib.VG_PARK_MAX:
        raise ValueError(f'"{name}" cannot be parked: a name has 1 to {lib.VG_PARK_MAX} bytes')
    message = _new("struct vg_park", kind)
    ffi.memmove(message.name, encoded, len(encoded))
    return _bytes(message)


def _bytes(message: Any) -> bytes:
    return bytes(ffi.buffer(message))


def _text(text: str) -> bytes:
    """UTF-8 whatever the locale, since plans are; bytes that are none come through as they were."""
    return text.encode("utf-8", "surrogateescape")


def _milliseconds(seconds: float | None) -> int:
    """Rounded up, so that a short delay never becomes none. None, like more than PID 1 takes, is for ever."""
    if seconds is None or seconds > _TEN_YEARS:
        return int(lib.VG_FOREVER)
    return math.ceil(seconds * 1000)


def _mask(numbers: Iterable[int]) -> int:
    mask = 0
    for number in numbers:
        mask |= 1 << (number - 1)
    return mask


# --- what PID 1 sends ---


def unpack(data: bytes) -> Incoming:
    """The message in ``data``; WireError where it is none."""
    if len(data) < ffi.sizeof("struct vg_head"):
        raise WireError(f"cannot understand vigild: a message of {len(data)} bytes")
    head = ffi.from_buffer("struct vg_head *", data)
    known = _INCOMING.get(head.kind)
    if known is None:
        raise WireError(f"cannot understand vigild: message of unknown kind {head.kind}")
    ctype, read = known
    if head.size != len(data) or len(data) != ffi.sizeof(ctype):
        raise WireError(f"cannot understand vigild: {ctype} has {len(data)} bytes instead of {ffi.sizeof(ctype)}")
    try:
        return read(ffi.from_buffer(ctype + " *", data))
    except ValueError as unknown:  # a number that is in none of the enums
        raise WireError(f"cannot understand vigild: {ctype}: {unknown}") from unknown


def _run(message: Any) -> Run:
    return Run(message.run.slot, message.run.generation)


def _usage(usage: Any) -> Usage:
    return Usage(usage.user_us / 1e6, usage.system_us / 1e6, usage.max_rss_kb * 1024)


def _string(array: Any) -> str:
    return bytes(ffi.string(array)).decode("utf-8", "surrogateescape")


def _welcome(m: Any) -> Welcome:
    if m.version != lib.VG_PROTOCOL:
        raise WireError(f"cannot attach: vigild speaks version {m.version} of the protocol, control {lib.VG_PROTOCOL}")
    return Welcome(
        flags=m.flags,
        pid=m.pid,
        runs_max=m.runs_max,
        control_restarts=m.control_restarts,
        logger_restarts=m.logger_restarts,
        nofile=(m.nofile_soft, m.nofile_hard),
        start_real_ns=m.start_real_ns,
        control_real_ns=m.control_real_ns,
        program=_string(m.program),
    )


def _snapshot(m: Any) -> RunState:
    return RunState(
        run=_run(m),
        token=m.token,
        kind=RunKind(m.kind),
        state=RunPhase(m.state),
        flags=m.flags,
        pid=m.pid,
        started_real_ns=m.started_real_ns,
        exited_real_ns=m.exited_real_ns,
        code=m.code,
        status=m.status,
        step=Step(m.step),
        error=m.error,
        usage=_usage(m.usage),
        log_mode=LogMode(m.log_mode),
        note=bytes(ffi.buffer(m.note, min(m.note_size, lib.VG_NOTE_MAX))),
    )


def _exited(m: Any) -> Exited:
    return Exited(
        run=_run(m),
        token=m.token,
        code=m.code,
        status=m.status,
        flags=m.flags,
        exited_real_ns=m.exited_real_ns,
        usage=_usage(m.usage),
    )


_INCOMING: dict[int, tuple[str, Callable[[Any], Incoming]]] = {
    lib.VG_WELCOME: ("struct vg_welcome", _welcome),
    lib.VG_SNAPSHOT: ("struct vg_snapshot", _snapshot),
    lib.VG_SNAPSHOT_PARKED: ("struct vg_park", lambda m: Parked(_string(m.name))),
    lib.VG_SNAPSHOT_END: ("struct vg_plain", lambda _: SnapshotEnd()),
    lib.VG_STARTED: (
        "struct vg_started",
        lambda m: Started(run=_run(m), token=m.token, pid=m.pid, keeper=m.keeper, started_real_ns=m.started_real_ns),
    ),
    lib.VG_SPAWN_FAILED: (
        "struct vg_spawn_failed",
        lambda m: SpawnFailed(run=_run(m), token=m.token, step=Step(m.step), error=m.error),
    ),
    lib.VG_REFUSED: (
        "struct vg_refused",
        lambda m: Refused(run=_run(m), token=m.token, kind=m.kind, error=m.error),
    ),
    lib.VG_EXITED: ("struct vg_exited", _exited),
    lib.VG_STOPPING: (
        "struct vg_stopping",
        lambda m: Stopping(run=_run(m), token=m.token, cause=StopCause(m.cause)),
    ),
    lib.VG_GONE: ("struct vg_gone", lambda m: Gone(run=_run(m), token=m.token, flags=m.flags)),
    lib.VG_SIGNALLED: (
        "struct vg_signalled",
        lambda m: Signalled(frozenset(number for number in range(1, 65) if m.mask >> (number - 1) & 1)),
    ),
    lib.VG_PING: ("struct vg_plain", lambda m: Ping(m.value)),
}
