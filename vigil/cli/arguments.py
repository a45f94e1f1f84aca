"""The command line: docopt reads it, after every word has been looked at, so that a message can name the wrong one.

docopt takes any unambiguous beginning of a long option for it, and says no more than "usage" where something is wrong;
here long options are never abbreviated, and the nearest right word is named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

from vigil.cli import usage
from vigil.cli.usage import Form
from vigil.model.errors import UsageError
from vigil.model.suggest import hint

CHANGES = ("start", "stop", "restart", "signal")  # of services; "services start" is the same as "start"
_OPERANDS = {"NAME": "the name of a service", "SERVICE": "the name of a service", "SIGNAL": "a signal"}


class Arguments:
    """What was asked for."""

    def __init__(self) -> None:
        self.command = ""  # services, start, stop, restart, signal, logs, replan, plan, changes...
        self.action = ""  # of vigild, plan and completion: its second word
        self.names: list[str] = []
        self.signal: str | None = None
        self.change: str | None = None
        self.folder: str | None = None
        self.socket: str | None = None
        self.format = "table"
        self.color = True
        self.wait = True
        self.timeout: float | None = None
        self.dry_run = False
        self.no_restart = False
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
    form = _form(words)
    _own(options, form)
    parsed = _docopt(options, words)
    told = Arguments()
    told.command, *more = form.words
    if told.command == "services" and more and more != ["list"]:
        told.command = more[0]
    elif told.command != "services":
        told.action = more[0] if more else "show" if told.command == "plan" else ""
    told.names = list(parsed.get("SERVICE") or parsed.get("NAME") or ())
    told.signal = _signal(parsed.get("SIGNAL"))
    told.change = parsed.get("ID")
    told.folder = parsed.get("DIR")
    told.socket = parsed["--socket"] or os.environ.get("VIGIL_SOCKET") or None
    told.color = not parsed["--no-color"] and not os.environ.get("NO_COLOR")
    told.format = _format(parsed["--format"], form)
    told.wait = not parsed["--no-wait"]
    told.timeout = _duration("--timeout", parsed["--timeout"])
    told.dry_run = parsed["--dry-run"]
    told.no_restart = parsed["--no-restart"]
    told.follow = parsed["--follow"]
    told.lines = _count("--lines", parsed["--lines"])
    told.since = _since(parsed["--since"])
    return told


def _sort(argv: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """The options by their long names (the last of each wins) and the other words."""
    known = {option.long: option for option in usage.options()}
    shorts = {option.short: option for option in known.values()}
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
                _wrong(f'"{name}" is not an option{hint(name, known)}')
            if equals and not known[name].value:
                _wrong(f'"{name}" takes no value')
            options[name] = value if equals else _value(name, rest) if known[name].value else None
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                short, letters = f"-{letters[0]}", letters[1:]
                if short not in shorts:
                    _wrong(f'"{short}" is not an option' + (f' (in "{word}")' if len(word) > 2 else ""))
                option = shorts[short]
                options[option.long] = (letters or _value(short, rest)) if option.value else None
                if option.value:
                    break
        else:
            words.append(word)
    return options, words


def _value(name: str, rest: list[str]) -> str:
    if not rest or rest[0] == "--":
        _wrong(f'"{name}" needs a value')
    return rest.pop(0)


def _form(words: list[str]) -> Form:
    """Which form of which command it is; whatever is missing or too much is said here."""
    forms = usage.forms()
    commands = list(dict.fromkeys(form.words[0] for form in forms))
    if not words:
        _wrong("a command is missing")
    command, *rest = words
    if command not in commands:
        near = hint(command, commands) or f" (there are {', '.join(commands)})"
        _wrong(f'"{command}" is not a command{near}')
    mine = [form for form in forms if form.words[0] == command]
    actions = [form.words[1] for form in mine if len(form.words) > 1]
    plain = next((form for form in mine if len(form.words) == 1), None)
    form = next((form for form in mine if rest and form.words[1:] == (rest[0],)), plain)
    if form is None or (form is plain and rest and actions and not form.operands):
        choices = " or ".join((", ".join(actions[:-1]), actions[-1]))
        if not rest:
            _wrong(f'"{command}" needs one of {choices}')
        _wrong(f'"{rest[0]}" is not a command of {command}{hint(rest[0], actions) or f" ({choices})"}')
    operands = words[len(form.words) :]
    for word in operands:
        if word.startswith("-") and any("NAME" in operand or "SERVICE" in operand for operand in form.operands):
            _wrong(f'"{word}" is not the name of a service')
    if len(operands) < form.least:
        needed = " and ".join(_OPERANDS[operand.rstrip(".")] for operand in form.operands)
        _wrong(f'"{form.words[-1]}" needs {needed}: {form}')
    if form.most is not None and len(operands) > form.most:
        _wrong(f'"{operands[form.most]}" is one word too many for "vigil {" ".join(form.words)}"')
    return form


def _own(options: dict[str, str | None], form: Form) -> None:
    """Refuse options that belong to other commands."""
    special = {name for other in usage.forms() for name in other.options}
    for name in options:
        if name in special and name not in form.options:
            _wrong(f'"{name}" does not go with "{" ".join(form.words)}"')
        if name == "--format" and not usage.formats(form.words):
            _wrong(f'"--format" does not go with "{" ".join(form.words)}"')


def _docopt(options: dict[str, str | None], words: list[str]) -> dict[str, Any]:
    from docopt import DocoptExit, docopt  # not for --version and for what is wrong anyway

    line = [name if value is None else f"{name}={value}" for name, value in options.items()]
    try:
        return dict(docopt(usage.of(words[0]), [*line, *words], default_help=False))
    except DocoptExit:
        _wrong(f'the words after "{words[0]}" do not fit together')


def _format(text: object, form: Form) -> str:
    choices = usage.formats(form.words)
    if text is None:
        return choices[0] if choices else ""
    if text not in choices:
        near = hint(str(text), choices) or f" (there are {', '.join(choices)})"
        _wrong(f'"{text}" is not a format of "{" ".join(form.words)}"{near}')
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


def _signal(text: object) -> str | None:
    if text is None:
        return None
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
