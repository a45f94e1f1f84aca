"""``vigil completion``: the completion of a shell, generated from the usage text.

Each script walks over the words before the cursor in the same way: it leaves out options and their values, and finds
the command (``services``, ``vigild status``) and how many words there are after it. What can stand there is looked up
in tables made here. Only names of services and ids of changes are asked of vigild, which may take two seconds.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from vigil.cli import usage
from vigil.cli.scripts import ASK, BASH, FISH, ZSH
from vigil.cli.usage import Option


class _Spot:
    """What can stand after ``words`` and ``count`` further words; ``count`` "*" is any that no other spot has."""

    def __init__(self, words: tuple[str, ...], count: str) -> None:
        self.words = words
        self.count = count
        self.actions: list[str] = []  # words of the command line itself
        self.kind = ""  # and a kind of thing: NAME, SERVICE, SIGNAL, ID, DIR


def script(shell: str) -> str:
    """The script for ``bash``, ``zsh`` or ``fish``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _spots() -> list[_Spot]:
    """In the order in which they are to be looked up."""
    forms = usage.forms()
    found: dict[tuple[tuple[str, ...], str], _Spot] = {}

    def spot(words: tuple[str, ...], count: str) -> _Spot:
        return found.setdefault((words, count), _Spot(words, count))

    for form in forms:
        for number, word in enumerate(form.words):
            known = spot(form.words[:number], "0").actions
            if word not in known:
                known.append(word)
        for number, operand in enumerate(form.operands):
            kind = operand.strip("[].")
            if "..." not in operand or (form.words, str(number)) in found:
                spot(form.words, str(number)).kind = kind
            if "..." in operand:
                spot(form.words, "*").kind = kind
    return list(found.values())


def _pairs() -> list[str]:
    """Commands of two words."""
    return [" ".join(form.words) for form in usage.forms() if len(form.words) > 1]


def _valued() -> list[str]:
    """Every spelling of an option that takes a value."""
    return [name for option in usage.options() if option.value for name in (option.short, option.long) if name]


def _general() -> list[Option]:
    """Options of all commands."""
    special = {name for form in usage.forms() for name in form.options}
    return [option for option in usage.options() if option.long not in special]


def _own() -> list[tuple[str, list[Option]]]:
    """Commands with options of their own."""
    return [
        (" ".join(form.words), [option for option in usage.options() if option.long in form.options])
        for form in usage.forms()
        if form.options
    ]


def _summary(words: tuple[str, ...]) -> str:
    """What a command does: ``services start`` what ``start`` does, ``services list`` what ``services`` does."""
    told = usage.summaries()
    actions = ", ".join(form.words[1] for form in usage.forms() if len(form.words) > 1 and form.words[:1] == words)
    return told.get(" ".join(words)) or told.get(words[-1]) or told.get(words[0]) or actions


def _formats() -> list[tuple[str, str]]:
    """What --format takes, by command; one of two words before that of its first, and "" for all others."""
    particular = sorted(usage.FORMATS, key=lambda name: -name.count(" "))
    return [*((name, " ".join(usage.FORMATS[name])) for name in particular), ("", " ".join(usage.TABLE))]


def _signals() -> str:
    return " ".join(sorted(known.name.removeprefix("SIG") for known in signal.Signals))


def _cases(cases: Iterable[tuple[str, Iterable[str]]], indent: int) -> str:
    """Branches of a ``case`` in bash or zsh."""
    lines = []
    for pattern, body in cases:
        lines += [" " * indent + pattern, *(" " * (indent + 4) + line for line in body), " " * (indent + 4) + ";;"]
    return "\n".join(lines)


def _place(spot: _Spot, digits: str) -> str:
    """The pattern of a spot: words, a blank, the count; a count ``*`` is any number, spelled as this shell does."""
    words = f"'{' '.join(spot.words)} "
    return f"{words}'{digits})" if spot.count == "*" else f"{words}{spot.count}')"


def _bash() -> str:
    def body(spot: _Spot) -> list[str]:
        return [
            *([f"words='{' '.join(spot.actions)}'"] if spot.actions else []),
            *{
                "": [],
                "NAME": ['words+=" $(_vigil_services "${to[@]}")"'],
                "SERVICE": ['words="vigild $(_vigil_services "${to[@]}")"'],
                "ID": ['words=$(_vigil_changes "${to[@]}")'],
                "SIGNAL": [f"words='{_signals()}'"],
                "DIR": ["kind=-d"],
            }[spot.kind],
        ]

    return _filled(
        BASH,
        services=ASK % ('"$@" services', "name"),
        changes=ASK % ('"$@" changes', "id"),
        valued=" | ".join(_valued()),
        pairs=f"'|{'|'.join(_pairs())}|'",
        formats=_cases(((f"'{name}')" if name else "*)", [f"words='{words}'"]) for name, words in _formats()), 8),
        general=" ".join(option.long for option in _general()),
        options=_cases(((f"'{name}')", [f"words+=' {' '.join(o.long for o in own)}'"]) for name, own in _own()), 8),
        spots=_cases(((_place(spot, "*"), body(spot)) for spot in _longest_first()), 8),
    )


