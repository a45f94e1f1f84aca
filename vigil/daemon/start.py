"""The order of start, up to the first SPAWNs. Each step is where it is for a reason:

1. attach, because only vigild's answer tells which life of control this is. vigild counts from here: between long steps
   its PING is answered (``breathe``);
2. the plan: of this boot, from the journal, so that a half-edited file can take nothing down when control is started
   again; in a new boot, from the files; after `vigild restart`, as it was found right before anything was stopped;
3. the socket, bound or taken over, before anything is started: a path that cannot be had is the user's mistake, and is
   told before it does harm;
4. the journal, whole and parked, then the counters. Both parked is what "this boot has begun" means: vigild drops the
   counters at a restart, and nothing is started before. A control that dies in between leaves nothing to go on from,
   and the next begins anew;
5. the overlord: adopt what runs, resume what was wanted; in a new boot start what is enabled.

Whatever is fatal is raised as VigilError before step 5. Nothing here imports what is only needed to serve.
"""

from __future__ import annotations

import os
import signal
import time

import msgspec

from vigil import __version__
from vigil.daemon import listener as listeners
from vigil.daemon.clock import GuardedClock
from vigil.daemon.environment import of_vigild
from vigil.daemon.listener import Listener
from vigil.daemon.options import Options
from vigil.journal import Counters, JournalError, Store
from vigil.journal.counters import PARKED_AS as COUNTERS
from vigil.journal.store import PARKED_AS as JOURNAL
from vigil.logs import LogStore
from vigil.model import say
from vigil.model.errors import PlanError, StartError
from vigil.overlord import NEXT_PLAN, Overlord, Settings
from vigil.plan import Plan, Sources, load, read
from vigil.shim import messages
from vigil.shim.link import Link
from vigil.shim.messages import Format, Snapshot, Welcome

_KEPT = ("identity/", listeners.KEY, NEXT_PLAN)
"""Keys of the journal that `vigild restart` keeps."""

_PLAN = "plan"
_BOOT = "boot"
_BEGAN = "began"  # when this boot did, in nanoseconds since the epoch


class Started(msgspec.Struct, frozen=True):
    """Everything there is once the first services are starting."""

    options: Options
    link: Link
    clock: GuardedClock
    store: Store
    counters: Counters
    logs: LogStore
    overlord: Overlord
    listener: Listener | None
    over: list[int]  # not empty: SIGTERM has come, which means that all is over
    untried: Sources | None  # of a new plan: whether its body-templates parse is to be told once there is time


def start(options: Options, fd: int) -> Started:
    """Attach to vigild at ``fd`` and start the plan, or go on with it."""
    # Noted, not acted upon: what is being started is refused by then, and the one end that cleans up is the loop's.
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    link, welcome, snapshot = Link.attach(fd, _hello(options))
    parked = dict(snapshot.parked)
    begun = JOURNAL in parked and COUNTERS in parked
    if not begun and snapshot.runs:
        # Nothing is spawned before both are parked, so somebody else has meddled. Services are worth more than order.
        say.error("vigil.daemon", "runs without a journal: adopting them", runs=len(snapshot.runs))
    old = Store.open(parked.pop(JOURNAL)) if JOURNAL in parked else None
    kept = {} if old is None else dict(old.items())
    if not begun:
        kept = {key: value for key, value in kept.items() if key.startswith(_KEPT)}

    sources, plan = _plan(options, kept.get(_PLAN if begun else NEXT_PLAN))
    link.breathe()

    listener, bound = _listener(options, parked, kept)
    try:
        if begun:
            assert old is not None
            store = old
            counters = Counters.open(parked.pop(COUNTERS), store)
            if listener is not None and bound:
                listener.park(link)
                store.put(listeners.KEY, listener.record())
        else:
            if old is not None:
                old.close()
            began = time.time_ns() if welcome.restarted else welcome.start_real_ns
            values = kept | {_BOOT: _boot_id().encode(), _PLAN: msgspec.msgpack.encode(sources)}
            values[_BEGAN] = str(began).encode()
            if listener is not None:
                values[listeners.KEY] = listener.record()
            store = Store.create(values[_BOOT].decode(), values)
            link.park(JOURNAL, store.fd)
            counters = Counters.create(store)
            if listener is not None:
                listener.park(link)
            link.park(COUNTERS, counters.fd)
            store.delete(NEXT_PLAN)
        store.compact_with(link.try_park)

        logs = LogStore(lines=options.log_buffer, bytes=options.log_buffer_bytes)
        logs.boot_id = store.boot_id
        clock = GuardedClock()
        settings = Settings(
            plan=plan,
            environment=of_vigild(os.environb),
            forward_format=Format[options.forward_format.upper()],
            version=__version__,
            began_real_ns=int(store.get(_BEGAN) or b"0"),
        )
        overlord = Overlord(shim=link, store=store, logs=logs, clock=clock, settings=settings)
        _tell(welcome, plan, begun, options)
        overlord.attach(welcome, Snapshot(snapshot.runs, parked))
        for name, unknown in parked.items():
            if not name.startswith("log/"):  # a newer control's, before this one: it stays parked
                os.close(unknown)
        overlord.autostart()
        link.breathe()
    except BaseException:
        if listener is not None and bound:
            listener.remove()
        raise
    templates = any(alert.body_template is not None for alert in plan.alerts.values())
    untried = sources if templates and not begun else None
    return Started(options, link, clock, store, counters, logs, overlord, listener, over, untried)


