"""What vigild may give to a service beyond its own: niceness, the kernel's choice of victim, resource limits.

Such a setting that cannot be applied is found when the plan is read, and not when the service does not start in the
middle of the night. What vigild may is read once and kept with the plan's sources, so that a control that is started
again decides the same.

The three rights count only where the kernel asks for them, in the first user namespace: root of a rootless container
has all capabilities in its own, and may lower nothing.
"""

from __future__ import annotations

import os

from vigil.plan import limits
from vigil.plan.accounts import effective_capabilities
from vigil.plan.problems import Problems
from vigil.plan.tree import Mapping, Node
from vigil.plan.types import RLIM_INFINITY, Rights

_CAP_SYS_NICE, _CAP_SYS_RESOURCE = 23, 24


def own() -> Rights:
    """Of this process: control has the rights and limits of PID 1, which starts the services."""
    import resource  # most plans have none of these keys

    held = effective_capabilities() if _first_namespace() else 0
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # A limit of its own counts upwards: 20 is the niceness 0, 40 is -20.
    allowed = 20 - min(resource.getrlimit(resource.RLIMIT_NICE)[0] % 2**64, 40)
    files = _number("/proc/sys/fs/nr_open", 1 << 20)
    hard = {}
    for number in set(limits.resources().values()):
        most = resource.getrlimit(number)[1] % 2**64
        if held >> _CAP_SYS_RESOURCE & 1:
            most = RLIM_INFINITY
        if number == resource.RLIMIT_NOFILE:
            most = min(most, files)
        if most < RLIM_INFINITY:
            hard[number] = most
    return Rights(
        nice=-20 if held >> _CAP_SYS_NICE & 1 else min(nice, allowed),
        oom_score_adj=-1000 if held >> _CAP_SYS_RESOURCE & 1 else _lowest_score(),
        hard=tuple(sorted(hard.items())),
        files=files,
    )


def judge(at: str, nodes: dict[str, Node], given: dict[str, object], mine: Rights, problems: Problems) -> None:
    """Settings of the service ``at`` that vigild may not apply. ``given`` are the values of its keys."""
    nice, score = given.get("nice"), given.get("oom-score-adj")
    wanted = given.get("limits")
    if isinstance(nice, int) and nice < mine.nice and not _sets_niceness(wanted):
        text = f"vigild may give no niceness below {mine.nice} (write {mine.nice} or more, or give it CAP_SYS_NICE)"
        problems.forbidden(nodes["nice"].place, f"{at}.nice", text)
    if isinstance(score, int) and score < mine.oom_score_adj:
        least = mine.oom_score_adj
        text = f"vigild may give no score below {least} (write {least} or more, or give it CAP_SYS_RESOURCE)"
        problems.forbidden(nodes["oom-score-adj"].place, f"{at}.oom-score-adj", text)
    if isinstance(wanted, tuple):
        _judge_limits(at, nodes["limits"], wanted, mine, problems)


def _judge_limits(
    at: str, node: Node, wanted: tuple[tuple[int, int, int], ...], mine: Rights, problems: Problems
) -> None:
    highest = dict(mine.hard)
    for number, _, hard in wanted:
        most = highest.get(number, RLIM_INFINITY)
        if limits.resources().get("nofile") == number and hard == RLIM_INFINITY:
            hard = mine.files  # as many as the kernel has
        if hard <= most:
            continue
        entries = node.entries if isinstance(node, Mapping) else ()
        entry = next((one for one in entries if limits.resources().get(limits.fold(one.key)) == number), None)
        place, name = (entry.value.place, entry.key) if entry is not None else (node.place, str(number))
        fix = f"write {most} or less, or give vigild more, or CAP_SYS_RESOURCE"
        text = f"vigild's own hard limit is {most}, and it may not go beyond ({fix})"
        problems.forbidden(place, f"{at}.limits.{name}", text)


def _sets_niceness(wanted: object) -> bool:
    """A limit that the service has when its niceness is set: whether it allows that is the kernel's to say."""
    number = limits.resources().get("nice")
    return isinstance(wanted, tuple) and any(limit[0] == number for limit in wanted)


def _first_namespace() -> bool:
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read().split() == [b"0", b"0", b"4294967295"]
    except OSError:
        return True  # without /proc nobody tells; what the kernel refuses then is told when the service starts


def _lowest_score() -> int:
    """Of the kernel's score for the choice of a victim, what this process may go down to.

    That is no lower than what somebody with the right has set, which need not be the present score, and nothing tells
    it. So it is tried: a score is only looked at when memory is out. Where it cannot be tried there is no bound.
    """
    try:
        with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
            present = int(file.read(32))
            low, high = -1000, present  # high is allowed
            try:
                while low < high:
                    middle = (low + high) // 2
                    if _accepted(file.fileno(), middle):
                        high = middle
                    else:
                        low = middle + 1
            finally:
                os.pwrite(file.fileno(), b"%d" % present, 0)
            return high
    except (OSError, ValueError):
        return -1000


def _accepted(descriptor: int, score: int) -> bool:
    try:
        os.pwrite(descriptor, b"%d" % score, 0)
    except PermissionError:
        return False
    return True


def _number(path: str, otherwise: int) -> int:
    try:
        with open(path, "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return otherwise
