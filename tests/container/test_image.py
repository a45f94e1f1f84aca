"""The image by itself: what it is started, asked and stopped with, what is in it, and what is made on top of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.container.box import ACT, LIMIT, PYTHON, Box, Podman
from tests.container.test_matrix import HIDEPID, NO_MORE_MOUNTING, client

ROOT = Path(__file__).resolve().parents[2]
WEB = f"services: {{web: {{command: [{ACT}, web], startup: enabled, kill-delay: 1s}}}}"
IMPORTS = """
import glob, importlib, os, sys, time
for file in glob.glob("/opt/vigil/lib/python3*/site-packages/vigil/**/*.py", recursive=True):
    name = file.partition("/site-packages/")[2].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if not name.endswith("__main__"):
        importlib.import_module(name)
import asyncio, gunicorn.asgi.protocol, falcon.asgi, requests, yaml, jinja2
for module in list(sys.modules.values()):
    spec = getattr(module, "__spec__", None)
    if spec and spec.origin and spec.origin.endswith(".py") and not os.path.exists(spec.cached):
        print(spec.origin)
"""


def test_the_five_commands_of_a_container(box: Callable[..., Box], image: str) -> None:
    """exec, logs, kill, healthcheck and stop, none with a flag of its own."""
    container = box(image).start(WEB)
    container.says("[web] web is up: 0 root /root")
    assert container.services()["web"]["current"] == "active"
    assert "[web] web is up" in container.stdout
    assert "INFO vigil.daemon vigild starts" in container.stderr
    container.podman("kill", "--signal", "HUP", container.name)
    container.says("[web] web heard HUP")
    container.podman("healthcheck", "run", container.name)
    code, took = container.stop()
    assert code == 0
    assert took < 5
    assert "[web] web ends" in container.stdout


def test_the_healthcheck_fails_when_nobody_answers(box: Callable[..., Box], image: str) -> None:
    container = box(image).start(WEB)
    container.says("[web] web is up")
    container.podman("healthcheck", "run", container.name)
    container.exec("rm", "/run/vigil/vigild.sock")
    failed = container.podman("healthcheck", "run", container.name, check=False)
    assert failed.returncode == 1


def test_a_stop_that_takes_longer_than_the_engine_waits_has_a_budget(box: Callable[..., Box], image: str) -> None:
    deaf = f"services: {{web: {{command: [{ACT}, deaf], startup: enabled, kill-delay: 10m}}}}"
    container = box(image, args=["--stop-timeout", "4s"]).start(deaf)
    container.says("[web] waits for signals")
    code, took = container.stop()
    assert code == 0
    assert 3.9 < took < 9


def test_a_plan_is_checked_before_it_is_deployed(box: Callable[..., Box], image: str) -> None:
    container = box(image, args=["--check"]).start("services: {web: {command: web, kill-delay: 5 parsecs}}\n")
    assert container.wait() == 1
    assert "/etc/vigil/layers/10-cell.yaml:1:" in container.stderr
    assert '"5 parsecs"' in container.stderr
    container.start("services: {web: {command: web}}\n")
    assert container.wait() == 0


def test_a_service_for_which_vigild_may_not_change_users_is_refused_with_the_cause(
    box: Callable[..., Box], image: str
) -> None:
    layer = f"services: {{web: {{command: [{ACT}, web], startup: enabled, user: nobody}}}}"
    for options in (["--user", "12345:0"], ["--cap-drop=all"]):
        container = box(image, options).start(layer)
        assert container.wait() == 1
        assert "/etc/vigil/layers/10-cell.yaml:1:" in container.stderr
        assert "nobody" in container.stderr
        assert "web is up" not in container.stdout
    container = box(image, ["--security-opt", "no-new-privileges"]).start(layer)
    container.says("[web] web is up: 65534 nobody /nonexistent")
    assert container.stop()[0] == 0


def test_trees_of_other_users_are_emptied_where_proc_does_not_show_them(box: Callable[..., Box], image: str) -> None:
    """hidepid, and root without CAP_SYS_PTRACE: what belongs to others is not in /proc."""
    container = box(image, ["--cap-add", "SYS_ADMIN"], HIDEPID + NO_MORE_MOUNTING)
    container.start(f"services: {{web: {{command: [{ACT}, web], startup: enabled, user: nobody, kill-delay: 500ms}}}}")
    container.says("[web] web is up: 65534")
    assert container.acting() == ["deaf", "polite", "web"]
    seen = container.exec("ls", "/proc").stdout.split()
    assert str(container.services()["web"]["pid"]) not in seen
    container.exec("vigil", "stop", "web")
    assert container.acting() == []
    assert "[web] polite ends" in container.stdout
    assert container.stop()[0] == 0


def test_a_service_that_takes_all_processes_leaves_vigild_able_to_stop_it(box: Callable[..., Box], image: str) -> None:
    container = box(image, ["--pids-limit", "60"]).start(
        f"""
services:
  web: {{command: [{ACT}, web], startup: enabled, kill-delay: 1s}}
  crowd: {{command: [{ACT}, crowd, '1000'], startup: enabled, kill-delay: 1s, after: [web]}}