def _longest_first() -> list[_Spot]:
    """For patterns in which a "*" would take the second word of a command for a count."""
    return sorted(_spots(), key=lambda spot: -len(spot.words))


def _zsh() -> str:
    names = 'list=(${(f)"$(_vigil_services $to)"})'
    changes = 'list=(${(f)"$(_vigil_changes $to)"})'

    def described(pairs: Iterable[tuple[str, str]]) -> str:
        return " ".join(f"'{word}:{_quoted(summary)}'" for word, summary in pairs)

    def body(spot: _Spot) -> list[str]:
        actions = described((word, _summary((*spot.words, word))) for word in spot.actions)
        return [
            *([f"list=({actions})", "_describe -t commands command list && found=0"] if spot.actions else []),
            *{
                "": [],
                "NAME": [names, "compadd -a list && found=0"],
                "SERVICE": [names, "compadd vigild $list && found=0"],
                "ID": [changes, "compadd -a list && found=0"],
                "SIGNAL": [f"compadd {_signals()} && found=0"],
                "DIR": ["_files -/ && found=0"],
            }[spot.kind],
        ]

    return _filled(
        ZSH,
        services=ASK % ('"$@" services', "name"),
        changes=ASK % ('"$@" changes', "id"),
        valued="|".join(_valued()),
        pairs=f"'|{'|'.join(_pairs())}|'",
        formats=_cases(((f"('{name}')" if name else "(*)", [f"list=({words})"]) for name, words in _formats()), 8),
        general=described((option.long, option.summary) for option in _general()),
        options=_cases(
            ((f"('{name}')", [f"list+=({described((o.long, o.summary) for o in own)})"]) for name, own in _own()), 8
        ),
        spots=_cases((("(" + _place(spot, "*"), body(spot)) for spot in _longest_first()), 4),
    )


def _fish() -> str:
    lines = []

    def complete(condition: str, rest: str, summary: str = "") -> None:
        said = f" -d '{_quoted(summary)}'" if summary else ""
        lines.append(f"complete -c vigil{condition} {rest}{said}")

    def at(pattern: str) -> str:
        return f" -n '__vigil_at \"{pattern}\"'"

    for option in usage.options():
        names = f"-s {option.short[1:]} -l {option.long[2:]}" if option.short else f"-l {option.long[2:]}"
        after = "|".join(name for name, own in _own() if option in own)
        condition = at(f"({after}) [0-9]+") if after else ""
        if option.long == "--format":
            for name, words in _formats():
                others = "|".join(other for other, _ in _formats() if other)
                complete(at(f"{name} [0-9]+" if name else f"(?!({others}) [0-9]).*"), f"{names} -x -a '{words}'")
        elif option.value:
            complete(condition, f"{names} {'-r -F' if option.value == 'PATH' else '-x'}", option.summary)
        else:
            complete(condition, names, option.summary)
    things: dict[str, str] = {
        "NAME": "(__vigil_ask services)",
        "SERVICE": "(__vigil_ask services) vigild",
        "ID": "(__vigil_ask changes)",
        "SIGNAL": _signals(),
        "DIR": "(__fish_complete_directories)",
    }
    spots = _spots()
    for spot in spots:
        taken = any(other.words == spot.words and other.count == "0" for other in spots)
        count = spot.count if spot.count != "*" else "[1-9][0-9]*" if taken else "[0-9]+"
        condition = at(f"{' '.join(spot.words)} {count}")
        for word in spot.actions:
            complete(condition, f"-a {word}", _summary((*spot.words, word)))
        if spot.kind:
            complete(condition, f"-a '{things[spot.kind]}'")
    return _filled(
        FISH,
        services=ASK % ("$to services", "name"),
        changes=ASK % ("$to changes", "id"),
        valued=" ".join(_valued()),
        pairs=" ".join(f"'{pair}'" for pair in _pairs()),
        lines="\n".join(lines),
    )


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _filled(template: str, **parts: str) -> str:
    for name, text in parts.items():
        template = template.replace(f"@{name}@", text)
    return template
