"""PID 1 without processes: the same table, told by a test what its runs do.

``FakePid1`` is the table and a Shim itself, for tests of what is above the link. Messages to control are kept until
``pump()`` hands them to the handler, so that a test says when time passes. ``attach()`` begins a life of control as
HELLO does: what the last one was told and did not deal with is in the snapshot.

``Peer`` puts the same table behind a socketpair and speaks the wire, for tests of the link.

    pid1 = FakePid1()
    welcome, snapshot = pid1.attach(handler)
    pid1.spawn(spec)
    run = pid1.start("web")
    pid1.notify("web", "READY=1")
    pid1.exit("web", code=7)
    pid1.go("web")
    pid1.pump()
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal as signals
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from tests.channel.notices import Notices
from vigil._native import ffi, lib
from vigil.shim.board import BOARD, WAKE
from vigil.shim.messages import (
    NO_RUN,
    Exited,
    Gone,
    LogMode,
    Message,
    Refused,
    Run,
    RunPhase,
    RunState,
    Signalled,
    Snapshot,
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

CLD_EXITED, CLD_KILLED = 1, 2
_LIVE = (RunPhase.STARTING, RunPhase.RUNNING)


class FakeRun:
    """One entry of the table."""

    def __init__(self, run: Run, spec: SpawnSpec, pid: int) -> None:
        self.run, self.spec, self.pid = run, spec, pid
        self.state = RunPhase.STARTING
        self.flags = lib.VG_IS_EPHEMERAL if spec.ephemeral else 0
        self.code = self.status = 0
        self.step, self.error = Step.NONE, 0
        self.started_real_ns = self.exited_real_ns = 0
        self.signals: list[tuple[int, Target]] = []  # sent to it, in order
        self.stop = (spec.stop_signal, spec.kill_delay)
        self.order = (spec.component, spec.rank)
        self.forward = spec.forward
        self.log_mode = spec.log_mode

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def over(self) -> bool:
        return self.state in (RunPhase.FAILED, RunPhase.GONE)

    def snapshot(self) -> RunState:
        ended = self.state in (RunPhase.EXITED, RunPhase.GONE)
        return RunState(
            run=self.run,
            token=self.spec.token,
            kind=self.spec.kind,
            state=self.state,
            flags=self.flags,
            pid=0 if self.state in (RunPhase.STARTING, RunPhase.FAILED) else self.pid,
            started_real_ns=self.started_real_ns,
            exited_real_ns=self.exited_real_ns if ended else 0,
            code=self.code,
            status=self.status,
            step=self.step,
            error=self.error,
            log_mode=self.log_mode,
            note=self.spec.note,
        )


class FakePid1:
    """The table. What control asks for is noted in ``calls`` as well, as (name, arguments...)."""

    def __init__(
        self, *, auto: bool = False, slots: int = 4096, start_real_ns: int = 1_700_000_000_000_000_000
    ) -> None:
        self.auto = auto  # commands start at once, a stop ends them at once with the stop signal
        self.slots = slots
        self.now_ns = start_real_ns  # realtime; a test moves it
        self.start_real_ns = start_real_ns
        self.runs: dict[Run, FakeRun] = {}
        self.parked: dict[str, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.outbox: deque[Message] = deque()
        self.handler: Callable[[Message], None] | None = None
        self.is_ready = False
        self.lives = 0
        self.flags = lib.VG_IS_PID1
        self.shutting_down: tuple[int, bool] | None = None
        self._generation = 0
        self._pid = 100
        self._notices: Notices | None = None

    @property
    def notices(self) -> Notices:
        """The board of notifications; in a snapshot once somebody asked for it."""
        if self._notices is None:
            self._notices = Notices()
        return self._notices

    # --- lives of control ---

    def attach(self, handler: Callable[[Message], None] | None = None) -> tuple[Welcome, Snapshot]:
        """A control begins. Descriptors in the snapshot are copies."""
        self.outbox.clear()  # the snapshot says it all
        self.handler, self.is_ready = handler, False
        self.lives += 1
        welcome = Welcome(
            flags=self.flags | (lib.VG_AGAIN if self.lives > 1 else 0),
            pid=1,
            runs_max=self.slots,
            control_restarts=self.lives - 1,
            nofile=(1024, 1048576),
            start_real_ns=self.start_real_ns,
            control_real_ns=self.now_ns,
            program="0.1.0",
        )
        runs = tuple(entry.snapshot() for entry in self.runs.values())
        own = {} if self._notices is None else {BOARD: self._notices.fd, WAKE: self._notices.wake}
        return welcome, Snapshot(runs, {name: os.dup(fd) for name, fd in (self.parked | own).items()})

    def __del__(self) -> None:
        # With a process its descriptors end; a session of tests plays more of them than it may have descriptors.
        self.close()

    def detach(self) -> None:
        """control died: its ephemeral runs are killed, what it was not told waits for the next."""
        self.handler = None
        for entry in list(self.runs.values()):
            if entry.spec.ephemeral and not entry.over:
                self._begin_stop(entry, StopCause.ORPHANED)
                if entry.state in _LIVE:
                    self.exit(entry.run, signo=signals.SIGKILL)
                self.go(entry.run)

    def pump(self) -> None:
        """Hand everything that is to be told to control, until nothing is left."""
        while self.outbox:
            assert self.handler is not None, "nobody is attached"
            self.handler(self.outbox.popleft())

    def close(self) -> None:
        """Close what is parked."""
        for fd in self.parked.values():
            os.close(fd)
        self.parked.clear()
        if self._notices is not None:
            self._notices.close()
            self._notices = None

    # --- what a test makes happen ---

    def find(self, which: Run | str) -> FakeRun:
        """The run, or the newest run of that name."""
        if isinstance(which, Run):
            return self.runs[which]
        return [entry for entry in self.runs.values() if entry.name == which][-1]

    def start(self, which: Run | str) -> Run:
        """Its command was executed."""
        entry = self.find(which)
        assert entry.state is RunPhase.STARTING
        entry.state, entry.started_real_ns = RunPhase.RUNNING, self.now_ns
        started = Started(
            run=entry.run,
            token=entry.spec.token,
            pid=entry.pid,
            keeper=entry.pid - 1,
            started_real_ns=self.now_ns,
        )
        self._tell(started)
        return entry.run

    def fail(self, which: Run | str, step: Step = Step.EXEC, error: int = errno.ENOENT) -> Run:
        """Its command could not be executed."""
        entry = self.find(which)
        assert entry.state is RunPhase.STARTING
        entry.state, entry.step, entry.error = RunPhase.FAILED, step, error
        self._tell(SpawnFailed(run=entry.run, token=entry.spec.token, step=step, error=error))
        self._forget(entry)
        return entry.run

    def exit(self, which: Run | str, code: int = 0, signo: int | None = None) -> Run:
        """Its main process ended, with a code or by a signal; what is left of its tree is being stopped."""
        entry = self.find(which)
        if entry.state is RunPhase.STARTING:
            self.start(entry.run)
        assert entry.state is RunPhase.RUNNING
        entry.state, entry.exited_real_ns = RunPhase.EXITED, self.now_ns
        entry.code, entry.status = (CLD_EXITED, code) if signo is None else (CLD_KILLED, int(signo))
        if not entry.flags & lib.VG_IS_STOPPING:
            self._begin_stop(entry, StopCause.ENDED)
        self._tell(
            Exited(
                run=entry.run,
                token=entry.spec.token,
                code=entry.code,
                status=entry.status,
                flags=entry.flags,
                exited_real_ns=self.now_ns,
                usage=Usage(),
            )
        )
        return entry.run

    def go(self, which: Run | str, flags: int = 0) -> Run:
        """Nothing of it is left."""
        entry = self.find(which)
        assert entry.state is RunPhase.EXITED
        entry.state = RunPhase.GONE
        entry.flags |= flags
        self._tell(Gone(run=entry.run, token=entry.spec.token, flags=entry.flags))
        self._forget(entry)
        return entry.run

    def end(self, which: Run | str, code: int = 0, signo: int | None = None) -> Run:
        """``exit`` and ``go``."""
        return self.go(self.exit(which, code, signo))

    def notify(self, which: Run | str, text: str, pid: int | None = None, uid: int = 0) -> Run:
        """Its main process (or another of its own) notifies."""
        entry = self.find(which)
        self.notices.say(entry.run, text, entry.pid if pid is None else pid, uid)
        return entry.run

    def signalled(self, *numbers: int) -> None:
        """Signals were sent to vigild. (Whom they were forwarded to is in each run's ``signals``.)"""
        for entry in self.runs.values():
            if entry.state is RunPhase.RUNNING:
                entry.signals += [(number, Target.MAIN) for number in numbers if number in entry.forward]
        self._tell(Signalled(frozenset(numbers)))

    # --- Shim ---

    def spawn(self, spec: SpawnSpec) -> None:
        """A run begins to start, or the answer says why not."""
        self.calls.append(("spawn", spec))
        captured = spec.log_mode in (LogMode.ENABLED, LogMode.DISABLED)
        if self.shutting_down is not None:
            self._tell(SpawnFailed(run=NO_RUN, token=spec.token, step=Step.STOPPING, error=errno.ECANCELED))
        elif spec.ctty or not spec.argv:
            self._refuse(lib.VG_SPAWN, NO_RUN, errno.ENOSYS if spec.ctty else errno.EINVAL, spec.token)
        elif captured and (not spec.log or f"log/{spec.log}" not in self.parked):
            self._refuse(lib.VG_SPAWN, NO_RUN, errno.ENOENT, spec.token)
        elif len(self.runs) >= self.slots:
            self._refuse(lib.VG_SPAWN, NO_RUN, errno.ENOSPC, spec.token)
        else:
            used = {run.slot for run in self.runs}
            slot = next(slot for slot in range(self.slots) if slot not in used)
            self._generation += 1
            self._pid += 2
            entry = FakeRun(Run(slot, self._generation), spec, self._pid)
            self.runs[entry.run] = entry
            if spec.notify is not None:
                self.notices.begin(entry.run)
            if self.auto:
                self.start(entry.run)

    def update(
        self,
        run: Run,
        *,
        stop: tuple[int, float | None] | None = None,
        order: tuple[int, int] | None = None,
        forward: frozenset[int] | None = None,
        log_mode: LogMode | None = None,
    ) -> None:
        """Noted in the run."""
        self.calls.append(("update", run, stop, order, forward, log_mode))
        entry = self._living(lib.VG_UPDATE, run)
        if entry is not None:
            entry.stop = stop or entry.stop
            entry.order = order or entry.order
            entry.forward = entry.forward if forward is None else forward
            entry.log_mode = entry.log_mode if log_mode is None else log_mode

    def signal(self, run: Run, signo: int, target: Target = Target.MAIN) -> None:
        """Noted in the run's ``signals``."""
        self.calls.append(("signal", run, signo, target))
        entry = self._living(lib.VG_SIGNAL, run)
        if entry is not None:
            entry.signals.append((signo, target))

    def stop(self, run: Run, token: int = 0) -> None:
        """The stop begins; with ``auto`` it ends too."""
        if run == NO_RUN:
            run = next((entry.run for entry in self.runs.values() if entry.spec.token == token), NO_RUN)
        self.calls.append(("stop", run))
        entry = self._living(lib.VG_STOP, run, token)
        if entry is None:
            return
        if not entry.flags & lib.VG_IS_ASKED:
            self._begin_stop(entry, StopCause.ASKED)
        if self.auto:
            if entry.state in _LIVE:
                self.exit(run, signo=entry.stop[0])
            self.go(run)

    def release(self, run: Run) -> None:
        """The run is forgotten, now or when it is gone."""
        self.calls.append(("release", run))
        entry = self.runs.get(run)
        if entry is None:
            self._refuse(lib.VG_RELEASE, run, errno.ESRCH)
        elif entry.state in _LIVE:
            self._refuse(lib.VG_RELEASE, run, errno.EBUSY)
        else:
            entry.flags |= lib.VG_IS_RELEASED
            self._forget(entry)

    def park(self, name: str, fd: int) -> None:
        """Keeps a copy."""
        self.calls.append(("park", name))
        copy = os.dup(fd)
        if name in self.parked:
            os.close(self.parked[name])
        self.parked[name] = copy

    def try_park(self, name: str, fd: int) -> bool:
        """As the link has it."""
        self.park(name, fd)
        return True

    def unpark(self, name: str) -> None:
        """Closes the copy."""
        self.calls.append(("unpark", name))
        if name not in self.parked:
            self._refuse(lib.VG_UNPARK, NO_RUN, errno.ENOENT)
        else:
            os.close(self.parked.pop(name))

    def ready(self) -> None:
        """Sets ``is_ready``."""
        self.calls.append(("ready",))
        self.is_ready = True

    def shutdown(self, code: int, restart: bool) -> None:
        """Every run is being stopped; the first call decides."""
        self.calls.append(("shutdown", code, restart))
        if self.shutting_down is None:
            self.shutting_down = (code, restart)
            for entry in list(self.runs.values()):
                if not entry.over:
                    self._begin_stop(entry, StopCause.WHOLE)
                    if self.auto:
                        if entry.state in _LIVE:
                            self.exit(entry.run, signo=entry.stop[0])
                        self.go(entry.run)

    # --- inner ---

    def _living(self, kind: int, run: Run, token: int = 0) -> FakeRun | None:
        entry = self.runs.get(run)
        if entry is None or entry.over:
            self._refuse(kind, run, errno.ESRCH, token)
            return None
        return entry

    def _begin_stop(self, entry: FakeRun, cause: StopCause) -> None:
        entry.flags |= lib.VG_IS_STOPPING | (0 if cause is StopCause.ENDED else lib.VG_IS_ASKED)
        if cause is StopCause.ENDED:
            return  # EXITED says it
        self._tell(Stopping(run=entry.run, token=entry.spec.token, cause=cause))

    def _forget(self, entry: FakeRun) -> None:
        if entry.over and entry.flags & lib.VG_IS_RELEASED:
            self.runs.pop(entry.run, None)

    def _refuse(self, kind: int, run: Run, error: int, token: int = 0) -> None:
        self._tell(Refused(run=run, token=token, kind=kind, error=error))

    def _tell(self, message: Message) -> None:
        if self.handler is not None:
            self.outbox.append(message)


class Peer:
    """The table at the other end of a socketpair: understands what the link sends, in a thread of its own.

    ``with peer.table() as pid1`` gives the table to the test; what happens in it is told when the block ends.
    """

    def __init__(self) -> None:
        self.pid1 = FakePid1()
        _ = self.pid1.notices  # a real one always has them
        self.hello: Any = None
        self.pongs: list[int] = []
        self.problems: list[str] = []
        self._lock = threading.RLock()
        self._moved = threading.Condition(self._lock)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def connect(self) -> int:
        """A new life of control: its end of the link."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = mine
        self._thread = threading.Thread(target=self._serve, args=(mine,), daemon=True)
        self._thread.start()
        return theirs.detach()

    def table(self) -> _Table:
        """Exclusive use of the table."""
        return _Table(self)

    def wait(self, condition: Callable[[FakePid1], object], seconds: float = 10.0) -> None:
        """Until the condition holds."""
        with self._moved:
            assert self._moved.wait_for(lambda: condition(self.pid1), seconds), f"it never came: {self.pid1.calls}"

    def ping(self, value: int) -> None:
        """Ask for a PONG."""
        message = _new("struct vg_plain", lib.VG_PING)
        message.value = value
        self.send(bytes(ffi.buffer(message)))

    def send(self, data: bytes, fds: list[int] | None = None) -> None:
        """Any bytes."""
        assert self._socket is not None
        if fds:
            socket.send_fds(self._socket, [data], fds)
        else:
            self._socket.send(data)

    def hang_up(self) -> None:
        """Close the link, and wait for the end of its thread."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if self._thread is not None:
            self._thread.join(10)
        self._socket = self._thread = None

    def _serve(self, link: socket.socket) -> None:
        """Until the link ends: all that was sent before is handled, as PID 1 does."""
        poll = select.poll()
        with link:
            while True:
                poll.register(link, select.POLLIN)
                if not poll.poll(5):  # what the socket did not take is tried again
                    with self._moved:
                        self._flush()
                    continue
                try:
                    data, fds, _flags, _ = socket.recv_fds(link, lib.VG_MESSAGE_MAX, 8)
                except OSError:
                    break
                if not data:
                    break
                with self._moved:
                    try:
                        self._take(data, fds)
                    except Exception as problem:
                        self.problems.append(repr(problem))
                    finally:
                        for fd in fds:
                            os.close(fd)
                    self._flush()
                    self._moved.notify_all()
        with self._moved:
            self.pid1.detach()
            self._moved.notify_all()

    def _flush(self) -> None:
        while self.pid1.outbox and self._socket is not None:
            try:
                self._socket.send(_packed(self.pid1.outbox[0]), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return  # the thread tries again
            except OSError:
                self.pid1.outbox.clear()  # control is gone; its successor gets a snapshot
                return
            self.pid1.outbox.popleft()

    def _take(self, data: bytes, fds: list[int]) -> None:
        head = ffi.from_buffer("struct vg_head *", data)
        assert head.size == len(data), "a message whose head lies"
        kind = head.kind
        if kind == lib.VG_HELLO:
            self.hello = _copy("struct vg_hello", data)
            welcome, snapshot = self.pid1.attach(lambda message: None)
            self.send(_welcome(welcome))
            for state in snapshot.runs:
                self.send(_snapshot(state))
            for name, fd in snapshot.parked.items():
                parked = _new("struct vg_park", lib.VG_SNAPSHOT_PARKED)
                parked.name = name.encode()
                self.send(bytes(ffi.buffer(parked)), [fd])
                os.close(fd)
            self.send(bytes(ffi.buffer(_new("struct vg_plain", lib.VG_SNAPSHOT_END))))
        elif kind == lib.VG_SPAWN:
            self.pid1.spawn(_spec(_copy("struct vg_spawn", data), fds))
        elif kind == lib.VG_UPDATE:
            m = _copy("struct vg_update_run", data)
            self.pid1.update(
                _run(m),
                stop=(m.stop_signal, _seconds(m.kill_delay_ms)) if m.set & lib.VG_UPDATE_STOP else None,
                order=(m.component, m.rank) if m.set & lib.VG_UPDATE_ORDER else None,
                forward=_numbers(m.forward_mask) if m.set & lib.VG_UPDATE_FORWARD else None,
                log_mode=LogMode(m.log_mode) if m.set & lib.VG_UPDATE_LOG else None,
            )
        elif kind == lib.VG_SIGNAL:
            m = _copy("struct vg_signal", data)
            self.pid1.signal(_run(m), m.signal, Target(m.target))
        elif kind == lib.VG_STOP:
            m = _copy("struct vg_stop", data)
            self.pid1.stop(_run(m), m.token)
        elif kind == lib.VG_RELEASE:
            self.pid1.release(_run(_copy("struct vg_release", data)))
        elif kind == lib.VG_PARK:
            self.pid1.park(ffi.string(_copy("struct vg_park", data).name).decode(), fds[0])
        elif kind == lib.VG_UNPARK:
            self.pid1.unpark(ffi.string(_copy("struct vg_park", data).name).decode())
        elif kind == lib.VG_READY:
            self.pid1.ready()
        elif kind == lib.VG_PONG:
            self.pongs.append(_copy("struct vg_plain", data).value)
        elif kind == lib.VG_SHUTDOWN:
            m = _copy("struct vg_shutdown_now", data)
            self.pid1.shutdown(m.code, m.action == lib.VG_RESTART)
        else:
            raise AssertionError(f"a message of kind {kind}")


class _Table:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __enter__(self) -> FakePid1:
        self._peer._lock.acquire()
        return self._peer.pid1

    def __exit__(self, *_: object) -> None:
        self._peer._flush()
        self._peer._lock.release()


def _new(ctype: str, kind: int) -> Any:
    message = ffi.new(ctype + " *")
    message.head.size, message.head.kind = ffi.sizeof(ctype), kind
    return message


def _copy(ctype: str, data: bytes) -> Any:
    assert len(data) == ffi.sizeof(ctype), f"{ctype} of {len(data)} bytes"
    message = ffi.new(ctype + " *")
    ffi.memmove(message, data, len(data))
    return message


def _run(message: Any) -> Run:
    return Run(message.run.slot, message.run.generation)


def _seconds(milliseconds: int) -> float | None:
    return None if milliseconds == lib.VG_FOREVER else milliseconds / 1000


def _numbers(mask: int) -> frozenset[int]:
    return frozenset(number for number in range(1, 65) if mask >> (number - 1) & 1)


def _spec(m: Any, fds: list[int]) -> SpawnSpec:
    """SPAWN and its blob, read as ``protocol.h`` says."""
    seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
    assert seals & 0b1110 == 0b1110, "the blob is not sealed"
    blob = os.pread(fds[0], m.blob_size + 1, 0)
    assert len(blob) == m.blob_size, "the blob is not as long as SPAWN says"
    groups = ffi.from_buffer("uint32_t[]", blob[: 4 * m.groups])
    at = (4 * m.groups + 7) // 8 * 8
    size = ffi.sizeof("struct vg_limit")
    limits = ffi.from_buffer("struct vg_limit[]", blob[at : at + size * m.limits])
    strings = blob[at + size * m.limits :].split(b"\0")
    assert strings.pop() == b"", "the last string has no end"
    assert len(strings) == 4 + m.argc + m.envc, "another number of strings than SPAWN says"
    words = [text.decode("utf-8", "surrogateescape") for text in strings[: 4 + m.argc]]
    sent = iter(fds[1:])
    given = tuple(next(sent) if m.flags & flag else None for flag in (lib.VG_FD_0, lib.VG_FD_1, lib.VG_FD_2))
    return SpawnSpec(
        token=m.token,
        name=words[0],
        log=words[1],
        prefix=words[2],
        cwd=words[3],
        argv=words[4:],
        env=strings[4 + m.argc :],
        kind=m.kind,
        ephemeral=bool(m.flags & lib.VG_EPHEMERAL),
        ctty=bool(m.flags & lib.VG_CTTY),
        stdin_inherit=bool(m.flags & lib.VG_STDIN_INHERIT),
        fds=(given[0], given[1], given[2]),
        notify=next(sent) if m.flags & lib.VG_NOTIFY else None,
        uid=m.uid if m.flags & lib.VG_SET_USER else None,
        gid=m.gid if m.flags & lib.VG_SET_USER else None,
        groups=list(groups),
        umask=m.umask if m.flags & lib.VG_SET_UMASK else None,
        nice=m.nice if m.flags & lib.VG_SET_NICE else None,
        oom_score_adj=m.oom_score_adj if m.flags & lib.VG_SET_OOM else None,
        limits=[(limit.resource, limit.soft, limit.hard) for limit in limits],
        stop_signal=m.stop_signal,
        kill_delay=_seconds(m.kill_delay_ms),
        component=m.component,
        rank=m.rank,
        forward=_numbers(m.forward_mask),
        deadline=None if m.deadline_ns == lib.VG_FOREVER else m.deadline_ns,
        log_mode=LogMode(m.log_mode),
        forward_format=m.forward_format,
        note=bytes(ffi.buffer(m.note, m.note_size)),
    )


def _welcome(welcome: Welcome) -> bytes:
    m = _new("struct vg_welcome", lib.VG_WELCOME)
    m.version, m.flags, m.pid, m.runs_max = lib.VG_PROTOCOL, welcome.flags, welcome.pid, welcome.runs_max
    m.control_restarts, m.logger_restarts = welcome.control_restarts, welcome.logger_restarts
    m.nofile_soft, m.nofile_hard = welcome.nofile
    m.start_real_ns, m.control_real_ns = welcome.start_real_ns, welcome.control_real_ns
    m.program = welcome.program.encode()
    return bytes(ffi.buffer(m))


def _snapshot(state: RunState) -> bytes:
    m = _new("struct vg_snapshot", lib.VG_SNAPSHOT)
    m.run.slot, m.run.generation = state.run.slot, state.run.generation
    for name in ("token", "kind", "state", "flags", "pid", "started_real_ns", "exited_real_ns"):
        setattr(m, name, getattr(state, name))
    for name in ("code", "status", "step", "error", "log_mode"):
        setattr(m, name, getattr(state, name))
    m.note_size = len(state.note)
    ffi.memmove(m.note, state.note, len(state.note))
    return bytes(ffi.buffer(m))


_PACKED: dict[type, tuple[str, int]] = {
    Started: ("struct vg_started", lib.VG_STARTED),
    SpawnFailed: ("struct vg_spawn_failed", lib.VG_SPAWN_FAILED),
    Refused: ("struct vg_refused", lib.VG_REFUSED),
    Exited: ("struct vg_exited", lib.VG_EXITED),
    Stopping: ("struct vg_stopping", lib.VG_STOPPING),
    Gone: ("struct vg_gone", lib.VG_GONE),
}


def _packed(message: Message) -> bytes:
    if isinstance(message, Signalled):
        m = _new("struct vg_signalled", lib.VG_SIGNALLED)
        m.mask = sum(1 << (number - 1) for number in message.numbers)
        return bytes(ffi.buffer(m))
    m = _new(*_PACKED[type(message)])
    m.run.slot, m.run.generation = message.run.slot, message.run.generation
    for name in msgspec.structs.asdict(message):
        if name == "usage":
            usage = message.usage  # type: ignore[union-attr]
            m.usage.user_us, m.usage.system_us = int(usage.user * 1e6), int(usage.system * 1e6)
            m.usage.max_rss_kb = usage.max_rss // 1024
        elif name != "run":
            setattr(m, name, getattr(message, name))
    return bytes(ffi.buffer(m))
