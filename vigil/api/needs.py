"""What the API needs of the rooms below it. The overlord and the logs fit these shapes, and so do the tests' fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Protocol

from vigil.model import api
from vigil.plan import Sources


class Plan(Protocol):
    """The part of a plan that the API looks at."""

    @property
    def services(self) -> Mapping[str, object]:
        """The services by name."""


class Overlord(Protocol):
    """Whoever owns the plan and acts."""

    @property
    def boot_id(self) -> str:
        """Identity of this boot; sequence numbers of log entries count within it."""

    @property
    def plan(self) -> Plan:
        """The plan in force."""

    async def measured(self, names: Sequence[str] = ()) -> list[api.Service]:
        """The services named (all, for none), with what they use; NotFound names the unknown ones."""

    def act(self, action: api.ServicesAction, cause: str, key: str | None) -> api.Change:
        """Begin what ``action`` asks for. A ``key`` seen before gives the change that it began then."""

    def changes(self) -> list[api.Change]:
        """All changes that are remembered, oldest first."""

    def change(self, id: str) -> api.Change:  # noqa: A002 - the word of the wire
        """One change; NotFound."""

    async def wait(self, id: str, timeout: float | None) -> api.Change:  # noqa: A002, ASYNC109 - the words of the wire
        """The change at its end, or as it is after ``timeout`` seconds; NotFound."""

    def system_info(self) -> api.SystemInfo:
        """What vigild is and since when."""

    async def shown_plan(self, *, secrets: bool) -> dict[str, Any]:
        """The plan in force as one layer would say it; without ``secrets`` what looks like one is masked."""

    async def replan(self, action: api.ReplanAction, cause: str, key: str | None) -> api.Replan:
        """Put the plan on disk in force; PlanError where it cannot be. ``key`` as for ``act``."""

    async def check_plan(self) -> Sources:
        """The plan on disk; PlanError where it cannot be used."""

    def shutdown(self, code: int, restart: bool, cause: str, sources: Sources | None = None) -> None:
        """Stop everything, then exit with ``code`` or start from scratch, with the plan that ``sources`` make."""


class Follower(Protocol):
    """A place in the logs, and the chunks that come after it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Itself."""

    async def __anext__(self) -> bytes:
        """The next chunk."""

    def close(self) -> None:
        """Give the place up; may be called twice."""


class Logs(Protocol):
    """Whoever reads the logs."""

    boot_id: str  # for the ids of events

    def names(self) -> list[str]:
        """All logs there are, ``vigild`` included."""

    def tail(self, names: Sequence[str], n: int, since: int | float | None) -> Iterator[bytes]:
        """The last ``n`` entries of these logs, oldest first; ``since`` is a seq (exclusive) or a time (inclusive).

        Pieces of JSON, one entry a line.
        """

    def follow(self, names: Sequence[str], format: str, n: int, since: int | float | None) -> Follower:  # noqa: A002
        """Begin to follow these logs (all but ``vigild``, for none) now, after a replay of at most ``n`` entries."""
