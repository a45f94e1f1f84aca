"""Short programs that control itself wants run: exec probes, the rendering of templates.

They go the way of everything that runs, through SPAWN, as ephemeral runs with PID 1's own deadline: such a program is
killed with its tree when its time is over, also while control is busy, and when control goes. What it writes comes
through a pipe of control's own and is bounded: whoever writes without end is made to wait, or loses the pipe.

``run`` ends when nothing of the program is left, so that whoever runs one after another never has two.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from vigil.shim.messages import (
    NO_RUN,
    Exited,
    Gone,
    LogMode,
    Message,
    Refused,
    Run,
    RunKind,
    Shim,
    SpawnFailed,
    SpawnSpec,
    Started,
    Step,
    Stopping,
)

if TYPE_CHECKING:
    import asyncio

_PIECE = 65536  # bytes; what a pipe holds
_PAUSE = 0.01  # seconds between two full pieces: 6 MB/s is the most that one program can make control read


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a program."""

    code: int | None = None  # N for exit(N), 128+S for a death by signal S; None: it was not started
    reason: str = ""  # "exited with code 3", "killed by SIGSEGV", "exec /nope: No such file or directory"
    overdue: bool = False  # it was killed because its time was over
    shortage: bool = False  # it was not started: memory, processes, descriptors or slots ran out, or vigild is stopping
    output: bytes = b""
    cut: bool = False  # it wrote more than that


class Tokens:
    """Tokens for ephemeral runs, of which no journal need know: never used twice in a boot, never one of a service's.

    Those count up from 1. These have the highest bit, and the time below it, which no later control can have again.
    """

    __slots__ = ("_clock", "_last")

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock, self._last = clock, 0

    def __call__(self) -> int:
        """The next one."""
        self._last = max(self._last + 1, self._clock())
        return 1 << 63 | self._last


class Programs:
    """All that run. Whoever gets PID 1's messages gives them to ``handle`` first."""

    __slots__ = ("_running", "_shim", "_tokens")

    def __init__(self, shim: Shim, tokens: Callable[[], int]) -> None:
        """``tokens`` gives one that was never used in this boot, at each call."""
        self._shim, self._tokens = shim, tokens
        self._running: dict[int, _Program] = {}

    @property
    def running(self) -> int:
        """How many there are, those that are being ended among them."""
        return len(self._running)

    def handle(self, message: Message) -> bool:
        """Whether ``message`` was about one of these programs: then it is dealt with."""
        program = self._running.get(getattr(message, "token", 0))
        if program is None:
            return False
        match message:
            case Started():
                program.run = message.run
            case Exited():
                program.ended = replace(
                    program.ended, code=message.exit_code, reason=message.describe(), overdue=message.overdue
                )
            case Gone():
                self._shim.release(message.run)
                # What it left may have been killed at the deadline; it itself was in time where its exit says so.
                overdue = program.ended.overdue if program.ended.code is not None else message.overdue
                self._end(program, replace(program.ended, overdue=overdue))
            case SpawnFailed():
                if message.run != NO_RUN:
                    self._shim.release(message.run)
                short = message.shortage or message.step is Step.STOPPING
                self._end(program, Ended(reason=message.describe(_value(program.spec, message.step)), shortage=short))
            case Refused():
                if program.run is None:  # else it is a STOP that came too late: Gone is on its way
                    full = message.error == errno.ENOSPC
                    reason = "all slots for runs are taken" if full else f"vigild refused it: {message.describe()}"
                    self._end(program, Ended(reason=reason, shortage=full))
            case Stopping():
                pass
        return True

    async def run(self, spec: SpawnSpec, *, keep: int, last: bool = False, stderr: bool = True) -> Ended:
        """Run ``spec``, which has a deadline, and wait until nothing of it is left.

        ``keep``: so many bytes of its output are kept, the first ones, or with ``last`` the last ones. With ``last``
        it may write as much as it likes (control takes 6 MB/s at most); otherwise its pipe is closed on it as soon as
        there is more than is kept. ``stderr``: whether descriptor 2 goes into the same pipe, else it goes nowhere. The
        caller says what descriptor 0 is.

        Cancelled, it is killed, and this waits for nothing.
        """
        import asyncio

        try:
            reading, writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            return Ended(reason=f"no pipe for its output: {error.strerror}", shortage=True)
        try:
            os.set_blocking(reading, False)
            if spec.uid is not None:
                try:
                    os.fchown(writing, spec.uid, -1)  # or its user could not open /dev/stderr
                except OSError:
                    pass  # not ours to give away: it can still write
            spec = replace(
                spec,
                token=self._tokens(),
                kind=RunKind.PROBE,
                ephemeral=True,
                kill_delay=0.0,
                log_mode=LogMode.NONE,
                fds=(spec.fds[0], writing, writing if stderr else None),
            )
            program = _Program(spec, asyncio.get_running_loop(), reading, keep, last=last)
            self._running[spec.token] = program
            self._shim.spawn(spec)
        finally:
            os.close(writing)
        try:
            return await program.future
        except asyncio.CancelledError:
            program.close()
            self._shim.stop(program.run or NO_RUN, spec.token)
            raise

    def _end(self, program: _Program, ended: Ended) -> None:
        del self._running[program.spec.token]
        output, cut = program.rest()
        if not program.future.done():
            program.future.set_result(replace(ended, output=output, cut=cut))


def _value(spec: SpawnSpec, step: Step) -> str:
    """What that step of its start is about."""
    if step is Step.CHDIR:
        return spec.cwd
    return spec.argv[0] if step in (Step.EXEC, Step.INTERPRETER) else ""


class _Program:
    """One of them: its run, and the reading end of its pipe."""

    def __init__(
        self, spec: SpawnSpec, loop: asyncio.AbstractEventLoop, reading: int, keep: int, *, last: bool
    ) -> None:
        self.spec = spec
        self.run: Run | None = None
        self.ended = Ended()
        self.future: asyncio.Future[Ended] = loop.create_future()
        self._loop, self._fd, self._keep, self._last = loop, reading, keep, last
        self._output = bytearray()
        self._cut = False
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(reading, self._readable)

    def rest(self) -> tuple[bytes, bool]:
        """All that is kept of the output, with what is still in the pipe, and whether there was more; then close."""
        for _ in range(16):  # a pipe's worth, even of a large pipe; whoever holds it still may go on writing for ever
            if self._fd < 0 or not self._take():
                break
        self.close()
        return bytes(self._output), self._cut

    def close(self) -> None:
        """Let go of the pipe."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        if self._take() == _PIECE and self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._pause = self._loop.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._fd, self._readable)

    def _take(self) -> int:
        """Read once; how much there was. At its end, and where there is too much, the pipe is closed."""
        try:
            piece = os.read(self._fd, _PIECE)
        except (BlockingIOError, InterruptedError):
            return 0
        if not piece:
            self.close()
            return 0
        self._output += piece
        if len(self._output) > self._keep:
            self._cut = True
            if self._last:
                del self._output[: -self._keep]
            else:
                del self._output[self._keep :]
                self.close()
        return len(piece)
