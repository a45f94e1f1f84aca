"""Durations: as plans and commands spell them, and as people read them. In between they are seconds."""

from __future__ import annotations

from vigil.model.suggest import quote

LONGEST = 876_000 * 3600.0
"""The longest duration there is, a hundred years, so that none overflows a clock that counts nanoseconds."""

EXAMPLES = "write 500ms, 3s, 1m30s, 1h"
"""What a message about a bad duration recommends."""

# Nanoseconds, largest first: a duration names its units in this order, each once.
_UNITS = {
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
}
_DIGITS = frozenset("0123456789")


def parse(text: str) -> float:
    """Seconds of ``500ms``, ``3s``, ``1m30s``, ``1.5h``, ``1m 50s``, ``0``; ValueError is a sentence about ``text``."""
    word = text.strip()
    if word.startswith("-") and _nanoseconds(word[1:]):
        raise ValueError(f"{quote(text)} is negative (a duration is 0 or more)")
    total = _nanoseconds(word)
    if total is None:
        if word and len(word) < 20 and not set(word) - _DIGITS:
            raise ValueError(f"{quote(text)} has no unit (write {word}s, {word}ms or {word}m)")
        if word and len(word) < 20 and word.count(".") == 1 and not set(word) - _DIGITS - {"."}:
            raise ValueError(f"{quote(text)} has no unit (write {word}s)")
        raise ValueError(f"{quote(text)} is not a duration ({_meant(word) if len(word) < 40 else EXAMPLES})")
    if total > LONGEST * 1e9:
        raise ValueError(f"{quote(text)} is too long (876000h at most)")
    return total / 1e9


def spell(seconds: float) -> str:
    """The way a plan spells it, which ``parse`` reads back: ``500ms``, ``1m30s``, ``1h``. Exact to the microsecond."""
    rest = round(seconds * 1e6) * 1000
    parts = []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count and unit != "d":
            parts.append(f"{count}{unit}")
        elif count:
            rest += count * size  # 48h is clearer than 2d in a file whose examples end at hours
    return "".join(parts) or "0s"


def brief(seconds: float) -> str:
    """The two units that matter, for a column of a table: ``12s``, ``1m 50s``, ``1h 59m``, ``3d 4h``. Rounded down."""
    total = max(0, int(seconds))
    for (unit, size), (below, part) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("m", 60)),
        (("m", 60), ("s", 1)),
    ):
        if total >= size:
            return f"{total // size}{unit} {total % size // part}{below}"
    return f"{total}s"


def full(seconds: float) -> str:
    """All units down to the second, for an uptime: ``0d 2h 15m 43s``. Rounded down."""
    total = max(0, int(seconds))
    return f"{total // 86400}d {total // 3600 % 24}h {total // 60 % 60}m {total % 60}s"


_WORDS = {
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "microsecond", "microseconds"), "us"),
}
_SCHEDULES = {"hourly": "1h", "daily": "24h", "midnight": "24h", "weekly": "168h", "minutely": "1m"}


def _meant(word: str) -> str:
    """What somebody who writes ``word`` should write."""
    text = word.lower().strip("\"'\u201c\u201d")
    fields = text.split()
    if text.lstrip("@") in _SCHEDULES:
        return f"schedules are unknown here: write {_SCHEDULES[text.lstrip('@')]}"
    if len(fields) == 5 and not set(text) - frozenset("0123456789*/,- "):
        every = fields[0].removeprefix("*/")
        return f"schedules are unknown here: write {every if every.isdigit() and int(every) else 5}m"
    clock = text.split(":")
    if len(clock) in (2, 3) and all(part.isascii() and part.isdigit() and len(part) < 4 for part in clock):
        units = "hms" if len(clock) == 3 else "ms"
        text = "".join(f"{part}{unit}" for part, unit in zip(clock, units, strict=True) if int(part)) or "0s"
    text = text.removeprefix("p").replace("t", "", 1) if word[:1] == "P" else text
    parts = _parts(text.replace(",", ".") if text.count(",") == 1 else text)
    if not parts or len(parts) != len({unit for _, unit in parts}):
        return EXAMPLES
    order = list(_UNITS)
    spelled = "".join(number + unit for number, unit in sorted(parts, key=lambda part: order.index(part[1])))
    return f"write {spelled}" if _nanoseconds(spelled) is not None else EXAMPLES


def _parts(text: str) -> list[tuple[str, str]]:
    """Numbers and the units that the words behind them stand for; a last number without one has the next smaller."""
    parts: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        start = at
        while at < len(text) and (text[at] in _DIGITS or text[at] == "."):
            at += 1
        if not text[start:at].strip("."):
            return []
        number = text[start:at].lstrip("0") or "0"
        while at < len(text) and text[at] == " ":
            at += 1
        start = at
        while at < len(text) and text[at].isalpha():
            at += 1
        word = text[start:at]
        unit = _WORDS.get(word)
        if not word and at == len(text):
            units = list(_UNITS)
            unit = units[units.index(parts[-1][1]) + 1] if parts and parts[-1][1] != "us" else "s"
        if unit is None:
            return []
        parts.append(("0" + number if number[0] == "." else number, unit))
        while at < len(text) and text[at] in " ,":
            at += 1
        if text.startswith("and ", at):
            at += 4
    return parts


def _nanoseconds(word: str) -> int | None:
    """The sum of all parts, or None where ``word`` is no duration."""
    if word in ("0", "0.0"):
        return 0
    total, at, smallest = 0, 0, 1 << 62
    while at < len(word):
        start = at
        while at < len(word) and (word[at] in _DIGITS or word[at] == "."):
            at += 1
        number = word[start:at]
        start = at
        while at < len(word) and word[at].isalpha():
            at += 1
        size = _UNITS.get(word[start:at].replace("µ", "u").replace("μ", "u"), 0)
        whole, _, fraction = number.partition(".")
        if not size or size >= smallest or "." in fraction or not (whole or fraction) or len(number) > 30:
            return None
        smallest = size
        total += int(whole or "0") * size + (int(fraction) * size // 10 ** len(fraction) if fraction else 0)
        while at < len(word) and word[at] == " ":
            at += 1
    return total if word else None