def _hello(options: Options) -> messages.Settings:
    return messages.Settings(
        log_format=Format[options.log_format.upper()],
        log_level=say.LEVELS.index(options.log_level),
        forward_format=Format[options.forward_format.upper()],
        stop_budget=options.stop_timeout,
        forward_stall=options.forward_stall,
    )


def _plan(options: Options, recorded: bytes | None) -> tuple[Sources, Plan]:
    if recorded is None:
        sources = read(options.layers_dir)
        return sources, load(sources)
    try:
        sources = msgspec.msgpack.decode(recorded, type=Sources)
    except msgspec.MsgspecError as error:
        raise JournalError(f"cannot read the plan in the journal: {error}") from error
    try:
        return sources, load(sources)
    except PlanError as bad:  # it was right when it was read: that was another version of vigil
        problems = "\n  ".join(map(str, bad.problems))
        raise JournalError(
            "cannot use the plan in force, as it was read by another version of vigil: install that version again,"
            f" services go on meanwhile\n  {problems}"
        ) from bad


def _listener(options: Options, parked: dict[str, int], kept: dict[str, bytes]) -> tuple[Listener | None, bool]:
    """The listener, and whether it was bound just now and not by an earlier control."""
    record = kept.get(listeners.KEY)
    if listeners.PARKED_AS not in parked or record is None:
        return listeners.bind(options.socket, options.socket_mode, options.socket_group), True
    earlier = listeners.adopt(parked.pop(listeners.PARKED_AS), record)
    if not earlier.missing:
        return earlier, False
    say.warn("vigil.daemon", f"{earlier.place.path} was removed: the API's socket is made anew")
    try:
        fresh = listeners.bind(options.socket, options.socket_mode, options.socket_group)
    except StartError as error:  # no reason to leave the services alone
        say.error("vigil.daemon", str(error))
        fresh = None
    if fresh is None:
        return earlier, False
    os.close(earlier.fd)
    return fresh, True


def _tell(welcome: Welcome, plan: Plan, begun: bool, options: Options) -> None:
    if begun:
        say.info("vigil.daemon", "control goes on", restarts=welcome.control_restarts, version=__version__)
        return
    for warning in plan.warnings:
        say.warn("vigil.plan", str(warning))
    if welcome.no_proc:
        say.warn("vigil.daemon", "there is no /proc: of a stopped service only direct children can be found")
    say.info(
        "vigil.daemon",
        "vigild starts",
        version=__version__,
        pid=welcome.pid,
        services=len(plan.services),
        layers=options.layers_dir,
    )


def _boot_id() -> str:
    """A random UUID (version 4)."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
