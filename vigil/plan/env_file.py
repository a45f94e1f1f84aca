"""Files of environment variables: one ``KEY=VALUE`` a line, as ``docker run --env-file`` reads them.

Blank lines and lines that begin with ``#`` are skipped, blanks before a key too. All that follows the first ``=`` is
the value: quotes, blanks and ``#`` are part of it. A shell's ``export`` is refused, and so is a key without a value:
vigild's own environment is inherited anyway.
"""

from __future__ import annotations

from vigil.model.suggest import quote
from vigil.plan.problems import Place, Problems


def parse(path: str, content: bytes, problems: Problems) -> dict[str, str]:
    """The variables of one file; what is wrong with it is reported under its own path and lines."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        from vigil.plan import explain  # only wrong files need it

        told = explain.not_utf8(content, error.start)
        problems.error(Place(path, told.line, told.column, told.width), "", told.text)
        return {}
    variables: dict[str, str] = {}
    without_equals: list[Place] = []
    for number, full_line in enumerate(text.split("\n"), 1):
        line = full_line.removesuffix("\r").lstrip(" \t")
        if not line or line.startswith("#"):
            continue
        place = Place(path, number, len(full_line) - len(full_line.lstrip(" \t")) + 1)
        key, equals, value = line.partition("=")
        if not equals and "\0" not in line:
            without_equals.append(place)
            continue
        why = _refusal(key, line)
        if why:
            problems.error(place, "", why)
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            problems.warn(
                place, "", f"the quotes around the value of {quote(key)} are part of it (nothing is unquoted here)"
            )
        variables[key] = value
    if without_equals:
        # What stands there is not shown: lines of a key or a certificate look like this.
        more = len(without_equals) - 1
        others = f", and so have {more} more" if more > 1 else ", and so has one more" if more else ""
        problems.error(without_equals[0], "", f'the line has no "=" (write KEY=VALUE){others}')
    return variables


def _refusal(key: str, line: str) -> str:
    if "\0" in line:
        return "holds a NUL character, which no variable can"
    if key.startswith(("export ", "export\t")):
        return f"{quote(key)} is not a variable's name (leave out export)"
    if not key:
        return "a line begins with = (write KEY=VALUE)"
    if " " in key.strip() or "\t" in key.strip():
        return f"{quote(key)} is not a variable's name (write KEY=VALUE)"
    if key != key.strip():
        return f"{quote(key)} is not a variable's name (write {key.strip()}=VALUE, without blanks before the =)"
    return ""
