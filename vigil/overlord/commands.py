"""What an action asks of which service. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from vigil.model import api, signals, suggest
from vigil.model.errors import BadRequest, NotFound
from vigil.overlord.order import Neighbours
from vigil.overlord.steps import grouped
from vigil.service.actor import Actor
from vigil.service.state import Phase, Work, WorkKind

_DOWN = frozenset((Phase.INACTIVE, Phase.HELD, Phase.ERROR, Phase.BACKOFF))
_NAMES_SHOWN = 4
LOOK = "list services"  # what they do who only look, to complete "cannot ..."


class Part(msgspec.Struct, frozen=True):
    """One service's part of a change that is about to begin."""

    service: str
    kind: WorkKind
    signal: int = 0
    required_by: str | None = None

    @property
    def asked(self) -> bool:
        """Whether it was asked for itself."""
        return self.required_by is None

    def work(self, change: int, cause: str) -> Work:
        """As a task of ``change``."""
        if self.required_by is not None:
            cause = f"{cause}, as {self.required_by} requires it"
        return Work(change, self.kind, cause, self.signal)


def parts(action: api.ServicesAction, actors: Mapping[str, Actor], neighbours: Neighbours) -> list[Part]:
    """All parts of the change; NotFound and BadRequest where there can be none."""
    names = known(action.action, action.services, actors)
    if action.signal is not None and action.action != "signal":
        raise BadRequest(f"cannot {action.action}: only the action signal takes a signal")
    match action.action:
        case "start":
            chosen = names or [name for name, actor in actors.items() if actor.service.command is not None]
            return _starts(chosen, neighbours)
        case "autostart":
            chosen = names or [name for name, actor in actors.items() if actor.service.startup == "enabled"]
            return _starts([name for name in chosen if actors[name].state.phase in _DOWN], neighbours)
        case "stop":
            up = [name for name, actor in actors.items() if actor.state.phase is not Phase.INACTIVE]
            chosen = names or [name for name in up if not actors[name].removed]
            return [Part(name, WorkKind.STOP) for name in chosen]
        case "restart":
            idle = (Phase.INACTIVE, Phase.HELD, Phase.ERROR, Phase.EXITED)
            chosen = names or [n for n, actor in actors.items() if actor.state.phase not in idle and not actor.removed]
            return _starts(chosen, neighbours, WorkKind.RESTART)
        case "signal":
            number = _signal(action.signal)
            chosen = names or [name for name, actor in actors.items() if actor.state.phase is Phase.ACTIVE]
            return [Part(name, WorkKind.SIGNAL, number) for name in chosen]
        case _:
            raise BadRequest(f"cannot {action.action}: this vigild does not know how")


def known(verb: str, names: Sequence[str], actors: Mapping[str, Actor]) -> list[str]:
    """``names`` without doubles; NotFound names all that are unknown.

    What the plan does not have any more can only be looked at, as long as anything of it is left.
    """
    unknown = [name for name in dict.fromkeys(names) if name not in actors]
    if unknown:
        listed = ", ".join(suggest.quote(name) + suggest.hint(name, actors) for name in unknown)
        raise NotFound(f"cannot {verb}: there is no service {listed}")
    removed = [name for name in names if actors[name].removed]
    if removed and verb != LOOK:
        raise NotFound(f"cannot {verb} {removed[0]}: the plan does not have it any more, and it is being stopped")
    return list(dict.fromkeys(names))


def same(action: api.ServicesAction, kind: str, services: Collection[str]) -> bool:
    """Whether this can be the action that a change of ``kind`` with tasks for ``services`` was made for.

    What an empty list means changes with the states of the services, so it is not compared.
    """
    return action.action == kind and all(name in services for name in action.services)


def summary(action: api.ServicesAction, services: Sequence[str]) -> str:
    """The change in a few words: ``start web, db``."""
    words = [action.action, *([action.signal] if action.signal is not None else [])]
    return f"{' '.join(words)} {_listed(services)}"


def replan_summary(steps: Sequence[api.Step]) -> str:
    """The change in a few words: ``replan: start web; restart db``."""
    words = [f"{action} {_listed(services)}" for action, services in grouped(steps).items() if services]
    return f"replan: {'; '.join(words) or 'nothing changed'}"


def _listed(services: Sequence[str]) -> str:
    if not services:
        return "nothing"
    more = len(services) - _NAMES_SHOWN
    if more <= 1:
        return ", ".join(services)
    return f"{', '.join(services[:_NAMES_SHOWN])} and {more} more"


def _starts(names: Iterable[str], neighbours: Neighbours, kind: WorkKind = WorkKind.START) -> list[Part]:
    """``kind`` for those asked for, a start for what they require."""
    found = neighbours.to_start(list(names))
    return [Part(n, kind if by is None else WorkKind.START, required_by=by) for n, by in found.items()]


def _signal(word: str | None) -> int:
    if word is None:
        raise BadRequest('cannot signal services: which signal? ("signal": "SIGHUP")')
    try:
        return signals.parse(word)
    except ValueError as wrong:
        raise BadRequest(f"cannot signal: {wrong}") from wrong
