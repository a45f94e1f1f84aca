"""Two PID 1s behind one face: the fake, and the built vigild in a PID namespace. A case runs against both.

In the real one control is a script of a few lines that hands its end of the link to the test and then only waits, so
that the test itself is control, and one life of it ends when the test says so. Services are shells that do what they
read from a FIFO.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.channel.fake import Peer
from tests.daemon import Daemon
from vigil._native import lib
from vigil.shim.board import BOARD, WAKE, Board
from vigil.shim.link import Link
from vigil.shim.messages import Gone, Message, Run, Settings, SpawnSpec

LIMIT = 20.0

CONTROL = """\
#!{python} -S
import os, socket
meet = socket.socket(socket.AF_UNIX)
meet.connect({place!r})
socket.send_fds(meet, [b"link"], [3])
os.close(3)
order = meet.recv(100).decode()
if order == "hang":
    meet.recv(1)
os._exit(int(order or 0))
"""

SHELL = """\
while :; do read -r line < {fifo} && eval "$line"; done
"""


# A child of the service, in one line.
NOTIFY = (
    "import os, socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
    '.sendto(open(sys.argv[1], "rb").read(), os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))'
)


class Control:
    """One life of control: the link, what it was told, and a loop that turns while something is waited for."""

    def __init__(self, fd: int, settings: Settings) -> None:
        self.link, self.welcome, self.snapshot = Link.attach(fd, settings)
        self.loop = asyncio.new_event_loop()
        self.messages: list[Message] = []
        self.lost: list[str] = []
        self.link.listen(self.loop, self.messages.append, self.lost.append)

    def until(self, condition: Callable[[], Any], what: str = "it") -> Any:
        """Turn the loop until the condition holds, and return what made it hold."""
        end = time.monotonic() + LIMIT
        while not (found := condition()):
            assert time.monotonic() < end, f"{what} never came: {self.messages}, lost: {self.lost}"
            self.turn()
        return found

    def turn(self, seconds: float = 0.002) -> None:
        """Let the loop turn for a moment."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def told(self, kind: type, token: int | None = None) -> Any:
        """Wait for a message of that kind (about that token)."""

        def find() -> Any:
            matching = (m for m in self.messages if isinstance(m, kind) and token in (None, getattr(m, "token", None)))
            return next(matching, None)

        return self.until(find, f"{kind.__name__} of {token}")

    def close(self) -> None:
        """Let go of the link."""
        self.link.close()
        self.loop.close()
        for fd in self.snapshot.parked.values():
            os.close(fd)


class World(Protocol):
    """What a case may do beside being control."""

    real: bool

    def attach(self, settings: Settings | None = None) -> Control:
        """The next life of control."""

    def die(self, control: Control) -> None:
        """End this life, at once."""

    def service(self, token: int, name: str = "web", **more: Any) -> SpawnSpec:
        """A service that does nothing until it is told."""

    def exit(
        self, control: Control, run: Run, name: str = "web", code: int = 0, signo: int = 0, leaves: bool = False
    ) -> None:
        """Have its main process end; with ``leaves`` a child that ignores the stop signal stays behind."""

    def notify(self, run: Run, name: str, text: str) -> None:
        """Have its main process notify."""

    def board(self, control: Control) -> Board:
        """The board of notifications, as this life of control was handed it."""

    def signal(self, signo: int) -> None:
        """Send a signal to vigild."""

    def ends(self) -> int:
        """vigild's exit code, after a shutdown."""


class FakeWorld:
    """Over ``Peer``."""

    real = False

    def __init__(self) -> None:
        self.peer = Peer()
        self.lives: list[Control] = []

    def attach(self, settings: Settings | None = None) -> Control:
        self.lives.append(Control(self.peer.connect(), settings or Settings()))
        return self.lives[-1]

    def die(self, control: Control) -> None:
        self.lives.remove(control)
        control.close()
        self.peer.hang_up()

    def service(self, token: int, name: str = "web", **more: Any) -> SpawnSpec:
        return SpawnSpec(**({"token": token, "name": name, "argv": ["sleep"], "env": {}} | more))

    def started(self, run_of: int) -> None:
        """Its command was executed: what a real one does by itself."""
        self.peer.wait(lambda pid1: any(entry.spec.token == run_of for entry in pid1.runs.values()))
        with self.peer.table() as pid1:
            pid1.start(next(entry.run for entry in pid1.runs.values() if entry.spec.token == run_of))

    def exit(
        self, control: Control, run: Run, name: str = "web", code: int = 0, signo: int = 0, leaves: bool = False
    ) -> None:
        with self.peer.table() as pid1:
            pid1.exit(run, code, signo or None)
        with self.peer.table() as pid1:
            pid1.go(run, lib.VG_IS_ESCALATED if leaves else 0)

    def notify(self, run: Run, name: str, text: str) -> None:
        with self.peer.table() as pid1:
            pid1.notify(run, text)

    def board(self, control: Control) -> Board:
        return _board(control)

    def signal(self, signo: int) -> None:
        with self.peer.table() as pid1:
            pid1.signalled(signo)

    def ends(self) -> int:
        assert self.peer.pid1.shutting_down is not None
        return self.peer.pid1.shutting_down[0]

    def close(self) -> None:
        for control in self.lives:
            control.close()
        self.peer.hang_up()
        self.peer.pid1.close()
        assert self.peer.problems == []


