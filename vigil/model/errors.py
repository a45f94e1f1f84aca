"""The one tree of exceptions; the API maps it to HTTP in one place, programs print ``str(error)``.

VigilError
 |-- NotFound        a name nobody knows                       404
 |-- BadRequest      a request that makes no sense             400
 |    `-- PlanError  a plan with problems, all of them listed  400
 |-- Forbidden       the caller's level is too low             403
 |-- Conflict        not possible in the present state         409
 |-- Unavailable     control is starting or stopping           503
 `-- StartError      vigild cannot start (exit code 1)         500
      `-- UsageError a word of the command line is wrong (2)   400
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vigil.model.api import Problem


class VigilError(Exception):
    """Base of all errors that vigil raises on purpose. ``str()`` is a sentence of the form "cannot X: why"."""

    kind = "internal-error"
    http_status = 500


class NotFound(VigilError):
    """A name that nobody knows."""

    kind = "not-found"
    http_status = 404


class BadRequest(VigilError):
    """A request that makes no sense."""

    kind = "bad-request"
    http_status = 400


class PlanError(BadRequest):
    """A plan that cannot be used. ``str()`` is one line for each problem, ``FILE:LINE:COL: FIELD: what is wrong``.

    ``warnings`` would not have stopped it; often one of them is the cause.
    """

    kind = "bad-plan"

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)


class Forbidden(VigilError):
    """The caller's level is too low."""

    kind = "forbidden"
    http_status = 403


class Conflict(VigilError):
    """Not possible in the present state."""

    kind = "conflict"
    http_status = 409


class Unavailable(VigilError):
    """Control is starting or stopping."""

    kind = "unavailable"
    http_status = 503


class StartError(VigilError):
    """vigild cannot start."""

    kind = "start-error"
    exit_code = 1


class UsageError(StartError):
    """A word of the command line is wrong."""

    kind = "usage-error"
    http_status = 400
    exit_code = 2
