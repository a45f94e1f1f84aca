"""The pages say what is so: each command on them is run, each plan is loaded, each image is built."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.container.box import Podman
from tests.daemon import Daemon
from tests.docs import pages
from tests.docs.pages import PAGES, ROOT, Block
from tests.docs.world import Engine, Shown, World
from vigil.plan.fields import SERVICE

CONTAINERS, README = ROOT / "docs" / "containers.md", ROOT / "README.md"
SOURCES = (
    "build.py",
    "csrc",
    "examples",
    "LICENSE",
    "pyproject.toml",
    "README.md",
    "vigil",
)  # that vigil is installed from

KINDS = ("services", "checks", "alerts", "identities")


def complete(block: Block) -> str:
    """A plan of what the block shows: itself, or a service of the keys that it shows."""
    import yaml

    shown = yaml.safe_load(block.text)
    if set(shown) & set(KINDS):
        return block.text
    assert set(shown) <= set(SERVICE), f"{block.where}: neither a plan nor keys of a service"
    lines = "".join(f"    {line}\n" for line in block.text.splitlines())
    return f"services:\n  shown:\n{lines}" + ("" if "command" in shown else "    command: sleep 60\n")


def follow(page: Path, world: World) -> None:
    """Everything that a page shows, in order."""
    for block in pages.blocks(page):
        if block.path is not None:
            world.write(block)
        if block.language == "console":
            for example in block.examples():
                world.follow(example)
        elif block.language == "yaml" and block.path is None and block.text.startswith("apiVersion:"):
            world.check_manifests(block)
        elif block.language == "yaml" and block.path is None:
            world.check(block, complete(block))
        elif block.path is None:
            pytest.fail(f"{block.where}: a {block.language} is a file, which its first line names in a comment")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in (CONTAINERS, README)], ids=lambda page: page.name
)
def test_what_a_page_shows_is_so(
    page: Path,
    vigild: Callable[..., Daemon],
    vigild_binary: Path,
    tmp_path: Path,
    need: Callable[..., None],
    root: None,
) -> None:
    need("curl", "jq", "nsenter")
    follow(page, World(vigild, tmp_path, vigild_binary))


def test_what_the_readme_shows_is_so(
    vigild: Callable[..., Daemon], vigild_binary: Path, tmp_path: Path, need: Callable[..., None], root: None
) -> None:
    need("cc", "nsenter")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    try:
        follow(README, World(vigild, tmp_path, vigild_binary))
    except Shown as problem:
        if "No matching distribution found" in str(problem):
            missing("no package index can be reached")
        raise


def test_what_the_page_about_containers_shows_is_so(
    podman: Podman, image: str, vigild: Callable[..., Daemon], vigild_binary: Path, tmp_path: Path
) -> None:
    engine = Engine(podman, image, vigild, tmp_path, vigild_binary)
    try:
        follow(CONTAINERS, engine)
    finally:
        engine.end()
