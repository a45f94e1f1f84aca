"""The program: options, the two runs that start nothing, and what is printed when it cannot go on."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from vigil.model import say
from vigil.model.errors import PlanError, StartError, UsageError, VigilError

if TYPE_CHECKING:
    from vigil.daemon.options import Options


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0; 1 what was asked for cannot be done, one line says why; 2 a wrong word on the command line."""
    # vigild ends a hung control with SIGABRT: the traceback of what it hangs in goes to the log.
    faulthandler.enable()
    from vigil.daemon import options as command_line  # docopt compiles its patterns here

    try:
        options = command_line.parse(arguments, os.environ)
        if options.help:
            print(command_line.USAGE, end="")
            return 0
        if options.version:
            from vigil import __version__

            print(f"vigild {__version__}")
            return 0
        say.configure(options.log_format, options.log_level)
        if options.check:
            return _check(options)
        _run(options)
    except UsageError as wrong:
        _print(f"vigild: {wrong}\nvigild --help tells more")
        return wrong.exit_code
    except PlanError as bad:
        from vigil.plan.problems import shown

        _print("\n".join((*(f"warning: {shown(warning)}" for warning in bad.warnings), *map(shown, bad.problems))))
        count = "1 problem" if len(bad.problems) == 1 else f"{len(bad.problems)} problems"
        _print(f"vigild: cannot load the plan: {count}")
        return 1
    except VigilError as error:
        _print(f"vigild: {error}")
        return 1


def _check(options: Options) -> int:
    """Every problem there is, exit code 1 if one is an error.

    It may run where an image is built, as another user than vigild will have: what only that user may not do (another
    ``user``, ``nice``, ``limits``, ``oom-score-adj``) is a warning here. Files and user names must be there.
    """
    from vigil.plan import load, read
    from vigil.plan.problems import shown

    plan = load(read(options.layers_dir, check=True), check=True)
    for warning in plan.warnings:
        _print(f"warning: {shown(warning)}")
    count = "1 service" if len(plan.services) == 1 else f"{len(plan.services)} services"
    print(f"The plan is right: {count}.")
    return 0


def _run(options: Options) -> NoReturn:
    link = os.environ.get("VIGIL_LINK", "")
    if not link.isdigit():
        raise StartError("cannot start: control is started by vigild, not by hand (there is no VIGIL_LINK)")
    try:
        with open("/proc/self/comm", "w") as name:
            name.write("vigil-control")
    except OSError:
        pass  # without /proc it is called after its interpreter; the name is for people only
    from vigil.daemon.start import start

    started = start(options, int(link))
    # asyncio takes 28 ms to import; the first services are starting meanwhile.
    from vigil.daemon.serve import serve

    serve(started)


def _print(text: str) -> None:
    """To stderr; bytes of a file that are no text come out escaped rather than as an error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
