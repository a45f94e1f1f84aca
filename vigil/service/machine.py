"""What a service does next: ``step(state, event, around) -> (state, effects)``, and nothing else. Pure.

The state that comes out is complete: whoever reads it from the journal after control died at any instruction goes on
with ``Attached``, and every exit and every command is dealt with once. That works because

* an effect is done only after the state that wants it is in the journal, and
* Attached does again every effect that may have been lost, told by what PID 1 knows: a token with no run was never
  spawned, a run that is not stopping was never told to stop, an exit not marked ``ended`` was never looked at.

A run is released when nothing of it is left and that is in the journal, not before: until then PID 1 has it.
What the tasks of changes do to a service is in ``works``.
"""

from __future__ import annotations

import errno
from typing import Any, assert_never

from msgspec.structs import replace

from vigil._native import lib
from vigil.model import duration
from vigil.model.states import ChangeStatus
from vigil.plan.types import Policy
from vigil.service import backoff, spec
from vigil.service.events import (
    Adopted,
    Around,
    Attached,
    Cascade,
    Closing,
    Command,
    Due,
    Effect,
    Emptied,
    Event,
    Go,
    Hold,
    Release,
    Replanned,
    Say,
    Sent,
    Shutdown,
    Spawn,
    Stop,
    StopLater,
    StopNow,
    Wait,
)
from vigil.service.state import LEAVING, LIVE, LastExit, Next, Phase, State, settling
from vigil.service.works import NO_COMMAND, STARTS, Works
from vigil.shim.messages import (
    NO_RUN,
    Exited,
    Refused,
    Run,
    RunPhase,
    RunState,
    SpawnFailed,
    Started,
    Step,
    StopCause,
    Stopping,
)

FAILURE_SHUTDOWN_CODE = 10
"""What failure-shutdown makes of a 0."""

SHORTAGE_DELAY = 0.1
"""Seconds, at least, between two starts while the machine is short of something, whatever the plan's backoff-delay."""


_WHOLE_STOP = "vigild is stopping"


def step(state: State, event: Event, around: Around) -> tuple[State, tuple[Effect, ...]]:
    """The state after ``event``, and what is to be done once it is in the journal."""
    machine = _Machine(state, around)
    machine.handle(event)
    return machine.state, tuple(machine.effects)


