"""Lines arrive once and in order, whatever stdout is, and nobody waits longer than he must."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import LIMIT, Daemon

LINES = 200_000
BUFFER = ("--log-buffer", str(LINES), "--log-buffer-bytes", "64MiB")
BURST = f"services: {{burst: {{command: [seq, '{LINES}'], startup: enabled, on-success: shutdown}}}}"
WANTED = b"".join(b"[burst] %d\n" % i for i in range(1, LINES + 1))


def read_slowly(fd: int, rate: float, into: bytearray) -> None:
    """Read at this many bytes a second, until the end."""
    began = time.monotonic()
    while True:
        try:
            chunk = os.read(fd, 65536)
        except OSError:  # a terminal whose other end is closed
            return
        if not chunk:
            return
        into += chunk
        ahead = len(into) / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)


@pytest.mark.parametrize("rate", [1e9, 20e6], ids=["a fast pipe", "a pipe read at 20 MB/s"])
def test_a_burst_arrives_through(vigild: Callable[..., Daemon], rate: float) -> None:
    read, write = os.pipe()
    daemon = vigild(BURST, args=BUFFER, stdout=write)
    os.close(write)
    got = bytearray()
    read_slowly(read, rate, got)
    os.close(read)
    assert daemon.wait() == 0
    assert bytes(got) == WANTED


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_APPEND], ids=["a file", "an O_APPEND file"])
def test_a_burst_arrives_in(vigild: Callable[..., Daemon], tmp_path: Path, flags: int) -> None:
    path = tmp_path / "out"
    path.write_text("before\n")
    fd = os.open(path, flags)
    os.lseek(fd, 7, os.SEEK_SET)
    daemon = vigild(BURST, args=BUFFER, stdout=fd)
    os.close(fd)
    assert daemon.wait() == 0
    assert path.read_bytes() == b"before\n" + WANTED


def test_a_burst_arrives_on_a_terminal(vigild: Callable[..., Daemon]) -> None:
    master, slave = pty.openpty()
    daemon = vigild(BURST, args=BUFFER, stdout=slave)
    os.close(slave)
    got = bytearray()
    read_slowly(master, 1e9, got)
    os.close(master)
    assert daemon.wait() == 0
    assert bytes(got).replace(b"\r\n", b"\n") == WANTED


def test_a_burst_is_kept_while_stdout_is_dev_null(vigild: Callable[..., Daemon]) -> None:
    layers = BURST.replace("on-success: shutdown", "on-success: ignore")
    daemon = vigild(layers, args=BUFFER, stdout=subprocess.DEVNULL)
    daemon.wait_state("burst", "inactive")
    entries = daemon.until(lambda: whole_log(daemon), "the whole log")
    assert [entry["message"] for entry in entries] == [str(i) for i in range(1, LINES + 1)]
    assert len({entry["seq"] for entry in entries}) == LINES
    text = daemon.cli("logs", "burst", "-n", str(LINES)).stdout
    assert [line.rsplit(" ", 1)[1] for line in text.splitlines()] == [str(i) for i in range(1, LINES + 1)]


def whole_log(daemon: Daemon) -> list[Any] | None:
    """All of it, once the last line is there."""
    status, answer = daemon.api("GET", f"/v1/logs?services=burst&n={LINES}")
    assert status == 200
    entries = answer["result"]
    return entries if entries and entries[-1]["message"] == str(LINES) else None


def test_a_pipe_nobody_reads_holds_up_only_who_is_ahead_of_it_and_only_for_the_stall(
    vigild: Callable[..., Daemon],
) -> None:
    layers = """
