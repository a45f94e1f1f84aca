"""vigild's command line and environment. The usage text is the documentation, and docopt reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import docopt
import msgspec

from vigil.model import duration, say
from vigil.model.errors import UsageError
from vigil.model.suggest import hint, quote

USAGE = """\
vigild: starts, watches and stops the services of a plan, as PID 1 of a
container or as an ordinary process.

Usage:
  vigild [options]

Options:
  --layers-dir PATH         Directory of the plan's layers, *.yaml, merged in
                            the order of their names. A missing one is an empty
                            plan. VIGIL_LAYERS; default: /etc/vigil/layers
  --socket PATH             Unix socket of the API. VIGIL_SOCKET; default: the
                            first that can be made of /run/vigil/vigild.sock,
                            $XDG_RUNTIME_DIR/vigil/vigild.sock,
                            /tmp/vigil-UID/vigild.sock
  --socket-mode OCTAL       Its permissions. VIGIL_SOCKET_MODE; default: 0660
  --socket-group NAME       Its group. VIGIL_SOCKET_GROUP; default: vigild's own
  --log-format FORMAT       How vigild speaks of itself on stderr: text, json.
                            VIGIL_LOG_FORMAT; default: text
  --log-level LEVEL         How much of it: debug, info, warn, error.
                            VIGIL_LOG_LEVEL; default: info
  --log-buffer LINES        How many lines of each service are kept.
                            VIGIL_LOG_BUFFER; default: 1000
  --log-buffer-bytes SIZE   And how many bytes, whichever is reached first:
                            64KiB, 4MiB, 1GiB. VIGIL_LOG_BUFFER_BYTES;
                            default: 4MiB
  --forward-format FORMAT   How services' lines reach the container's stdout and
                            stderr: text ("[service] line"), timestamp (the same
                            after the time), json. VIGIL_FORWARD_FORMAT;
                            default: text
  --forward-stall DURATION  How long a stdout that nobody reads may hold up
                            services before lines are kept only: 500ms, 5s,
                            1m30s. VIGIL_FORWARD_STALL; default: 5s
  --stop-timeout DURATION   Budget for stopping everything: at three quarters of
                            it all that remain get their stop signal at once, at
                            its end SIGKILL; off, 8s, 1m. VIGIL_STOP_TIMEOUT;
                            default: off
  --check                   Load and validate the plan, print every problem,
                            exit with 0 or 1. Starts nothing.
  --reaper                  Accepted for the sake of scripts: vigild always
                            reaps orphans. VIGIL_REAPER
  -h, --help                Show this text.
  --version                 Show the version.

A flag beats its environment variable, which beats the default; of a flag given
several times the last counts. Exit code: that of the service whose policy
decided the shutdown; 0 after SIGTERM, SIGINT, SIGQUIT or `vigil vigild stop`;
1 where vigild cannot start; 2 for a wrong option.
"""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for. ``socket`` None: the first of the usual places. ``stop_timeout`` 0: no budget."""

    help: bool = False
    version: bool = False
    check: bool = False
    reaper: bool = False
    layers_dir: str = "/etc/vigil/layers"
    socket: str | None = None
    socket_mode: int = 0o660
    socket_group: str | None = None
    log_format: str = "text"
    log_level: str = "info"
    log_buffer: int = 1000
    log_buffer_bytes: int = 4 * 1024 * 1024
    forward_format: str = "text"
    forward_stall: float = 5.0
    stop_timeout: float = 0.0


def size(text: str) -> int:
    """Bytes of ``4MiB``, ``64KiB``, ``1GiB``, ``100kB`` or a plain number; ValueError is a sentence about ``text``."""
    word = text.strip()
    digits = word.rstrip("KMGkiB ").strip()
    factor = _UNITS.get(word[len(digits) :].strip())
    if factor is None or not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise ValueError(f"{quote(text)} is not a size (write 65536, 64KiB, 4MiB, 1GiB)")
    return int(digits) * factor


def boolean(text: str) -> bool:
    """Of a variable: 1/0, true/false, yes/no, on/off; ValueError is a sentence about ``text``."""
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{quote(text)} is not a yes or no (write 1 or 0, true or false, yes or no, on or off)")


def _one_of(what: str, *words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"{quote(text)} is not a {what} ({', '.join(words)}){hint(text, words)}")

    return convert


def _path(text: str) -> str:
    if "\0" in text or not text:
        raise ValueError(f"{quote(text)} is not a path")
    return text


def _octal(text: str) -> int:
    if 0 < len(text) <= 5 and not text.strip("01234567"):
        mode = int(text, 8)
        if mode <= 0o777:
            return mode
    raise ValueError(f"{quote(text)} is not a mode (write 0660, 0600, 0666)")


