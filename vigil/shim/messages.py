"""What control and PID 1 tell each other, in Python's types. ``csrc/protocol.h`` is the contract behind it.

Times are nanoseconds: ``*_real_ns`` since the epoch, ``deadline`` on CLOCK_MONOTONIC. Durations are seconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Protocol

import msgspec

from vigil._native import lib
from vigil.model import signals


class RunKind(IntEnum):
    """What a run is for."""

    SERVICE = lib.VG_SERVICE
    PROBE = lib.VG_PROBE
    SESSION = lib.VG_SESSION


class RunPhase(IntEnum):
    """Where a run is; later ones come later."""

    STARTING = lib.VG_RUN_STARTING  # its keeper is there, the command is not executed yet
    RUNNING = lib.VG_RUN_RUNNING
    EXITED = lib.VG_RUN_EXITED  # the main process ended, something of its tree may be left
    FAILED = lib.VG_RUN_FAILED  # the command could not be executed; nothing is left
    GONE = lib.VG_RUN_GONE  # nothing is left


class LogMode(IntEnum):
    """What becomes of a run's output."""

    NONE = lib.VG_LOG_NONE
    ENABLED = lib.VG_LOG_ENABLED
    DISABLED = lib.VG_LOG_DISABLED
    PASSTHROUGH = lib.VG_LOG_PASSTHROUGH


class Format(IntEnum):
    """How a line is forwarded."""

    TEXT = lib.VG_FORMAT_TEXT
    TIMESTAMP = lib.VG_FORMAT_TIMESTAMP
    JSON = lib.VG_FORMAT_JSON
    RAW = lib.VG_FORMAT_RAW


class Target(IntEnum):
    """Whom a signal is for."""

    MAIN = lib.VG_MAIN
    GROUP = lib.VG_GROUP
    TREE = lib.VG_TREE


class StopCause(IntEnum):
    """Why PID 1 stops a run."""

    ASKED = lib.VG_STOP_ASKED
    WHOLE = lib.VG_STOP_WHOLE  # everything is being stopped
    ENDED = lib.VG_STOP_ENDED  # the main process ended by itself
    DEADLINE = lib.VG_STOP_DEADLINE
    ORPHANED = lib.VG_STOP_ORPHANED  # control went, and the run was its own


class Step(IntEnum):
    """Which step of a start failed."""

    NONE = lib.VG_STEP_NONE
    STOPPING = lib.VG_STEP_STOPPING
    PIPE = lib.VG_STEP_PIPE
    FORK = lib.VG_STEP_FORK
    KEEPER = lib.VG_STEP_KEEPER
    VFORK = lib.VG_STEP_VFORK
    SESSION = lib.VG_STEP_SESSION
    STDIO = lib.VG_STEP_STDIO
    CTTY = lib.VG_STEP_CTTY
    LIMIT = lib.VG_STEP_LIMIT
    NICE = lib.VG_STEP_NICE
    OOM = lib.VG_STEP_OOM
    GROUPS = lib.VG_STEP_GROUPS
    GID = lib.VG_STEP_GID
    UID = lib.VG_STEP_UID
    CHDIR = lib.VG_STEP_CHDIR
    EXEC = lib.VG_STEP_EXEC
    INTERPRETER = lib.VG_STEP_INTERPRETER  # the file is there, but the interpreter it names is not


_STEP_WORDS = {
    Step.NONE: "start",
    Step.STOPPING: "start: vigild is stopping",
    Step.PIPE: "log pipe",
    Step.FORK: "fork of the keeper",
    Step.KEEPER: "keeper",
    Step.VFORK: "fork",
    Step.SESSION: "new session",
    Step.STDIO: "standard descriptors",
    Step.CTTY: "controlling terminal",
    Step.LIMIT: "limits",
    Step.NICE: "nice",
    Step.OOM: "oom-score-adj",
    Step.GROUPS: "supplementary groups",
    Step.GID: "group",
    Step.UID: "user",
    Step.CHDIR: "working-dir",
    Step.EXEC: "exec",
    Step.INTERPRETER: "exec",
}

# What a container often lacks, so that "not permitted" alone would send its owner looking in the wrong place.
_RIGHTS = {
    Step.LIMIT: "one is above vigild's own hard limit, which takes CAP_SYS_RESOURCE",
    Step.NICE: "it is lower than vigild's own, which takes CAP_SYS_NICE",
    Step.OOM: "it is lower than vigild's own, which takes CAP_SYS_RESOURCE",
}

