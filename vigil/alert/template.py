"""Bodies from templates, rendered in a process of their own: 256 MiB, 2 s, 1 MiB of text, and nothing of ours in it."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

import msgspec

from vigil.model import duration
from vigil.model.errors import VigilError
from vigil.shim.messages import SpawnSpec
from vigil.shim.program import Programs

MEMORY = 256 << 20
"""Bytes of address space that the rendering of a template may take."""

SECONDS = 2.0
"""It may take so long, the start of its process included."""

BODY_MOST = 1 << 20
"""A body has at most so many bytes."""

_PROGRAM = os.path.join(os.path.dirname(__file__), "render.py")
_ERROR_MOST = 300  # characters


class TemplateError(VigilError):
    """A template gives no body. ``str()`` says why, in words to come after "body-template: "."""


async def render(programs: Programs, alert: str, template: str, variables: dict[str, Any]) -> bytes:
    """The body that ``template`` makes of ``variables``: JSON. TemplateError."""
    work = {
        "path": [place for place in sys.path if place.startswith("/")],
        "template": template,
        "variables": variables,
        "most": BODY_MOST,
    }
    try:
        given = _file(msgspec.json.encode(work))
    except OSError as error:
        raise TemplateError(f"no memory to render it: {error.strerror}") from None
    try:
        ended = await programs.run(_spec(alert, given), keep=BODY_MOST, stderr=False)
    finally:
        os.close(given)
    if ended.overdue:
        raise TemplateError(f"it takes longer than {duration.spell(SECONDS)}")
    if ended.code == 1 and ended.output:
        raise TemplateError(ended.output[: 4 * _ERROR_MOST].decode("utf-8", "replace")[:_ERROR_MOST])
    if ended.cut:
        raise TemplateError(f"it makes more than {BODY_MOST} bytes")
    if ended.code != 0:
        raise TemplateError(f"the process that renders it: {ended.reason}")
    body = ended.output.strip()
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TemplateError(f"it makes no JSON: {error}") from None
    except RecursionError:
        raise TemplateError("it makes JSON that is nested too deep") from None
    return body


def _spec(alert: str, given: int) -> SpawnSpec:
    # Of vigild's environment it gets what its Python may need to be loaded, and nothing that a template could tell.
    libraries = os.environ.get("LD_LIBRARY_PATH")
    limits = [
        (int(resource.RLIMIT_AS), MEMORY, MEMORY),
        (int(resource.RLIMIT_CORE), 0, 0),
        (int(resource.RLIMIT_FSIZE), 0, 0),
    ]
    return SpawnSpec(
        token=0,
        name=f"template of {alert}"[:128],
        argv=(sys.executable, "-I", "-S", "-B", "-X", "utf8", _PROGRAM),
        env={"LD_LIBRARY_PATH": libraries} if libraries else {},
        fds=(given, None, None),
        limits=limits,
        deadline=time.monotonic_ns() + round(SECONDS * 1e9),
    )


def _file(content: bytes) -> int:
    """A file in memory, to be read from its beginning."""
    fd = os.memfd_create("vigil-template", os.MFD_CLOEXEC)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
