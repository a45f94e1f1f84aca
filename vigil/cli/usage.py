"""What ``vigil --help`` prints, what docopt reads, and what the completions of shells are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

TEXT = """\
vigil - look at the services of a vigild, and command them

Usage:
  vigil [options] services (start | stop | restart) [--no-wait] [--timeout TIME] NAME...
  vigil [options] services signal SIGNAL NAME...
  vigil [options] services [list] [NAME...]
  vigil [options] (start | stop | restart) [--no-wait] [--timeout TIME] NAME...
  vigil [options] signal SIGNAL NAME...
  vigil [options] logs [-f] [-n N] [--since TIME] [SERVICE...]
  vigil [options] replan [--dry-run] [--no-restart] [--no-wait] [--timeout TIME]
  vigil [options] plan [show]
  vigil [options] plan check [DIR]
  vigil [options] plan schema
  vigil [options] changes [ID]
  vigil [options] system-info
  vigil [options] vigild (status | stop | restart)
  vigil [options] completion (bash | zsh | fish)
  vigil (-h | --help)
  vigil --version

Commands:
  services              List services, all or the named ones. Below the table:
                        what is wrong with those that do not run, and what
                        others wait for.
  start, stop, restart  Start, stop or restart services, and wait until that is
                        done: a start, until each has been running for a second.
                        Also spelled "vigil services start".
  signal                Send a signal (HUP, SIGUSR1, 10) to the main process of
                        services.
  logs                  Show what services wrote, oldest first, times in local
                        time. The log of vigild itself is shown where it is
                        named: "vigil logs vigild".
  replan                Load the plan anew and do what follows from it: stop
                        what is gone, start what is new and enabled, restart
                        what changed. A plan with a mistake changes nothing.
  plan, plan show       Show the plan in force, all layers in one; what looks
                        like a secret is masked.
  plan check            Check the layers in DIR [env: VIGIL_LAYERS, else
                        /etc/vigil/layers]; needs no vigild.
  plan schema           Print the JSON Schema of a layer, for editors; needs no
                        vigild.
  changes               List what was asked of services and what became of it,
                        or show one change.
  system-info           Show what vigild is and since when.
  vigild status          Show the state of vigild.
  vigild stop            Stop all services in order, then vigild.
  vigild restart         Stop all services in order, then start from scratch.
  completion            Print the completion of a shell. For bash:
                        eval "$(vigil completion bash)"; for zsh the same, after
                        compinit; for fish: vigil completion fish | source

Options, before or after the command:
  --socket PATH         The socket of vigild [env: VIGIL_SOCKET]. Otherwise the
                        first that answers of /run/vigil/vigild.sock,
                        $XDG_RUNTIME_DIR/vigil/vigild.sock and
                        /tmp/vigil-UID/vigild.sock.
  --format FORMAT       table, json or yaml: what vigild answered; for logs text
                        or json (one entry a line), for plan show yaml or json.
  --no-color            No colours, not even on a terminal [env: NO_COLOR].
  -h, --help            Show this text.
  --version             Show the version.

Options of start, stop, restart and replan:
  --no-wait             Do not wait for the end of the change.
  --timeout TIME        Wait so long at most (10s, 1m30s). The change goes on
                        without us.

Options of replan:
  --dry-run             Only say what would be started, stopped and restarted,
                        and why.
  --no-restart          Leave running what changed. It is marked "pending
                        restart" until somebody restarts it.

Options of logs:
  -f, --follow          Go on with what is written from now on, until Ctrl-C.
  -n N, --lines N       Show at most the last N lines, of all services together.
                        Otherwise 100, with -f 10, and with --since all.
  --since TIME          Only what was written since: a time
                        (2026-03-21T12:00:00Z), a duration back (10m), or after
                        a sequence number (that of an entry in --format json).

