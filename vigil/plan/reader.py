"""Reads what a plan is made of: layers, the env-files, certificates and users that they name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from msgspec.structs import replace

from vigil.plan import accounts, loader, services
from vigil.plan.types import Rights, Sources

FILE_MAX = 16 << 20
"""The largest file that is read, in bytes."""

_TRIES = 10  # so often files that change while they are read are read


def read(directory: str, *, check: bool = False) -> Sources:
    """Everything that ``load`` needs.

    Where a file cannot be read, PlanError has that and all that ``load`` finds in the rest. A directory that does not
    exist is an empty plan (with a warning of ``load``). Names that begin with a dot are left alone: editors and
    mounted volumes keep theirs there.
    """
    for _ in range(_TRIES):
        found = _Files()
        sources = _read(directory, found)
        if sources.unread:
            break
        if sources.missing or found.are_there(directory):
            return sources
    else:
        sources = replace(sources, unread=((directory, "it changes while it is read"),))
    loader.load(sources, check=check)
    return sources


def _read(directory: str, found: _Files) -> Sources:
    missing = False
    try:
        found.names = _layer_names(directory)
    except FileNotFoundError:
        missing = True
    except NotADirectoryError:
        found.unread.append((directory, "it is a file, not a directory"))
    except (OSError, ValueError) as error:
        found.unread.append((directory, _reason(error)))
    merged = loader.take_apart(found.read(os.path.join(directory, name) for name in found.names))
    wanted = services.outside_of(merged)
    return Sources(
        directory=directory,
        layers=merged.layers,
        env_files=found.read(wanted.env_files),
        accounts=accounts.resolve(wanted.accounts, accounts.own()) if wanted.accounts else (),
        certificates=found.read(wanted.certificates),
        rights=_rights() if wanted.rights else None,
        missing=missing,
        unread=tuple(found.unread),
    )


def _rights() -> Rights:
    from vigil.plan import rights  # few plans need it

    return rights.own()


def _layer_names(directory: str) -> list[str]:
    """In the order of their bytes, so that it does not depend on the locale."""
    names = [name for name in os.listdir(directory) if name.endswith((".yaml", ".yml")) and not name.startswith(".")]
    return sorted(names, key=os.fsencode)


class _Files:
    """What was read, in one go."""

    def __init__(self) -> None:
        self.names: list[str] = []  # of the layers
        self.unread: list[tuple[str, str]] = []  # path and reason
        self._marks: dict[str, tuple[int, int]] = {}

    def read(self, paths: Iterable[str]) -> tuple[tuple[str, bytes], ...]:
        """Paths and contents of those that can be read."""
        contents: list[tuple[str, bytes]] = []
        for path in paths:
            shown = path.encode("utf-8", "backslashreplace").decode()
            if shown != path:
                self.unread.append((shown, "its name is not UTF-8"))
                continue
            try:
                contents.append((path, self._content(path)))
            except (OSError, ValueError) as error:
                self.unread.append((path, _reason(error)))
        return tuple(contents)

    def are_there(self, directory: str) -> bool:
        """Whether all files are still those that were read.

        Else they may be of two plans: a volume that is given another content takes none of its files in between.
        """
        try:
            same = all(_mark(os.stat(path)) == mark for path, mark in self._marks.items())
            return same and _layer_names(directory) == self.names
        except OSError:
            return False

    def _content(self, path: str) -> bytes:
        # O_NONBLOCK: opening a FIFO would wait for its writer, and a terminal is none of ours (O_NOCTTY).
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise ValueError("it is a directory, not a file")
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(FILE_MAX + 1)
        finally:
            os.close(descriptor)
        if len(content) > FILE_MAX:
            raise ValueError(f"it is larger than {FILE_MAX >> 20} MiB")
        self._marks[path] = _mark(status)
        return content


def _mark(status: os.stat_result) -> tuple[int, int]:
    # Not the inode: some filesystems (FUSE, 9p) give a file another one each time it is looked up.
    return status.st_size, status.st_mtime_ns


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