def _lines(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_LINES:
        return int(text)
    raise ValueError(f"{quote(text)} is not a number of lines (1 to {_MOST_LINES})")


def _buffer(text: str) -> int:
    wanted = size(text)
    if wanted < _LEAST_BUFFER:
        raise ValueError(f"{quote(text)} is too small: the longest lines need 128KiB")
    if wanted > _MOST_BUFFER:
        raise ValueError(f"{quote(text)} is too large: at most 64GiB")
    return wanted


def _budget(text: str) -> float:
    return 0.0 if text == "off" else duration.parse(text)


_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS |= {unit + end: 1 << power for unit, power in (("K", 10), ("M", 20), ("G", 30)) for end in ("", "iB")}
_MOST_LINES = 2**40
_LEAST_BUFFER = 128 * 1024
_MOST_BUFFER = 64 * 2**30


class _Option(msgspec.Struct, frozen=True):
    """How one option is read: ``convert`` None is a switch."""

    flag: str
    variable: str | None = None
    convert: Callable[[str], Any] | None = None


_OPTIONS = (
    _Option("--layers-dir", "VIGIL_LAYERS", _path),
    _Option("--socket", "VIGIL_SOCKET", _path),
    _Option("--socket-mode", "VIGIL_SOCKET_MODE", _octal),
    _Option("--socket-group", "VIGIL_SOCKET_GROUP", _path),
    _Option("--log-format", "VIGIL_LOG_FORMAT", _one_of("log format", "text", "json")),
    _Option("--log-level", "VIGIL_LOG_LEVEL", _one_of("log level", *say.LEVELS)),
    _Option("--log-buffer", "VIGIL_LOG_BUFFER", _lines),
    _Option("--log-buffer-bytes", "VIGIL_LOG_BUFFER_BYTES", _buffer),
    _Option("--forward-format", "VIGIL_FORWARD_FORMAT", _one_of("format", "text", "timestamp", "json")),
    _Option("--forward-stall", "VIGIL_FORWARD_STALL", duration.parse),
    _Option("--stop-timeout", "VIGIL_STOP_TIMEOUT", _budget),
    _Option("--check"),
    _Option("--reaper", "VIGIL_REAPER"),
    _Option("--help"),
    _Option("--version"),
)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Options from the words after ``vigild`` and the variables. UsageError names the wrong word and the right one."""
    words = _look_at_words(arguments)
    try:
        given = docopt.docopt(USAGE, words, default_help=False)
    except docopt.DocoptExit as wrong:  # what our own look has let through; its text is docopt's
        raise UsageError(str(wrong).partition("\n")[0]) from None
    if given["--help"] or given["--version"]:
        # Asked for, so answered, whatever the environment holds.
        return Options(help=bool(given["--help"]), version=bool(given["--version"]))
    values: dict[str, Any] = {}
    for option in _OPTIONS:
        name = option.flag[2:].replace("-", "_")
        word = given[option.flag]
        try:
            if option.convert is None:
                if word:
                    values[name] = True
                elif option.variable and environment.get(option.variable):
                    values[name] = boolean(environment[option.variable])
            elif word is not None:
                values[name] = option.convert(word)
            elif option.variable and environment.get(option.variable):
                values[name] = option.convert(environment[option.variable])
        except ValueError as wrong:
            source = option.flag if word is not None and word is not False else option.variable
            raise UsageError(f"{source}: {wrong}") from None
    return Options(**values)


def _look_at_words(arguments: Sequence[str]) -> list[str]:
    """Find what docopt finds too, but says in its own words; and what it allows: abbreviations.

    Gives each option once, the last of it: a container puts the image's options and those of whoever runs it in a row.
    """
    known = {option.flag: option for option in _OPTIONS}
    last: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        flag, has_value, value = word.partition("=")
        if word == "-h":
            flag = "--help"
        option = known.get(flag)
        if option is None:
            kind = "option" if word.startswith("-") and word != "-" else "argument"
            raise UsageError(f"unknown {kind} {quote(flag)}{hint(flag, known) or _listed(known)}")
        if option.convert is None:
            if has_value:
                raise UsageError(f"{flag} takes no value")
            last[flag] = flag
            continue
        if not has_value:
            following = next(words, None)
            if following is None:
                raise UsageError(f"{flag} needs a value")
            value = following
        last[flag] = f"{flag}={value}"
    return list(last.values())


def _listed(known: Mapping[str, _Option]) -> str:
    return f" (vigild knows {', '.join(known)})"
