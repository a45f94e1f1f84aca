"""Every key that shapes a service's process is seen in /proc of that process, from outside, under a real PID 1."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import LIMIT, Daemon

# A Python that an unprivileged user may execute too: that of an environment may stand in a folder of root's.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
SLEEP: dict[str, Any] = {"command": ["sleep", "1000"]}
UNLIMITED = "unlimited"

# The main process and a child of it in its group say every signal that reaches them.
REPORT = """
import os, signal, sys
def say(text):
    os.write(1, f"{text}\\n".encode())
who = "child" if os.fork() == 0 else "main"
def got(number, frame):
    say(f"{who} got {number}")
    if number == signal.SIGINT:
        os._exit(0)
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33}:
    signal.signal(number, got)
say(f"{who} ready")
while True:
    signal.pause()
"""
REPORTER: dict[str, Any] = {"command": [PYTHON, "-IS", "-c", REPORT], "kill-delay": "50ms"}


def plan(**services: dict[str, Any]) -> str:
    """A layer: JSON is YAML. Services are enabled unless they say otherwise."""
    return json.dumps({"services": {name: {"startup": "enabled", **keys} for name, keys in services.items()}})


class Child:
    """A process of the namespace, as /proc shows it from outside."""

    def __init__(self, daemon: Daemon, pid: int) -> None:
        self.pid = pid  # in the namespace
        self.folder = Path(f"/proc/{daemon.host_pid(pid)}")

    def status(self, field: str) -> str:
        """A field of /proc/PID/status."""
        text = "\n" + (self.folder / "status").read_text()
        return text.partition(f"\n{field}:")[2].partition("\n")[0].strip()

    def stat(self) -> list[str]:
        """/proc/PID/stat from the third field on: 1 parent, 2 group, 3 session, 4 terminal, 16 nice."""
        return (self.folder / "stat").read_text().rpartition(") ")[2].split()

    def limit(self, words: str) -> tuple[str, str]:
        """Soft and hard limit, by the words of /proc/PID/limits."""
        found = re.search(rf"^{words} +(\S+) +(\S+)", (self.folder / "limits").read_text(), re.MULTILINE)
        assert found, words
        return found[1], found[2]

    def environment(self) -> dict[bytes, bytes]:
        """What it was given at its start."""
        entries = (self.folder / "environ").read_bytes().rstrip(b"\0").split(b"\0")
        return dict(entry.split(b"=", 1) for entry in entries)

    def link(self, name: str) -> str:
        """Where cwd, exe or fd/N point to."""
        return os.readlink(self.folder / name)

    @property
    def ids(self) -> tuple[set[str], set[str], list[int]]:
        """Uids, gids (real, effective, saved, of the file system) and supplementary groups."""
        groups = sorted(int(group) for group in self.status("Groups").split())
        return set(self.status("Uid").split()), set(self.status("Gid").split()), groups

    @property
    def oom(self) -> int:
        """Its oom_score_adj."""
        return int((self.folder / "oom_score_adj").read_text())


def child(daemon: Daemon, name: str) -> Child:
    """The main process of a service that runs."""
    return Child(daemon, daemon.wait_state(name, "active")["pid"])


def before(*statements: str) -> tuple[str, ...]:
    """A prefix: a Python that does this to itself, then becomes vigild."""
    script = "\n".join(("import os, resource, signal, sys", *statements, "os.execv(sys.argv[1], sys.argv[1:])"))
    return (sys.executable, "-c", script)


# What /proc/PID/limits calls each resource, and where vigild's own stands, which only CAP_SYS_RESOURCE goes beyond.
LIMITS = {
    "cpu": ("Max cpu time", 7001, 7002),
    "fsize": ("Max file size", 1 << 40, 1 << 41),
    "data": ("Max data size", 1 << 32, 1 << 33),
    "stack": ("Max stack size", 4 << 20, 16 << 20),
    "core": ("Max core file size", 4096, 8192),
    "rss": ("Max resident set", 98765432, 98765433),
    "nproc": ("Max processes", 5001, 5002),
    "nofile": ("Max open files", 101, 202),
    "memlock": ("Max locked memory", 65536, 131072),
    "as": ("Max address space", 1 << 34, 1 << 35),
    "sigpending": ("Max pending signals", 111, 222),
    "msgqueue": ("Max msgqueue size", 4444, 5555),
    "nice": ("Max nice priority", 0, 0),
    "rtprio": ("Max realtime priority", 0, 0),
    "rttime": ("Max realtime timeout", 31000, 32000),
}
# Docker gives containers everything but this one, so both cases are everyday's.
POWERFUL = bool(int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


def own_limits() -> dict[str, tuple[str, str]]:
    """Those of this process, which are those that vigild is given."""
    found = {}
    text = Path("/proc/self/limits").read_text()
    for name, (words, _, _) in LIMITS.items():
        at = re.search(rf"^{words} +(\S+) +(\S+)", text, re.MULTILINE)
        assert at
        found[name] = (at[1], at[2])
    return found


def test_every_limit_is_set_and_what_is_not_named_stays_vigilds_own(vigild: Callable[..., Daemon], root: None) -> None:
    daemon = vigild(
        plan(
            both={**SLEEP, "limits": {name: f"{soft}:{hard}" for name, (_, soft, hard) in LIMITS.items()}},
            one={**SLEEP, "limits": {name: soft for name, (_, soft, _) in LIMITS.items()}},
            half={**SLEEP, "limits": {"RLIMIT_CORE": "1:infinity"}},
            plain=SLEEP,
        )
    )
    both, one, half, plain_ = (child(daemon, name) for name in ("both", "one", "half", "plain"))
    own = own_limits()
    for name, (words, soft, hard) in LIMITS.items():
        assert both.limit(words) == (str(soft), str(hard)), name
        assert one.limit(words) == (str(soft), str(soft)), name
        assert plain_.limit(words) == own[name], name
        assert half.limit(words) == (("1", UNLIMITED) if name == "core" else own[name]), name


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_above_vigilds_own_takes_a_right_and_without_it_the_plan_is_refused(
    vigild: Callable[..., Daemon], root: None, name: str
) -> None:
    words, soft, hard = LIMITS[name]
    wanted = (soft + 1, hard + 2)
    number = f"resource.RLIMIT_{name.upper()}"
    keys = {**SLEEP, "on-failure": "ignore"}
    daemon = vigild(
        plan(
            plain=keys,
            more={**keys, "limits": {name: f"{wanted[0]}:{wanted[1]}"}},
            unlimited={**keys, "limits": {name: UNLIMITED}},
        ),
        prefix=before(f"resource.setrlimit({number}, ({soft}, {hard}))"),
    )
    if not POWERFUL:
        assert daemon.wait() == 1
        refused = f".limits.{name}: vigild's own hard limit is {hard}, and it may not go beyond (write {hard} or less"
        assert daemon.stderr.count(refused) == 2
        return
    assert child(daemon, "plain").limit(words) == (str(soft), str(hard))
    # Of descriptors the kernel has a most, whoever asks.
    most = Path("/proc/sys/fs/nr_open").read_text().strip() if name == "nofile" else UNLIMITED
    for service, expected in (("more", wanted), ("unlimited", (most, most))):
        assert child(daemon, service).limit(words) == tuple(map(str, expected))


def test_what_the_kernel_alone_refuses_is_a_failure_that_names_the_value(
    vigild: Callable[..., Daemon], root: None
) -> None:
    # A limit of its own may allow the niceness, so the plan is taken; the rights are gone all the same.
    keys = {**SLEEP, "on-failure": "ignore", "nice": -7, "limits": {"nice": "0:0"}}
    prefix = ("/bin/sh", "-c", 'exec setpriv --bounding-set -sys_nice --inh-caps -all -- "$@"', "sh")
    daemon = vigild(plan(web=keys), prefix=prefix)
    cause = daemon.wait_state("web", "inactive")["cause"]
    assert "nice -7: Permission denied (it is lower than vigild's own, which takes CAP_SYS_NICE)" in cause


def test_vigild_takes_all_descriptors_it_may_have_and_children_have_what_it_was_given(
    vigild: Callable[..., Daemon],
) -> None:
    daemon = vigild(
        plan(plain=SLEEP, more={**SLEEP, "limits": {"nofile": "1500:2000"}}),
        prefix=before("resource.setrlimit(resource.RLIMIT_NOFILE, (500, 2000))"),
    )
    assert child(daemon, "plain").limit("Max open files") == ("500", "2000")
    assert child(daemon, "more").limit("Max open files") == ("1500", "2000")
    for process in (1, *(daemon.only(helper).pid for helper in ("vigil-control", "vigil-logger"))):
        assert Child(daemon, process).limit("Max open files") == ("2000", "2000")


def test_a_limit_of_descriptors_that_leaves_none_is_no_reason_not_to_start(
    vigild: Callable[..., Daemon], tmp_path: Path, root: None, need: Callable[..., None]
) -> None:
    need("cc")
    source = tmp_path / "waits.c"
    source.write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    assert os.spawnlp(os.P_WAIT, "cc", "cc", "-static", "-o", str(tmp_path / "waits"), str(source)) == 0
    keys = {"command": [str(tmp_path / "waits")], "limits": {"nofile": 3}}
    daemon = vigild(plan(plain=keys, bold={**keys, "oom-score-adj": 77}))
    for name, oom in (("plain", int(Path("/proc/self/oom_score_adj").read_text())), ("bold", 77)):
        found = child(daemon, name)
        assert (found.limit("Max open files"), found.oom) == (("3", "3"), oom)


@pytest.mark.parametrize("own", [0, 3])
def test_nice_is_what_it_says_whatever_vigilds_own_is(vigild: Callable[..., Daemon], root: None, own: int) -> None:
    wanted = {"low": 19, "high": -5, "zero": 0}
    daemon = vigild(
        plan(plain=SLEEP, **{name: {**SLEEP, "nice": nice} for name, nice in wanted.items()}),
        prefix=before(f"os.setpriority(os.PRIO_PROCESS, 0, {own})"),
    )
    assert {name: int(child(daemon, name).stat()[16]) for name in ("plain", *wanted)} == {"plain": own, **wanted}


def test_umask_is_octal_and_vigilds_own_where_nothing_is_said(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(
        '{"services": {"plain": {"command": "sleep 1000", "startup": "enabled"},'
        ' "text": {"command": "sleep 1000", "startup": "enabled", "umask": "027"},'
        ' "number": {"command": "sleep 1000", "startup": "enabled", "umask": 0137},'
        ' "none": {"command": "sleep 1000", "startup": "enabled", "umask": 0}}}',
        prefix=before("os.umask(0o071)"),
    )
    wanted = {"plain": "0071", "text": "0027", "number": "0137", "none": "0000"}
    assert {name: child(daemon, name).status("Umask") for name in wanted} == wanted


def test_oom_score_adj_is_the_plans_or_what_vigild_found(vigild: Callable[..., Daemon], root: None) -> None:
    wanted = {"victim": 1000, "less": 100, "zero": 0}
    daemon = vigild(
        plan(
            plain=SLEEP,
            user={**SLEEP, "user-id": 61234, "group-id": 61234},
            **({"dear": {**SLEEP, "oom-score-adj": -500}} if POWERFUL else {}),
            **{name: {**SLEEP, "oom-score-adj": score} for name, score in wanted.items()},
        ),
        prefix=before("open('/proc/self/oom_score_adj', 'w').write('123')"),
    )
    found = {name: child(daemon, name).oom for name in ("plain", "user", *wanted)}
    assert found == {"plain": 123, "user": 123, **wanted}
    assert Child(daemon, 1).oom == (-1000 if POWERFUL else 123)
    if POWERFUL:
        assert child(daemon, "dear").oom == -500
        return
    poor = vigild(plan(dear={**SLEEP, "oom-score-adj": -500}))
    assert poor.wait() == 1
    assert "services.dear.oom-score-adj: vigild may give no score below" in poor.stderr


def test_what_vigild_takes_for_itself_of_oom_score_adj_no_child_has(
    vigild: Callable[..., Daemon], tmp_path: Path, root: None
) -> None:
    # To lower it takes a right that is not to be had everywhere: a file stands in for what PID 1 reads and writes.
    score = tmp_path / "score"
    score.write_text("77\n")
    prefix = ("/bin/sh", "-c", f'mount --bind {score} /proc/1/oom_score_adj && exec "$@"', "sh")
    daemon = vigild(plan(plain=SLEEP, user={**SLEEP, "user-id": 61234, "group-id": 61234}), prefix=prefix)
    assert {child(daemon, name).oom for name in ("plain", "user")} == {77}
    assert score.read_text() == "77\n-1000"


@pytest.mark.parametrize(("stdin", "shown"), [("null", "/dev/null"), ("inherit", "given"), (None, "/dev/null")])
def test_stdin(vigild: Callable[..., Daemon], tmp_path: Path, stdin: str | None, shown: str) -> None:
    given = tmp_path / "given"
    given.touch()
    with given.open() as file:
        daemon = vigild(plan(web={**SLEEP, **({"stdin": stdin} if stdin else {})}), stdin=file)
        assert child(daemon, "web").link("fd/0").endswith(shown)


def test_working_dir(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    away = tmp_path / "away with blanks"
    away.mkdir()
    missing = {**SLEEP, "working-dir": str(tmp_path / "missing"), "on-failure": "ignore"}
    daemon = vigild(plan(plain=SLEEP, web={**SLEEP, "working-dir": str(away)}, missing=missing))
    assert child(daemon, "plain").link("cwd") == "/"
    assert child(daemon, "web").link("cwd") == str(away)
    assert (
        f"working-dir {tmp_path}/missing: No such file or directory"
        in daemon.wait_state("missing", "inactive")["cause"]
    )


def accounts(folder: Path) -> tuple[str, ...]:
    """A prefix: the namespace has a user of ours in its database, and three groups of ours."""
    passwd, group = folder / "passwd", folder / "group"
    ours = "tester:x:61001:61002:A tester:/srv/tester:/bin/sh\nnohome:x:61003:61002:::\n"
    passwd.write_text(Path("/etc/passwd").read_text() + ours)
    groups = "testers:x:61002:\nwheels:x:61010:tester,nohome\nwheels2:x:61011:root,tester\n"
    group.write_text(Path("/etc/group").read_text() + groups)
    script = f'mount --bind {passwd} /etc/passwd && mount --bind {group} /etc/group && exec "$@"'
    return ("/bin/sh", "-c", script, "sh")


def test_users_and_groups(vigild: Callable[..., Daemon], tmp_path: Path, root: None) -> None:
    tester = ({"61001"}, {"61002"}, [61002, 61010, 61011])
    wanted: dict[str, tuple[dict[str, Any], tuple[set[str], set[str], list[int]]]] = {
        "plain": ({}, ({"0"}, {"0"}, sorted(os.getgroups()))),
        "name": ({"user": "tester"}, tester),
        "number": ({"user-id": 61001}, tester),
        "quoted": ({"user-id": "61001"}, tester),
        "both": ({"user": "tester", "user-id": 61001}, tester),
        "user-group": ({"user": "tester", "group": "wheels"}, ({"61001"}, {"61010"}, [61010, 61011])),
        "user-gid": ({"user": "tester", "group-id": 61999}, ({"61001"}, {"61999"}, [61010, 61011, 61999])),
        "nobody": ({"user-id": 61234, "group-id": 61235}, ({"61234"}, {"61235"}, [61235])),
        "nobody-group": ({"user-id": 61234, "group": "wheels"}, ({"61234"}, {"61010"}, [61010])),
        "group": ({"group": "wheels"}, ({"0"}, {"61010"}, [61010])),
        "gid": ({"group-id": 61777}, ({"0"}, {"61777"}, [61777])),
        "root": ({"user": "root"}, ({"0"}, {"0"}, [0, 61011])),
    }
    daemon = vigild(plan(**{name: {**SLEEP, **keys} for name, (keys, _) in wanted.items()}), prefix=accounts(tmp_path))
    assert {name: child(daemon, name).ids for name in wanted} == {name: ids for name, (_, ids) in wanted.items()}


def test_home_user_and_logname_are_those_of_the_user(vigild: Callable[..., Daemon], tmp_path: Path, root: None) -> None:
    names = (b"HOME", b"USER", b"LOGNAME")
    wanted: dict[str, tuple[dict[str, Any], tuple[bytes | None, ...]]] = {
        "plain": ({}, (b"/outside", b"outside", b"outside")),
        "group": ({"group": "wheels"}, (b"/outside", b"outside", b"outside")),
        "name": ({"user": "tester"}, (b"/srv/tester", b"tester", b"tester")),
        "number": ({"user-id": 61001}, (b"/srv/tester", b"tester", b"tester")),
        "homeless": ({"user": "nohome"}, (b"/", b"nohome", b"nohome")),
        "nobody": ({"user-id": 61234, "group-id": 61235}, (b"/", None, None)),
        "own": ({"user": "tester", "environment": {"HOME": "/mine"}}, (b"/mine", b"tester", b"tester")),
    }
    daemon = vigild(
        plan(**{name: {**SLEEP, **keys} for name, (keys, _) in wanted.items()}),
        prefix=accounts(tmp_path),
        env={"HOME": "/outside", "USER": "outside", "LOGNAME": "outside"},
    )
    for name, (_, values) in wanted.items():
        environment = child(daemon, name).environment()
        assert tuple(environment.get(key) for key in names) == values, name


def test_a_user_that_is_a_number_is_told_the_right_key(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(
        plan(web={**SLEEP, "user": 61234}, other={**SLEEP, "user-id": 61234}, third={**SLEEP, "user-id": "x"})
    )
    assert daemon.wait() == 1
    assert 'services.web.user: there is no user "61234" (write user-id: 61234 if it is a number)' in daemon.stderr
    assert "services.other.user-id: user id 61234 is not in the user database (give it a group-id)" in daemon.stderr
    assert "services.third.user-id: " in daemon.stderr


def test_capabilities_stay_with_vigilds_own_user_and_go_with_it(vigild: Callable[..., Daemon], root: None) -> None:
    daemon = vigild(
        plan(
            plain=SLEEP,
            group={**SLEEP, "group-id": 61235},
            other={**SLEEP, "user-id": 61234, "group-id": 61235},
        )
    )
    own = {
        field: Path("/proc/self/status").read_text().partition(f"{field}:\t")[2][:16] for field in ("CapEff", "CapBnd")
    }
    for name in ("plain", "group"):
        found = child(daemon, name)
        assert {field: found.status(field) for field in own} == own, name
        assert int(found.status("CapAmb"), 16) == 0
    other = child(daemon, "other")
    assert [int(other.status(field), 16) for field in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [0] * 4
    assert other.status("CapBnd") == own["CapBnd"]


def test_the_environment_is_vigilds_less_what_is_vigilds_own(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "first").write_text("A=file\nB=file\nC=file = more\n")
    (tmp_path / "second").write_text("# comment\n\nB=second\nVIGIL_WANTED=file\n")
    files = [str(tmp_path / "first"), str(tmp_path / "second")]
    own = {"A": "plan", "D": "0755", "OUTSIDE": "over", "NOTIFY_SOCKET": "mine", "EMPTY": ""}
    groups = {
        "VIGIL": "FORWARD_STALL ANYTHING",
        "NOTIFY": "SOCKET",
        "WATCHDOG": "USEC PID",
        "LISTEN": "FDS PID FDNAMES",
    }
    meant_for_vigild = [f"{group}_{word}" for group, words in groups.items() for word in words.split()]
    daemon = vigild(
        plan(plain=SLEEP, web={**SLEEP, "env-file": files, "environment": own}, one={**SLEEP, "env-file": files[0]}),
        env={"OUTSIDE": "1", "ODD": "\udcff\udcfe =", "VIGILANT": "1", **dict.fromkeys(meant_for_vigild, "1s")},
    )
    plain_, web, one = (child(daemon, name).environment() for name in ("plain", "web", "one"))
    given = {os.fsencode(key): os.fsencode(value) for key, value in daemon.env.items()}
    expected = {
        key: value for key, value in given.items() if os.fsdecode(key) not in {*meant_for_vigild, "VIGIL_PYTHON"}
    }
    assert plain_ == expected
    assert plain_[b"ODD"] == b"\xff\xfe ="
    assert plain_[b"VIGIL_SOCKET"] == os.fsencode(daemon.socket)
    assert one == {**expected, b"A": b"file", b"B": b"file", b"C": b"file = more"}
    assert web == {
        **expected,
        b"A": b"plan",
        b"B": b"second",
        b"C": b"file = more",
        b"D": b"0755",
        b"VIGIL_WANTED": b"file",
        b"OUTSIDE": b"over",
        b"NOTIFY_SOCKET": b"mine",
        b"EMPTY": b"",
    }


def test_no_socket_of_vigild_is_made_up_for_services(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = vigild(
        plan(web=SLEEP), args=["--socket", str(tmp_path / "s")], prefix=before("os.environ.pop('VIGIL_SOCKET')")
    )
    daemon.socket = tmp_path / "s"
    assert b"VIGIL_SOCKET" not in child(daemon, "web").environment(), "it stays where it was set"


def test_a_process_begins_clean(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    # vigild is started with blocked and ignored signals, and with descriptors that are not close-on-exec.
    prefix = before(
        "ignored = (signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE, signal.SIGRTMIN)",
        "for number in ignored: signal.signal(number, signal.SIG_IGN)",
        "signal.pthread_sigmask(0, [signal.SIGTERM, signal.SIGCHLD, signal.SIGRTMAX])",
        "os.dup2(0, 3); os.dup2(0, 77); os.dup2(0, 1000)",
    )
    modes = ("enabled", "disabled", "passthrough")
    services = {mode: {**SLEEP, "logs-forward": mode} for mode in modes}
    services |= {"inherit": {**SLEEP, "stdin": "inherit"}, "user": {**SLEEP, "user-id": 61234, "group-id": 61234}}
    daemon = vigild(plan(**services), prefix=prefix)
    daemon.ready()
    assert not {"77", "1000"} & set(os.listdir(f"/proc/{daemon.pid}/fd"))
    for name in services:
        found = child(daemon, name)
        for field in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"):
            assert int(found.status(field), 16) == 0, (name, field)
        assert sorted(os.listdir(found.folder / "fd")) == ["0", "1", "2"], name
        parent, group, session, terminal = found.stat()[1:5]
        host = found.folder.name
        assert (group, session, terminal) == (host, host, "0"), (
            "the leader of a session and group of its own, without a terminal"
        )
        assert Path(f"/proc/{parent}/comm").read_text() == "vigil-keeper\n"


@pytest.mark.parametrize("set_", [False, True])
def test_no_new_privs_is_neither_set_nor_taken_away(vigild: Callable[..., Daemon], root: None, set_: bool) -> None:
    prctl = "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)"
    services = {"plain": SLEEP, "user": {**SLEEP, "user-id": 61234, "group-id": 61234}}
    daemon = vigild(plan(**services), prefix=before(*([prctl] if set_ else [])))
    assert {child(daemon, name).status("NoNewPrivs") for name in services} == {str(int(set_))}


# Signals.


def got(daemon: Daemon) -> list[tuple[str, str, int]]:
    """(service, main or child, number) of every signal that a reporter said."""
    found = re.findall(r"^\[([a-z0-9-]+)\] (main|child) got (\d+)$", daemon.stdout, re.MULTILINE)
    return [(service, who, int(number)) for service, who, number in found]


def await_signals(daemon: Daemon, *due: tuple[str, str, int]) -> None:
    """Wait until these have been said."""
    daemon.until(lambda: set(due) <= set(got(daemon)), f"signals {due}")


def reporters(vigild: Callable[..., Daemon], **services: dict[str, Any]) -> Daemon:
    """These services are reporters, and stand."""
    daemon = vigild(plan(**{name: {**REPORTER, **keys} for name, keys in services.items()}))
    assert daemon.out
    for name in services:
        daemon.wait_state(name, "active")
        daemon.out.wait_for(f"[{name}] main ready\n")
        daemon.out.wait_for(f"[{name}] child ready\n")
    return daemon


def test_signals_to_vigild_reach_the_main_processes_that_want_them_and_no_other(vigild: Callable[..., Daemon]) -> None:
    rt = signal.SIGRTMIN + 3
    wants: dict[str, tuple[Any, AbstractSet[int]]] = {
        "default": (None, {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}),
        "none": ("none", set()),
        "empty": ([], set()),
        "one": (["HUP"], {signal.SIGHUP}),
        "spelled": (["SIGUSR1", "usr2", 14, "SIGRTMIN+3"], {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, rt}),
    }
    daemon = reporters(
        vigild,
        **{name: {} if keys is None else {"forward-signals": keys} for name, (keys, _) in wants.items()},
    )
    control, logger = daemon.only("vigil-control").pid, daemon.only("vigil-logger").pid
    sent = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGALRM, signal.SIGVTALRM, rt)
    expected = {(name, "main", int(number)) for name, (_, numbers) in wants.items() for number in numbers}
    for number in sent:
        daemon.signal(number)
        await_signals(daemon, *(entry for entry in expected if entry[2] == number))
    # What comes by name comes after anything that had been forwarded to that process before.
    daemon.cli("signal", "TTIN", *wants)
    daemon.until(lambda: sum(number == signal.SIGTTIN for *_, number in got(daemon)) == len(wants), "the last signal")
    last = {(name, "main", int(signal.SIGTTIN)) for name in wants}
    assert sorted(got(daemon)) == sorted(expected | last), "each once, main processes only, and nobody else"
    assert (daemon.only("vigil-control").pid, daemon.only("vigil-logger").pid) == (control, logger)
    assert daemon.running()


def test_the_action_signal_reaches_the_main_process_only(vigild: Callable[..., Daemon]) -> None:
    daemon = reporters(vigild, web={"forward-signals": "none"}, other={})
    for word, number in (("HUP", 1), ("SIGUSR2", 12), ("10", 10), ("SIGRTMIN+5", signal.SIGRTMIN + 5), ("CONT", 18)):
        status, answer = daemon.api("POST", "/v1/services", {"action": "signal", "services": ["web"], "signal": word})
        assert (status, answer["result"]["kind"]) == (202, "signal")
        await_signals(daemon, ("web", "main", int(number)))
    assert [who for _, who, _ in got(daemon)] == ["main"] * 5
    assert {service for service, *_ in got(daemon)} == {"web"}


@pytest.mark.parametrize(
    ("word", "number"), [("SIGUSR1", 10), ("USR1", 10), (10, 10), ("SIGRTMIN+3", signal.SIGRTMIN + 3), (None, 15)]
)
def test_a_stop_signal_goes_to_the_whole_group_once(
    vigild: Callable[..., Daemon], word: str | int | None, number: int
) -> None:
    daemon = reporters(vigild, web={} if word is None else {"stop-signal": word})
    assert daemon.service("web")["stop-signal"] == {10: "SIGUSR1", 15: "SIGTERM"}.get(number, "SIGRTMIN+3")
    daemon.cli("stop", "web")
    await_signals(daemon, ("web", "main", number), ("web", "child", number))
    asked = [entry for entry in got(daemon) if entry[2] != signal.SIGCONT]
    assert sorted(asked) == [("web", "child", number), ("web", "main", number)]
    assert daemon.service("web")["exit"]["signal"] == "SIGKILL", "at the end of its kill delay"


def test_stop_timeout_and_a_kill_delay_without_end(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    """The budget is 8 s: what waits for its turn is told at 6 s, and at 8 s everything is killed."""
    told = tmp_path / "told"
    deaf = f"trap 'date +%s.%N >{told}.$0' TERM; echo $0 stands; while :; do sleep 0.05; done"
    script = ["/bin/sh", "-c", deaf]
    daemon = vigild(
        plan(
            first={"command": [*script, "first"], "kill-delay": "infinity"},
            second={"command": [*script, "second"], "kill-delay": "infinity", "before": ["first"]},
        ),
        args=["--stop-timeout", "8s"],
    )
    assert daemon.out
    for name in ("first", "second"):
        daemon.out.wait_for(f"[{name}] {name} stands\n")
    daemon.wait_state("first", "active")
    began, began_wall = time.monotonic(), time.time()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    took = time.monotonic() - began
    times = {name: float(Path(f"{told}.{name}").read_text()) - began_wall for name in ("first", "second")}
    assert times["first"] < 5.9
    assert 5.9 <= times["second"] < took, "its turn never came: infinity is no 5 s, and three quarters are 6 s"
    assert 7.9 <= took < 8 + LIMIT / 2
    for name in ("first", "second"):
        assert f"{name}: stopped: killed by SIGKILL" in daemon.stderr


def test_autostart_starts_the_enabled_that_are_down_and_touches_nothing_else(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(
        plan(up=SLEEP, down=SLEEP, disabled={**SLEEP, "startup": "disabled"}, by_hand={**SLEEP, "startup": "disabled"})
    )
    before_ = {name: daemon.wait_state(name, "active")["pid"] for name in ("up", "down")}
    daemon.cli("start", "by_hand")
    before_["by_hand"] = daemon.service("by_hand")["pid"]
    daemon.cli("stop", "down")
    status, answer = daemon.api("POST", "/v1/services", {"action": "autostart"})
    assert (status, answer["result"]["kind"]) == (202, "autostart")
    assert [task["service"] for task in answer["result"]["tasks"]] == ["down"]
    assert daemon.api("GET", f"/v1/changes/{answer['change']}/wait")[1]["result"]["status"] == "done"
    found = daemon.services()
    assert {name: service["current"] for name, service in found.items()} == {
        "up": "active",
        "down": "active",
        "disabled": "inactive",
        "by_hand": "active",
    }
    pids = {name: found[name]["pid"] for name in before_}
    assert pids == {**before_, "down": pids["down"]}
    assert Child(daemon, pids["down"]).status("Name") == "sleep"
