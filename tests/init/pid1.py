"""PID 1 under test without Python's control: the test itself is control.

vigild is started as a real PID 1 of its own namespace. What it executes as control is a little program that hands
descriptor 3 to the test and then only lives; the test speaks the protocol, and ends "control" by killing that program.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.daemon import LIMIT, Daemon
from vigil._native import lib
from vigil.shim import messages as m
from vigil.shim import wire

# A Python that an unprivileged user may execute too: that of an environment may stand in a folder of root's.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
PROXY = """#!{python} -IS
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as test:
    test.connect({path!r})
    socket.send_fds(test, [str(os.getpid()).encode()], [3])
    os.close(3)
    while True:
        signal.pause()
"""
T = TypeVar("T")


class Control:
    """One life of control, played by the test."""

    def __init__(self, link: socket.socket, pid: int, tokens: Iterator[int]) -> None:
        self.link = link
        self.pid = pid  # in vigild's namespace
        self.host = 0  # as the test sees it
        self.runs: tuple[m.RunState, ...] = ()
        self.parked: dict[str, int] = {}
        self.welcome = m.Welcome()
        self._early: list[wire.Incoming] = []
        self._tokens = tokens

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are, nonsense too."""
        self.link.settimeout(LIMIT)
        socket.send_fds(self.link, [message], list(fds))

    def receive(self, timeout: float = LIMIT) -> wire.Incoming:
        """The next message; PING is answered."""
        end = time.monotonic() + timeout
        while True:
            self.link.settimeout(max(end - time.monotonic(), 0.001))
            data, fds, _flags, _ = socket.recv_fds(self.link, wire.MESSAGE_MAX, 8)
            if not data:
                raise ConnectionError("vigild closed the link")
            message = wire.unpack(data)
            if isinstance(message, wire.Parked):
                self.parked[message.name] = fds[0]
                continue
            if isinstance(message, wire.Ping):
                self.send(wire.pong(message.value))
                continue
            return message

    def attach(self, settings: m.Settings | None = None) -> Control:
        """HELLO, and the whole SNAPSHOT."""
        # A test may be busy with something else than PINGs for long; those about the watchdog bring their own.
        self.send(wire.hello(settings or m.Settings(watchdog=120.0)))
        runs = []
        while not isinstance(message := self.receive(), wire.SnapshotEnd):
            if isinstance(message, m.Welcome):
                self.welcome = message
            else:
                assert isinstance(message, m.RunState), message
                runs.append(message)
        self.runs = tuple(runs)
        return self

    def expect(self, kind: type[T], match: Callable[[T], bool] = lambda _: True, timeout: float = LIMIT) -> T:
        """The next message of this kind that matches; others wait for their own expect."""
        for i, early in enumerate(self._early):
            if isinstance(early, kind) and match(early):
                return self._early.pop(i)  # type: ignore[return-value]
        end = time.monotonic() + timeout
        while True:
            message = self.receive(max(end - time.monotonic(), 0.001))
            if isinstance(message, kind) and match(message):
                return message
            self._early.append(message)  # type: ignore[arg-type]

    def silent(self, kind: type[Any], seconds: float) -> bool:
        """Whether no such message comes within that time."""
        try:
            self.expect(kind, timeout=seconds)
        except TimeoutError:
            return True
        return False

    def spec(self, *argv: str, **more: Any) -> m.SpawnSpec:
        """A service that keeps no logs, in the environment of the test."""
        fields: dict[str, Any] = {
            "token": next(self._tokens),
            "name": "web",
            "argv": argv,
            "env": {"PATH": os.environ["PATH"]},
            "cwd": "/",
            "log_mode": m.LogMode.PASSTHROUGH,
        }
        return m.SpawnSpec(**(fields | more))

    def ask(self, spec: m.SpawnSpec) -> m.SpawnSpec:
        """SPAWN, without waiting for the answer."""
        message, blob = wire.spawn(spec)
        memfd = os.memfd_create("blob", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(memfd, blob)
        seal(memfd)
        self.send(message, [memfd, *(fd for fd in (*spec.fds, spec.notify) if fd is not None)])
        os.close(memfd)
        return spec

    def spawn(self, *argv: str, **more: Any) -> m.Started:
        """SPAWN that succeeds."""
        spec = self.ask(self.spec(*argv, **more))
        answer = self.expect((m.Started, m.SpawnFailed, m.Refused), lambda a: a.token == spec.token)  # type: ignore[arg-type]
        assert isinstance(answer, m.Started), answer
        return answer

    def sh(self, script: str, **more: Any) -> m.Started:
        """SPAWN of a shell script."""
        return self.spawn("/bin/sh", "-c", script, **more)

    def exited(self, run: m.Run) -> m.Exited:
        """Its EXITED."""
        return self.expect(m.Exited, lambda e: e.run == run)

    def gone(self, run: m.Run) -> m.Gone:
        """Its GONE."""
        return self.expect(m.Gone, lambda g: g.run == run)

    def end(self, run: m.Run) -> m.Exited:
        """Wait until nothing is left, and release."""
        exited = self.exited(run)
        self.gone(run)
        self.send(wire.release(run))
        return exited

    def stop(self, run: m.Run) -> m.Exited:
        """STOP, wait until nothing is left, release."""
        self.send(wire.stop(run))
        return self.end(run)


def seal(memfd: int) -> None:
    """Seal as a blob has to be."""
    import fcntl

    fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


class Pid1(Daemon):
    """vigild with the test as its control."""

    def __init__(self, binary: Path, folder: Path, **more: Any) -> None:
        path = str(folder / "control.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(8)
        proxy = folder / "python"
        proxy.write_text(PROXY.format(python=PYTHON, path=path))
        proxy.chmod(0o755)
        if more.pop("open_to_all", False):  # vigild is made somebody else
            for place in (folder, *folder.parents):
                if place.owner() == "root" and place != Path("/"):
                    place.chmod(place.stat().st_mode | 0o055)
            Path(path).chmod(0o777)
        self._links: list[socket.socket] = []
        self._tokens = itertools.count(1)
        env = {"VIGIL_PYTHON": str(proxy)} | dict(more.pop("env", {}))
        super().__init__(binary, folder, env=env, **more)

    def control(self, timeout: float = LIMIT) -> Control:
        """The next life of control, not attached yet."""
        self.listener.settimeout(timeout)
        connection, _ = self.listener.accept()
        with connection:
            pid, fds, _, _ = socket.recv_fds(connection, 64, 1)
            host = struct.unpack("=iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        link = socket.socket(fileno=fds[0])
        self._links.append(link)
        control = Control(link, int(pid), self._tokens)
        control.host = host
        return control

    def attached(self, settings: m.Settings | None = None) -> Control:
        """The next life of control, attached and READY."""
        control = self.control().attach(settings)
        control.send(wire.ready())
        return control

    def kill_control(self, control: Control, signo: int = signal.SIGKILL) -> None:
        """End this life of control."""
        os.kill(control.host, signo)

    def end(self) -> None:
        """Ends everything, links too."""
        if self.running() and self._find():  # a prefix that changed the user lost what ends it with unshare
            os.kill(self._find(), signal.SIGKILL)
        super().end()
        for link in self._links:
            link.close()
        self.listener.close()


def plain(kind: int, value: int = 0) -> bytes:
    """A message that carries only a number."""
    message = wire._new("struct vg_plain", kind)
    message.value = value
    return wire._bytes(message)


__all__ = ["PYTHON", "Control", "Pid1", "lib", "m", "plain", "seal", "wire"]
