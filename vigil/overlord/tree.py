"""CPU time and memory of whole process trees, from one walk over /proc.

A service's processes are the descendants of its keeper: whatever it leaves behind reparents to that. CPU is what the
living have used and what those had used that they waited for (the keeper waits for the orphans); memory is resident
memory, pages that are shared counted for each process. Both are for people: nothing is decided by them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import asyncio

_PROC = "/proc"


class Use(msgspec.Struct, frozen=True):
    """What a tree uses."""

    cpu: float  # seconds
    memory: int  # bytes


class _Process(msgspec.Struct, frozen=True):
    parent: int
    own: int  # clock ticks
    waited_for: int
    pages: int


class Tree:
    """Looks at /proc, where it shows this PID namespace."""

    def __init__(self, proc: str = _PROC) -> None:
        self._proc = proc
        self._tick = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._walking: asyncio.Future[dict[str, Use]] | None = None

    async def measure(self, mains: Mapping[str, tuple[int, int]]) -> Mapping[str, Use]:
        """``look`` in a thread, as a walk over 10,000 processes takes 0.2 s.

        There is one walk at a time, however many ask: who comes while one is under way gets what that finds. Where no
        thread can be had, which is when processes are too many, that is nothing.
        """
        import asyncio  # loaded by then

        if self._walking is None:
            self._walking = asyncio.ensure_future(asyncio.to_thread(self.look, mains))
            self._walking.add_done_callback(self._walked)
        try:
            return await asyncio.shield(self._walking)
        except RuntimeError:
            return {}

    def _walked(self, _: object) -> None:
        self._walking = None

    def look(self, mains: Mapping[str, tuple[int, int]]) -> dict[str, Use]:
        """For each name the use of the tree with that main process and keeper (0: not known). Some may be missing."""
        if not self._ours():
            return {}
        processes = self._walk()
        children: dict[int, list[int]] = {}
        for pid, process in processes.items():
            children.setdefault(process.parent, []).append(pid)
        found: dict[str, Use] = {}
        for name, (main, keeper) in mains.items():
            root = keeper or (processes[main].parent if main in processes else 0)
            if root > 1 and root in processes:
                found[name] = self._sum(root, processes, children)
        return found

    def _sum(self, root: int, processes: Mapping[int, _Process], children: Mapping[int, list[int]]) -> Use:
        ticks, pages = processes[root].waited_for, 0
        front = list(children.get(root, ()))
        while front:
            pid = front.pop()
            process = processes[pid]
            ticks += process.own + process.waited_for
            pages += process.pages
            front.extend(children.get(pid, ()))
        return Use(ticks / self._tick, pages * self._page)

    def _ours(self) -> bool:
        """A /proc of another PID namespace has other numbers: better nothing than somebody else's."""
        try:
            return os.readlink(f"{self._proc}/self") == str(os.getpid())
        except OSError:
            return False

    def _walk(self) -> dict[int, _Process]:
        found: dict[int, _Process] = {}
        try:
            names = os.listdir(self._proc)
        except OSError:
            return found
        for name in names:
            if name.isdigit():
                process = self._read(name)
                if process is not None:
                    found[int(name)] = process
        return found

    def _read(self, pid: str) -> _Process | None:
        try:
            fd = os.open(f"{self._proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None  # it has just ended
        try:
            text = os.read(fd, 1024)
        except OSError:
            return None
        finally:
            os.close(fd)
        # The name is in parentheses and may hold anything, so count from the last one: state is field 3.
        fields = text[text.rfind(b")") + 2 :].split()
        if len(fields) < 22:
            return None
        return _Process(
            int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]), int(fields[21])
        )
