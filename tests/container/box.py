"""Podman, and one container under test: started, asked, stopped, and looked at from outside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LIMIT = 60.0  # seconds that anything waited for may take, where container engines copy whole images
HERE = Path(__file__).resolve().parent
PYTHON = "/opt/vigil/bin/python3"
ACT = f"{PYTHON}, -ISE, /cell/actor.py"  # beginning of a service's command


class Podman:
    """The engine, with the settings under which it works here."""

    def __init__(self, settings: Mapping[str, str], folder: Path, beside: Podman | None = None) -> None:
        """``folder``: where it may leave files. ``beside``: the engine in whose storage base images are kept."""
        self.env = os.environ | settings
        self.folder = folder
        self.beside = beside

    def __call__(self, *words: str, check: bool = True, timeout: float = LIMIT) -> subprocess.CompletedProcess[str]:
        """Run it; where it must succeed (``check``) and does not, the test fails with what it said."""
        done = subprocess.run(
            ["podman", *words],
            env=self.env,
            cwd=self.folder,  # in which it leaves a file "oom" when something is killed for want of memory
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"podman {' '.join(words)} exited with {done.returncode}: {done.stdout[-3000:]}{done.stderr[-6000:]}"
        )
        return done

    def build(self, file: Path, context: Path, tag: str, **arguments: str) -> str:
        """Build an image, by what is at hand alone; its name."""
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        # In docker's format, since OCI's has no HEALTHCHECK; chroot, since this may be a container itself.
        how = ("--isolation", "chroot", "--network", "host", "--pull=never", "--layers=false", "--format", "docker")
        self("build", *how, *given, "-q", "-t", tag, "-f", str(file), str(context), timeout=900)
        return tag


class Box:
    """One container of an image. Made by the fixture ``box``."""

    def __init__(
        self,
        podman: Podman,
        name: str,
        image: str,
        folder: Path,
        options: Sequence[str],
        first: str,
        args: Sequence[str],
    ) -> None:
        """``first``: Python that is run instead of the entrypoint, before it is executed in its place."""
        self.podman = podman
        self.name = name
        self._layers = folder / "layers"
        self._layers.mkdir()
        self._before = (0, 0)  # what had been written at the last start
        folder.chmod(0o755)
        self._layers.chmod(0o755)
        mounts = ["-v", f"{self._layers}:/etc/vigil/layers:ro", "-v", f"{HERE / 'actor.py'}:/cell/actor.py:ro"]
        entry = ["--entrypoint", json.dumps([PYTHON, "-ISE", "-c", FIRST, first])] if first else []
        network = [] if any(word.startswith("--network") for word in options) else ["--network", "host"]
        self.id = podman("create", "--name", name, *network, *mounts, *entry, *options, image, *args).stdout.split()[-1]

    # What it is.

    def inspect(self, field: str) -> str:
        """A field of what podman knows of it."""
        return self.podman("inspect", "--format", f"{{{{{field}}}}}", self.name).stdout.strip()

    @property
    def pid(self) -> int:
        """Its first process, as seen from here."""
        return int(self.inspect(".State.Pid"))

    def processes(self) -> dict[int, tuple[str, str]]:
        """Name and command line of every process of it, whatever its parent and namespace: by its cgroup."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if (
                    self.id in (entry / "cgroup").read_text()
                    and (entry / "stat").read_text().rpartition(") ")[2][0] != "Z"
                ):
                    words = (entry / "cmdline").read_bytes().decode().replace("\0", " ").strip()
                    found[int(entry.name)] = ((entry / "comm").read_text().strip(), words)
            except OSError:
                continue  # it ended meanwhile
        return found

    def acting(self) -> list[str]:
        """The roles in which actor.py runs in it now."""
        roles = (re.search(r"/cell/actor\.py (\w+)", words) for _, words in self.processes().values())
        return sorted(role[1] for role in roles if role)

    # Its output.

    def _logs(self) -> tuple[str, str]:
        done = self.podman("logs", self.name)
        return done.stdout[self._before[0] :], done.stderr[self._before[1] :]

    @property
    def stdout(self) -> str:
        """What it has written since its last start, as ``podman logs`` has it."""
        return self._logs()[0]

    @property
    def stderr(self) -> str:
        """The same of standard error."""
        return self._logs()[1]

    # What is done to it.

    def start(self, layer: str) -> Box:
        """Start it, once more too, with this plan."""
        (self._layers / "10-cell.yaml").write_text(layer, encoding="utf-8")
        self._before = (0, 0)
        out, err = self._logs()
        self._before = (len(out), len(err))
        self.podman("start", self.name)
        return self

    def exec(self, *words: str, options: Sequence[str] = (), check: bool = True) -> subprocess.CompletedProcess[str]:
        """``podman exec``."""
        return self.podman("exec", *options, self.name, *words, check=check)

    def services(self) -> dict[str, dict[str, Any]]:
        """What ``vigil services`` says in it, by name."""
        return {one["name"]: one for one in json.loads(self.exec("vigil", "services", "--format", "json").stdout)}

    def until(self, holds: Callable[[], T | None], what: str) -> T:
        """Ask again and again until the answer is true, and return it."""
        end = time.monotonic() + LIMIT
        while not (answer := holds()):
            assert time.monotonic() < end, f"waited {LIMIT} s without {what}\n{self.report()}"
            time.sleep(0.02)  # between two looks
        return answer

    def says(self, text: str) -> None:
        """Wait until it has written this, on one or the other."""
        self.until(lambda: text in "".join(self._logs()), repr(text))

    def wait(self) -> int:
        """Exit code of it, once it has ended."""
        self.until(lambda: self.inspect(".State.Running") == "false", "its end")
        return int(self.inspect(".State.ExitCode"))

    def stop(self) -> tuple[int, float]:
        """``podman stop`` with no flag: it kills after 10 s. Exit code, and how long it took."""
        began = time.monotonic()
        self.podman("stop", self.name)
        took = time.monotonic() - began
        return self.wait(), took

    def report(self) -> str:
        """Its output and its processes, for the message of a failure."""
        out, err = self._logs()
        return f"--- stdout\n{out[-4000:]}\n--- stderr\n{err[-4000:]}\n--- processes\n{self.processes()}"

    def end(self) -> None:
        """Nothing is left of it, whatever happened."""
        self.podman("rm", "-f", "-t", "0", self.name, check=False)


FIRST = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
vigild = ["/opt/vigil/bin/vigild"]
exec(sys.argv[1])
os.execv(vigild[0], [*vigild, *sys.argv[2:]])
"""