"""
    )
    container.says("[crowd] crowd has enough: Resource temporarily unavailable")
    assert len(container.processes()) > 40
    # The engine can start nothing in it either, so commands come from outside: one process that is not the container's.
    asked = client(container, "stop", "crowd")
    assert asked.returncode == 0, asked.stderr
    assert container.acting() == ["deaf", "polite", "web"]
    assert container.services()["web"]["restarts"] == 0
    client(container, "start", "crowd")
    code, took = container.stop()
    assert code == 0
    assert took < 9
    assert "[web] polite ends" in container.stdout


def test_a_service_that_takes_all_memory_is_the_one_that_dies_of_it(box: Callable[..., Box], image: str) -> None:
    # The kernel ends the largest: with this much that is the hog, whatever control needs.
    container = box(image, ["--memory", "192m", "--memory-swap", "192m"]).start(
        f"""
services:
  web: {{command: [{ACT}, web], startup: enabled, kill-delay: 1s}}
  hog: {{command: [{ACT}, hog, '1000'], after: [web], startup: enabled, backoff-delay: 100ms, restart-limit: 3}}
"""
    )
    container.says("[hog] hog begins")

    # Asked from outside: what the engine starts in it may be in want of memory too.
    def services() -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in json.loads(client(container, "services", "--format", "json").stdout)}

    container.until(lambda: services()["hog"]["current"] == "error", "the hog to be given up")
    known = services()
    assert known["hog"]["exit"]["signal"] == "SIGKILL"
    assert known["hog"]["restarts"] == 3
    assert known["web"]["restarts"] == 0
    info = json.loads(container.exec("vigil", "system-info", "--format", "json").stdout)
    assert (info["control-restarts"], info["logger-restarts"]) == (0, 0)
    assert container.stop()[0] == 0
    assert "[web] polite ends" in container.stdout


def test_what_is_in_the_image(podman: Podman, box: Callable[..., Box], image: str) -> None:
    container = box(image, ["--read-only"]).start(WEB)
    container.says("[web] web is up")

    # Every module is compiled, so that a start where nothing can be written compiles nothing.
    assert container.exec(PYTHON, "-c", IMPORTS).stdout == ""

    # No compiler, no sources, and no installer in our environment.
    look = "import glob, shutil; print([n for n in ('cc', 'gcc', 'c99', 'ld', 'as', 'make') if shutil.which(n)],"
    look += " glob.glob('/opt/vigil/lib/python3*/site-packages/pip'), glob.glob('/src/*'))"
    assert container.exec(PYTHON, "-c", look).stdout == "[] [] []\n"

    # What it says of itself, and where its documentation is.
    labels = json.loads(podman("inspect", "--format", "{{json .Config.Labels}}", image).stdout)
    assert labels["org.opencontainers.image.title"] == "vigil"
    place = labels["org.opencontainers.image.documentation"].removeprefix("file://")
    assert container.exec(PYTHON, "-c", f"print(open('{place}').read())").stdout.startswith("# vigil\n")

    # Both programs are found by their names, and Python is the image's own.
    for word in ("vigild", "vigil"):
        assert re.fullmatch(rf"{word} \d+\.\d+\.\d+\S*\n", container.exec(word, "--version").stdout)
    where = container.exec("python3", "-c", "import sys; print(sys.prefix)").stdout
    assert where in ("/usr\n", "/usr/local\n")


def test_an_image_on_top_of_it_takes_five_lines(
    podman: Podman, image: str, box: Callable[..., Box], tmp_path: Path
) -> None:
    """Those that the Containerfile shows, with something that needs no download instead of nginx."""
    shown = (ROOT / "Containerfile").read_text().partition("#   FROM ")[2]
    lines = [line.removeprefix("#   ") for line in ("#   FROM " + shown).splitlines() if line.startswith("#   ")]
    lines = lines[: lines.index('CMD ["--stop-timeout", "9s"]') + 1]
    assert len(lines) <= 5
    text = "\n".join(lines).replace("localhost/vigil", image)
    (install,) = re.findall(r"^RUN .*$", text, re.MULTILINE)
    (tmp_path / "Containerfile").write_text(text.replace(install, "RUN mkdir /srv/app"))
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "10-app.yaml").write_text(
        "services: {app: {command: [/bin/sh, -c, 'cd /srv/app && echo app is up && sleep 1000'], startup: enabled}}"
    )
    tag = f"localhost/vigil-tests-derived:{os.getpid()}"
    podman.build(tmp_path / "Containerfile", tmp_path, tag)
    name = f"vigil-test-{os.getpid()}-derived"
    try:
        podman("run", "-d", "--name", name, "--network", "host", tag)
        podman("exec", name, "sh", "-c", "until vigil logs app | grep 'app is up'; do sleep 0.1; done", timeout=LIMIT)
        assert podman("inspect", "--format", "{{json .Config.Cmd}}", name).stdout.strip() == '["--stop-timeout","9s"]'
        podman("stop", name)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip() == "0"
    finally:
        podman("rm", "-f", "-t", "0", name, check=False)
        podman("rmi", "-f", tag, check=False)


def test_both_containerfiles_agree() -> None:
    """The one for musl differs in how packages are installed, and in nothing that a container shows."""

    def shown(name: str) -> list[str]:
        final = (ROOT / name).read_text().rpartition("\nFROM ")[2]
        joined = re.sub(r"\\\n\s*", "", final)
        return re.findall(r"^(?:LABEL|ENV|HEALTHCHECK|ENTRYPOINT|STOPSIGNAL|COPY) .*$", joined, re.MULTILINE)

    assert len(shown("Containerfile")) == 5
    assert shown("Containerfile") == shown("examples/musl/Containerfile")