_SHORTAGE_STEPS = frozenset((Step.PIPE, Step.FORK, Step.KEEPER, Step.VFORK))
_SHORTAGES = frozenset((errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE))
_CLD_EXITED, _CLD_KILLED, _CLD_DUMPED = 1, 2, 3


class Run(msgspec.Struct, frozen=True, order=True):
    """A run: slot and generation, given by PID 1. Never used twice in a life of vigild."""

    slot: int
    generation: int

    def __str__(self) -> str:
        return f"{self.slot}/{self.generation}"


NO_RUN = Run(lib.VG_NO_SLOT, 0)


class Usage(msgspec.Struct, frozen=True):
    """What the main process used up."""

    user: float = 0.0  # seconds of CPU
    system: float = 0.0
    max_rss: int = 0  # bytes


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what carries a run's flags."""

    flags: int = 0

    @property
    def stopping(self) -> bool:
        """A stop was begun, by whomever."""
        return bool(self.flags & lib.VG_IS_STOPPING)

    @property
    def released(self) -> bool:
        """control has dealt with the exit."""
        return bool(self.flags & lib.VG_IS_RELEASED)

    @property
    def escalated(self) -> bool:
        """SIGKILL was sent."""
        return bool(self.flags & lib.VG_IS_ESCALATED)

    @property
    def keeper_lost(self) -> bool:
        """The keeper was killed, and what was left of the run with it."""
        return bool(self.flags & lib.VG_IS_KEEPER_LOST)

    @property
    def left_over(self) -> bool:
        """Something was still there 10 s after SIGKILL (state D)."""
        return bool(self.flags & lib.VG_IS_LEFT_OVER)

    @property
    def asked(self) -> bool:
        """The stop was asked for; it is not what follows a main process's own end."""
        return bool(self.flags & lib.VG_IS_ASKED)

    @property
    def overdue(self) -> bool:
        """The run's deadline passed."""
        return bool(self.flags & lib.VG_IS_OVERDUE)

    @property
    def ephemeral(self) -> bool:
        """Its tree is killed when control goes."""
        return bool(self.flags & lib.VG_IS_EPHEMERAL)


class Ending(Flags, frozen=True, kw_only=True):
    """How a main process ended: siginfo's si_code and si_status."""

    code: int = 0
    status: int = 0
    exited_real_ns: int = 0
    usage: Usage = Usage()

    @property
    def signal(self) -> int | None:
        """The signal that ended it, None where it exited."""
        return self.status if self.code in (_CLD_KILLED, _CLD_DUMPED) else None

    @property
    def exit_code(self) -> int:
        """N for exit(N), 128+S for a death by signal S."""
        return self.status if self.signal is None else 128 + self.status

    def describe(self) -> str:
        """``exited with code 7``, ``killed by SIGKILL``, ``killed by SIGSEGV (core dumped)``."""
        if self.signal is None:
            return f"exited with code {self.status}"
        return f"killed by {signals.name(self.signal)}" + (" (core dumped)" if self.code == _CLD_DUMPED else "")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a start failed."""

    step: Step = Step.NONE
    error: int = 0

    @property
    def shortage(self) -> bool:
        """Memory, processes or descriptors ran out: not the service's failure, to be tried again."""
        return self.step is Step.KEEPER or (self.step in _SHORTAGE_STEPS and self.error in _SHORTAGES)

    @property
    def exit_code(self) -> int:
        """What a shell would report: 127 where the command was not found, else 126."""
        return 127 if self.step is Step.EXEC and self.error == errno.ENOENT else 126

    def describe(self, value: str = "") -> str:
        """``exec /nope: No such file or directory``. ``value`` is what the step was to set or to execute."""
        words = _STEP_WORDS[self.step]
        if self.step is Step.STOPPING:
            return words
        if value:
            words += f" {value}"
        if self.step is Step.INTERPRETER:
            words += ": the interpreter it names"
        if self.step in _RIGHTS and self.error in (errno.EPERM, errno.EACCES):
            return f"{words}: {os.strerror(self.error)} ({_RIGHTS[self.step]})"
        return f"{words}: {os.strerror(self.error)}"


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """PID 1's answer to HELLO."""

    flags: int = 0
    pid: int = 1
    runs_max: int = 0
    control_restarts: int = 0
    logger_restarts: int = 0
    nofile: tuple[int, int] = (0, 0)  # soft and hard, what children get unless SPAWN says otherwise
    start_real_ns: int = 0
    control_real_ns: int = 0
    program: str = ""

    @property
    def again(self) -> bool:
        """An earlier control attached in this boot of the plan."""
        return bool(self.flags & lib.VG_AGAIN)

    @property
    def restarted(self) -> bool:
        """``vigil vigild restart``: start from scratch with the identities only."""
        return bool(self.flags & lib.VG_RESTARTED)

    @property
    def is_pid1(self) -> bool:
        """vigild is PID 1 of its namespace."""
        return bool(self.flags & lib.VG_IS_PID1)

    @property
    def no_proc(self) -> bool:
        """/proc is missing."""
        return bool(self.flags & lib.VG_NO_PROC)

    @property
    def stderr_tty(self) -> bool:
        """vigild's stderr is a terminal."""
        return bool(self.flags & lib.VG_STDERR_TTY)


