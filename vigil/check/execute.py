"""The exec probe: does a program exit with 0 in time?

PID 1 keeps the deadline and kills the whole tree at it, whatever control does meanwhile. ``shim.program`` runs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from vigil._native import lib
from vigil.check.outcome import Probed
from vigil.model import duration
from vigil.plan.types import Check, ExecProbe
from vigil.shim import environment
from vigil.shim.messages import SpawnSpec
from vigil.shim.program import Ended, Programs

_LINES = 5  # so many of the last lines are part of the reason
_LINE_MAX = 300  # characters; they are in the journal with the state
_KEEP = 8192  # bytes of output to find them in
_PATIENCE = 0.5  # seconds after the deadline that the end may take: then the kernel holds something of it


class Executor:
    """Runs the exec probes of all checks."""

    __slots__ = ("_environment", "_left", "_programs")

    def __init__(self, programs: Programs, base: Mapping[bytes, bytes]) -> None:
        """``base``: what processes see of vigild's own environment."""
        self._programs, self._environment = programs, base
        self._left: dict[str, asyncio.Task[Ended]] = {}  # probes that are over, and of which something is left

    async def probe(self, check: Check, asked: ExecProbe) -> Probed:
        """One run, within the check's timeout."""
        deadline_ns = time.monotonic_ns() + round(check.timeout * 1e9)
        left = self._left.get(check.name)
        if left is not None:
            done, _ = await asyncio.wait({left}, timeout=check.timeout)
            if not done:
                return Probed(False, "what the last probe left cannot be ended: the kernel holds it")
        running = asyncio.get_running_loop().create_task(
            self._programs.run(self._spec(check, asked, deadline_ns), keep=_KEEP, last=True)
        )
        try:
            ahead = (deadline_ns - time.monotonic_ns()) / 1e9
            await asyncio.wait({running}, timeout=max(0.0, ahead) + _PATIENCE)
        except asyncio.CancelledError:
            running.cancel()
            raise
        if not running.done():
            self._left[check.name] = running
            running.add_done_callback(lambda _: self._left.pop(check.name, None))
            return Probed(False, f"not ended within {duration.spell(check.timeout)}, nor by SIGKILL")
        return judged(running.result(), check.timeout)

    def _spec(self, check: Check, asked: ExecProbe, deadline_ns: int) -> SpawnSpec:
        user = asked.user if asked.user is not None and asked.user.switch else None
        return SpawnSpec(
            token=0,
            name=f"check {check.name}"[: lib.VG_NAME_MAX],
            argv=asked.command,
            env=environment.entries(asked.user, asked.environment, self._environment),
            cwd=asked.working_dir,
            uid=user.uid if user is not None else None,
            gid=user.gid if user is not None else None,
            groups=user.groups if user is not None else (),
            deadline=deadline_ns,
        )


def judged(ended: Ended, timeout: float) -> Probed:
    """What the end of a program says."""
    if ended.overdue:
        return Probed(False, f"not ended within {duration.spell(timeout)}{_told(ended.output)}")
    if ended.code is None:
        return Probed(False, ended.reason, short=ended.shortage)
    return Probed(True) if ended.code == 0 else Probed(False, ended.reason + _told(ended.output))


def _told(output: bytes) -> str:
    """The last lines, as they go behind a reason."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines()]
    last = [line if len(line) <= _LINE_MAX else line[:_LINE_MAX] + "..." for line in lines if line][-_LINES:]
    return f": {' | '.join(last)}" if last else ""
