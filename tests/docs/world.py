"""Where the commands of a page run: beside a vigild that is PID 1, at the very paths that the page names."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tests.container.box import Podman
from tests.container.conftest import BASE
from tests.daemon import LIMIT, Daemon, Output
from tests.docs.pages import Block, Example, matches
from vigil.daemon import options

LAYERS, PLACE = "/etc/vigil/layers", "/run/vigil"
PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
# /etc, /run, /opt and /srv are the page's own; the user app is one that an image would have. $3: the layers' folder.
_ROOM = f"""
set -e
for folder in /srv /mnt /run; do mount -t tmpfs none $folder; done
for folder in etc opt; do
    mkdir -p /mnt/$folder/upper /mnt/$folder/work
    mount -t overlay -o lowerdir=/$folder,upperdir=/mnt/$folder/upper,workdir=/mnt/$folder/work none /$folder
done
mkdir -p {LAYERS}
mount --bind "$3" {LAYERS}
grep -q ^app: /etc/passwd || {{ echo app:x:4242:4242::/srv:/bin/sh >>/etc/passwd; echo app:x:4242: >>/etc/group; }}
unset VIGIL_SOCKET
exec "$@"
"""
# What only looks is asked again until its answer is the one shown: a reader is slower than a test.
_LOOKS = re.compile(
    r"(?!.*(?: -X| -d| --json| --data|\b(?:start|stop|restart|signal|replan|kill)\b))"
    r"(?:vigil (?:services|logs|changes|system-info|vigild status|plan)|curl|cat|ls|ps"
    r"|podman (?:logs|ps|inspect|healthcheck))\b"
)
_BUSY = ("starting", "stopping")


class Shown(AssertionError):
    """A page shows something else than what happens."""


class World:
    """One vigild, and a shell beside it for each command."""

    def __init__(self, start: Callable[..., Daemon], folder: Path, binary: Path) -> None:
        """``start`` is the fixture ``vigild``; commands run in ``folder``."""
        self._start = start
        self._folder = folder
        self._layers: dict[str, str] = {}
        self._daemon: Daemon | None = None
        programs = folder / ".programs"
        programs.mkdir()
        client = "import sys; from vigil.cli.main import main; sys.argv[0] = 'vigil'; sys.exit(main())"
        _program(programs / "vigil", f'exec {sys.executable} -P -c {shlex.quote(client)} "$@"')
        _program(programs / "vigild", f'VIGIL_PYTHON={sys.executable} exec {binary} "$@"')
        clean = {name: text for name, text in os.environ.items() if not name.startswith(("VIGIL_", "XDG_", "COLUMNS"))}
        self._environment = clean | {
            "PATH": f"/opt/vigil/bin:{programs}:{os.environ['PATH']}",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }

    def write(self, block: Block) -> None:
        """Put the file there that a block is."""
        path = block.path
        assert path is not None
        if path.startswith(f"{LAYERS}/"):
            self._layers[Path(path).name] = block.text
            if self._daemon is not None:
                (self._daemon.layers / Path(path).name).write_text(block.text)
        elif path.startswith("/"):
            folder = os.path.dirname(path)
            code, output = self._run(f"mkdir -p {folder} && cat >{path} <<'END OF FILE'\n{block.text}END OF FILE")
            assert code == 0, output
        else:
            (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / path).write_text(block.text)

    def follow(self, example: Example) -> None:
        """Do what the page says; Shown where something else comes of it."""
        end = time.monotonic() + LIMIT
        while True:
            self._settle()
            code, output = self._run(example.command, example.output if example.interrupted else None)
            if matches(output, example.output):
                break
            if not _LOOKS.match(example.command) or time.monotonic() > end:
                shown = "\n".join(example.output)
                given = "\n".join(output)
                raise Shown(
                    f"{example.where}: $ {example.command}\n--- shown\n{shown}\n--- given (exit {code})\n{given}"
                )
            time.sleep(0.05)
        if code and set(example.output) <= {"..."}:
            given = "\n".join(output)
            raise Shown(
                f"{example.where}: $ {example.command}\nexits with {code}, of which the page says nothing\n{given}"
            )

    def check(self, block: Block, text: str) -> None:
        """``vigild --check`` must find nothing wrong with a plan, and nothing to warn of."""
        folder = self._folder / ".checked"
        folder.mkdir(exist_ok=True)
        (folder / "10-block.yaml").write_text(text)
        code, output = self._run(f"vigild --layers-dir {folder} --check")
        if code or len(output) > 1:
            raise Shown(f"{block.where}: the plan that is shown is none:\n" + "\n".join(output))

    def check_manifests(self, block: Block) -> None:
        """What a manifest says to vigil must be right, its layers and options; and what it mounts must be there."""
        import yaml

        documents = list(yaml.safe_load_all(block.text))
        maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
        for data in maps.values():
            for name, layer in data.items():
                assert name.endswith((".yaml", ".yml")), f"{block.where}: {name} is no layer"
                self.check(block, layer.replace("  web:\n", "  web:\n    command: web\n"))
        pods = [d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment"]
        assert len(pods) + len(maps) == len(documents)
        for pod in pods:
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            for volume in volumes.values():
                assert volume.get("configMap", {"name": next(iter(maps))})["name"] in maps
            for container in pod["containers"]:
                budget = options.parse(container["args"], {}).stop_timeout
                assert 0 < budget < pod["terminationGracePeriodSeconds"]
                for mount in container["volumeMounts"]:
                    source = maps.get(volumes[mount["name"]].get("configMap", {}).get("name"), {})
                    assert "subPath" not in mount or mount["subPath"] in source
                    assert "subPath" not in mount or mount["mountPath"] == f"{LAYERS}/{mount['subPath']}"

    def room(self) -> list[str]:
        """The words before a command that runs there. A vigild that a command has ended is started again."""
        if self._daemon is None or not self._daemon.running():
            prefix = ("unshare", "--mount", "sh", "-c", _ROOM, "sh")
            # A page that brings no layers for it starts a vigild of its own, which must not find this one.
            where = f"{PLACE if self._layers else '/mnt'}/vigild.sock"
            self._daemon = self._start(self._layers, ("--layers-dir", LAYERS, "--socket", where), prefix=prefix)
            self._daemon.socket = Path(f"/proc/{self._daemon.pid}/root{where}")
        return ["nsenter", "--target", str(self._daemon.pid), "--mount", "--pid"]

    def _settle(self) -> None:
        """Wait until nothing is on its way, so that what a command finds is not a matter of time."""
        self.room()
        assert self._daemon is not None
        self._daemon.until(self._settled, "the services to settle")

    def _settled(self) -> bool:
        assert self._daemon is not None
        if not self._daemon.running():
            return True
        try:
            changes = self._daemon.api("GET", "/v1/changes")[1]["result"]
            services = self._daemon.services().values()
        except (OSError, http.client.HTTPException, KeyError, AssertionError):
            return False
        doing = [change for change in changes if change["status"] == "doing"]
        return not doing and not any(s["current"] in _BUSY and not s["waiting-for"] for s in services)

    def _run(self, command: str, until: list[str] | None = None) -> tuple[int, list[str]]:
        """Exit code and lines of a command; with ``until`` it is interrupted once it has printed that."""
        process = subprocess.Popen(
            [*self.room(), "bash", "-c", f"cd {shlex.quote(str(self._folder))}\n{command}"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        pipe: IO[Any] | None = process.stdout
        assert pipe is not None
        output = Output(pipe)
        end = time.monotonic() + LIMIT * (10 if re.search(r"\b(build|install)\b", command) else 1)
        while process.poll() is None and time.monotonic() < end:
            if until is not None and matches(_lines(output), until):
                os.killpg(process.pid, signal.SIGINT)
                until = None
            time.sleep(0.005)
        late = process.poll() is None
        if late:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.finish()
        return process.returncode, _lines(output) + (["(it does not end)"] if late else [])


class Engine(World):
    """A page about containers: each vigild in it is PID 1 of one, so its commands run here, beside the engine.

    What the page calls shop has a name of this session's own, and so has the image of vigil, which is made already: by
    the very command that the page shows.
    """

    def __init__(self, podman: Podman, image: str, start: Callable[..., Daemon], folder: Path, binary: Path) -> None:
        super().__init__(start, folder, binary)
        self._podman, self._image = podman, image
        self._names = {name: f"{name}{os.getpid()}" for name in ("shop", "onto")}
        self._environment |= {name: text for name, text in podman.env.items() if name.startswith("CONTAINERS_")}
        # What asks less of a machine, as tests/container does.
        build = "build --isolation chroot --network host --pull=never --layers=false"
        cases = f'build) shift; set -- {build} "$@" ;; run) shift; set -- run --network host "$@" ;;'
        _program(folder / ".programs" / "podman", f'case $1 in {cases} esac; exec {shutil.which("podman")} "$@"')

    def write(self, block: Block) -> None:
        super().write(Block(block.where, block.language, self._own(block.text)))

    def follow(self, example: Example) -> None:
        if example.command == "podman build --format docker -t vigil .":
            return
        output = [self._own(line) for line in example.output]
        super().follow(Example(example.where, self._own(example.command), output, example.interrupted))

    def room(self) -> list[str]:
        return []

    def end(self) -> None:
        """Remove what the page has made."""
        for name in self._names.values():
            self._podman("rm", "-f", "-t", "0", "-i", name, check=False)
            if self._podman("image", "exists", f"localhost/{name}", check=False).returncode == 0:
                self._podman("rmi", "-f", f"localhost/{name}")

    def _own(self, text: str) -> str:
        text = text.replace("localhost/vigil", self._image).replace(PYTHON_IMAGE, BASE)
        return re.sub(rf"\b({'|'.join(self._names)})\b", lambda found: self._names[found[1]], text)

    def _settle(self) -> None:
        pass


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _lines(output: Output) -> list[str]:
    text = output.data.decode("utf-8", "replace")
    return text.removesuffix("\n").split("\n") if text else []
