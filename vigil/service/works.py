"""How the tasks of changes move a service: begin, queue, overtake, end. The half of the machine that commands drive.

Tasks on one service never overlap: one is current, the others wait in the order they came. A stop waits for no start:
it ends the one that is under way and those that are queued, and then begins.
"""

from __future__ import annotations

from typing import Any, assert_never

from msgspec.structs import replace

from vigil.model import duration
from vigil.model.states import ChangeStatus
from vigil.service.events import Around, Effect, Signal, WorkBegan, WorkEnded
from vigil.service.state import (
    LEAVING,
    LIVE,
    SETTLED_NS,
    Next,
    Phase,
    State,
    Work,
    WorkKind,
    deadline,
    described,
    settling,
    shown,
)
from vigil.shim.messages import Run

STARTS = (WorkKind.START, WorkKind.RESTART)
NO_COMMAND = "the plan gives it no command"

_NEVER_OUTPUT: tuple[str, ...] = ()


class Works:
    """The state that is being changed, the effects so far, and what tasks do to them."""

    __slots__ = ("around", "effects", "service", "state")

    def __init__(self, state: State, around: Around) -> None:
        self.state = state
        self.around = around
        self.service = around.service
        self.effects: list[Effect] = []

    def set(self, **changes: Any) -> None:
        """Change fields."""
        self.state = replace(self.state, **changes)

    def move(self, phase: Phase, cause: str | None = None, **changes: Any) -> None:
        """Go to ``phase``; where users see another state by that, it is since now. ``cause`` None: the old stays."""
        before = shown(self.state)
        changes.setdefault("waiting_for", ())
        if cause is not None:
            changes["cause"] = cause
        self.state = replace(self.state, phase=phase, postponed=False, **changes)
        if shown(self.state) is not before:
            self.set(since_real_ns=self.around.real_ns)

    # --- queue ---

    def command(self, work: Work) -> None:
        """``work`` is asked for: it begins at once, or after those before it."""
        if work.kind is WorkKind.STOP:
            self._overtake(work)
        self.set(queue=(*self.state.queue, work))

    def next_work(self) -> None:
        """Begin what is queued, until something is under way."""
        while self.state.task is None and self.state.queue:
            work, *rest = self.state.queue
            self.set(task=work, queue=tuple(rest))
            match work.kind:
                case WorkKind.START:
                    self._begin_start(work)
                case WorkKind.STOP:
                    self._begin_stop(work)
                case WorkKind.RESTART:
                    self._begin_restart(work)
                case WorkKind.SIGNAL:
                    self._begin_signal(work)
                case _:
                    assert_never(work.kind)

    def end(self, status: ChangeStatus, err: str = "", output: tuple[str, ...] = _NEVER_OUTPUT) -> None:
        """The current task is over."""
        if self.state.task is not None:
            self.effects.append(WorkEnded(self.state.task, status, err, output))
            self.set(task=None)

    def _overtake(self, stop: Work) -> None:
        """A stop is asked for: starts that are under way or queued come to nothing.

        Where it is only for the sake of one that this service requires, what is queued stays, and so does a restart
        that is stopping the service anyway.
        """
        task = self.state.task
        why = f"overtaken by a stop that {stop.cause} asked for (change {stop.change})"
        if stop.removed:
            why = f"the plan does not have it any more (change {stop.change})"
        if task is not None and task.kind in STARTS:
            stopping = task.kind is WorkKind.RESTART and not task.begun and self.state.phase in LEAVING
            if not (stop.keep and stopping):
                self.end(ChangeStatus.ERROR, task.verdict or why)
        if not stop.keep:
            for work in self.state.queue:
                if work.kind in STARTS:
                    self.effects.append(WorkEnded(work, ChangeStatus.ERROR, why))
            self.set(queue=tuple(work for work in self.state.queue if work.kind not in STARTS))

    # --- begin ---

    def _startable(self) -> bool:
        if self.around.closing:
            self.end(ChangeStatus.ERROR, self.around.closing)
        elif self.service.command is None:
            self.end(ChangeStatus.ERROR, NO_COMMAND)
        else:
            return True
        return False

    def _begin_start(self, work: Work) -> None:
        if not self._startable():
            return
        if self.state.phase in (Phase.SPAWNING, Phase.ACTIVE):
            self.set(attempt=0)
            self.begun()
            self.settle()
        elif self.state.phase in LEAVING:
            self.set(next=Next.START, **_RESET)
        else:
            self.move(Phase.WAITING, self.start_cause(), **_RESET)

    def _begin_restart(self, work: Work) -> None:
        if self.state.phase in (Phase.SPAWNING, Phase.ACTIVE):
            if self._startable():
                self.move(Phase.STOP_WAIT, self.start_cause(), next=Next.START, **_RESET)
                self.effects.append(WorkBegan(work))
        else:
            done = self.state.phase is Phase.EXITED
            self._begin_start(work)
            if done and self.state.phase is Phase.WAITING:  # a oneshot: what requires it is up, and goes with it
                self.effects.append(WorkBegan(work))

    def _begin_stop(self, work: Work) -> None:
        phase = self.state.phase
        cause = f"stopped by {_who(work)}"
        if not work.keep:
            self.set(stopped=not work.removed)
        if phase in (Phase.SPAWNING, Phase.ACTIVE):
            self.move(Phase.STOP_WAIT, cause, next=Next.START if work.keep else Next.DOWN)
            self.effects.append(WorkBegan(work))
        elif phase in LEAVING:
            if not work.keep:
                self.set(next=Next.DOWN, cause=cause, deadline_ns=0)
        else:
            if not work.keep and phase is not Phase.INACTIVE:
                self.move(Phase.INACTIVE, cause, deadline_ns=0, short=False)
            self.end(ChangeStatus.DONE)

    def _begin_signal(self, work: Work) -> None:
        state = self.state
        if state.phase in LIVE and state.run is not None and state.active_ns and not state.ended:
            self.set(task=replace(work, begun=True))
            self.effects.append(Signal(Run(*state.run), work.signal))
        else:
            self.end(ChangeStatus.ERROR, f"it is {described(state)}")

    # --- on the way ---

    def begun(self) -> None:
        """The run that the current start asked for is under way."""
        task = self.state.task
        if task is not None and task.kind in STARTS:
            self.set(task=replace(task, begun=True))

    def unbegin(self) -> None:
        """There is no run after all: it is to be spawned again."""
        task = self.state.task
        if task is not None and settling(task):
            self.set(task=replace(task, begun=False))

    def start_cause(self) -> str:
        """Why the service is about to be started."""
        task = self.state.task
        if task is None or task.kind not in STARTS:
            return "started again with what it requires"
        return f"{'started' if task.kind is WorkKind.START else 'restarted'} by {_who(task)}"

    def sent(self) -> None:
        """The signal of the current task is on its way."""
        task = self.state.task
        if task is not None and task.kind is WorkKind.SIGNAL and task.begun:
            self.end(ChangeStatus.DONE)

    def interrupted(self) -> None:
        """A new control: nobody tells whether a signal was sent, and twice could do worse than the error."""
        task = self.state.task
        if task is not None and task.kind is WorkKind.SIGNAL and task.begun:
            self.end(ChangeStatus.ERROR, "control was restarted while it sent the signal, which may not have arrived")

    def settle(self) -> None:
        """End a start whose service has been active for long enough."""
        state = self.state
        due = deadline(state, oneshot=self.service.type == "oneshot")
        if state.phase is Phase.ACTIVE and due is not None and self.around.monotonic_ns >= due:
            self.end(ChangeStatus.DONE)

    def judge(self, success: bool, ran_ns: int | None, reason: str) -> None:
        """The main process ended by itself: what that means to a start. An error waits for the last lines of output."""
        task = self.state.task
        if task is None or not settling(task):
            return
        if self.service.type == "oneshot":
            if success:
                return  # done, when nothing of it is left
        elif ran_ns is not None and ran_ns >= SETTLED_NS:
            self.end(ChangeStatus.DONE)
            return
        if ran_ns is None:
            after = ""
        else:
            after = f" after {duration.spell(max(1, round(ran_ns / 1e6)) / 1000)}"
        self.set(task=replace(task, verdict=reason + after))

    def left_work(self, following: Next, output: tuple[str, ...]) -> None:
        """Nothing of the run is left, and the service has become what ``following`` says."""
        task = self.state.task
        if task is None:
            return
        if task.kind is WorkKind.STOP:
            self.end(ChangeStatus.DONE)
        elif task.kind in STARTS:
            if task.verdict:
                self.end(ChangeStatus.ERROR, task.verdict, output)
            elif task.begun and following is Next.EXITED:
                self.end(ChangeStatus.DONE)
            elif task.begun or following is not Next.START:
                self.end(ChangeStatus.ERROR, self.around.closing or "stopped before it was done")

    def close_works(self) -> None:
        """vigild is stopping: nothing is started any more."""
        task = self.state.task
        if task is not None and task.kind in STARTS:
            self.end(ChangeStatus.ERROR, task.verdict or self.around.closing)
        for work in self.state.queue:
            if work.kind in STARTS:
                self.effects.append(WorkEnded(work, ChangeStatus.ERROR, self.around.closing))
        self.set(queue=tuple(work for work in self.state.queue if work.kind not in STARTS))


_RESET = {"stopped": False, "attempt": 0, "shortages": 0, "short": False, "restarts": 0, "deadline_ns": 0}


def _who(work: Work) -> str:
    return f"{work.cause} (change {work.change})"
