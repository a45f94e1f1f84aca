from __future__ import annotations

from typing import Any

import pytest

from vigil.plan.types import RLIM_INFINITY, Credentials, Service
from vigil.service import spec
from vigil.shim.messages import Format, LogMode, SpawnSpec, Step

VIGILD = {b"PATH": b"/bin", b"HOME": b"/root", b"USER": b"root", b"LOGNAME": b"root", b"RAW": b"\xff"}


def made(**keys: Any) -> SpawnSpec:
    service = Service(**{"name": "web", "command": ("/bin/web", "-x"), **keys})
    return spec.spawn(service, 9, (2, 3), VIGILD, Format.JSON)


def variables(**keys: Any) -> dict[bytes, bytes]:
    entries = made(**keys).env
    assert isinstance(entries, list)
    return dict(entry.split(b"=", 1) for entry in entries)


def test_services_do_not_see_what_is_meant_for_vigild() -> None:
    own = {
        b"VIGIL_SOCKET": b"/run/s",
        b"VIGIL_LINK": b"3",
        b"VIGIL_LAYERS": b"/x",
        b"NOTIFY_SOCKET": b"/n",
        b"WATCHDOG_USEC": b"1",
        b"WATCHDOG_PID": b"1",
        b"LISTEN_FDS": b"1",
        b"LISTEN_PID": b"1",
        b"PATH": b"/bin",
        b"NOTIFY_SOCKETS": b"x",
    }
    assert set(spec.inherited(own)) == {b"VIGIL_SOCKET", b"PATH", b"NOTIFY_SOCKETS"}


def test_a_user_brings_home_user_and_logname_and_the_service_wins() -> None:
    user = Credentials(5, 6, (6, 7), "/home/u", "u")
    found = variables(user=user, environment={"USER": "me", "ADDED": "é\udcff"})
    assert found == {
        b"PATH": b"/bin",
        b"RAW": b"\xff",
        b"HOME": b"/home/u",
        b"USER": b"me",
        b"LOGNAME": b"u",
        b"ADDED": "é".encode() + b"\xff",
    }


def test_a_user_id_without_a_name_has_a_home_and_no_name() -> None:
    found = variables(user=Credentials(5, 6, (6,), "/", None))
    assert found == {b"PATH": b"/bin", b"RAW": b"\xff", b"HOME": b"/"}


def test_a_group_alone_changes_no_variable() -> None:
    assert variables(user=Credentials(0, 6, (6,), None, None)) == VIGILD


def test_credentials_are_sent_only_where_they_are_to_be_changed() -> None:
    sent = made(user=Credentials(5, 6, (6, 7), "/h", "u"))
    assert (sent.uid, sent.gid, tuple(sent.groups)) == (5, 6, (6, 7))
    kept = made(user=Credentials(5, 6, (6, 7), "/h", "u", switch=False))
    assert (kept.uid, kept.gid, tuple(kept.groups)) == (None, None, ())
    assert (made().uid, made().gid) == (None, None)


@pytest.mark.parametrize(
    ("forward", "mode", "log"),
    [
        ("enabled", LogMode.ENABLED, "web"),
        ("disabled", LogMode.DISABLED, "web"),
        ("passthrough", LogMode.PASSTHROUGH, ""),
    ],
)
def test_what_becomes_of_the_output(forward: str, mode: LogMode, log: str) -> None:
    sent = made(logs_forward=forward)
    assert (sent.log_mode, sent.log, sent.prefix, sent.forward_format) == (mode, log, "[web] ", Format.JSON)


def test_everything_else_comes_from_the_plan() -> None:
    sent = made(
        working_dir="/srv",
        stdin="inherit",
        umask=0o27,
        nice=-3,
        oom_score_adj=100,
        limits=((7, 1, 2),),
        stop_signal=10,
        kill_delay=None,
        forward_signals=frozenset({1}),
    )
    assert (sent.token, sent.name, sent.argv, sent.cwd) == (9, "web", ("/bin/web", "-x"), "/srv")
    assert (sent.stdin_inherit, sent.umask, sent.nice, sent.oom_score_adj) == (True, 0o27, -3, 100)
    assert (sent.limits, sent.stop_signal, sent.kill_delay, sent.forward) == (((7, 1, 2),), 10, None, frozenset({1}))
    assert (sent.component, sent.rank) == (2, 3)


def test_a_note_names_the_service_however_long_its_name_is_and_fits() -> None:
    name = "x" * 128
    assert spec.noted(spec.note(name)) == name
    assert len(spec.note(name)) <= 256


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"web", b"\x90", b"\x91\x05"])
def test_a_note_of_somebody_else_is_none_of_ours(data: bytes) -> None:
    assert spec.noted(data) is None


@pytest.mark.parametrize(
    ("step", "value"),
    [
        (Step.EXEC, "/bin/web"),
        (Step.INTERPRETER, "/bin/web"),
        (Step.CHDIR, "/srv"),
        (Step.NICE, "-3"),
        (Step.OOM, "0"),
        (Step.LIMIT, "nofile 1:2, core unlimited"),
        (Step.UID, "7"),
        (Step.GID, "8"),
        (Step.FORK, ""),
    ],
)
def test_a_step_that_failed_names_its_value(step: Step, value: str) -> None:
    service = Service(
        name="web",
        command=("/bin/web", "-x"),
        working_dir="/srv",
        nice=-3,
        oom_score_adj=0,
        limits=((7, 1, 2), (4, RLIM_INFINITY, RLIM_INFINITY)),
        user=Credentials(7, 8, (8,), "/", None),
    )
    assert spec.value_of(service, step) == value
    assert spec.value_of(Service(name="web"), Step.UID) == ""