class RealWorld:
    """Over the built vigild."""

    real = True

    def __init__(self, start: Callable[..., Daemon], folder: Path) -> None:
        self.folder = folder
        self.lives: list[tuple[Control, socket.socket]] = []
        place = folder / "meet"
        self._meet = socket.socket(socket.AF_UNIX)
        self._meet.bind(str(place))
        self._meet.listen()
        self._meet.settimeout(LIMIT)
        script = folder / "control"
        script.write_text(CONTROL.format(python=sys.executable, place=str(place)))
        script.chmod(0o755)
        self.daemon = start("", env={"VIGIL_PYTHON": str(script)})

    def attach(self, settings: Settings | None = None) -> Control:
        meeting, _ = self._meet.accept()
        _, fds, _, _ = socket.recv_fds(meeting, 10, 4)
        control = Control(fds[0], settings or Settings())
        self.lives.append((control, meeting))
        return control

    def die(self, control: Control) -> None:
        """vigild sees the end of its process; the link is closed first, as the kernel does with a killed process's."""
        meeting = next(meeting for life, meeting in self.lives if life is control)
        self.lives.remove((control, meeting))
        control.close()
        meeting.send(b"1")
        meeting.close()

    def service(self, token: int, name: str = "web", **more: Any) -> SpawnSpec:
        fifo = self.folder / f"{name}.fifo"
        if not fifo.exists():
            os.mkfifo(fifo)
        argv = ["/bin/sh", "-c", SHELL.format(fifo=fifo)]
        return SpawnSpec(**({"token": token, "name": name, "argv": argv, "env": {"PATH": os.environ["PATH"]}} | more))

    def started(self, run_of: int) -> None:
        """By itself."""

    def do(self, name: str, line: str) -> None:
        """Have the shell of a service evaluate a line."""
        (self.folder / f"{name}.fifo").write_text(line + "\n")

    def exit(
        self, control: Control, run: Run, name: str = "web", code: int = 0, signo: int = 0, leaves: bool = False
    ) -> None:
        line = f"kill -{signo} $$" if signo else f"exit {code}"
        if leaves:
            made = self.folder / f"{name}.left"
            child = f"(trap '' TERM; echo > {made}; while :; do sleep 0.1; done) &"
            line = f"{child} while ! [ -e {made} ]; do sleep 0.01; done; {line}"
        self.do(name, line)

    def notify(self, run: Run, name: str, text: str) -> None:
        place = self.folder / f"{name}.text"
        place.write_text(text)
        self.do(name, f"{sys.executable} -IS -c '{NOTIFY}' {place}")

    def board(self, control: Control) -> Board:
        return _board(control)

    def signal(self, signo: int) -> None:
        self.daemon.signal(signo)

    def ends(self) -> int:
        return self.daemon.wait()

    def close(self) -> None:
        for control, meeting in self.lives:
            control.close()
            meeting.close()
        self._meet.close()
        self.daemon.end()


def _board(control: Control) -> Board:
    return Board(control.snapshot.parked[BOARD], os.dup(control.snapshot.parked[WAKE]))


def start(world: FakeWorld | RealWorld, control: Control, spec: SpawnSpec) -> Run:
    """Spawn, and wait until it runs."""
    from vigil.shim.messages import Started

    control.link.spawn(spec)
    world.started(spec.token)
    run: Run = control.told(Started, spec.token).run
    return run


def gone(control: Control, run: Run) -> Gone:
    """Wait until nothing is left."""
    found: Gone = control.until(
        lambda: next((m for m in control.messages if isinstance(m, Gone) and m.run == run), None), f"Gone of {run}"
    )
    return found
