"""The program that renders one body-template. It is given little time and memory, and what it is given may be hostile.

Run as a file, by a Python that sees nothing of its surroundings (-I -S), with descriptor 0 a file of JSON: ``path``
(where modules are), ``template``, ``variables``, ``most`` (bytes). Exit code 0: the text is on standard output; 1: a
sentence about what went wrong is there.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NoReturn


def main() -> NoReturn:
    """Render, write, end."""
    with open(0, "rb") as given:
        job = json.load(given)
    sys.path[:] = job["path"]
    code = 0
    try:
        text = render(job["template"], job["variables"])
        shown = text.encode("utf-8", "replace")
        if len(shown) > job["most"]:
            code, shown = 1, f"it makes more than {job['most']} bytes".encode()
    except MemoryError:
        code, shown = 1, b"it takes too much memory"
    except RecursionError:
        code, shown = 1, b"it is nested too deep"
    except Exception as error:
        code, shown = 1, f"{_what(error)}: {error}"[:500].encode("utf-8", "replace")
    while shown:
        shown = shown[os.write(1, shown) :]
    os._exit(code)


def render(template: str, variables: dict[str, Any]) -> str:
    """The text that ``template`` makes of ``variables``. What is not defined is an error, not an empty text."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # A JSON text ends where its author ended it; nothing is HTML.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    return environment.from_string(template).render(variables)


def _what(error: Exception) -> str:
    name = type(error).__name__
    words = {
        "TemplateSyntaxError": "it does not parse",
        "UndefinedError": "it uses what is not defined",
        "SecurityError": "it may not do that",
    }
    return words.get(name, name)


if __name__ == "__main__":
    main()
