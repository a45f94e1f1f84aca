"""Names and numbers of signals, as plans and commands spell them."""

from __future__ import annotations

import signal

from vigil.model.suggest import nearest

_REALTIME_FIRST = int(signal.SIGRTMIN)
_REALTIME_LAST = int(signal.SIGRTMAX)
ALIASES = {"SIGCLD": int(signal.SIGCHLD), "SIGPOLL": int(signal.SIGIO), "SIGIOT": int(signal.SIGABRT)}
"""Second names."""


def parse(text: str) -> int:
    """Number of the signal spelled ``SIGUSR1``, ``usr1``, ``10`` or ``SIGRTMIN+3``; ValueError says what is wrong."""
    word = text.strip().upper()
    if word.isascii() and word.isdigit():
        number = int(word)
        if 1 <= number <= _REALTIME_LAST:
            return number
        raise ValueError(f'"{text}" is not a signal (numbers go from 1 to {_REALTIME_LAST})')
    if not word.startswith("SIG"):
        word = "SIG" + word
    number = _named(word)
    if number:
        return number
    near = nearest(word[3:], (one.name[3:] for one in signal.Signals))
    fix = f'did you mean "SIG{near}"?' if near else "write SIGTERM, TERM, 15 or SIGRTMIN+3"
    raise ValueError(f'"{text}" is not a signal ({fix})')


def name(number: int) -> str:
    """Name of a signal, ``SIGTERM`` or ``SIGRTMIN+3``."""
    if _REALTIME_FIRST <= number <= _REALTIME_LAST:
        return "SIGRTMIN" if number == _REALTIME_FIRST else f"SIGRTMIN+{number - _REALTIME_FIRST}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _named(word: str) -> int:
    if word in ALIASES:
        return ALIASES[word]
    base, sign, offset = word.partition("+") if "+" in word else word.partition("-")
    if base in ("SIGRTMIN", "SIGRTMAX") and (not sign or offset.isdigit()):
        start = _REALTIME_FIRST if base == "SIGRTMIN" else _REALTIME_LAST
        number = start + (int(offset or "0") if sign != "-" else -int(offset))
        return number if _REALTIME_FIRST <= number <= _REALTIME_LAST else 0
    try:
        return int(signal.Signals[word]) if not sign else 0
    except KeyError:
        return 0
