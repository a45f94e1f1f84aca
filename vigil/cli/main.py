"""The entry point of ``vigil``: exit codes, and one line for whatever goes wrong.

Everything is imported where it is needed: Ctrl-C during an import is Ctrl-C too, and ``--version`` needs nothing.

Ctrl-C ends the process on the spot. As an exception it can come up where Python swallows it (seen in a callback of the
import machinery), and there is nothing to clean up; only while waiting for a change there is something to say.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the command line of this process; its exit code."""
    gc.set_threshold(50_000)  # imports make work for the collector, a tenth of all time, and hardly any garbage
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored: nohup, sh -c "... &"
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    try:
        return _run(sys.argv[1:])
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _give_up_output()  # whoever read it has seen enough
        return 0
    except OSError as problem:
        from vigil.cli.terminal import complain

        what = f"open {problem.filename}" if problem.filename else "write"
        complain(f"vigil: cannot {what}: {problem.strerror or problem}")
        _give_up_output()
        return 1


def _give_up_output() -> None:
    """Python would complain at exit, when it flushes what is left, and exit with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(argv: list[str]) -> int:
    from vigil.cli import arguments
    from vigil.cli.terminal import Output, blame, complain
    from vigil.model.errors import UsageError, VigilError

    wanted = arguments.wants(argv)
    if wanted is not None:
        return _print(wanted)
    try:
        told = arguments.read(argv)
    except UsageError as problem:
        complain(f"vigil: {problem}")
        return 2

    from vigil.cli import commands
    from vigil.client.client import Client
    from vigil.client.errors import ClientError, Refused

    output = Output(told.color)
    client = Client(told.socket)
    if sys.stderr is not None and sys.stderr.isatty():
        from vigil.cli.waiting import TellingClient

        client = TellingClient(told.socket)
    try:
        try:
            return commands.run(told, client, output)
        finally:
            output.flush()
    except ClientError as problem:
        if isinstance(problem, Refused) and problem.problems:
            from vigil.cli import plan

            complain(f"vigil: cannot {commands.doing(told)}: the plan has {plan.tell(problem.problems)}")
            return 1
        # vigild's own messages are sentences, the client's are reasons.
        whole = isinstance(problem, Refused) and str(problem).startswith("cannot ")
        complain(f"vigil: {problem}" if whole else f"vigil: cannot {commands.doing(told)}: {problem}")
    except VigilError as problem:
        blame(str(problem))
    return 1


def _print(wanted: str) -> int:
    from vigil import __version__
    from vigil.cli.terminal import Output
    from vigil.cli.usage import TEXT

    output = Output(color=False)
    output.raw(TEXT.encode() if wanted == "help" else f"vigil {__version__}\n".encode())
    output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
