"""Reads what a plan is made of: layers, the env-files, certificates and users that they name."""

from __future__ import annotations

import os
import stat

from vigil.plan import accounts, loader, services
from vigil.plan.types import Rights, Sources

FILE_MAX = 16 << 20
"""The largest file that is read, in bytes."""


def read(directory: str, *, check: bool = False) -> Sources:
    """Everything that ``load`` needs.

    Where a file cannot be read, PlanError has that and all that ``load`` finds in the rest. A directory that does not
    exist is an empty plan (with a warning of ``load``). Names that begin with a dot are left alone: editors and
    mounted volumes keep theirs there.
    """
    missing = False
    layers: list[tuple[str, bytes]] = []
    unread: list[tuple[str, str]] = []
    try:
        names = _layer_names(directory)
    except FileNotFoundError:
        missing, names = True, []
    except NotADirectoryError:
        unread.append((directory, "it is a file, not a directory"))
        names = []
    except (OSError, ValueError) as error:
        unread.append((directory, _reason(error)))
        names = []
    for name in names:
        _read_into(layers, unread, os.path.join(directory, name))
    merged = loader.take_apart(tuple(layers))
    wanted = services.outside_of(merged)
    env_files: list[tuple[str, bytes]] = []
    for path in wanted.env_files:
        _read_into(env_files, unread, path)
    certificates: list[tuple[str, bytes]] = []
    for path in wanted.certificates:
        _read_into(certificates, unread, path)
    sources = Sources(
        directory=directory,
        layers=merged.layers,
        env_files=tuple(env_files),
        accounts=accounts.resolve(wanted.accounts, accounts.own()) if wanted.accounts else (),
        certificates=tuple(certificates),
        rights=_rights() if wanted.rights else None,
        missing=missing,
        unread=tuple(unread),
    )
    if unread:
        loader.load(sources, check=check)
    return sources


def _rights() -> Rights:
    from vigil.plan import rights  # few plans need it

    return rights.own()


def _layer_names(directory: str) -> list[str]:
    """In the order of their bytes, so that it does not depend on the locale."""
    names = [name for name in os.listdir(directory) if name.endswith((".yaml", ".yml")) and not name.startswith(".")]
    return sorted(names, key=os.fsencode)


def _read_into(found: list[tuple[str, bytes]], unread: list[tuple[str, str]], path: str) -> None:
    shown = path.encode("utf-8", "backslashreplace").decode()
    if shown != path:
        unread.append((shown, "its name is not UTF-8"))
        return
    try:
        found.append((path, _content(path)))
    except (OSError, ValueError) as error:
        unread.append((path, _reason(error)))


def _content(path: str) -> bytes:
    # O_NONBLOCK: opening a FIFO would wait for its writer, and a terminal is none of ours (O_NOCTTY).
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ValueError("it is a directory, not a file")
        if not stat.S_ISREG(mode):
            raise ValueError("it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(FILE_MAX + 1)
    finally:
        os.close(descriptor)
    if len(content) > FILE_MAX:
        raise ValueError(f"it is larger than {FILE_MAX >> 20} MiB")
    return content


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
