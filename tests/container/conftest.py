"""Fixtures for tests with containers: the engine, the image (built once a session), a container.

Without podman, or where it cannot run containers, each test is skipped, by name; on CI it fails.
VIGIL_TEST_IMAGE=NAME tests that image instead of building one. VIGIL_TEST_PYTHON_IMAGE=NAME builds on that base image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing
from tests.container.box import Box, Podman

BASE = os.environ.get("VIGIL_TEST_PYTHON_IMAGE", "docker.io/library/python:3.11-slim-bookworm")

CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
events_logger = "file"
"""
STORAGE = """\
[storage]
driver = "{driver}"
runroot = "{folder}/run"
graphroot = "{folder}/storage"
"""


def works(podman: Podman, vigild: Path, folder: Path) -> str:
    """Why podman cannot run a container, empty where it can: tried with vigild alone, which then asks for Python."""
    (folder / "bin").mkdir(exist_ok=True)
    shutil.copy(vigild, folder / "bin" / "vigild")
    subprocess.run(["tar", "-C", folder, "-cf", folder / "image.tar", "bin"], check=True)
    tag = f"localhost/vigil-tests-alone:{os.getpid()}"
    tried = podman("import", str(folder / "image.tar"), tag, check=False)
    if tried.returncode == 0:
        tried = podman("run", "--rm", "--network", "host", tag, "/bin/vigild", check=False)
        podman("rmi", "-f", tag, check=False)
    return "" if "cannot find Python" in tried.stderr else tried.stderr.strip() or "it says nothing"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of a session may have base images to make."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def podman(
    root: None, vigild_binary: Path, need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Podman:
    """The engine as this machine has it; where it does not work like that, with settings that ask less of a machine.

    And where each container is a copy of the image (vfs), with a storage beside it in which it is none, if one can be.
    """
    need("podman")
    rootfs = tmp_path_factory.mktemp("rootfs")
    machine = Podman({}, rootfs)
    if not works(machine, vigild_binary, rootfs):
        if machine("info", "--format", "{{.Store.GraphDriverName}}").stdout.strip() != "vfs":
            return machine
        beside = Podman(settings("overlay", ""), rootfs, machine)
        return machine if works(beside, vigild_binary, rootfs) else beside
    own = Podman(settings("vfs", CONTAINERS), rootfs)
    if why := works(own, vigild_binary, rootfs):
        missing(f"podman cannot run containers here: {why}")
    return own


def settings(driver: str, containers: str) -> dict[str, str]:
    """Environment of an engine with a storage of its own, in build/."""
    folder = ROOT / "build" / "podman" / driver
    folder.mkdir(parents=True, exist_ok=True)
    files = {"CONTAINERS_STORAGE_CONF": STORAGE.format(driver=driver, folder=folder), "CONTAINERS_CONF": containers}
    for name, text in files.items():
        (folder / name).write_text(text)
    return {name: str(folder / name) for name, text in files.items() if text}


def base_image(podman: Podman, name: str) -> str:
    """This image, made where it is not there; its name."""
    made = subprocess.run(
        [Path(__file__).parent / "base-image", name],
        env=(podman.beside or podman).env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        missing(f"there is no image {name}: {made.stderr.strip()}")
    if podman.beside and podman("image", "exists", name, check=False).returncode:
        file = ROOT / "build" / "podman" / f"image-{os.getpid()}.tar"
        podman.beside("save", "-q", "-o", str(file), name, timeout=300)
        podman("load", "-q", "-i", str(file), timeout=300)
        file.unlink()
    return name


@pytest.fixture(scope="session")
def limited(podman: Podman) -> Callable[[Sequence[str]], None]:
    """``limited(options)``: the limits that these options set can be set here."""
    controllers = podman("info", "--format", "{{.Host.CgroupControllers}}").stdout.strip("[]\n").split()

    def check(options: Sequence[str]) -> None:
        for option, controller in (("--pids-limit", "pids"), ("--memory", "memory")):
            if option in options and controller not in controllers:
                missing(f"containers cannot be limited with {option} here: there is no cgroup controller {controller}")

    return check


@pytest.fixture(scope="session")
def image(podman: Podman) -> Iterator[str]:
    """The image of the Containerfile."""
    given = os.environ.get("VIGIL_TEST_IMAGE")
    if given:
        yield given
        return
    tag = f"localhost/vigil-tests:{os.getpid()}"
    podman.build(ROOT / "Containerfile", ROOT, tag, PYTHON_IMAGE=base_image(podman, BASE))
    yield tag
    podman("rmi", "-f", tag, check=False)


@pytest.fixture
def box(
    podman: Podman, limited: Callable[[Sequence[str]], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Box]]:
    """``box(image, options=[...], first="...", args=[...])`` makes a container, to be started with a plan."""
    made: list[Box] = []

    def make(image: str, options: Sequence[str] = (), first: str = "", args: Sequence[str] = ()) -> Box:
        limited(options)
        folder = tmp_path_factory.mktemp("box")
        one = Box(podman, f"vigil-test-{os.getpid()}-{folder.name}", image, folder, options, first, args)
        made.append(one)
        return one

    yield make
    for one in made:
        print(one.report())  # pytest shows it where the test failed
        one.end()
