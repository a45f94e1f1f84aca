"""What the command line promises: exact output, exact exit codes, one line for whatever goes wrong."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
import pytest
from docopt import docopt, parse_options

from tests.unit.api_world import NOW, World, service, world
from vigil.cli import acting, arguments, completion, moment, replan, usage
from vigil.cli.arguments import Arguments
from vigil.cli.terminal import Output, result
from vigil.cli.usage import TEXT
from vigil.client.client import Client
from vigil.client.errors import BadAnswer
from vigil.model import api
from vigil.model.errors import UsageError
from vigil.model.states import ChangeStatus, ServiceState

COMMAND = (sys.executable, "-P", "-c", "import sys; from vigil.cli.main import main; sys.exit(main())")


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def environment(**more: str) -> dict[str, str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VIGIL_", "NO_COLOR", "PYTHONUNBUFFERED"))
    }
    root = str(Path(__file__).resolve().parent.parent.parent)
    return {**clean, "TZ": "UTC", "TERM": "xterm", "PYTHONPATH": root, **more}


def vigil(w: World | None, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    place = {"VIGIL_SOCKET": w.path} if w is not None else {}
    return subprocess.run(
        [*COMMAND, *words], env=environment(**place, **env), capture_output=True, text=True, timeout=60, check=False
    )


class OnTerminal:
    """A ``vigil`` whose standard output and error are a terminal."""

    def __init__(self, w: World, *words: str, **env: str) -> None:
        self.fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 200, 0, 0))
        env = environment(VIGIL_SOCKET=w.path, **env)
        self.process = subprocess.Popen([*COMMAND, *words], env=env, stdout=theirs, stderr=theirs, stdin=theirs)
        os.close(theirs)
        self.seen = b""

    def until(self, wanted: bytes) -> bytes:
        end = time.monotonic() + 30
        while wanted not in self.seen:
            assert time.monotonic() < end, self.seen
            self._read()
        return self.seen

    def finish(self) -> tuple[int, bytes]:
        try:
            while self._read():
                pass
            return self.process.wait(30), self.seen
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.fd)

    def _read(self) -> bool:
        if not select.select([self.fd], [], [], 30)[0]:
            raise AssertionError(self.seen)
        try:
            piece = os.read(self.fd, 65536)
        except OSError:
            return False
        self.seen += piece
        return bool(piece)


# Usage.


def test_help_is_the_usage_text_and_needs_no_daemon() -> None:
    for words in (["--help"], ["-h"], ["start", "--help"], ["--socket", "/none", "logs", "-h"]):
        done = vigil(None, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, TEXT, "")


def test_version() -> None:
    done = vigil(None, "--version")
    assert (done.returncode, done.stdout) == (0, "vigil 0.1.0\n")


def test_help_fits_a_terminal() -> None:
    usage_lines = TEXT.partition("Usage:\n")[2].partition("\n\n")[0].splitlines()  # to break those reads no better
    assert max(len(line) for line in TEXT.splitlines() if line not in usage_lines) <= 80


def test_the_options_that_are_checked_are_those_that_docopt_reads() -> None:
    ours = {(option.long, option.short or None, bool(option.value)) for option in usage.options()}
    theirs = {(option.longer, option.short, option.argcount == 1) for option in parse_options(TEXT)}
    assert ours == theirs
    assert len(ours) == 12


def test_the_part_of_the_usage_text_that_is_read_for_a_command_says_the_same_as_the_whole() -> None:
    for form in usage.forms():
        operands = [re.sub(r"[^A-Z]", "", operand).lower() for operand in form.operands]
        options = [
            "--timeout=5s" if name == "--timeout" else name
            for name in form.options
            if name[2:] not in ("lines", "since")
        ]
        for line in ([*form.words, *operands], [*form.words, *operands, *options, "--format=json"]):
            part, whole = docopt(usage.of(form.words[0]), line), docopt(TEXT, line)
            assert dict(part) == {name: value for name, value in whole.items() if name in part}
            assert {name for name, value in whole.items() if value and name not in part} == set()


def test_the_forms_are_all_that_the_usage_text_allows() -> None:
    lines = [str(form) for form in usage.forms()]
    assert len(set(lines)) == len(lines) == 24
    for line in ("services [NAME...]", "services signal SIGNAL NAME...", "plan check [DIR]", "plan", "vigild status"):
        assert f"vigil {line}" in lines


def test_every_command_is_explained_in_the_help() -> None:
    told = usage.summaries()
    for form in usage.forms():
        assert completion._summary(form.words), form
    assert told["vigild stop"] == "Stop all services in order, then vigild"


WRONG = [
    ("", "a command is missing"),
    ("srvices", '"srvices" is not a command (did you mean "services"?)'),
    ("qqqqq", '"qqqqq" is not a command (there are services, start, stop, restart, signal, logs, replan, '),
    ("Start web", '"Start" is not a command (did you mean "start"?)'),
    ("services --fromat json", '"--fromat" is not an option (did you mean "--format"?)'),
    ("services --form json", '"--form" is not an option'),
    ("services --sock /x", '"--sock" is not an option'),
    ("services --no-color=yes", '"--no-color" takes no value'),
    ("services --format", '"--format" needs a value'),
    ("services --socket --", '"--socket" needs a value'),
    ("services -x", '"-x" is not an option'),
    ("logs -fx", '"-x" is not an option (in "-fx")'),
    ("services --format jsn", '"jsn" is not a format of "services" (did you mean "json"?)'),
    ("services --format xml", '"xml" is not a format of "services" (there are table, json, yaml)'),
    ("logs --format yaml", '"yaml" is not a format of "logs" (there are text, json)'),
    ("services -f", '"--follow" does not go with "services"'),
    ("logs --no-wait", '"--no-wait" does not go with "logs"'),
    ("start web --since 5", '"--since" does not go with "start"'),
    ("signal HUP web --no-wait", '"--no-wait" does not go with "signal"'),
    ("start", '"start" needs the name of a service'),
    ("services stop", '"stop" needs the name of a service'),
    ("start -- -x", '"-x" is not the name of a service'),
    ("signal HUP", '"signal" needs a signal and the name of a service: vigil signal SIGNAL NAME...'),
    ("plan chek", '"chek" is not a command of plan (did you mean "check"?)'),
    ("plan check a b", '"b" is one word too many for "vigil plan check"'),
    ("plan check --format json", '"--format" does not go with "plan check"'),
    ("plan show --format table", '"table" is not a format of "plan show" (there are yaml, json)'),
    ("replan web", '"web" is one word too many for "vigil replan"'),
    ("replan --dry", '"--dry" is not an option'),
    ("start web --dry-run", '"--dry-run" does not go with "start"'),
    ("completion", '"completion" needs one of bash, zsh or fish'),
    ("completion ksh", '"ksh" is not a command of completion (did you mean "zsh"?)'),
    ("signal HPU web", '"HPU" is not a signal'),
    ("start web --timeout 5", '--timeout: "5" has no unit'),
    ("start web --timeout soon", '--timeout: "soon" is not a duration'),
    ("logs -n some", '--lines: "some" is not a number of lines'),
    ("logs -n -1", '--lines: "-1" is not a number of lines'),
    ("logs --since yesterday", '--since: "yesterday" is no time'),
    ("vigild", '"vigild" needs one of status, stop or restart'),
    ("vigild sotp", '"sotp" is not a command of vigild (did you mean "stop"?)'),
    ("vigild start", '"start" is not a command of vigild'),
    ("vigild stop now", '"now" is one word too many for "vigil vigild stop"'),
    ("system-info x", '"x" is one word too many for "vigil system-info"'),
    ("changes 1 2", '"2" is one word too many for "vigil changes"'),
]


@pytest.mark.parametrize(("line", "words"), WRONG)
def test_a_wrong_command_line_is_told_which_word_is_wrong(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        arguments.read(line.split())
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("line", ["", "srvices", "services --form json", "start web --timeout 5"])
def test_usage_errors_are_one_line_on_stderr_and_exit_2(line: str) -> None:
    done = vigil(None, *line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vigil: ")
    assert done.stderr.count("\n") == 1


def read(line: str) -> dict[str, Any]:
    plain = vars(Arguments())
    return {name: value for name, value in vars(arguments.read(line.split())).items() if value != plain[name]}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("services", {"command": "services"}),
        ("services list", {"command": "services"}),
        ("services list web", {"command": "services", "names": ["web"]}),
        ("services web db", {"command": "services", "names": ["web", "db"]}),
        ("services start web", {"command": "start", "names": ["web"]}),
        ("services signal hup web", {"command": "signal", "names": ["web"], "signal": "SIGHUP"}),
        ("--socket /s stop web db", {"command": "stop", "names": ["web", "db"], "socket": "/s"}),
        ("stop web --socket=/s db", {"command": "stop", "names": ["web", "db"], "socket": "/s"}),
        ("--socket /a stop --socket /b web", {"command": "stop", "names": ["web"], "socket": "/b"}),
        ("restart web --no-wait", {"command": "restart", "names": ["web"], "wait": False}),
        ("restart --timeout 1m30s web", {"command": "restart", "names": ["web"], "timeout": 90.0}),
        ("signal 10 web db", {"command": "signal", "names": ["web", "db"], "signal": "SIGUSR1"}),
        ("logs", {"command": "logs", "format": "text"}),
        ("logs -fn5 web", {"command": "logs", "format": "text", "follow": True, "lines": 5, "names": ["web"]}),
        ("-n 5 logs --follow", {"command": "logs", "format": "text", "follow": True, "lines": 5}),
        ("logs --lines=0 --format json", {"command": "logs", "format": "json", "lines": 0}),
        ("logs --since 17 vigild", {"command": "logs", "format": "text", "since": "17", "names": ["vigild"]}),
        ("changes", {"command": "changes"}),
        ("replan", {"command": "replan"}),
        ("replan --dry-run --no-restart --no-wait --timeout 5s",
         {"command": "replan", "dry_run": True, "no_restart": True, "wait": False, "timeout": 5.0}),
        ("plan", {"command": "plan", "action": "show", "format": "yaml"}),
        ("plan show --format json", {"command": "plan", "action": "show", "format": "json"}),
        ("plan check ./layers", {"command": "plan", "action": "check", "folder": "./layers", "format": ""}),
        ("plan schema", {"command": "plan", "action": "schema", "format": "json"}),
        ("completion fish", {"command": "completion", "action": "fish", "format": ""}),
        ("changes 7 --format yaml", {"command": "changes", "change": "7", "format": "yaml"}),
        ("system-info", {"command": "system-info"}),
        ("vigild status", {"command": "vigild", "action": "status"}),
        ("vigild restart --no-color", {"command": "vigild", "action": "restart", "color": False}),
        ("start -- start stop", {"command": "start", "names": ["start", "stop"]}),
    ],
)  # fmt: skip
def test_what_a_command_line_means(monkeypatch: pytest.MonkeyPatch, line: str, told: dict[str, Any]) -> None:
    for name in ("VIGIL_SOCKET", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert read(line) == told


def test_a_flag_beats_its_variable_and_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_SOCKET", "/env")
    assert read("services")["socket"] == "/env"
    assert read("services --socket /flag")["socket"] == "/flag"
    monkeypatch.setenv("VIGIL_SOCKET", "")
    assert "socket" not in read("services")


def test_since_as_people_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_774_094_400.25)
    assert moment.since("17") == "17"
    assert moment.since("10m") == "2026-03-21T11:50:00.250000Z"
    assert moment.since("0") == "0"
    assert moment.since("2026-03-21T12:00:00Z") == "2026-03-21T12:00:00.000000Z"
    assert moment.since("2026-03-21T12:00:00.5+02:00") == "2026-03-21T10:00:00.500000Z"
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert moment.since("2026-03-21 12:00:00") == "2026-03-21T11:00:00.000000Z"
        assert moment.LocalTime()("2026-07-01T23:30:00.123456Z") == "2026-07-02 01:30:00.123"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("year", [1970, 1999, 2000, 2024, 2026, 2100])
def test_times_are_read_as_the_calendar_has_them(year: int) -> None:
    from datetime import datetime

    for month, day in ((1, 1), (2, 28), (3, 1), (12, 31)):
        when = datetime(year, month, day, 13, 14, 15, 500000, tzinfo=UTC)
        assert moment.seconds(when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) == when.timestamp()
        assert moment.seconds(when.strftime("%Y-%m-%dT%H:%M:%SZ")) == when.timestamp() - 0.5


# Output.


def ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - seconds)) + ".000000Z"


def test_the_table_of_services_lines_up_and_shows_what_there_is(w: World) -> None:
    def fill() -> None:
        w.overlord.entries = {
            "a-service-with-a-long-name": service("a-service-with-a-long-name", current_since=ago(7505), restarts=12),
            "db": service("db", current=ServiceState.INACTIVE, pid=None, startup="disabled", on_success="ignore"),
            "web": service("web", current=ServiceState.STOPPING, pid=4194304, stop_signal="SIGRTMIN+3"),
        }

    w.call(fill)
    done = vigil(w, "services")
    assert done.stdout.splitlines() == [
        (
            "Service                     Startup   Status    PID      Uptime  Restarts  "
            "On-Success  On-Failure  Stop-Signal"
        ),
        "a-service-with-a-long-name  enabled   active    42       2h 5m   12        restart     restart     SIGTERM",
        "db                          disabled  inactive  -        -       0         ignore      restart     SIGTERM",
        "web                         enabled   stopping  4194304  -       0         restart     restart     SIGRTMIN+3",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert vigil(w, "services", "list", "web").stdout.splitlines()[1].startswith("web  ")


def test_what_no_column_says_is_told_below_the_table(w: World) -> None:
    crash = api.Exit(code=7, signal=None, reason="exited with code 7", time=NOW, output=["1", "2", "3", "no disk"])

    def fill() -> None:
        w.overlord.entries = {
            "api": service("api", pending_restart=True),
            "db": service("db", current=ServiceState.BACKOFF, cause="exited with code 7, starts again", exit=crash),
            "ok": service("ok", exit=crash),
            "web": service("web", current=ServiceState.STARTING, waiting_for=["cache", "db"]),
        }

    w.call(fill)
    assert vigil(w, "services").stdout.splitlines()[5:] == [
        "",
        "api: pending restart: it runs with what the plan said before",
        "db: exited with code 7, starts again",
        "  2",
        "  3",
        "  no disk",
        "web: waits for cache and db",
    ]
    assert vigil(w, "services", "ok").stdout.splitlines()[2:] == [
        "",
        "ok: autostart",
        "  its last run exited with code 7 at 2026-03-21 12:00:00.000",
        "  2",
        "  3",
        "  no disk",
    ]


def test_columns_line_up_with_wide_and_joining_characters() -> None:
    rows = [("漢字", "x"), ("e\u0301", "y"), ("plain", "🎉"), ("", "z")]
    output = Output(color=False)
    lines: list[str] = []
    output.safe_line = lines.append  # type: ignore[method-assign]
    output.table(("Name", "B"), rows)
    assert lines == ["Name   B", "漢字   x", "e\u0301      y", "plain  🎉", "       z"]


def test_empty_lists_say_so(w: World) -> None:
    w.call(w.overlord.entries.clear)
    assert vigil(w, "services").stdout == "No services.\n"
    assert vigil(w, "changes").stdout == "No changes.\n"
    assert vigil(w, "logs").stdout == "No log entries.\n"
    assert vigil(w, "services", "--format", "json").stdout == "[]\n"
    assert vigil(w, "services", "--format", "yaml").stdout == "[]\n"
    assert vigil(w, "logs", "--format", "json").stdout == ""


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("services",), "/v1/services"),
        (("services", "web"), "/v1/services?names=web"),
        (("changes",), "/v1/changes"),
        (("changes", "1"), "/v1/changes/1"),
        (("system-info",), "/v1/system-info"),
        (("vigild", "status"), "/v1/system-info"),
    ],
)
def test_json_and_yaml_are_the_result_of_the_api(w: World, words: Sequence[str], path: str) -> None:
    import yaml

    w.post("/v1/services", '{"action":"start"}')
    result = w.get(path).json["result"]
    assert json.loads(vigil(w, *words, "--format", "json").stdout) == result
    assert yaml.safe_load(vigil(w, *words, "--format", "yaml").stdout) == result


def test_yaml_is_not_folded(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    command = "sh -c 'exec program " + "--option value " * 20 + "'"
    result(msgspec.json.encode({"command": command}), "yaml", Output(color=False))
    assert capsysbinary.readouterr().out.decode() == f"command: {command}\n"


def test_log_lines(w: World) -> None:
    w.call(lambda: w.logs.write("web", "hello", timestamp="2026-03-21T12:00:00.123456Z"))
    w.call(lambda: w.logs.write("db", "ünï \ufffd \x1b[31m", "stderr", timestamp="2026-03-21T12:00:01.000900Z"))
    done = vigil(w, "logs")
    assert done.stdout.splitlines() == [
        "2026-03-21 12:00:00.123 [web] [stdout] hello",
        "2026-03-21 12:00:01.000 [db] [stderr] ünï \ufffd \x1b[31m",
    ]
    assert vigil(w, "logs", TZ="Asia/Tokyo").stdout.startswith("2026-03-21 21:00:00.123 [web]")
    assert vigil(w, "logs", LC_ALL="C", PYTHONIOENCODING="ascii").stdout == done.stdout
    entries = [json.loads(line) for line in vigil(w, "logs", "--format", "json").stdout.splitlines()]
    assert entries == w.get("/v1/logs").json["result"]


def test_a_line_in_several_entries_is_one_line_again(w: World) -> None:
    for text, more in (("one ", True), ("two ", True), ("three", False)):
        w.call(lambda text=text, more=more: w.logs.write("web", text, partial=more))
        w.call(lambda text=text: w.logs.write("db", f"between {text}"))
    w.call(lambda: w.logs.write("web", "without an end", partial=True))
    assert [line[24:] for line in vigil(w, "logs").stdout.splitlines()] == [
        "[db] [stdout] between one ",
        "[db] [stdout] between two ",
        "[web] [stdout] one two three",
        "[db] [stdout] between three",
        "[web] [stdout] without an end",
    ]


def test_how_many_lines_of_whom(w: World) -> None:
    for words in (["logs"], ["logs", "web", "-n", "3"], ["logs", "--since", "5"], ["logs", "--since", "5", "-n3"]):
        vigil(w, *words)
    vigil(w, "logs", "--since", "2026-03-21T12:00:00Z")
    names = ["db", "web"]
    everything = 10_000_000
    assert w.logs.asked == [
        ("tail", names, 100, None),
        ("tail", ["web"], 3, None),
        ("tail", names, everything, 5),
        ("tail", names, 3, 5),
        ("tail", names, everything, 1774094400.0),
    ]


def test_follow_prints_as_it_comes_until_ctrl_c(w: World) -> None:
    w.call(lambda: w.logs.write("web", "first"))
    process = subprocess.Popen(
        [*COMMAND, "logs", "-f"],
        env=environment(VIGIL_SOCKET=w.path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("[web] [stdout] first\n")
        w.until(lambda: w.logs.followers)
        for number in range(3):
            w.call(lambda number=number: w.logs.write("web", f"line {number}"))
            assert process.stdout.readline().endswith(f"line {number}\n")
        w.end()
        w.begin()
        w.call(lambda: w.logs.write("web", "after"))
        assert process.stdout.readline().endswith("after\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        out, err = process.communicate()
        assert (out, err) == ("", "")
    finally:
        process.kill()
        process.communicate()


def test_whoever_has_seen_enough_may_close_the_pipe(w: World) -> None:
    for number in range(3000):
        w.logs.entries.append(msgspec.structs.replace(
            api.LogEntry(seq=number, timestamp=NOW, service="web", stream="stdout", message="x" * 100)
        ))  # fmt: skip
    for words in ("logs -n 3000", "services"):
        command = f"{' '.join(map(repr, COMMAND[:-1]))} '{COMMAND[-1]}' {words} | head -n 1"
        shell = ["/bin/bash", "-c", f"set -o pipefail; {command}"]
        env = environment(VIGIL_SOCKET=w.path)
        done = subprocess.run(shell, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout.count("\n") == 1


def test_closed_and_full_outputs_are_no_traceback(w: World) -> None:
    command = f"{' '.join(map(repr, COMMAND[:-1]))} '{COMMAND[-1]}'"
    env = environment(VIGIL_SOCKET=w.path)

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, text=True, timeout=60, check=False)

    done = shell(f"{command} services >&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = shell(f"{command} services wbe 2>&-")
    assert (done.returncode, done.stdout) == (1, "")
    w.call(lambda: w.logs.write("web", "x"))
    for words in ("services", "services --format json", "logs", "plan schema", "--help", "--version", "completion zsh"):
        done = shell(f"{command} {words} > /dev/full")
        assert (done.returncode, done.stderr) == (1, "vigil: cannot write: No space left on device\n"), words


# Terminals.


def test_states_are_coloured_on_a_terminal_only(w: World) -> None:
    code, seen = OnTerminal(w, "services").finish()
    assert code == 0
    assert b"\x1b[32mactive\x1b[0m  42" in seen
    for words, env in ((["--no-color"], {}), ([], {"NO_COLOR": "1"}), ([], {"TERM": "dumb"})):
        assert b"\x1b" not in OnTerminal(w, "services", *words, **env).finish()[1]
    assert "\x1b" not in vigil(w, "services").stdout


def test_a_log_cannot_command_the_terminal(w: World) -> None:
    w.call(lambda: w.logs.write("web", "\x1b]0;owned\x07\r\x9b2J\x7f\x00\ttab ü"))
    _, seen = OnTerminal(w, "logs").finish()
    written = "\\x1b]0;owned\\x07\\r\\x9b2J\\x7f\\x00\ttab ü"
    head = "\x1b[2m2026-03-21 12:00:00.000\x1b[0m \x1b[34m[web]\x1b[0m \x1b[2m[stdout]\x1b[0m "
    assert seen.decode() == f"{head}{written}\r\n"
    _, seen = OnTerminal(w, "logs", "--no-color").finish()
    assert seen.decode() == f"2026-03-21 12:00:00.000 [web] [stdout] {written}\r\n"
    assert not set(seen) & (set(range(32)) - {9, 10, 13})
    _, seen = OnTerminal(w, "logs", "--format", "json").finish()
    assert json.loads(seen)["message"] == "\x1b]0;owned\x07\r\x9b2J\x7f\x00\ttab ü"
    assert "ü" in seen.decode()
    assert not {ord(character) for character in seen.decode()} & ({*range(32), *range(127, 160)} - {10, 13})


def test_a_service_has_its_colour_in_every_log_and_stderr_is_told_apart(w: World) -> None:
    w.call(lambda: w.logs.write("web", "x" * 500))
    w.call(lambda: w.logs.write("db", "no"))
    w.call(lambda: w.logs.write("db", "no", "stderr"))
    _, seen = OnTerminal(w, "logs").finish()
    colors = dict(re.findall(r"\x1b\[(\d+)m\[(web|db)\]\x1b\[0m", seen.decode()))
    assert len(colors) == 2
    assert seen.count(b"\x1b[31m[stderr]\x1b[0m") == 1
    assert "31" not in colors
    lines = seen.decode().split("\r\n")
    assert lines[0].endswith("] \x1b[2m[stdout]\x1b[0m ".partition("] ")[2] + "x" * 500)
    assert len(lines) == 4
    _, again = OnTerminal(w, "logs", "web").finish()
    assert again.decode() == lines[0] + "\r\n"


def test_names_have_different_colours_as_far_as_there_are_some() -> None:
    output = Output(color=True)
    output.color = True
    names = ("web", "db", "cache", "worker", "nginx", "redis", "api", "cron")
    assert len({output.named("x", name) for name in names}) >= 5


def test_errors_cannot_command_the_terminal(w: World) -> None:
    code, seen = OnTerminal(w, "services", "\x1b[2J").finish()
    assert code == 1
    assert b"\x1b" not in seen


def test_a_terminal_shows_progress_and_takes_it_away(w: World) -> None:
    w.overlord.ends = None
    web = service("web", current=ServiceState.STARTING, waiting_for=["db"])
    w.call(lambda: w.overlord.entries.update(web=web))
    terminal = OnTerminal(w, "start", "web")
    terminal.until(b"\r\x1b[Kstart: web is starting, waits for db (1s)")
    w.call(lambda: w.overlord.finish("1", ChangeStatus.DONE, None))
    code, seen = terminal.finish()
    assert code == 0
    assert seen.endswith(b"\r\x1b[Kweb: started\r\n")


def test_a_terminal_is_told_that_vigild_does_not_answer(w: World, tmp_path: Path) -> None:
    word = b"vigil: vigild does not answer; waiting for up to 30s (Ctrl-C ends that)\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen(1)
        terminal = OnTerminal(w, "services", "--socket", str(tmp_path / "silent"))
        terminal.until(word)
        with listener.accept()[0] as sock:
            body = b'{"type":"sync","result":[]}'
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        code, seen = terminal.finish()
        assert (code, seen) == (0, b"\r\x1b[K" + word + b"No services.\r\n")
        terminal = OnTerminal(w, "services", "--socket", str(tmp_path / "silent"))
        terminal.until(word)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish()[0] == 130


def test_escaping_leaves_printable_text_alone() -> None:
    output = Output(color=True)
    output.terminal = True
    for text in ("plain", "ünïcödé 漢字 🎉", "tab\t"):
        assert output.safe(text) == text


# Commands.


def test_start_stop_and_restart_wait_and_tell(w: World) -> None:
    for word, past in (("start", "started"), ("stop", "stopped"), ("restart", "restarted")):
        done = vigil(w, word, "web", "db")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"web: {past}\ndb: {past}\n", "")
    done = vigil(w, "signal", "hup", "web")
    assert (done.returncode, done.stdout) == (0, "web: signal sent\n")
    actions = [(action.action, action.services, action.signal) for action, _, _ in w.overlord.acts]
    assert actions == [
        ("start", ["web", "db"], None),
        ("stop", ["web", "db"], None),
        ("restart", ["web", "db"], None),
        ("signal", ["web"], "SIGHUP"),
    ]


def test_a_change_that_fails_says_why_with_the_last_output(w: World) -> None:
    crash = api.Exit(code=7, signal=None, reason="exited with code 7", time=NOW, output=["first", "last"])
    w.call(lambda: w.overlord.entries.update(web=service("web", exit=crash, current=ServiceState.BACKOFF)))
    w.overlord.ends = (ChangeStatus.ERROR, "exited with code 7")
    done = vigil(w, "start", "web")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vigil: cannot start web: exited with code 7\n  first\n  last\n"
    w.overlord.ends = (ChangeStatus.ERROR, "exited with code 7; its last lines:\n  one\n  two")
    done = vigil(w, "start", "web")
    assert done.stderr == "vigil: cannot start web: exited with code 7; its last lines:\n  one\n  two\n"
    assert json.loads(vigil(w, "start", "web", "--format", "json").stdout)["status"] == "error"


def test_a_change_put_on_hold_is_not_done(w: World) -> None:
    w.overlord.ends = (ChangeStatus.HOLD, "it waits for db, which is in backoff")
    done = vigil(w, "start", "web")
    assert done.returncode == 1
    assert done.stderr == "vigil: cannot start web yet: it waits for db, which is in backoff\n"


def test_no_wait_does_not(w: World) -> None:
    w.overlord.ends = None
    done = vigil(w, "stop", "web", "--no-wait")
    assert (done.returncode, done.stdout) == (0, "Change 1: stop web (doing).\n")


def test_a_timeout_leaves_the_change_to_go_on(w: World) -> None:
    w.overlord.ends = None
    done = vigil(w, "stop", "web", "--timeout", "200ms")
    assert done.returncode == 1
    assert done.stderr == "vigil: cannot stop web: not done after 200ms (it goes on: vigil changes 1)\n"


def test_ctrl_c_while_waiting_leaves_the_change_to_go_on(w: World) -> None:
    w.overlord.ends = None
    process = subprocess.Popen(
        [*COMMAND, "stop", "web"], env=environment(VIGIL_SOCKET=w.path), stderr=subprocess.PIPE, text=True
    )
    try:
        w.until(lambda: w.overlord.acts)
        w.until(lambda: any(change for change in w.overlord.ended.values() if change._waiters))  # type: ignore[attr-defined]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err == "vigil: interrupted, the change goes on (vigil changes 1)\n"


def test_ctrl_c_at_any_moment_is_130_without_a_word(w: World) -> None:
    w.end()  # so that whoever gets that far waits
    code = (
        "import os, signal, sys\nfrom vigil.cli.main import main\nhandle = signal.signal\n"
        "def first(*words):\n    signal.signal = handle\n    handle(*words)\n    os.write(2, b'.')\n"
        "signal.signal = first\nsys.exit(main())"  # before its first line Ctrl-C is Python's
    )
    for delay in range(0, 60, 4):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, "services"],
            env=environment(VIGIL_SOCKET=w.path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            assert process.stderr.read(1) == b"."
            time.sleep(delay / 1000)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
        assert (process.returncode, out, err) == (130, b"", b""), delay
    w.begin()


def test_changes_are_listed_and_shown(w: World) -> None:
    vigil(w, "start", "web")
    w.overlord.ends = (ChangeStatus.ERROR, "exited with code 7; its last lines:\n  last line")
    vigil(w, "start", "db")
    w.overlord.ends = None
    vigil(w, "stop", "web", "db", "--no-wait")
    assert vigil(w, "changes").stdout.splitlines() == [
        "ID  Status  Spawn                    Ready                    Summary",
        "1   done    2026-03-21 12:00:00.000  2026-03-21 12:00:00.000  start web",
        "2   error   2026-03-21 12:00:00.000  2026-03-21 12:00:00.000  start db: exited with code 7",
        "3   doing   2026-03-21 12:00:00.000  -                        stop web, db",
    ]
    shown = vigil(w, "changes", "2").stdout
    assert shown.splitlines() == [
        "ID:       2",
        "Kind:     start",
        "Summary:  start db",
        "Status:   error",
        f"Cause:    uid {os.getuid()} over the Unix socket",
        "Spawn:    2026-03-21 12:00:00.000",
        "Ready:    2026-03-21 12:00:00.000",
        "",
        "Service  Task   Status  Error",
        "db       start  error   exited with code 7",
    ]
    w.overlord.ends = (ChangeStatus.HOLD, "it waits for x, which is in backoff")
    vigil(w, "start", "web", "db")
    reasons = "web waits for x, which is in backoff; db waits for x, which is in backoff"
    assert vigil(w, "changes").stdout.splitlines()[-1].endswith(f"  start web, db: {reasons}")


def test_vigild_status_stop_and_restart(w: World) -> None:
    start = ago(8143)
    info = w.overlord.system_info()
    last = api.LastUpgrade(time=NOW, ok=False, error="no preflight")
    info = msgspec.structs.replace(
        info, start_time=start, http_address="0.0.0.0:80", control_restarts=3, last_upgrade=last
    )
    w.overlord.system_info = lambda: info  # type: ignore[method-assign]
    lines = vigil(w, "vigild", "status").stdout.splitlines()
    assert lines[2].startswith("Uptime:            0d 2h 15m 4")
    assert lines[:2] + lines[3:] == [
        "Version:           0.1.0",
        "Boot-ID:           0a1b-2c3d",
        "HTTP-Address:      0.0.0.0:80",
        "HTTPS-Address:     -",
        "Control-Restarts:  3",
        "Logger-Restarts:   0",
        "Last-Upgrade:      2026-03-21 12:00:00.000 failed: no preflight",
    ]
    assert "PID1-Version:        0.1.0" in vigil(w, "system-info").stdout
    done = vigil(w, "vigild", "stop")
    assert (done.returncode, done.stdout) == (0, "Daemon stop initiated.\n")
    done = vigil(w, "vigild", "restart")
    assert (done.returncode, done.stdout) == (0, "Daemon restart initiated.\n")
    w.until(lambda: len(w.overlord.shutdowns) == 2)


# Replan, and the plan.


def test_a_replan_that_does_not_end_in_time_says_that_the_plan_is_in_force(w: World) -> None:
    w.overlord.ends = None
    change = w.call(lambda: w.overlord.act(api.ServicesAction(action="start", services=["web"]), "test", None))
    told = Arguments()
    told.timeout = 0.2
    with pytest.raises(acting.CommandError) as caught:
        acting.wait(change, told, Client(w.path), replan.WAITING)
    assert str(caught.value) == (
        "cannot wait for what the new plan, which is in force, starts and stops: not done after 200ms "
        "(it goes on: vigil changes 1)"
    )


# What goes wrong.


def test_a_vigild_of_another_version_that_cannot_do_it_is_named(w: World) -> None:
    info = msgspec.structs.replace(w.overlord.system_info(), version="0.0.9")
    w.overlord.system_info = lambda: info  # type: ignore[method-assign]
    client = Client(w.path)
    with pytest.raises(BadAnswer) as caught:
        client.get("/v1/telepathy")
    assert str(caught.value) == "vigild does not know /v1/telepathy (it is version 0.0.9, and this vigil is 0.1.0)"
    with pytest.raises(BadAnswer, match=r"not understood \(it is version 0.0.9, and this vigil is 0.1.0\): Expected"):
        client.typed(b'{"id": 7}', api.Change)


def test_a_no_of_vigild_is_one_line_and_exit_1(w: World) -> None:
    done = vigil(w, "services", "wbe")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vigil: cannot find a service named wbe\n"


def test_no_daemon_is_one_line_that_names_the_socket_and_exit_1(tmp_path: Path) -> None:
    for words, doing in (
        (["services"], "list services"),
        (["start", "a", "b"], "start a, b"),
        (["logs", "-f"], "follow logs"),
    ):
        done = vigil(None, *words, "--socket", str(tmp_path / "none"))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"vigil: cannot {doing}: there is no socket {tmp_path}/none (is vigild running?)\n"


def test_without_a_socket_told_the_usual_places_are_named(tmp_path: Path) -> None:
    if os.path.exists("/run/vigil/vigild.sock"):
        pytest.skip("a vigild runs here")
    done = vigil(None, "services", XDG_RUNTIME_DIR=str(tmp_path))
    assert done.returncode == 1
    assert f"/run/vigil/vigild.sock, {tmp_path}/vigil/vigild.sock, /tmp/vigil-{os.geteuid()}/vigild.sock" in done.stderr


def test_it_imports_little() -> None:
    """A command has to answer in a blink; these are what would take the time."""
    code = (
        "import sys; sys.argv = ['vigil', '--socket', '/none', 'services'];"
        "from vigil.cli.main import main; main(); print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"argparse", "asyncio", "email", "falcon", "gunicorn", "http", "json", "logging", "ssl", "urllib", "yaml"}
    assert not loaded & heavy
    assert "vigil.client.client" in loaded
