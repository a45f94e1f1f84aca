"""Times: those that vigild sends, as people read them, and those that people type."""

from __future__ import annotations

import time

from vigil.model import duration

_DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def seconds(text: str) -> float:
    """Seconds since 1970 of ``2026-03-21T12:00:00.123456Z``. By hand: strptime and datetime take long to import."""
    year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
    leap = month > 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + _DAYS_BEFORE[month - 1] + leap + day - 719163
    clock = int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
    return days * 86400 + clock + float("0" + text[19:].rstrip("Z"))


class LocalTime:
    """Makes ``2026-03-21 13:00:00.123`` of what vigild sends. Lines come many a second, so the second is kept."""

    def __init__(self) -> None:
        self._known = ""
        self._spelled = ""

    def __call__(self, text: str) -> str:
        """The time in the zone of this process, to the millisecond."""
        if text[:19] != self._known:
            self._known = text[:19]
            self._spelled = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds(text[:19])))
        return f"{self._spelled}.{text[20:23].rstrip('Z'):0<3}"


def since(text: str) -> str:
    """What ``--since`` says, as the API takes it: a seq, or a time in UTC. ValueError."""
    if text.isascii() and text.isdigit() and len(text) <= 19:
        return text
    try:
        return _utc(time.time() - duration.parse(text))
    except ValueError:
        pass
    from datetime import datetime

    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        example = "2026-03-21T12:00:00Z, 10m, or the seq of an entry"
        raise ValueError(f'"{text}" is no time, no duration back and no sequence number (write {example})') from None
    return _utc(when.timestamp())  # one without a zone is local, as the times that are shown


def _utc(when: float) -> str:
    micros = max(0, int(when * 1e6))
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000)) + f".{micros % 1_000_000:06d}Z"
