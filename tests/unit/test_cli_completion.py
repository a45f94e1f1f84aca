"""Completion, asked of the shells themselves: what they would offer at a place of the command line."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.api_world import World, world
from tests.unit.test_cli import COMMAND, environment, vigil
from vigil.cli import completion, usage

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


class Shell:
    """A shell with the completion loaded, and with a ``vigil`` in its PATH."""

    def __init__(self, name: str, folder: Path, socket: str) -> None:
        self.name = name
        self.folder = folder
        program = folder / "bin" / "vigil"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
        program.chmod(0o755)
        self.script = folder / "script"
        self.script.write_text(vigil(None, "completion", name).stdout)
        home = {"HOME": str(folder), "ZDOTDIR": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}
        self.env = environment(VIGIL_SOCKET=socket, **home)
        self.env["PATH"] = f"{program.parent}:{self.env['PATH']}"

    def offers(self, line: str) -> set[str]:
        """What is offered where ``line`` ends."""
        return {"bash": self._bash, "zsh": self._zsh, "fish": self._fish}[self.name](line)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def _bash(self, line: str) -> set[str]:
        """As readline calls it; it cuts words at "=" too."""
        words = [word for word in re.split(r"\s+|(=)", line) if word is not None]
        words = [word for number, word in enumerate(words) if word or number == len(words) - 1]
        at = len(words) - 1
        ask = (
            f'source {self.script}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={at}; "$1" vigil; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        registered = self._run("bash", "-c", f"source {self.script}; complete -p vigil").split()
        function = registered[registered.index("-F") + 1]
        return set(self._run("bash", "-uc", ask, "bash", function).split())

    def _fish(self, line: str) -> set[str]:
        found = self._run("fish", "-c", f"source {self.script}; complete -C {shlex.quote(line)}")
        return {words.partition("\t")[0].rpartition("=")[2] for words in found.splitlines()}

    def _zsh(self, line: str) -> set[str]:
        """Typed into an interactive shell, whose ``compadd`` writes down what it is given."""
        offered = self.folder / "offered"
        offered.unlink(missing_ok=True)
        (self.folder / ".zshrc").write_text(ZSHRC.format(script=self.script, offered=offered))
        pid, fd = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            os.execvpe("zsh", ["zsh", "-i"], self.env)
        try:
            typed, seen, end = False, b"", time.monotonic() + 30
            while not (offered.exists() and offered.read_text().endswith("<end>\n")):
                assert time.monotonic() < end, seen
                if select.select([fd], [], [], 0.02)[0]:
                    seen += os.read(fd, 65536)
                if b"<ready>" in seen and not typed:
                    typed = True
                    os.write(fd, line.encode() + b"\x14")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(fd)
        return set(offered.read_text().split()) - {"<end>"}


ZSHRC = """
autoload -U compinit
compinit -u -D
source {script}
PS1='<ready>'
compadd() {{
    local -a hits
    if [[ " $* " != *' '-[OAD]' '* ]]; then
        builtin compadd -A hits "$@"
        print -rl -- $hits >>{offered}
    fi
    builtin compadd "$@"
}}
offers() {{
    _main_complete
    print '<end>' >>{offered}
}}
zle -C offers list-choices offers
bindkey '^T' offers
"""


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, need: Callable[..., None], w: World, tmp_path: Path) -> Shell:
    need(request.param, "timeout", "sed")
    return Shell(request.param, tmp_path, w.path)


ALL = {"services", "start", "stop", "restart", "signal", "logs", "replan", "plan", "changes", "system-info", "vigild",
       "completion"}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vigil ", ALL),
        ("vigil st", {"start", "stop"}),
        ("vigil --no-color --socket @ re", {"restart", "replan"}),
        ("vigil vigild ", {"status", "stop", "restart"}),
        ("vigil plan ", {"show", "check", "schema"}),
        ("vigil completion ", {"bash", "zsh", "fish"}),
        ("vigil services ", {"start", "stop", "restart", "signal", "list", "db", "web"}),
        ("vigil services list ", {"db", "web"}),
        ("vigil services db ", {"db", "web"}),
        ("vigil start ", {"db", "web"}),
        ("vigil --socket @ stop ", {"db", "web"}),
        ("vigil stop db w", {"web"}),
        ("vigil --socket=@ restart --timeout 5s ", {"db", "web"}),
        ("vigil signal US", {"USR1", "USR2"}),
        ("vigil signal HUP ", {"db", "web"}),
        ("vigil services signal USR1 d", {"db"}),
        ("vigil logs -n 5 ", {"db", "web", "vigild"}),
        ("vigil changes ", {"1"}),
        ("vigil system-info ", set()),
        ("vigil changes 1 ", set()),
        ("vigil plan check ", {"layers"}),
        ("vigil --format ", {"table", "json", "yaml"}),
        ("vigil services --format j", {"json"}),
        ("vigil services --format=y", {"yaml"}),
        ("vigil logs --format ", {"text", "json"}),
        ("vigil plan show --format ", {"yaml", "json"}),
        ("vigil logs --since ", set()),
        ("vigil logs --f", {"--follow", "--format"}),
        ("vigil replan --", {"--dry-run", "--no-restart", "--no-wait", "--timeout"}),
        ("vigil start -- w", {"web"}),
    ],
)  # fmt: skip
def test_what_a_shell_offers(shell: Shell, w: World, line: str, offered: set[str]) -> None:
    if line.startswith("vigil changes"):
        w.post("/v1/services", '{"action":"start"}')
    (shell.folder / "layers").mkdir()
    if "@" in line:
        line = line.replace("@", w.path)
        del shell.env["VIGIL_SOCKET"]
    found = shell.offers(line)
    if line.endswith("--"):
        assert found == offered | {"--socket", "--format", "--no-color", "--help", "--version"}
    elif line.startswith("vigil plan check"):
        assert {name.rstrip("/") for name in found} >= offered
    else:
        assert found == offered


def test_without_a_vigild_there_are_no_names_and_not_a_word(shell: Shell, w: World) -> None:
    shell.env["VIGIL_SOCKET"] = "/none"
    assert shell.offers("vigil start ") == set()
    assert shell.offers("vigil services ") == {"start", "stop", "restart", "signal", "list"}


def test_a_vigild_that_hangs_keeps_nobody_waiting(shell: Shell, w: World) -> None:
    w.end()
    began = time.monotonic()
    assert shell.offers("vigil logs ") == {"vigild"}
    assert time.monotonic() - began < 20
    w.begin()


def test_everything_in_the_usage_text_is_in_every_script() -> None:
    words = {word for form in usage.forms() for word in form.words}
    words |= {option.long.removeprefix("--") for option in usage.options()}
    for name in SHELLS:
        script = completion.script(name)
        assert not re.search(r"@[a-z]+@", script)
        assert {word for word in words if word not in script} == set()
