"""The API's life: begin to serve the listeners, and end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from vigil.api.app import build
from vigil.api.needs import Logs, Overlord
from vigil.api.protocol import Connection, Worker
from vigil.api.settings import Settings

_BACKLOG = 1024  # clients wait here while control is away: PID 1 keeps the listeners


class Server:
    """The API while it serves."""

    def __init__(self, worker: Worker, servers: Sequence[asyncio.Server]) -> None:
        self._worker = worker
        self._servers = servers

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._worker.connections)

    def close(self) -> None:
        """Take no more connections and end those that there are. Answers written already are sent; streams end.

        Never wait for asyncio's ``wait_closed``: since Python 3.12 it waits for every client to go.
        """
        self._worker.alive = False
        loop = self._worker.loop
        for server in self._servers:
            # Who was accepted in this turn of the loop gets a transport in the next one, which asyncio does not give
            # once the server is closed: the socket would be left to the garbage collector.
            for listener in server.sockets:
                loop.remove_reader(listener)
            loop.call_soon(server.close)
        for connection in tuple(self._worker.connections):
            connection.shut()


async def serve(
    overlord: Overlord, logs: Logs, listeners: Sequence[socket.socket], settings: Settings | None = None
) -> Server:
    """Serve ``listeners`` (bound stream sockets) on the running loop. They are closed with the server, not unlinked."""
    loop = asyncio.get_running_loop()
    logs.boot_id = overlord.boot_id
    resolved = (settings or Settings()).resolved()
    worker = Worker(build(overlord, logs, resolved), resolved, loop)
    servers = [
        await loop.create_server(lambda: Connection(worker), sock=listener, backlog=_BACKLOG) for listener in listeners
    ]
    return Server(worker, servers)
