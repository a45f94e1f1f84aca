"""The inside of a container without a container, for one vigild: its own ports, mounts and IPC, files as in an image.

``Room`` gives the fixture ``vigild`` a prefix: this module as a program, which makes the mounts and becomes vigild.
With the last process in it the kernel takes all of it away: ports, files, shared memory.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.daemon import Daemon

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Room:
    """What is where: ``empty`` folders are tmpfs of their own, ``files`` are bound from outside (target to source)."""

    def __init__(self, empty: Sequence[str] = (), files: Mapping[str, Path] | None = None) -> None:
        words = [word for path in empty for word in ("--empty", path)]
        words += [word for path, source in (files or {}).items() for word in ("--bind", str(source), path)]
        self.prefix = ("unshare", "--net", "--ipc", sys.executable, "-m", "tests.examples.room", *words, "--")
        self.env = {"PYTHONPATH": str(EXAMPLES.parent)}


def copied(example: str) -> dict[str, Path]:
    """The files that the example's Containerfile copies into its image, but for the plan: target to source."""
    found = {}
    for line in (EXAMPLES / example / "Containerfile").read_text().splitlines():
        if line.startswith("COPY "):
            *sources, target = line.split()[1:]
            for source in sources:
                found[target + source if target.endswith("/") else target] = EXAMPLES / example / source
    del found["/etc/vigil/layers"]
    return found


def inside(daemon: Daemon, *command: str, **more: object) -> subprocess.Popen[str]:
    """Start a command in the room of this vigild; it sees the same ports, files and processes."""
    enter = ("nsenter", "--target", str(daemon.pid), "--net", "--mount", "--ipc", "--pid")
    return subprocess.Popen([*enter, *command], stdin=subprocess.DEVNULL, text=True, **more)  # type: ignore[call-overload, no-any-return]


def ask(daemon: Daemon, *command: str, timeout: float = 60.0) -> str:
    """Run a command in the room of this vigild; what it prints. It must succeed."""
    with inside(daemon, *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, f"{' '.join(command)} exited with {process.returncode}: {out}{err}"
    return out


class Remains:
    """Holds the room of a vigild beyond its end, to see what it left there."""

    def __init__(self, daemon: Daemon) -> None:
        self._held = [os.open(f"/proc/{daemon.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "ipc")]

    def ask(self, *command: str) -> str:
        """What this command prints there."""
        mount, ipc = self._held
        enter = ("nsenter", f"--mount=/proc/self/fd/{mount}", f"--ipc=/proc/self/fd/{ipc}")
        done = subprocess.run(
            [*enter, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=self._held,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        """Let the kernel have it."""
        for fd in self._held:
            os.close(fd)


def loopback_up() -> None:
    """A new network namespace has an interface lo, which is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.pack("16sH14x", b"lo", 0x1)  # IFF_UP
        fcntl.ioctl(any_socket, 0x8914, flags)  # SIOCSIFFLAGS


def main(words: list[str]) -> None:
    """Make the room and become the command behind ``--``."""
    while (word := words.pop(0)) != "--":
        path = words.pop(0)
        if word == "--empty":
            options = "mode=1777" if path == "/dev/shm" else "mode=755"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
        else:
            target = Path(words.pop(0))
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.mkdir() if Path(path).is_dir() else target.touch()
            subprocess.run(["mount", "--bind", path, str(target)], check=True)
    loopback_up()
    del os.environ["PYTHONPATH"]
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
