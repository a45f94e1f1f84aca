"""All kinds of probes. What a kind needs is imported with its first probe: requests alone takes 67 ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

from vigil.check.outcome import Probed
from vigil.plan.types import Check, ExecProbe, HttpProbe, TcpProbe
from vigil.shim.program import Programs

if TYPE_CHECKING:
    from vigil.check.execute import Executor


class Probes:
    """Runs probes; each ends at its check's timeout, whatever the other side does."""

    __slots__ = ("_base", "_executor", "_programs")

    def __init__(self, programs: Programs, base: Mapping[bytes, bytes]) -> None:
        """``base``: what processes see of vigild's own environment."""
        self._programs, self._base = programs, base
        self._executor: Executor | None = None

    async def run(self, check: Check) -> Probed:
        """One probe of ``check``. Cancelled, it leaves nothing."""
        probe = check.probe
        match probe:
            case HttpProbe():
                from vigil.check import http

                return await http.probe(probe, check.timeout)
            case TcpProbe():
                from vigil.check import tcp

                return await tcp.probe(probe, check.timeout)
            case ExecProbe():
                if self._executor is None:
                    from vigil.check.execute import Executor

                    self._executor = Executor(self._programs, self._base)
                return await self._executor.probe(check, probe)
            case _:
                assert_never(probe)
