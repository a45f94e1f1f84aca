"""control's end of the SOCK_SEQPACKET pair to PID 1.

Until ``listen`` there is no event loop: control attaches and sends its first SPAWNs before asyncio is imported, which
takes 28 ms. What arrives meanwhile is kept and delivered first. Nothing here ever waits for PID 1 but ``attach``: what
the socket does not take is queued in order, and the queue is as long as what the rest of control asks for.

A link that breaks cannot be mended: PID 1 has dropped this control and starts another. The one way out is to end.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vigil.model import say
from vigil.model.errors import StartError
from vigil.shim import wire
from vigil.shim.messages import (
    NO_RUN,
    LogMode,
    Message,
    Run,
    RunState,
    Settings,
    Snapshot,
    SpawnFailed,
    SpawnSpec,
    Step,
    Target,
    Welcome,
)

if TYPE_CHECKING:
    import asyncio

Handler = Callable[[Message], None]

_ANCILLARY = _socket.CMSG_SPACE(4 * 4)
_SEALS = fcntl.F_ADD_SEALS
_SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

# The kernel had no memory for the message, or too many descriptors are under way: the socket polls as writable all the
# same, so these are tried again after a moment.
_SHORTAGES = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))
_RETRY_AFTER = 0.01

# So many messages are handled in one turn of the loop: a storm of exits must not starve timers and the API.
_BATCH = 64


class Link:
    """The Shim of real life."""

    @staticmethod
    def attach(fd: int, settings: Settings) -> tuple[Link, Welcome, Snapshot]:
        """Say HELLO on ``fd`` and wait for all that PID 1 knows. StartError where the two do not fit together."""
        link = Link(fd)
        parked: dict[str, int] = {}
        try:
            welcome, runs = link._attach(settings, parked)
        except BaseException:
            link.close()
            for kept in parked.values():
                os.close(kept)
            raise
        return link, welcome, Snapshot(runs, parked)

    def __init__(self, fd: int) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self._socket.setblocking(False)
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._early: deque[Message] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handler: Handler | None = None
        self._lost: Callable[[str], None] | None = None
        self._broken = False
        self.shutdown_asked: tuple[int, bool] | None = None  # code and restart of the first: that one counts
        self._waiting = False  # for the socket to become writable, or for _RETRY_AFTER

    def _attach(self, settings: Settings, parked: dict[str, int]) -> tuple[Welcome, tuple[RunState, ...]]:
        self._send(wire.hello(settings))
        welcome: Welcome | None = None
        runs: list[RunState] = []
        while True:
            self._wait()
            received = self._receive()
            if received is None:
                continue
            message, fds = received
            match message:
                case Welcome():
                    welcome = message
                case RunState():
                    runs.append(message)
                case wire.Parked() if len(fds) == 1:
                    parked[message.name] = fds.pop()
                case wire.SnapshotEnd() if welcome is not None:
                    return welcome, tuple(runs)
                case wire.Parked() | wire.SnapshotEnd():
                    raise StartError("cannot attach: vigild's snapshot makes no sense")
                case _:
                    self._keep(message)
            for extra in fds:
                os.close(extra)

    # --- receiving ---

    def listen(
        self, loop: asyncio.AbstractEventLoop, handler: Handler, lost: Callable[[str], None] | None = None
    ) -> None:
        """Deliver messages to ``handler`` from ``loop``, those first that came until now.

        ``lost`` is called when the link is broken, once, with a sentence that says why.
        """
        self._loop, self._handler, self._lost = loop, handler, lost
        loop.add_reader(self._socket.fileno(), self._readable)
        loop.call_soon(self._readable)
        self._flush()

    def breathe(self) -> None:
        """Before there is a loop: answer PID 1's PING, and send what is queued. For between long steps of start-up."""
        self._flush()
        while not self._broken:
            received = self._receive()
            if received is None:
                return
            self._accept(*received)
        raise StartError("cannot start: vigild closed the link")

    def close(self) -> None:
        """Let go of the link, with what is queued; PID 1 takes that for the end of this control."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._loop = None
        self._broken = True
        self._drop_queue()
        self._socket.close()

    @property
    def idle(self) -> bool:
        """Whether everything asked for so far has been handed to the kernel."""
        return not self._queue

    def _readable(self) -> None:
        handler = self._handler
        assert handler is not None
        while self._early:
            handler(self._early.popleft())
        for _ in range(_BATCH):
            if self._broken:
                return
            try:
                received = self._receive()
                if received is None:
                    return
                self._accept(*received)
            except (wire.WireError, StartError) as error:
                self._break(str(error))
                return
            while self._early:
                handler(self._early.popleft())

    def _accept(self, message: wire.Incoming, fds: list[int]) -> None:
        for fd in fds:  # nothing that comes after SNAPSHOT_END brings any
            os.close(fd)
        self._keep(message)

    def _keep(self, message: wire.Incoming) -> None:
        match message:
            case wire.Ping():
                self._send(wire.pong(message.value))
            case Welcome() | RunState() | wire.Parked() | wire.SnapshotEnd():
                raise wire.WireError("cannot understand vigild: a second snapshot")
            case _:
                self._early.append(message)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.poll()

    def _receive(self) -> tuple[wire.Incoming, list[int]] | None:
        """The next message and its descriptors, None where there is none yet."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(wire.MESSAGE_MAX, _ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError:
            data, ancillary, flags = b"", [], 0
        fds = _descriptors(ancillary)
        try:
            if not data:
                raise StartError("cannot go on: vigild closed the link (its own diagnostics say why)")
            if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
                raise wire.WireError("cannot understand vigild: a message is too long, or its descriptors do not fit")
            return wire.unpack(data), fds
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    # --- sending ---

    def spawn(self, spec: SpawnSpec) -> None:
        """See Shim. What can be told to be impossible here comes back as SpawnFailed too."""
        try:
            message, blob = wire.spawn(spec)
        except ValueError as wrong:
            say.error("vigil.shim", f"{spec.name}: cannot start: {wrong}")
            self._fail(spec.token, Step.EXEC, errno.EINVAL)
            return
        if len(blob) > wire.BLOB_MAX:
            self._fail(spec.token, Step.EXEC, errno.E2BIG)
            return
        try:
            fds = [_sealed(blob)]
        except OSError as shortage:
            self._fail(spec.token, Step.PIPE, shortage.errno or errno.ENOMEM)
            return
        try:
            self._send(message, fds + [fd for fd in (*spec.fds, spec.notify) if fd is not None])
        except OSError as shortage:  # of descriptors, for what waits in the queue
            self._fail(spec.token, Step.PIPE, shortage.errno or errno.EMFILE)
        finally:
            os.close(fds[0])

    def update(
        self,
        run: Run,
        *,
        stop: tuple[int, float | None] | None = None,
        order: tuple[int, int] | None = None,
        forward: frozenset[int] | None = None,
        log_mode: LogMode | None = None,
    ) -> None:
        """See Shim."""
        self._send(wire.update(run, stop, order, forward, log_mode))

    def signal(self, run: Run, signo: int, target: Target = Target.MAIN) -> None:
        """See Shim."""
        self._send(wire.signal(run, signo, target))

    def stop(self, run: Run, token: int = 0) -> None:
        """See Shim."""
        self._send(wire.stop(run, token))

    def release(self, run: Run) -> None:
        """See Shim."""
        self._send(wire.release(run))

    def park(self, name: str, fd: int) -> None:
        """See Shim."""
        self._send(wire.park(name), [fd])

    def try_park(self, name: str, fd: int) -> bool:
        """Park at once or not at all: true where the kernel has the message, so that PID 1 sees it whatever comes."""
        return not self._queue and self._try(wire.park(name), [fd])

    def unpark(self, name: str) -> None:
        """See Shim."""
        self._send(wire.unpark(name))

    def ready(self) -> None:
        """See Shim."""
        self._send(wire.ready())

    def shutdown(self, code: int, restart: bool) -> None:
        """See Shim."""
        if self.shutdown_asked is None:
            self.shutdown_asked = (code, restart)
        self._send(wire.shutdown(code, restart))

    def _fail(self, token: int, step: Step, error: int) -> None:
        """Tell of a failed start as PID 1 would: later, from the loop, never from within spawn."""
        self._early.append(SpawnFailed(run=NO_RUN, token=token, step=step, error=error))
        if self._loop is not None:
            self._loop.call_soon(self._readable)

    def _send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        if self._broken or (not self._queue and self._try(message, fds)):
            return
        # The caller closes its copies when it likes; what waits here needs its own.
        copies: list[int] = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))  # noqa: PERF401 - those made so far are to be closed
        except OSError:
            for fd in copies:
                os.close(fd)
            raise
        self._queue.append((message, copies))
        self._wait_for_room()

    def _try(self, message: bytes, fds: Sequence[int]) -> bool:
        """Whether the kernel took the message."""
        rights = (
            [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds))]
            if fds
            else []
        )
        try:
            self._socket.sendmsg([message], rights, _socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _SHORTAGES:
                return False
            self._break(f"cannot reach vigild: {error.strerror}")
        return True

    def _flush(self) -> None:
        self._waiting = False
        if self._loop is not None and not self._broken:
            self._loop.remove_writer(self._socket.fileno())
        while self._queue:
            message, fds = self._queue.popleft()
            if not self._try(message, fds):
                self._queue.appendleft((message, fds))
                self._wait_for_room()
                return
            for fd in fds:
                os.close(fd)

    def _wait_for_room(self) -> None:
        """Have _flush called when the socket is writable, but not at once: that would spin where memory is short."""
        if self._loop is None or self._waiting:
            return  # breathe() and listen() flush; or it is arranged for
        self._waiting = True
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLOUT)
        if poll.poll(0):
            self._loop.call_later(_RETRY_AFTER, self._flush)
        else:
            self._loop.add_writer(self._socket.fileno(), self._flush)

    def _break(self, reason: str) -> None:
        if self._broken:
            return
        self._broken = True
        self._drop_queue()
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            if self._lost is not None:
                self._loop.call_soon(self._lost, reason)

    def _drop_queue(self) -> None:
        while self._queue:
            for fd in self._queue.popleft()[1]:
                os.close(fd)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            whole = len(data) - len(data) % 4
            fds += memoryview(data)[:whole].cast("i").tolist()
    return fds


def _sealed(content: bytes) -> int:
    """A memfd that nobody can change any more, so that PID 1 may check it and then use it."""
    fd = os.memfd_create("vigil-spawn", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        fcntl.fcntl(fd, _SEALS, _SEALED)
    except BaseException:
        os.close(fd)
        raise
    return fd
