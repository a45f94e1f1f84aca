"""The pages say what is so: each command on them is run, each plan is loaded, each image is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.docs import pages
from tests.docs.pages import PAGES, Block
from tests.docs.world import World
from vigil.plan.fields import SERVICE

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_is_so(
    page: Path,
    vigild: Callable[..., Daemon],
    vigild_binary: Path,
    tmp_path: Path,
    need: Callable[..., None],
    root: None,
) -> None:
    need("curl", "jq", "nsenter")
    world = World(vigild, tmp_path, vigild_binary)
    for block in pages.blocks(page):
        if block.path is not None:
            world.write(block)
        if block.language == "console":
            for example in block.examples():
                world.follow(example)
        elif block.language == "yaml" and block.path is None:
            world.check(block, complete(block))