class RunState(Ending, frozen=True, kw_only=True):
    """One run as PID 1 knows it at attach; as messages it is what a control that was there has been told."""

    run: Run
    token: int
    kind: RunKind = RunKind.SERVICE
    state: RunPhase = RunPhase.STARTING
    pid: int = 0  # of the main process; 0 before it exists
    started_real_ns: int = 0
    step: Step = Step.NONE
    error: int = 0
    log_mode: LogMode = LogMode.NONE
    note: bytes = b""

    def started(self) -> Started:
        """The message that its start was, from RUNNING on. (PID 1 no longer knows the keeper's pid by then: 0.)"""
        return Started(run=self.run, token=self.token, pid=self.pid, started_real_ns=self.started_real_ns)

    def failed(self) -> SpawnFailed:
        """The message that its failed start was, in FAILED."""
        return SpawnFailed(run=self.run, token=self.token, step=self.step, error=self.error)

    def exited(self) -> Exited:
        """The message that its exit was, in EXITED and GONE."""
        return Exited(
            run=self.run,
            token=self.token,
            flags=self.flags,
            code=self.code,
            status=self.status,
            exited_real_ns=self.exited_real_ns,
            usage=self.usage,
        )

    def gone(self) -> Gone:
        """The message that its end was, in GONE."""
        return Gone(run=self.run, token=self.token, flags=self.flags)


class Snapshot(msgspec.Struct, frozen=True):
    """Everything PID 1 holds at attach. The descriptors in ``parked`` are the receiver's to close."""

    runs: tuple[RunState, ...] = ()
    parked: dict[str, int] = {}


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The command was executed."""

    run: Run
    token: int
    pid: int
    keeper: int = 0
    started_real_ns: int = 0


class SpawnFailed(Failure, frozen=True, kw_only=True):
    """The command was not executed. With a run it is kept by PID 1 until RELEASE; with NO_RUN nothing is kept."""

    run: Run
    token: int


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A message was well formed, but what it asks cannot be done; nothing was changed."""

    run: Run
    token: int
    kind: int  # of the message that was refused (VG_SPAWN and the like)
    error: int

    def describe(self) -> str:
        """``SPAWN: Function not implemented``."""
        return f"{_KIND_NAMES.get(self.kind, f'message {self.kind}')}: {os.strerror(self.error)}"


class Exited(Ending, frozen=True, kw_only=True):
    """The main process ended; of its tree something may be left until GONE."""

    run: Run
    token: int


class Stopping(msgspec.Struct, frozen=True, kw_only=True):
    """A stop began."""

    run: Run
    token: int
    cause: StopCause


class Gone(Flags, frozen=True, kw_only=True):
    """Nothing of the run is left, and logger has taken what was in its pipes."""

    run: Run
    token: int


class Signalled(msgspec.Struct, frozen=True):
    """Signals were sent to vigild since the last such message."""

    numbers: frozenset[int]


Message = Started | SpawnFailed | Refused | Exited | Stopping | Gone | Signalled

