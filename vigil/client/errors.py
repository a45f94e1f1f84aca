"""What can go wrong between a client and vigild.

VigilError
 `-- ClientError
      |-- Unreachable   nobody answers at the socket, and why
      |-- Lost          the connection broke before the answer was complete
      |-- BadAnswer     what answered is not vigild, or not of this version
      `-- Refused       vigild said no
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vigil.model.errors import VigilError

if TYPE_CHECKING:
    from vigil.model.api import Problem


class ClientError(VigilError):
    """Base of the client's errors. ``str()`` is the reason alone: who asked knows what it was for."""


class Unreachable(ClientError):
    """Nobody answers; the message names the socket and the likely cause. ``gone``: there is no daemon behind it."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class Lost(ClientError):
    """The connection broke before the answer was complete: control was killed at this moment."""


class BadAnswer(ClientError):
    """The answer makes no sense."""


class Refused(ClientError):
    """vigild answered with an error. Its message is a sentence already: "cannot X: why".

    ``problems``: where it is a plan that was refused, what is wrong with it.
    """

    def __init__(self, status: int, kind: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.problems = tuple(problems)
