"""What the messages say of themselves."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from vigil._native import lib
from vigil.shim import messages
from vigil.shim.messages import (
    NO_RUN,
    Exited,
    Failure,
    Refused,
    Run,
    RunPhase,
    RunState,
    Signalled,
    SpawnFailed,
    Step,
    Welcome,
)

HEADER = Path(__file__).resolve().parents[2] / "csrc" / "protocol.h"


def enum_of_header(name: str) -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    body = re.search(rf"enum {name} \{{(.*?)\}}", text, re.DOTALL)
    assert body is not None
    return re.findall(r"VG_\w+", body.group(1))


@pytest.mark.parametrize(
    ("name", "prefix", "enum"),
    [
        ("vg_run_kind", "VG_", messages.RunKind),
        ("vg_run_state", "VG_RUN_", messages.RunPhase),
        ("vg_log_mode", "VG_LOG_", messages.LogMode),
        ("vg_format", "VG_FORMAT_", messages.Format),
        ("vg_target", "VG_", messages.Target),
        ("vg_stop_cause", "VG_STOP_", messages.StopCause),
        ("vg_step", "VG_STEP_", messages.Step),
    ],
)
def test_every_enum_has_each_value_of_the_header(name, prefix, enum):
    words = enum_of_header(name)
    assert {word.removeprefix(prefix): getattr(lib, word) for word in words} == {e.name: e.value for e in enum}


def test_every_step_has_words():
    for step in Step:
        assert Failure(step=step, error=errno.EPERM).describe("/bin/x")


@pytest.mark.parametrize(
    ("code", "status", "exit_code", "signal", "words"),
    [
        (1, 0, 0, None, "exited with code 0"),
        (1, 255, 255, None, "exited with code 255"),
        (2, 9, 137, 9, "killed by SIGKILL"),
        (3, 11, 139, 11, "killed by SIGSEGV (core dumped)"),
        (2, 37, 165, 37, "killed by SIGRTMIN+3"),
    ],
)
def test_an_exit_says_its_code_and_how(code, status, exit_code, signal, words):
    exited = Exited(run=Run(1, 1), token=1, code=code, status=status)
    assert (exited.exit_code, exited.signal, exited.describe()) == (exit_code, signal, words)


@pytest.mark.parametrize(
    ("step", "error", "exit_code", "words"),
    [
        (Step.EXEC, errno.ENOENT, 127, "exec /nope: No such file or directory"),
        (Step.EXEC, errno.EACCES, 126, "exec /nope: Permission denied"),
        (Step.INTERPRETER, errno.ENOENT, 126, "exec /nope: the interpreter it names: No such file or directory"),
        (Step.CHDIR, errno.ENOENT, 126, "working-dir /nope: No such file or directory"),
        (Step.STOPPING, errno.ECANCELED, 126, "start: vigild is stopping"),
    ],
)
def test_a_failed_start_says_its_step(step, error, exit_code, words):
    failed = SpawnFailed(run=NO_RUN, token=1, step=step, error=error)
    assert (failed.exit_code, failed.describe("/nope"), failed.shortage) == (exit_code, words, False)


@pytest.mark.parametrize("step", [Step.PIPE, Step.FORK, Step.KEEPER, Step.VFORK])
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_a_shortage_is_not_the_services_failure(step, error):
    assert Failure(step=step, error=error).shortage
    assert not Failure(step=Step.EXEC, error=error).shortage


def test_flags_are_words():
    everything = Exited(run=Run(1, 1), token=1, flags=255)
    for word in ("stopping", "released", "escalated", "keeper_lost", "left_over", "asked", "overdue", "ephemeral"):
        assert getattr(everything, word) is True
        assert getattr(Exited(run=Run(1, 1), token=1), word) is False
    assert [Welcome(flags=1 << n).again for n in range(5)] == [True, False, False, False, False]
    assert [Welcome(flags=1 << n).restarted for n in range(5)] == [False, True, False, False, False]
    assert [Welcome(flags=1 << n).is_pid1 for n in range(5)] == [False, False, True, False, False]
    assert [Welcome(flags=1 << n).no_proc for n in range(5)] == [False, False, False, True, False]
    assert [Welcome(flags=1 << n).stderr_tty for n in range(5)] == [False, False, False, False, True]


def test_a_snapshot_tells_what_the_messages_told():
    state = RunState(run=Run(2, 3), token=4, state=RunPhase.GONE, flags=4, pid=55, started_real_ns=6, code=1, status=7)
    assert state.started().pid == 55
    assert state.exited().exit_code == 7
    assert state.exited().escalated
    assert state.gone().run == Run(2, 3)
    failed = RunState(run=Run(2, 3), token=4, state=RunPhase.FAILED, step=Step.EXEC, error=errno.ENOENT)
    assert failed.failed().exit_code == 127


def test_a_refusal_names_the_message():
    assert Refused(run=NO_RUN, token=0, kind=lib.VG_REEXEC, error=errno.ENOSYS).describe() == (
        "REEXEC: Function not implemented"
    )
    assert Signalled(frozenset({1})).numbers == {1}
