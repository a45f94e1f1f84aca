"""control's own diagnostics: one line each to descriptor 2, as text or as a JSON object.

The standard library's logging is not used: it costs control 10 ms of its start, and it may block. Descriptor 2 is a
pipe that logger reads; when logger is behind, a line is dropped and counted rather than waited for, because a
supervisor that waits for its own diagnostics is hung. The count is told with the next line that finds room.
"""

from __future__ import annotations

import os
import select
import time

DEBUG, INFO, WARN, ERROR = range(4)
LEVELS = ("debug", "info", "warn", "error")
_NAMES = ("DEBUG", "INFO", "WARN", "ERROR")

# A pipe that polls as writable takes this much without blocking, and all of it at once (PIPE_BUF).
_LINE_MAX = 4096

_level = INFO
_json = False
_dropped = 0


def configure(format: str = "text", level: str = "info") -> None:  # noqa: A002 - the word users know
    """Set what ``--log-format`` and ``--log-level`` say; ValueError where either is unknown."""
    global _json, _level
    if format not in ("text", "json"):
        raise ValueError(f'"{format}" is not a log format (text or json)')
    if level not in LEVELS:
        raise ValueError(f'"{level}" is not a log level ({", ".join(LEVELS)})')
    _level = LEVELS.index(level)
    _json = format == "json"


def debug(target: str, message: str, **fields: object) -> None:
    """Say what only someone who looks for an error wants to know."""
    _say(DEBUG, target, message, fields)


def info(target: str, message: str, **fields: object) -> None:
    """Say what happened."""
    _say(INFO, target, message, fields)


def warn(target: str, message: str, **fields: object) -> None:
    """Say what somebody should look at."""
    _say(WARN, target, message, fields)


def error(target: str, message: str, **fields: object) -> None:
    """Say what went wrong."""
    _say(ERROR, target, message, fields)


def timestamp(real_ns: int) -> str:
    """RFC 3339 in UTC with microseconds and ``Z``."""
    seconds, rest = divmod(real_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"


def render(level: int, target: str, message: str, fields: dict[str, object], *, json: bool, real_ns: int) -> bytes:
    """One whole line with its end, at most 4096 bytes: what does not fit is cut off."""
    if json:
        line = _render_json(level, target, message, fields, real_ns)
    else:
        words = [timestamp(real_ns), _NAMES[level], target, _one_line(message)]
        words += [f"{key}={_value(value)}" for key, value in fields.items()]
        line = " ".join(word for word in words if word).encode("utf-8", "surrogateescape")
    if len(line) >= _LINE_MAX:
        if json:  # a cut object is no object: cut the message instead, and drop the fields
            return _render_json(level, target, message[: _LINE_MAX // 16] + "...", {}, real_ns) + b"\n"
        line = line[: _LINE_MAX - 4] + b"..."
    return line + b"\n"


def _render_json(level: int, target: str, message: str, fields: dict[str, object], real_ns: int) -> bytes:
    import msgspec.json  # loaded by then in control; not worth loading for the first text line of --help

    entry: dict[str, object] = {
        "timestamp": timestamp(real_ns),
        "level": _NAMES[level],
        "target": target,
        "message": _clean(message),
    }
    for key, value in fields.items():
        entry[key] = value if value is None or isinstance(value, (bool, int, float)) else _clean(str(value))
    return msgspec.json.encode(entry)


def _clean(text: str) -> str:
    """``text`` as JSON can carry it: undecodable bytes become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _one_line(text: str) -> str:
    """``text`` with control characters made visible, so that nothing a service is called can forge a line."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return character  # a byte that was no UTF-8: written as it came
    return repr(character)[1:-1]


def _value(value: object) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    text = _one_line(str(value))
    if text and not any(c in text for c in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _say(level: int, target: str, message: str, fields: dict[str, object]) -> None:
    global _dropped
    if level < _level:
        return
    try:
        line = render(level, target, message, fields, json=_json, real_ns=time.time_ns())
        if _dropped:
            line = _report(_dropped) + line  # in one write where both fit: the first may take the last room
            if len(line) > _LINE_MAX:
                line = _report(_dropped + 1)
        if _write(line):
            _dropped = 0
        else:
            _dropped += 1
    except Exception:
        _dropped += 1  # diagnostics are not worth an exception in whoever gives them


def _report(count: int) -> bytes:
    message = "lines of diagnostics were dropped: nobody took them"
    return render(WARN, "vigil.control", message, {"count": count}, json=_json, real_ns=time.time_ns())


def _write(line: bytes) -> bool:
    """Write ``line`` if that takes no waiting."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    ready = poll.poll(0)
    if not ready or not ready[0][1] & select.POLLOUT:
        return False
    while line:  # only a terminal or a file takes a part, and then the rest too
        line = line[os.write(2, line) :]
    return True
