"""The command line: docopt reads it, after every word has been looked at, so that a message can name the wrong one.

docopt takes any unambiguous beginning of a long option for it, and says no more than "usage" where something is wrong;
here long options are never abbreviated, and the nearest right word is named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

from vigil.cli.usage import TEXT
from vigil.model.errors import UsageError
from vigil.model.suggest import hint

ACTIONS = ("start", "stop", "restart")
_DAEMON_ACTIONS = ("status", "stop", "restart")
_COMMANDS = ("services", *ACTIONS, "signal", "logs", "changes", "system-info", "vigild")
_WAITING = {"--no-wait", "--timeout"}
_OWN_OPTIONS = {**dict.fromkeys(ACTIONS, _WAITING), "logs": {"--follow", "--lines", "--since"}}
_SPECIAL = _WAITING | _OWN_OPTIONS["logs"]


class Arguments:
    """What was asked for."""

    def __init__(self) -> None:
        self.command = ""  # services, start, stop, restart, signal, logs, changes, system-info, vigild
        self.action = ""  # status, stop, restart; of vigild only
        self.names: list[str] = []
        self.signal: str | None = None
        self.change: str | None = None
        self.socket: str | None = None
        self.format = "table"
        self.color = True
        self.wait = True
        self.timeout: float | None = None
        self.follow = False
        self.lines: int | None = None
        self.since: str | None = None


def wants(argv: Sequence[str]) -> str | None:
    """``help`` or ``version`` where that is asked for: whatever else is on the line."""
    for word in argv:
        if word == "--":
            break
        if word in ("-h", "--help"):
            return "help"
        if word == "--version":
            return "version"
    return None


def read(argv: Sequence[str]) -> Arguments:
    """What ``argv`` asks for; UsageError names the word that is wrong."""
    options, words = _sort(argv)
    command, action = _command(words)
    for name in options:
        if name in _SPECIAL and name not in _OWN_OPTIONS.get(action or command, ()):
            _wrong(f'"{name}" does not go with "{command}"')
    parsed = _docopt(options, words, command)
    told = Arguments()
    told.command = command
    told.names = list(parsed["SERVICE"] or parsed["NAME"])
    if command == "services":
        if action:
            told.command = action
    elif command == "vigild":
        told.action = words[1]
    told.signal = _signal(parsed["SIGNAL"]) if parsed["SIGNAL"] is not None else None
    told.change = parsed["ID"]
    told.socket = parsed["--socket"] or os.environ.get("VIGIL_SOCKET") or None
    told.color = not parsed["--no-color"] and not os.environ.get("NO_COLOR")
    told.format = _format(parsed["--format"], told.command)
    told.wait = not parsed["--no-wait"]
    told.timeout = _duration("--timeout", parsed["--timeout"])
    told.follow = parsed["--follow"]
    told.lines = _count("--lines", parsed["--lines"])
    told.since = _since(parsed["--since"])
    return told


def _options() -> dict[str, tuple[str, bool]]:
    """Every spelling of an option, its long form and whether it takes a value; from the usage text."""
    found: dict[str, tuple[str, bool]] = {}
    for line in TEXT.splitlines():
        if line.startswith("  -"):
            spellings = [part.split(" ") for part in line.strip().partition("  ")[0].split(", ")]
            for spelling in spellings:
                found[spelling[0]] = (spellings[-1][0], len(spelling) > 1)
    return found


def _sort(argv: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """The options by their long names (the last of each wins) and the other words."""
    known = _options()
    longs = [name for name in known if name.startswith("--")]
    options: dict[str, str | None] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            if name not in known:
                _wrong(f'"{name}" is not an option{hint(name, longs)}')
            if equals and not known[name][1]:
                _wrong(f'"{name}" takes no value')
            options[name] = value if equals else _value(name, rest) if known[name][1] else None
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                short, letters = f"-{letters[0]}", letters[1:]
                if short not in known:
                    _wrong(f'"{short}" is not an option' + (f' (in "{word}")' if len(word) > 2 else ""))
                name, takes = known[short]
                options[name] = (letters or _value(short, rest)) if takes else None
                if takes:
                    break
        else:
            words.append(word)
    return options, words


def _value(name: str, rest: list[str]) -> str:
    if not rest or rest[0] == "--":
        _wrong(f'"{name}" needs a value')
    return rest.pop(0)


def _command(words: list[str]) -> tuple[str, str]:
    """The command and, of ``services``, the action; whatever is missing or too much is said here."""
    if not words:
        _wrong("a command is missing")
    command, *rest = words
    if command not in _COMMANDS:
        _wrong(f'"{command}" is not a command{hint(command, _COMMANDS)}')
    for word in rest:
        if word.startswith("-"):
            _wrong(f'"{word}" is not the name of a service')
    if command == "vigild":
        choices = "status, stop or restart"
        if not rest:
            _wrong(f'"vigild" needs one of {choices}')
        if rest[0] not in _DAEMON_ACTIONS:
            _wrong(f'"{rest[0]}" is not a command of vigild{hint(rest[0], _DAEMON_ACTIONS) or f" ({choices})"}')
        _at_most(rest, 1, "vigild " + rest[0])
    elif command == "system-info":
        _at_most(rest, 0, command)
    elif command == "changes":
        _at_most(rest, 1, command)
    action = rest[0] if command == "services" and rest and rest[0] in (*ACTIONS, "signal") else ""
    acting = action or command
    operands = rest[1:] if action else rest
    if acting == "signal" and len(operands) < 2:
        _wrong('"signal" needs a signal and the name of a service: vigil signal HUP NAME...')
    if acting in ACTIONS and not operands:
        _wrong(f'"{acting}" needs the name of a service: vigil {acting} NAME...')
    return command, action


def _at_most(rest: list[str], count: int, command: str) -> None:
    if len(rest) > count:
        _wrong(f'"{rest[count]}" is one word too many for "vigil {command}"')


def _docopt(options: dict[str, str | None], words: list[str], command: str) -> dict[str, Any]:
    from docopt import DocoptExit, docopt  # 8 ms, not for --version and for what is wrong anyway

    line = [name if value is None else f"{name}={value}" for name, value in options.items()]
    try:
        return dict(docopt(TEXT, [*line, *words], default_help=False))
    except DocoptExit:
        _wrong(f'the words after "{command}" do not fit together')


def _format(text: object, command: str) -> str:
    choices = ("text", "json") if command == "logs" else ("table", "json", "yaml")
    if text is None:
        return choices[0]
    if text not in choices:
        near = hint(str(text), choices) or f" (there are {', '.join(choices)})"
        _wrong(f'"{text}" is not a format of "{command}"{near}')
    return str(text)


def _duration(option: str, text: object) -> float | None:
    if text is None:
        return None
    from vigil.model import duration

    try:
        return duration.parse(str(text))
    except ValueError as problem:
        _wrong(f"{option}: {problem}")


def _count(option: str, text: object) -> int | None:
    if text is None:
        return None
    word = str(text)
    if not (word.isascii() and word.isdigit()) or len(word) > 7:
        _wrong(f'{option}: "{word}" is not a number of lines')
    return int(word)


def _signal(text: object) -> str:
    from vigil.model import signals

    try:
        return signals.name(signals.parse(str(text)))
    except ValueError as problem:
        _wrong(str(problem))


def _since(text: object) -> str | None:
    if text is None:
        return None
    from vigil.cli import moment

    try:
        return moment.since(str(text))
    except ValueError as problem:
        _wrong(f"--since: {problem}")


def _wrong(what: str) -> NoReturn:
    raise UsageError(f"{what} (vigil --help shows all there is)" if "(" not in what else what)