Exit: 0 done; 1 vigild said no, or cannot be reached; 2 the command line is
wrong; 130 Ctrl-C.
"""

TABLE = ("table", "json", "yaml")
FORMATS: dict[str, tuple[str, ...]] = {
    "logs": ("text", "json"),
    "plan": ("yaml", "json"),
    "plan show": ("yaml", "json"),
    "plan check": (),
    "plan schema": ("json", "yaml"),
    "completion": (),
}
"""What ``--format`` may say, the first without it, by command or command and action; else ``TABLE``."""


class Option(NamedTuple):
    """One option as the usage text has it."""

    long: str
    short: str  # "" where there is none
    value: str  # what it takes, "" for nothing
    summary: str  # its first sentence


class Form(NamedTuple):
    """One way to write a command: its words, what comes after them, and its own options."""

    words: tuple[str, ...]  # ("vigild", "status")
    operands: tuple[str, ...]  # "NAME..." one or more, "[NAME...]" any number, "[ID]" one at most, "SIGNAL" one
    options: tuple[str, ...]  # long names

    @property
    def least(self) -> int:
        """How many operands there must be."""
        return sum(not operand.startswith("[") for operand in self.operands)

    @property
    def most(self) -> int | None:
        """How many there may be; None: any number."""
        return None if any("..." in operand for operand in self.operands) else len(self.operands)

    def __str__(self) -> str:
        return " ".join(("vigil", *self.words, *self.operands))


def formats(words: tuple[str, ...]) -> tuple[str, ...]:
    """What ``--format`` may say after these words."""
    return FORMATS.get(" ".join(words[:2]), FORMATS.get(words[0], TABLE))


def of(command: str) -> str:
    """As much of the text as docopt needs for a command: to read it takes the longer the more commands there are."""
    head, _, rest = TEXT.partition("Usage:\n")
    lines = rest.partition("\n\n")[0].splitlines()
    mine = [line for line in lines if re.search(rf"[ (]{command}[ )]", line + " ")]
    return "\n".join((head + "Usage:", *mine, "", rest[rest.index("Options, before") :]))


def options() -> list[Option]:
    """All options, in the order of the text."""
    found = []
    for line in _unfolded(TEXT):
        if line.startswith("  -"):
            spelled, _, summary = line.strip().partition("  ")
            spellings = [part.split(" ") for part in spelled.split(", ")]
            sentence = summary.strip().partition(". ")[0].partition(": ")[0].partition(" [env")[0]
            value = spellings[-1][1] if len(spellings[-1]) > 1 else ""
            short = spellings[0][0] if len(spellings) > 1 else ""
            found.append(Option(spellings[-1][0], short, value, sentence.rstrip(".")))
    return found


def forms() -> list[Form]:
    """All commands, in the order of the text."""
    longs = {option.short or option.long: option.long for option in options()}
    found = []
    for line in TEXT.partition("\n\n")[2].partition("\n\n")[0].splitlines():
        _, start, rest = line.partition("[options] ")
        if start:
            own = tuple(longs[name] for name in re.findall(r"\[(-[-a-z]+)", rest))
            parts = re.findall(r"\[[^\]]+\]|\([^)]+\)|\S+", re.sub(r"\[-[^\]]+\] ?", "", rest))
            found += [Form(*_split(words), own) for words in _written(parts)]
    return found


def summaries() -> dict[str, str]:
    """What each command does, by its words: ``services``, ``vigild status``."""
    found = {}
    for line in _unfolded(TEXT.partition("\nCommands:\n")[2].partition("\n\n")[0]):
        names, _, summary = line.strip().partition("  ")
        for name in names.split(", "):
            found[name] = re.split(r"[:;.] |\.$| \[env", summary.strip())[0]
    return found


def _unfolded(text: str) -> list[str]:
    """The lines, with those that go on in the next one in one."""
    return re.sub(r"\n {20,}", " ", text).splitlines()


def _written(parts: list[str]) -> Iterator[tuple[str, ...]]:
    """Every choice of words that a line of the usage text stands for."""
    if not parts:
        yield ()
        return
    choices = parts[0].strip("()").split(" | ") if parts[0].startswith("(") else [parts[0]]
    if re.fullmatch(r"\[[a-z]+\]", parts[0]):
        choices = ["", parts[0].strip("[]")]
    for choice in choices:
        for rest in _written(parts[1:]):
            yield (choice, *rest) if choice else rest


def _split(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    count = sum(word.islower() for word in words)
    return words[:count], words[count:]
