"""What services of the tests' containers do. Knows nothing but Python's own library, and needs no shell.

web       leads two orphans, one that ends politely and one that is deaf; says what it hears, and ends politely itself
leaver    leaves a deaf orphan behind, and is done
stay      does nothing
exit N, signal N    leave the two orphans behind, and end with this code, or by this signal
hog MIB, crowd N    take memory, or make processes, until there are so many or no more can be had
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
from typing import NoReturn


def say(text: str) -> None:
    """One line, in one write."""
    os.write(1, f"{text}\n".encode())


def stay() -> NoReturn:
    """Until a signal ends it."""
    while True:
        signal.pause()


def leave(role: str) -> None:
    """Start this program in another role, in a session of its own, as an orphan; return once it is what it is to be."""
    read, write = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            os.dup2(write, 3, inheritable=True)
            os.execv(sys.executable, [sys.executable, "-ISE", __file__, role])
        os._exit(0)
    os.close(write)
    os.wait()
    assert os.read(read, 1) == b"!"


def leave_two() -> None:
    """Leave one of each kind."""
    leave("polite")
    leave("deaf")


def here() -> None:
    """Tell who waits in ``leave``, if somebody does."""
    try:
        os.write(3, b"!")
        os.close(3)
    except OSError:
        say("waits for signals")


def account() -> str:
    """Name of this user, - where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "-"


def leaving(name: str) -> None:
    """End politely when told to."""

    def end(*_: object) -> NoReturn:
        say(f"{name} ends")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)


def main(role: str, *words: str) -> NoReturn:
    """Be it."""
    if role == "web":
        leaving("web")
        signal.signal(signal.SIGHUP, lambda *_: say("web heard HUP"))
        leave_two()
        say(f"web is up: {os.getuid()} {account()} {os.environ.get('HOME', '-')}")
    elif role == "polite":
        leaving("polite")
        here()
    elif role == "deaf":
        for signo in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(signo, signal.SIG_IGN)
        here()
    elif role == "leaver":
        leave("deaf")
        sys.exit(0)
    elif role == "exit":
        leave_two()
        sys.exit(int(words[0]))
    elif role == "signal":
        leave_two()
        os.kill(os.getpid(), int(words[0]))
    elif role == "hog":
        say("hog begins")
        kept = []
        while len(kept) < int(words[0]):
            kept.append(b"x" * 2**20)
    elif role == "crowd":
        count = 0
        try:
            while count < int(words[0]):
                if os.fork() == 0:
                    stay()
                count += 1
        except OSError as error:
            say(f"crowd has {'enough' if count else 'none'}: {error.strerror}")
    stay()


main(*sys.argv[1:])