services:
  flood: {command: [/bin/sh, -c, "seq 300000; echo done >&2; exec sleep 1000"], startup: enabled}
  other: {command: [/bin/sh, -c, "echo one; sleep 0.5; echo two; exec sleep 1000"], startup: enabled, \
logs-forward: disabled}
"""
    read, write = os.pipe()
    daemon = vigild(layers, args=["--forward-stall", "1s"], stdout=write)
    os.close(write)
    daemon.wait_state("other", "active")

    def messages(service: str) -> list[str]:
        return [e["message"] for e in daemon.api("GET", f"/v1/logs?services={service}&n=1000")[1]["result"]]

    daemon.until(lambda: messages("other") == ["one", "two"], "a service that is not ahead to go on")
    # After the stall the flood is captured only, and comes to its end.
    daemon.until(lambda: "done" in messages("flood"), "the flood to be let go")
    # stdout moves again: one line says what was skipped.
    got = bytearray()
    reader = threading.Thread(target=read_slowly, args=(read, 1e9, got))
    reader.start()
    assert daemon.err
    daemon.err.wait_for("stdout stood still")
    said = re.search(r"lines were not forwarded: flood (\d+)", daemon.stderr)
    assert said, daemon.stderr
    assert daemon.stop() == 0
    reader.join(LIMIT)
    os.close(read)
    numbers = [int(line.split()[1]) for line in got.decode().splitlines() if line.startswith("[flood] ")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + int(said[1]) in (300_000, 300_001), "what was not forwarded was counted"


def test_a_pipe_nobody_reads_makes_the_end_2_s_longer_at_most(vigild: Callable[..., Daemon]) -> None:
    layers = "services: {flood: {command: [/bin/sh, -c, 'seq 300000; exec sleep 1000'], startup: enabled}}"
    read, write = os.pipe()
    daemon = vigild(layers, args=["--forward-stall", "60s"], stdout=write)
    os.close(write)
    daemon.wait_state("flood", "active")
    began = time.monotonic()
    daemon.signal(15)
    assert daemon.wait() == 0
    assert time.monotonic() - began < 2 + 8, "generous: 2 s, and a busy machine"
    assert re.search(r"lines were not forwarded: flood \d+", daemon.stderr), daemon.stderr
    os.close(read)


def test_strange_lines_survive(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    raw = (
        b"invalid \xff\xfe utf-8\n" + b"a NUL \x00 within\n" + b"dos\r\n" + b"\n" + b"bare \r within\n"
        + b"x" * 300_000 + b"\n" + b"unterminated"
    )  # fmt: skip
    (tmp_path / "raw").write_bytes(raw)
    layers = f"services: {{odd: {{command: [cat, {tmp_path}/raw], startup: enabled, on-success: ignore}}}}"
    daemon = vigild(layers)
    daemon.wait_state("odd", "inactive")
    entries = daemon.api("GET", "/v1/logs?services=odd&n=1000")[1]["result"]
    messages = [entry["message"] for entry in entries]
    assert messages[:5] == ["invalid \ufffd\ufffd utf-8", "a NUL \0 within", "dos", "", "bare \r within"]
    assert messages[-1] == "unterminated"
    long = entries[5:-1]
    assert "".join(entry["message"] for entry in long) == "x" * 300_000
    assert [entry.get("partial", False) for entry in long] == [True] * (len(long) - 1) + [False]
    assert daemon.stop() == 0
    assert daemon.out
    wanted = raw.replace(b"\r\n", b"\n").split(b"\n")
    assert daemon.out.data == b"".join(b"[odd] " + line + b"\n" for line in wanted)


def test_a_closed_stdout_stops_nobody(vigild: Callable[..., Daemon]) -> None:
    layers = (
        "services: {talker: {command: [/bin/sh, -c, 'i=0; while i=$((i+1)); do echo $i; sleep 0.01; done'],"
        " startup: enabled}}"
    )
    read, write = os.pipe()
    daemon = vigild(layers, stdout=write)
    os.close(write)
    os.close(read)
    pid = daemon.wait_state("talker", "active")["pid"]
    last = lambda: int(daemon.api("GET", "/v1/logs?services=talker&n=1")[1]["result"][0]["message"])  # noqa: E731
    daemon.until(lambda: daemon.api("GET", "/v1/logs?services=talker&n=1")[1]["result"], "a line")
    before = last()
    daemon.until(lambda: last() > before + 50, "more lines")
    assert daemon.service("talker")["pid"] == pid
    assert daemon.stop() == 0