_KIND_NAMES = {
    lib.VG_HELLO: "HELLO",
    lib.VG_SPAWN: "SPAWN",
    lib.VG_UPDATE: "UPDATE",
    lib.VG_SIGNAL: "SIGNAL",
    lib.VG_STOP: "STOP",
    lib.VG_RELEASE: "RELEASE",
    lib.VG_PARK: "PARK",
    lib.VG_UNPARK: "UNPARK",
    lib.VG_READY: "READY",
    lib.VG_PONG: "PONG",
    lib.VG_SHUTDOWN: "SHUTDOWN",
    lib.VG_REEXEC: "REEXEC",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What HELLO tells PID 1 and logger."""

    log_format: Format = Format.TEXT  # of PID 1's and logger's own diagnostics: TEXT or JSON
    log_level: int = 1  # 0 debug to 3 error
    watchdog: float = 0.0  # seconds without PONG until control counts as hung; 0 is the default (10 s)
    forward_format: Format = Format.TEXT
    stop_budget: float = 0.0  # seconds for a whole stop; 0 is none
    forward_stall: float = 5.0


class SpawnSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start. Self-contained: PID 1 looks nothing up."""

    token: int  # never used twice in a boot, journaled beforehand
    name: str  # of the service; title of its keeper
    argv: Sequence[str]
    env: Mapping[str, str] | Sequence[bytes]  # or complete b"KEY=VALUE" entries
    cwd: str = "/"
    kind: RunKind = RunKind.SERVICE
    ephemeral: bool = False  # its tree is killed when control goes
    ctty: bool = False
    stdin_inherit: bool = False  # descriptor 0 is vigild's own, else /dev/null
    fds: tuple[int | None, int | None, int | None] = (None, None, None)  # as 0 to 2; the caller keeps its own copies
    notify: int | None = None  # the datagram socket on which the run notifies (vigil.shim.notify); likewise
    uid: int | None = None  # None: vigild's uid, gid and groups; else gid is needed
    gid: int | None = None
    groups: Sequence[int] = ()
    umask: int | None = None
    nice: int | None = None
    oom_score_adj: int | None = None
    limits: Sequence[tuple[int, int, int]] = ()  # resource, soft, hard
    stop_signal: int = 15
    kill_delay: float | None = 5.0  # None: never
    component: int = 0
    rank: int = 0
    forward: frozenset[int] = frozenset()
    deadline: int | None = None  # then the tree is killed
    log_mode: LogMode = LogMode.NONE
    log: str = ""  # the ring is parked as log/LOG; empty where nothing is captured
    prefix: str = ""  # before a forwarded line in text formats, "[web] "
    forward_format: Format = Format.TEXT
    note: bytes = b""  # at most 256 bytes, given back in Snapshot


class Shim(Protocol):
    """What the rest of control may ask of PID 1.

    No call blocks and none fails: messages are sent in order, answers come as messages.
    """

    def spawn(self, spec: SpawnSpec) -> None:
        """Start a process; Started, SpawnFailed or Refused with the spec's token tells what came of it."""

    def update(
        self,
        run: Run,
        *,
        stop: tuple[int, float | None] | None = None,
        order: tuple[int, int] | None = None,
        forward: frozenset[int] | None = None,
        log_mode: LogMode | None = None,
    ) -> None:
        """Change a live run; None keeps. ``stop``: signal, kill delay (None: never); ``order``: component, rank."""

    def signal(self, run: Run, signo: int, target: Target = Target.MAIN) -> None:
        """Send a signal."""

    def stop(self, run: Run, token: int = 0) -> None:
        """Stop signal to the group, then the tree, SIGKILL after the kill delay; Exited and Gone tell the end.

        ``run`` NO_RUN: the run that was spawned with ``token``, whose Started has not come (an exec may hang).
        """

    def release(self, run: Run) -> None:
        """The exit or failed start of ``run`` has been dealt with: PID 1 forgets it, once it is gone."""

    def park(self, name: str, fd: int) -> None:
        """Keep a copy of ``fd`` under ``name`` for the next control; what was kept there is closed, atomically."""

    def unpark(self, name: str) -> None:
        """Close what is kept under ``name``."""

    def ready(self) -> None:
        """control is attached, services are adopted, the API answers."""

    def shutdown(self, code: int, restart: bool) -> None:
        """Stop everything in order, then exit with ``code`` or start from scratch. The first code stays."""
