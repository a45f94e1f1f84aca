"""Fixtures for all tests: what is built is built once a session, and every vigild that a test starts is ended with it.

    def test_a_service_runs(vigild):
        daemon = vigild("services: {web: {command: sleep 99, startup: enabled}}", args=["--stop-timeout", "5s"])
        assert daemon.wait_state("web", "active")["pid"]
        assert daemon.cli("services").returncode == 0
        assert daemon.stop() == 0

What a test needs from the machine and does not find there: it is skipped, but on CI (CI=true) it fails.

VIGIL_TEST_VIGILD=FILE tests that executable instead of building one; VIGIL_TEST_SANITIZE=1 builds with sanitizers.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.daemon import Daemon, namespaces_work

ROOT = Path(__file__).resolve().parent.parent
SANITIZE = os.environ.get("VIGIL_TEST_SANITIZE") == "1"


def build(part: str, out: Path | None = None) -> Path:
    """Run build.py, unless what it makes is newer than all it is made of; one at a time, since sessions may be many."""
    kind = "-sanitized" if SANITIZE and part != "ext" else ""
    suffix = {"vigild": "vigild", "testmod": "testmod/_vigil_init.abi3.so"}.get(part)
    target = out or (ROOT / f"build{kind}" / suffix if suffix else ROOT / "vigil/_native/_vigil.abi3.so")
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = [ROOT / "build.py", *(ROOT / "csrc").rglob("*.[ch]")]
        if not target.exists() or target.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            command = [sys.executable, str(ROOT / "build.py"), part, "--out", str(target)]
            done = subprocess.run(
                [*command, *(["--sanitize"] if kind else [])],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                pytest.fail(f"cannot build {part}:\n{done.stderr}", pytrace=False)
    return target


def missing(what: str) -> None:
    """Skip the test, or on CI fail it: there everything must be at hand."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, which must be so on CI", pytrace=False)
    pytest.skip(what)


def memfds() -> set[int]:
    """Descriptors of this process that are memory files."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:"):
                found.add(int(name))
        except FileNotFoundError:
            pass  # that of the listing itself
    return found


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> Iterator[None]:
    """Children do not ignore Ctrl-C, even where this process was started in the background and does."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """Close the memory files that a test leaves: it plays many lives of control, and with a life they would end."""
    before = memfds()
    yield
    for fd in memfds() - before:
        os.close(fd)


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """``need("s6-svscan")``: these programs must be there."""

    def check(*programs: str) -> None:
        for program in programs:
            if shutil.which(program) is None:
                missing(f"{program} is not installed")

    return check


@pytest.fixture(scope="session")
def root() -> None:
    """The test needs to be root (users, namespaces, limits)."""
    if os.geteuid() != 0:
        missing("not run as root")


@pytest.fixture(scope="session")
def vigild_binary() -> Path:
    """The executable under test."""
    given = os.environ.get("VIGIL_TEST_VIGILD")
    return Path(given) if given else build("vigild")


@pytest.fixture(scope="session")
def testmod() -> ModuleType:
    """C modules of PID 1 as a cffi module: ``testmod.lib``, ``testmod.ffi``."""
    spec = importlib.util.spec_from_file_location("_vigil_init", build("testmod"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def native() -> Any:
    """``vigil._native``, built in place where that is needed."""
    build("ext")
    import vigil._native

    return vigil._native


@pytest.fixture
def vigild(vigild_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Daemon]]:
    """``vigild(layers, args=[...], ...)`` starts one (see ``tests.daemon.Daemon``); as many as a test wants."""
    started: list[Daemon] = []
    if "vigil._native" not in sys.modules:
        build("ext")

    def start(layers: Any = "", args: Any = (), env: Any = None, *, pid1: bool = True, **more: Any) -> Daemon:
        if pid1 and not namespaces_work():
            missing("PID namespaces cannot be made here")
        # A short path: that of a socket has at most 107 bytes.
        daemon = Daemon(vigild_binary, tmp_path_factory.mktemp("v"), layers, args, env, pid1=pid1, **more)
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.end()
        print(daemon.report())  # pytest shows it where the test failed
