"""A small server behind the load balancer: ``backend.py PORT NAME``.

It prints the path of each request (but ``/``) and answers with ``NAME PATH``. ``/sleep/SECONDS/...`` takes that long,
and it says beforehand that it begins.
"""

from __future__ import annotations

import asyncio
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, kept alive."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ", 2)[1].decode()
            if path.startswith("/sleep/"):
                print("begins", path, flush=True)
                await asyncio.sleep(float(path.split("/")[2]))
            if path not in ("/", "*"):
                print(path, flush=True)
            body = f"{sys.argv[2]} {path}\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    async with server:
        await server.serve_forever()


asyncio.run(main())