class _Machine(Works):
    def handle(self, event: Event) -> None:
        match event:
            case Started():
                self._started(event)
            case SpawnFailed():
                self._spawn_failed(event)
            case Refused():
                self._refused(event)
            case Exited():
                self._exited(event)
            case Stopping():
                self._stopping(event)
            case Emptied():
                self._emptied(event)
            case Attached():
                self._attached(event)
            case Adopted():
                self._adopted(event.run)
            case Replanned():
                if event.definition and self.state.phase in LIVE and not self.state.definition:
                    self.set(definition=event.definition)
            case Due():
                self._due()
            case Sent():
                self.sent()
            case Command():
                self.command(event.work)
            case Closing():
                self._closing()
            case Go():
                self._go(event)
            case Wait():
                self._wait(event)
            case Hold():
                self._hold(event)
            case Cascade():
                self._cascade(event)
            case StopNow():
                self._stop_now()
            case StopLater():
                if self.state.phase is Phase.STOP_WAIT:
                    self.set(waiting_for=event.blockers)
            case _:
                assert_never(event)
        self.next_work()

    # --- what PID 1 tells ---

    def _ours(self, token: int) -> bool:
        return token == self.state.token and self.state.phase in LIVE

    def _started(self, message: Started, *, tell: bool = True) -> None:
        state = self.state
        if not self._ours(message.token) or state.active_ns:
            return
        run = (message.run.slot, message.run.generation)
        known: dict[str, Any] = {
            "run": run,
            "pid": message.pid,
            "keeper": message.keeper,
            "active_ns": self.around.monotonic_ns,
            "started_real_ns": message.started_real_ns or self.around.real_ns,
            "shortages": 0,
        }
        if state.phase is Phase.SPAWNING:
            self.move(Phase.ACTIVE, **known)
        else:
            self.set(**known)
        if tell:
            self.effects.append(Say("info", "started", message.pid))

    def _refused(self, message: Refused) -> None:
        if message.kind == lib.VG_SPAWN:  # the table is full, or this vigild cannot do what the plan asks for
            error = errno.EAGAIN if message.error == errno.ENOSPC else message.error
            failed = SpawnFailed(run=NO_RUN, token=message.token, step=Step.FORK, error=error)
            self._spawn_failed(failed if failed.shortage else replace(failed, step=Step.NONE))

    def _spawn_failed(self, message: SpawnFailed) -> None:
        if not self._ours(message.token):
            return
        if message.run != NO_RUN:
            self.effects.append(Release(message.run))
        reason = message.describe(spec.value_of(self.service, message.step))
        if message.step is Step.STOPPING:
            self.set(next=Next.DOWN)
            self._left()
        elif self.state.phase in LEAVING:
            self._left()
        elif message.shortage:
            self._short(reason)
        else:
            self._record(LastExit(message.exit_code, 0, reason, self.around.real_ns))
            self._decide(message.exit_code, None)
            self._left()

    def _short(self, reason: str) -> None:
        state = self.state
        delay = max(backoff.delay(self.service, state.shortages), SHORTAGE_DELAY)
        text = f"cannot be started for now: {reason}; tries again in {duration.spell(delay)}"
        self.effects.append(Say("warn", text))
        self.move(
            Phase.BACKOFF,
            text,
            short=True,
            shortages=state.shortages + 1,
            deadline_ns=self.around.monotonic_ns + round(delay * 1e9),
            task=replace(state.task, begun=False) if state.task is not None and settling(state.task) else state.task,
        )

    def _exited(self, message: Exited, ran_ns: int | None = None) -> None:
        """``ran_ns``: how long it was active, where that is known better than from now."""
        state = self.state
        if not self._ours(message.token) or state.ended:
            return
        when = message.exited_real_ns or self.around.real_ns
        self._record(LastExit(message.exit_code, message.signal or 0, message.describe(), when))
        if state.run is None:
            self.set(run=(message.run.slot, message.run.generation))
        if state.phase in LEAVING:
            self.move(Phase.STOPPING)
            return
        if message.asked:  # not by us: this is the whole stop, of which the word may not have come
            self.move(Phase.STOPPING, self.around.closing or _WHOLE_STOP, next=Next.DOWN)
            return
        if ran_ns is None:
            ran_ns = self.around.monotonic_ns - state.active_ns if state.active_ns else 0
        self._decide(message.exit_code, ran_ns)

    def _record(self, last: LastExit) -> None:
        self.set(exit=last, ended=True)

    def _decide(self, code: int, ran_ns: int | None) -> None:
        """The main process ended by itself: what follows when nothing is left. ``ran_ns`` None: it was not executed."""
        service, last = self.service, self.state.exit
        assert last is not None
        success = ran_ns is not None and code in service.success_exit_codes
        done = Next.EXITED if success and service.type == "oneshot" else Next.DOWN
        if self.around.closing:
            self.move(Phase.ENDING, f"{last.reason}; {self.around.closing}", next=done)
            return
        self.judge(success, ran_ns, last.reason)
        key, policy = ("on-success", service.on_success) if success else ("on-failure", service.on_failure)
        level = "info" if success else "warn"
        match policy:
            case Policy.RESTART:
                self._back_off(level, healthy=ran_ns is not None and backoff.healthy(service, ran_ns))
                return
            case Policy.IGNORE:
                text = last.reason if done is Next.EXITED else f"{last.reason}; {key} is {policy.value}"
            case Policy.SHUTDOWN | Policy.FAILURE_SHUTDOWN | Policy.SUCCESS_SHUTDOWN:
                text = f"{last.reason}; {key} is {policy.value}"
                match policy:
                    case Policy.SHUTDOWN:
                        decided = code
                    case Policy.FAILURE_SHUTDOWN:
                        decided = code or FAILURE_SHUTDOWN_CODE
                    case Policy.SUCCESS_SHUTDOWN:
                        decided = 0
                self.effects.append(Shutdown(decided, text))
            case _:
                assert_never(policy)
        self.effects.append(Say(level, text))
        self.move(Phase.ENDING, text, next=done)

    def _back_off(self, level: str, *, healthy: bool) -> None:
        last = self.state.exit
        assert last is not None
        attempt = 0 if healthy else self.state.attempt
        if backoff.exhausted(self.service, attempt):
            text = f"{last.reason}; given up after {attempt} restarts"
            self.effects.append(Say("error", text))
            self.move(Phase.ENDING, text, next=Next.ERROR)
            return
        delay = backoff.delay(self.service, attempt)
        text = f"{last.reason}; restarts in {duration.spell(delay)}"
        self.effects.append(Say(level, text))
        deadline = self.around.monotonic_ns + round(delay * 1e9)
        self.move(Phase.ENDING, text, next=Next.BACKOFF, attempt=attempt + 1, deadline_ns=deadline)

    def _stopping(self, message: Stopping) -> None:
        if message.cause is not StopCause.WHOLE or not self._ours(message.token):
            return  # what we asked for, or what an exit says better
        if self.state.phase in (Phase.SPAWNING, Phase.ACTIVE, Phase.STOP_WAIT):
            self.move(Phase.STOPPING, self.around.closing or _WHOLE_STOP, next=Next.DOWN)
        if self.state.run is None:
            self.set(run=(message.run.slot, message.run.generation))

    def _emptied(self, event: Emptied) -> None:
        state = self.state
        if state.phase not in LIVE:
            return
        self.effects.append(Release(event.run))
        if event.keeper_lost:
            self.effects.append(Say("warn", "its keeper was killed, and what was left of the service with it"))
        if event.left_over:
            self.effects.append(Say("error", "something of it is left that even SIGKILL does not end (state D)"))
        if state.phase in (Phase.SPAWNING, Phase.ACTIVE):
            self._lose()
        self._left(event.output)

    def _lose(self) -> None:
        """PID 1 has no run and told of no exit: nobody can say how it ended."""
        self._record(LastExit(1, 0, "ended unseen", self.around.real_ns))
        self._decide(1, self.around.monotonic_ns - self.state.active_ns if self.state.active_ns else 0)

    def _left(self, output: tuple[str, ...] = ()) -> None:
        """Nothing of the run is left."""
        state = self.state
        following = state.next
        if self.around.closing and following in (Next.START, Next.BACKOFF):
            following = Next.DOWN
        if state.phase is not Phase.ENDING:
            how = f": {state.exit.reason}" if state.exit is not None and state.ended else ""
            self.effects.append(Say("info", f"stopped{how}"))
        if state.exit is not None and state.ended and output:
            self.set(exit=replace(state.exit, output=output))
        self.set(run=None, pid=0, keeper=0, active_ns=0, ended=False, next=Next.DOWN)
        match following:
            case Next.DOWN:
                self.move(Phase.INACTIVE)
            case Next.START:
                self.move(Phase.WAITING, self.start_cause(), deadline_ns=0)
            case Next.BACKOFF:
                self.move(Phase.BACKOFF)
                self._due()
            case Next.ERROR:
                self.move(Phase.ERROR)
            case Next.EXITED:
                self.move(Phase.EXITED)
            case _:
                assert_never(following)
        self.left_work(following, output)

    # --- a new control ---

    def _attached(self, event: Attached) -> None:
        self.interrupted()
        if self.state.phase not in LIVE:
            return
        if event.run is not None:
            self._catch_up(event.run, event.output)
        elif self.state.run is None:  # the SPAWN was never sent, or nothing was kept of it
            if self.state.phase is Phase.SPAWNING:
                self.move(Phase.INACTIVE if self.around.closing else Phase.WAITING)
                self.unbegin()
            else:
                self._left()
        else:
            if self.state.phase in (Phase.SPAWNING, Phase.ACTIVE):
                self._lose()
            self._left(event.output)

    def _adopted(self, run: RunState) -> None:
        if self.state.phase not in LIVE:
            self.move(Phase.SPAWNING, "adopted: it was running, and the journal did not know", token=run.token)
            self.set(run=None, pid=0, keeper=0, active_ns=0, ended=False, next=Next.DOWN, definition="")
            self.begun()
            self.effects.append(Say("warn", "adopted: it was running, and the journal did not know", run.pid))
            self._catch_up(run, ())

    def _catch_up(self, run: RunState, output: tuple[str, ...]) -> None:
        """What happened to the run since the journal was written."""
        known = self.state.active_ns > 0
        if run.state is RunPhase.FAILED:
            self._spawn_failed(run.failed())
            return
        if run.state is RunPhase.STARTING:
            self.set(run=(run.run.slot, run.run.generation))
        elif not self.state.active_ns:
            self._started(run.started(), tell=False)
        if run.state in (RunPhase.EXITED, RunPhase.GONE):
            # It may have ended long ago, which only the wall clock knows: a short run must not become a long one.
            ran = run.exited_real_ns - run.started_real_ns
            if known and not 0 <= ran < self.around.monotonic_ns - self.state.active_ns:
                ran = self.around.monotonic_ns - self.state.active_ns
            self._exited(run.exited(), max(0, ran))
        elif self.state.phase is Phase.STOPPING and not run.stopping:
            self.effects.append(Stop(run.run))
        if run.state is RunPhase.GONE:
            self._emptied(Emptied(run.run, output, run.keeper_lost, run.left_over))

    # --- time, order, the end ---

    def _due(self) -> None:
        state, now = self.state, self.around.monotonic_ns
        if state.phase is Phase.BACKOFF and now >= state.deadline_ns:
            if state.short:
                self.move(Phase.WAITING, short=False, deadline_ns=0)
            else:
                why = state.exit.reason if state.exit is not None else "it ended"
                self.move(Phase.WAITING, f"restarted: {why}", deadline_ns=0, restarts=state.restarts + 1)
        elif state.phase is Phase.ACTIVE:
            self.settle()

    def _go(self, event: Go) -> None:
        if self.state.phase not in (Phase.WAITING, Phase.HELD):  # HELD: by one that the plan no longer has it require
            return
        if self.service.command is None:  # it had one when its start was asked for
            self.move(Phase.INACTIVE, NO_COMMAND)
            task = self.state.task
            if task is not None and task.kind in STARTS:
                self.end(ChangeStatus.ERROR, NO_COMMAND)
            return
        unknown = tuple(name for name in event.down if name not in self.state.warned)
        for name in unknown:
            self.effects.append(Say("warn", f"started without waiting for {name}, which nobody starts"))
        held = self.state.phase is Phase.HELD
        self.move(
            Phase.SPAWNING,
            "started, as nothing that it requires is missing any more" if held else None,
            token=event.token,
            run=None,
            pid=0,
            keeper=0,
            active_ns=0,
            ended=False,
            definition="",
            warned=self.state.warned + unknown,
        )
        self.begun()
        self.effects.append(Spawn())

    def _wait(self, event: Wait) -> None:
        state = self.state
        if state.phase not in (Phase.WAITING, Phase.HELD):
            return
        if state.phase is Phase.HELD:
            self.move(Phase.WAITING, self.start_cause())
        if state.waiting_for != event.blockers or state.postponed != bool(event.postponed):
            self.set(waiting_for=event.blockers, postponed=bool(event.postponed))
        task = self.state.task
        if event.postponed and task is not None and task.kind in STARTS and not task.begun:
            self.end(ChangeStatus.HOLD, f"it waits for {event.postponed}")

    def _hold(self, event: Hold) -> None:
        state = self.state
        if state.phase in (Phase.WAITING, Phase.BACKOFF):
            self.move(Phase.HELD, event.why, deadline_ns=0, short=False, waiting_for=event.blockers)
            task = state.task
            if task is not None and task.kind in STARTS:
                self.end(ChangeStatus.ERROR, event.why)
        elif state.phase is Phase.HELD and (state.waiting_for != event.blockers or state.cause != event.why):
            self.set(waiting_for=event.blockers, cause=event.why)

    def _cascade(self, event: Cascade) -> None:
        if self.state.phase not in (Phase.SPAWNING, Phase.ACTIVE):
            return
        task = self.state.task
        if task is not None and task.kind in STARTS:
            self.end(ChangeStatus.ERROR, f"stopped: {event.why}")
        self.effects.append(Say("info", f"stops: {event.why}"))
        self.move(Phase.STOP_WAIT, f"stopped: {event.why}", next=Next.START)

    def _stop_now(self) -> None:
        state = self.state
        if state.phase is Phase.STOP_WAIT:
            self.move(Phase.STOPPING)
            self.effects.append(Stop(NO_RUN, state.token) if state.run is None else Stop(Run(*state.run)))

    def _closing(self) -> None:
        state = self.state
        self.close_works()
        if state.phase in (Phase.HELD, Phase.WAITING, Phase.BACKOFF):
            self.move(Phase.INACTIVE, self.around.closing, deadline_ns=0, short=False)
        elif state.phase in LEAVING and state.next is Next.START:
            self.set(next=Next.DOWN, cause=self.around.closing)
        elif state.phase in LEAVING and state.next is Next.BACKOFF:
            self.set(next=Next.DOWN)
