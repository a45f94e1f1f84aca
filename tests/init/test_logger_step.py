"""Logger is killed after each of its instructions in turn, so that no window is too narrow to be hit.

VIGIL_STEP=1 kills after every single instruction of what it does with a piece of output; else after one in many, at an
offset of chance. Random kills (test_logger_kill.py) hit wide windows under load; this hits those of a few nanoseconds.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.init.logger_play import JSON, Play, build, compile_c, pipe, records

STEP = int(os.environ.get("VIGIL_STEP", "0"))
SANITIZED = os.environ.get("VIGIL_TEST_SANITIZE") == "1"
LONG = 17_000


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("step")
    return build(folder)[0], compile_c(folder, "logger_step", ["tests/init/logger_step.c"])


@pytest.fixture
def out() -> Iterator[tuple[int, int]]:
    ends = pipe()
    yield ends
    for end in ends:
        os.close(end)


def killed_after(step: Path, play: Play, steps: int, write: int, text: bytes) -> bool:
    """Writes to a logger that stands still, and lets it do so many steps; false: it had nothing left to do."""
    assert play.process
    with subprocess.Popen(
        [step, str(play.process.pid), str(steps)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert tracer.stdin
        assert tracer.stdout
        assert tracer.stderr
        if tracer.stdout.readline() != "stopped\n":
            missing(f"logger cannot be traced: {tracer.stderr.read()}")
        assert os.write(write, text) == len(text)
        tracer.stdin.write("\n")
        tracer.stdin.flush()
        busy = bool(select.select([tracer.stdout], [], [], 1)[0])
        if not busy:  # it waits for more to do
            play.process.kill()
        tracer.communicate()
    return busy


def text_of(number: int, kind: str) -> bytes:
    """Lines and parts of lines, of which the first ends what the last text began."""
    if kind == "long":
        return (
            b"=%d\n%d " % (number - 1, number) + b"x" * LONG if number % 2 else b"=%d\nshort %d" % (number - 1, number)
        )
    return b"=%d\r\n%d one\n%d two\n%d half" % (number - 1, number, number, number)


@pytest.mark.chaos
@pytest.mark.skipif(SANITIZED, reason="counts instructions of the program as it is")
@pytest.mark.parametrize(
    ("kind", "most", "apart"), [("lines", 30_000, 97), ("long", 60_000, 401), ("json", 40_000, 701)]
)
def test_no_instruction_is_one_after_which_a_kill_costs_a_line(
    programs: tuple[Path, Path], out: tuple[int, int], kind: str, most: int, apart: int
) -> None:
    alone, step = programs
    apart = STEP or apart
    play = Play(alone, (out[1], out[1]))
    try:
        write = play.stream(1, 1, "web", **({"format": JSON} if kind == "json" else {}))
        play.start()
        steps, number, sent, kills = random.randrange(apart), 0, b"", 0
        got = b""
        while steps < most:
            text = text_of(number, kind)
            sent += text
            busy = killed_after(step, play, steps, write, text)
            play.kill()
            play.start()
            kills += 1
            number += 1
            steps += apart
            if select.select([out[0]], [], [], 0)[0]:
                got += os.read(out[0], 1 << 20)
            if not busy:
                break
        assert not busy, "it was followed until it had nothing more to do"
        os.write(write, b"\nend\n")
        end = time.monotonic() + 10
        while not got.endswith((b"] end\n", b'"end"}\n')):
            left = end - time.monotonic()
            assert left > 0
            if select.select([out[0]], [], [], left)[0]:
                got += os.read(out[0], 1 << 20)
        lines = (sent + b"\nend\n").replace(b"\r\n", b"\n").split(b"\n")[:-1]
        if kind == "json":
            assert got.count(b"\n") == len(lines)
            assert [line.rpartition(b'"message":"')[2][:-2] for line in got.splitlines()] == lines
        else:
            assert got == b"".join(b"[web] " + line + b"\n" for line in lines)
        kept = records(play.rings["web"])
        joined = b"".join(message + (b"" if flags & 2 else b"\n") for _, _, _, flags, message in kept)
        assert (b"\n".join(lines) + b"\n").endswith(joined[joined.index(b"\n") + 1 :])
        assert [line for _, line, _, _, _ in kept] == list(range(kept[0][1], kept[0][1] + len(kept)))
        assert [seq for seq, *_ in kept] == sorted({seq for seq, *_ in kept})
        print(f"{kills} kills, {steps} instructions")
    finally:
        play.close()
