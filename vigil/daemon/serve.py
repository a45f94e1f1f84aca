"""The life of control after its start: the loop, the API beside it, READY, and the end."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from vigil.daemon.clock import crash
from vigil.daemon.start import Started
from vigil.model import say
from vigil.plan import Sources, load
from vigil.shim.messages import Message, Signalled

if TYPE_CHECKING:
    from vigil.api.server import Server

_ENDINGS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
_FLUSH = 1.0  # seconds for answers under way; vigild gives two


def serve(started: Started) -> NoReturn:
    """Run until vigild says that all is over. Never returns: nothing is left that finalization could do better."""
    code = 0
    try:
        asyncio.run(_Life(started).run())
    except SystemExit as end:  # the overlord cannot go on, and has said why
        code = end.code if isinstance(end.code, int) else 1
    except Exception as error:
        crash(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class _Life:
    def __init__(self, started: Started) -> None:
        self._started = started
        self._server: Server | None = None
        self._told_to_end = False  # vigild itself was: a restart under way becomes an exit

    async def run(self) -> None:
        """Everything, in the order in which it must begin."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_report)
        over = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, over.set)
        self._started.clock.bind(loop)
        self._started.link.listen(loop, self._handle, _lost)
        if not self._started.over:  # SIGTERM before there was a loop
            opening = loop.create_task(self._open())
            opening.add_done_callback(_crash_if_failed)
            await over.wait()
            for _ in range(2):  # what vigild said before it sent the signal is read first
                await asyncio.sleep(0)
        await self._end()

    def _handle(self, message: Message) -> None:
        try:
            if isinstance(message, Signalled) and message.numbers & _ENDINGS:
                self._told_to_end = True
            self._started.overlord.handle(message)
        except Exception as error:
            crash(error)

    async def _open(self) -> None:
        """Serve the API, then say READY. Importing it takes 70 ms: in a thread, so that the loop goes on meanwhile."""
        started = self._started
        if started.listener is not None:
            try:
                api = await asyncio.to_thread(importlib.import_module, "vigil.api.server")
            except RuntimeError:  # no thread to be had: processes are too many, which is when the API is needed most
                api = importlib.import_module("vigil.api.server")
            listener = socket.socket(fileno=started.listener.fd)
            self._server = await api.serve(started.overlord, started.logs, [listener])
        started.link.ready()
        gc.freeze()  # what there is by now stays: never to be looked through again
        gc.enable()
        if started.untried is not None:
            try:
                await asyncio.to_thread(_try_templates, started.untried)
            except RuntimeError:  # no thread to be had: then it is told at a replan, or when an alert is sent
                pass

    async def _end(self) -> None:
        started = self._started
        loop = asyncio.get_running_loop()
        asked = started.link.shutdown_asked
        restarts = asked is not None and asked[1] and not self._told_to_end
        # Where vigild is not ending, somebody has sent SIGTERM to control alone, and the next one needs the socket.
        ends = bool(started.over) or self._told_to_end or asked is not None or started.overlord.closing
        if started.listener is not None and ends and not restarts:
            started.listener.remove()  # first, so that nobody connects any more to wait for nothing
        if self._server is not None:
            self._server.close()
            deadline = loop.time() + _FLUSH
            # The server tells nobody when its last connection is gone: gunicorn's protocol has no such call.
            while self._server.connections and loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def _try_templates(sources: Sources) -> None:
    """Warn of body-templates that do not parse. It takes Jinja2, 50 ms that no service waits for."""
    told = load(sources).warnings
    for warning in load(sources, templates=True).warnings:
        if warning not in told:
            say.warn("vigil.plan", str(warning))


def _lost(reason: str) -> None:
    """The link is broken: vigild has dropped this control, and starts another."""
    sys.stderr.write(f"vigild: {reason}\n")
    sys.stderr.flush()
    os._exit(1)


def _crash_if_failed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        crash(error)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What went wrong in a callback of one client's connection: told, and only that connection's matter."""
    error = context.get("exception")
    message = str(context.get("message", "an error in the event loop"))
    if isinstance(error, BaseException):
        import traceback

        say.error("vigil.daemon", message, error="".join(traceback.format_exception(error))[-3000:])
    else:
        say.error("vigil.daemon", message)
