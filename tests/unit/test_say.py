"""control's diagnostics: one line each, in two formats, never waited for."""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading

import pytest

from vigil.model import say

NOW = 1_774_094_400_123_456_789


@pytest.fixture(autouse=True)
def as_before():
    yield
    say.configure()
    say._dropped = 0


def text(message, **fields):
    return say.render(say.INFO, "vigil.service", message, fields, json=False, real_ns=NOW).decode(
        "utf-8", "surrogateescape"
    )


def entry(message, **fields):
    return json.loads(say.render(say.WARN, "vigil.service", message, fields, json=True, real_ns=NOW))


def test_a_line_of_text():
    assert text("web: started", pid=42) == "2026-03-21T12:00:00.123456Z INFO vigil.service web: started pid=42\n"


def test_a_json_object():
    assert entry("web: started", pid=42, ok=True, ratio=0.5, none=None, text="x") == {
        "timestamp": "2026-03-21T12:00:00.123456Z",
        "level": "WARN",
        "target": "vigil.service",
        "message": "web: started",
        "pid": 42,
        "ok": True,
        "ratio": 0.5,
        "none": None,
        "text": "x",
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x" \\', '"say \\"x\\" \\\\"'),
        (True, "true"),
        (None, "None"),
        ("new\nline", "new\\nline"),
    ],
)
def test_fields_can_be_told_apart(value, shown):
    assert text("m", key=value).endswith(f" m key={shown}\n")


def test_nothing_forges_a_line():
    line = text("web\n2026-01-01T00:00:00Z ERROR forged \x1b[31m \x00 ä €")
    assert line.count("\n") == 1
    assert "\\n2026" in line
    assert "\\x1b[31m \\x00 ä €" in line


def test_bytes_that_are_no_text():
    raw = say.render(say.INFO, "t", "name \udcff", {}, json=False, real_ns=NOW)
    assert raw.endswith(b"name \xff\n")
    assert entry("name \udcff")["message"] == "name \ufffd"


@pytest.mark.parametrize("json_format", [False, True])
def test_a_line_is_never_longer_than_a_pipe_takes_at_once(json_format):
    line = say.render(say.INFO, "t", "x" * 9000, {"more": "y" * 9000}, json=json_format, real_ns=NOW)
    assert len(line) <= 4096
    assert line.endswith(b"\n")
    if json_format:
        assert json.loads(line)["message"].startswith("xxx")


def test_levels(capfd):
    for level, expected in (("debug", 4), ("info", 3), ("warn", 2), ("error", 1)):
        say.configure("text", level)
        for call in (say.debug, say.info, say.warn, say.error):
            call("t", "m")
        assert capfd.readouterr().err.count("\n") == expected


def test_an_unknown_format_or_level_is_refused():
    for arguments in (("xml", "info"), ("text", "loud")):
        with pytest.raises(ValueError, match=r"xml|loud"):
            say.configure(*arguments)


class Stderr:
    """Descriptor 2 is a pipe of one page."""

    def __enter__(self):
        self.read, write = os.pipe()
        fcntl.fcntl(self.read, fcntl.F_SETPIPE_SZ, 4096)
        self.saved = os.dup(2)
        os.dup2(write, 2)
        os.close(write)
        return self

    def __exit__(self, *_):
        os.dup2(self.saved, 2)
        os.close(self.saved)
        os.close(self.read)


def test_a_full_pipe_is_not_waited_for_and_what_was_dropped_is_told():
    with Stderr() as stderr:
        done = threading.Event()

        def talk():
            for number in range(200):
                say.info("t", f"line {number} " + "x" * 80)
            done.set()

        talker = threading.Thread(target=talk, daemon=True)
        talker.start()
        assert done.wait(10), "it waits for a reader"
        first = os.read(stderr.read, 65536).decode()
        kept = first.count("\n")
        say.info("t", "afterwards")
        rest = os.read(stderr.read, 65536).decode().splitlines()
    assert 0 < kept < 200
    assert re.fullmatch(rf".* WARN vigil.control lines of diagnostics were dropped: .* count={200 - kept}", rest[0])
    assert rest[1].endswith("INFO t afterwards")


def test_no_descriptor_2_at_all_is_nobodys_error():
    saved = os.dup(2)
    os.close(2)
    try:
        say.error("t", "nobody hears this")
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def test_a_field_that_cannot_be_shown_is_nobodys_error(capfd):
    class Bad:
        def __str__(self):
            raise RuntimeError

    say.info("t", "m", bad=Bad())
    say.info("t", "after")
    assert "after" in capfd.readouterr().err
