"""The image with musl: a static vigild below a Python whose C library is musl.

Where no Alpine image can be had, on a stand-in: a Python made with musl, and Debian's programs beside it. What is not
tried then are Alpine's own packages: its Python, its compiler, and their names in examples/musl/Containerfile.
VIGIL_TEST_MUSL_IMAGE=NAME is the base image to build on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.container.box import ACT, PYTHON, Box, Podman
from tests.container.conftest import base_image
from tests.container.test_matrix import CELLS
from tests.container.test_matrix import test_cell as in_cell

ROOT = Path(__file__).resolve().parents[2]
WEB = f"services: {{web: {{command: [{ACT}, web], startup: enabled, kill-delay: 1s}}}}"


@pytest.fixture(scope="module")
def musl_image(podman: Podman) -> Iterator[str]:
    """The image of examples/musl/Containerfile."""
    base = base_image(podman, os.environ.get("VIGIL_TEST_MUSL_IMAGE", "localhost/vigil-tests-musl-base"))
    tag = f"localhost/vigil-tests-musl:{os.getpid()}"
    podman.build(ROOT / "examples/musl/Containerfile", ROOT, tag, BASE_IMAGE=base)
    yield tag
    podman("rmi", "-f", tag, check=False)


def test_vigild_is_static_and_everything_else_of_it_is_musl(box: Callable[..., Box], musl_image: str) -> None:
    container = box(musl_image).start(WEB)
    container.says("[web] web is up: 0 root /root")
    container.exec("vigil", "services")
    mapped = {
        comm: {line.split()[-1].rpartition("/")[2] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
        for pid, (comm, _) in container.processes().items()
    }
    for comm in ("vigild", "vigil-logger", "vigil-keeper"):
        assert [name for name in mapped[comm] if ".so" in name] == []
    control = sorted(name for name in mapped["vigil-control"] if ".so" in name)
    assert any(name.startswith(("ld-musl", "libc.so")) for name in control)
    assert "_vigil.abi3.so" in control
    assert not {"libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"} & set(control)
    tags = container.exec(PYTHON, "-c", "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))").stdout
    assert "musl" in tags
    container.podman("healthcheck", "run", container.name)
    assert container.stop()[0] == 0


@pytest.mark.parametrize("name", ["root", "read-only", "everything at once"])
def test_cell(box: Callable[..., Box], musl_image: str, need: Callable[..., None], name: str) -> None:
    assert name in CELLS
    in_cell(box, musl_image, need, name)
