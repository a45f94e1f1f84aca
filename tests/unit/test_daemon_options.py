"""vigild's command line: what is taken, and what is said of what is not."""

from __future__ import annotations

import docopt
import pytest

from vigil.daemon import options
from vigil.daemon.options import USAGE, Options, parse
from vigil.model.errors import UsageError

EVERYTHING = {
    "--layers-dir": ("VIGIL_LAYERS", "/plan", "layers_dir", "/plan"),
    "--socket": ("VIGIL_SOCKET", "/run/x.sock", "socket", "/run/x.sock"),
    "--socket-mode": ("VIGIL_SOCKET_MODE", "0600", "socket_mode", 0o600),
    "--socket-group": ("VIGIL_SOCKET_GROUP", "adm", "socket_group", "adm"),
    "--log-format": ("VIGIL_LOG_FORMAT", "json", "log_format", "json"),
    "--log-level": ("VIGIL_LOG_LEVEL", "debug", "log_level", "debug"),
    "--log-buffer": ("VIGIL_LOG_BUFFER", "200000", "log_buffer", 200000),
    "--log-buffer-bytes": ("VIGIL_LOG_BUFFER_BYTES", "64MiB", "log_buffer_bytes", 64 * 2**20),
    "--forward-format": ("VIGIL_FORWARD_FORMAT", "timestamp", "forward_format", "timestamp"),
    "--forward-stall": ("VIGIL_FORWARD_STALL", "500ms", "forward_stall", 0.5),
    "--stop-timeout": ("VIGIL_STOP_TIMEOUT", "1m30s", "stop_timeout", 90.0),
}


def test_nothing_given_is_the_defaults():
    assert parse([], {}) == Options()
    assert Options() == Options(
        layers_dir="/etc/vigil/layers",
        socket_mode=0o660,
        log_buffer=1000,
        log_buffer_bytes=4 * 2**20,
        forward_stall=5.0,
        stop_timeout=0.0,
    )


@pytest.mark.parametrize("flag", EVERYTHING)
def test_a_flag_beats_its_variable_which_beats_the_default(flag):
    variable, text, name, value = EVERYTHING[flag]
    assert getattr(parse([flag, text], {}), name) == value
    assert getattr(parse([f"{flag}={text}"], {}), name) == value
    assert getattr(parse([], {variable: text}), name) == value
    assert getattr(parse([flag, text], {variable: "nonsense for anything"}), name) == value
    assert getattr(parse([], {variable: ""}), name) == getattr(Options(), name)


@pytest.mark.parametrize("flag", EVERYTHING)
def test_of_a_flag_given_several_times_the_last_counts(flag):
    """A container's ENTRYPOINT has some, and whoever runs it adds others behind them."""
    _, text, name, value = EVERYTHING[flag]
    assert getattr(parse([flag, "nonsense for anything", f"{flag}={text}"], {}), name) == value
    assert getattr(parse([f"{flag}=nonsense for anything", "--reaper", "--reaper", flag, text], {}), name) == value


def test_switches_have_no_value_and_variables_are_yes_or_no():
    assert parse(["--check", "--reaper"], {}) == Options(check=True, reaper=True)
    for word, value in (("1", True), ("TRUE", True), ("yes", True), ("on", True)):
        assert parse([], {"VIGIL_REAPER": word}).reaper is value
    for word in ("0", "false", "No", "off"):
        assert parse([], {"VIGIL_REAPER": word}).reaper is False


def test_help_and_version_are_answered_whatever_the_environment_holds():
    broken = {"VIGIL_LOG_LEVEL": "loud"}
    assert parse(["--help"], broken).help
    assert parse(["-h"], broken).help
    assert parse(["--version"], broken).version


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sokcet", "/x"], 'unknown option "--sokcet" (did you mean "--socket"?)'),
        (["--layers_dir=/x"], 'unknown option "--layers_dir" (did you mean "--layers-dir"?)'),
        (["--lay", "/x"], 'unknown option "--lay" (vigild knows --layers-dir'),
        (["--log-buf", "7"], 'unknown option "--log-buf"'),
        (["--tls-addr", ":443"], 'unknown option "--tls-addr"'),
        (["-x"], 'unknown option "-x"'),
        (["start"], 'unknown argument "start"'),
        (["--"], 'unknown option "--"'),
        (["-"], 'unknown argument "-"'),
        ([""], 'unknown argument ""'),
        (["--socket"], "--socket needs a value"),
        (["--check=yes"], "--check takes no value"),
        (["--socket="], '--socket: "" is not a path'),
        (
            ["--log-level", "wran"],
            '--log-level: "wran" is not a log level (debug, info, warn, error) (did you mean "warn"?)',
        ),
        (["--log-format", "xml"], '--log-format: "xml" is not a log format (text, json)'),
        (["--forward-format", "raw"], '--forward-format: "raw" is not a format'),
        (["--socket-mode", "0999"], '--socket-mode: "0999" is not a mode'),
        (["--socket-mode", "1777"], "is not a mode"),
        (["--socket-mode", ""], "is not a mode"),
        (["--log-buffer", "0"], "is not a number of lines"),
        (["--log-buffer", "many"], "is not a number of lines"),
        (["--log-buffer-bytes", "4MB/s"], "is not a size"),
        (["--log-buffer-bytes", "1KiB"], "too small"),
        (["--log-buffer-bytes", "1000000GiB"], "too large"),
        (["--forward-stall", "5 parsecs"], "is not a duration"),
        (["--stop-timeout", "10"], "has no unit"),
        (["--layers-dir", ""], "is not a path"),
    ],
)
def test_a_wrong_word_is_named_with_the_nearest_right_one(arguments, message):
    with pytest.raises(UsageError) as caught:
        parse(arguments, {})
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_wrong_variable_is_named():
    with pytest.raises(UsageError, match='VIGIL_LOG_LEVEL: "loud" is not a log level'):
        parse([], {"VIGIL_LOG_LEVEL": "loud"})
    with pytest.raises(UsageError, match='VIGIL_REAPER: "perhaps" is not a yes or no'):
        parse([], {"VIGIL_REAPER": "perhaps"})


def test_a_value_may_look_like_an_option():
    assert parse(["--socket", "--check"], {}).socket == "--check"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        ("4MiB", 4 * 2**20),
        ("1GiB", 2**30),
        ("1K", 1024),
        ("2M", 2 * 2**20),
        ("100kB", 100_000),
        ("3MB", 3_000_000),
        ("7B", 7),
    ],
)
def test_sizes(text, value):
    assert options.size(text) == value


@pytest.mark.parametrize("text", ["", "MiB", "4 miB", "-1", "1.5MiB", "1MiBs", "0x10", "٣", "1e3", "4iB", "9" * 16])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a size"):
        options.size(text)


def test_the_usage_text_is_the_documentation():
    """docopt's options are those of the table, and the text names each variable and default."""
    given = docopt.docopt(USAGE, [], default_help=False)
    assert sorted(given) == sorted(option.flag for option in options._OPTIONS)
    for option in options._OPTIONS:
        if option.variable:
            assert option.variable in USAGE
    for default in ("/etc/vigil/layers", "0660", "text", "info", "1000", "4MiB", "5s", "off"):
        assert f"default: {default}" in USAGE
    assert max(map(len, USAGE.splitlines())) <= 80
