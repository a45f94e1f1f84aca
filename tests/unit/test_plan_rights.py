"""Settings that vigild, as it is, may not apply are found when the plan is read."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from tests.unit.plan_world import layer, sources
from vigil.model.errors import PlanError
from vigil.plan import Plan, Sources, accounts, load, read, rights
from vigil.plan.accounts import Own
from vigil.plan.types import Rights

NOFILE, CORE, NICE = resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NICE

POOR = Rights(nice=0, oom_score_adj=100, hard=((CORE, 4096), (NOFILE, 1024)), files=1 << 20)
RICH = Rights(nice=-20, oom_score_adj=-1000, hard=((NOFILE, 1 << 20),), files=1 << 20)


def loaded(mine: Rights | None, *lines: str, check: bool = False) -> Plan:
    made = sources(layer("command: run", *lines))
    return load(msgspec.structs.replace(made, rights=mine), check=check)


def refused(*lines: str) -> str:
    with pytest.raises(PlanError) as caught:
        loaded(POOR, *lines)
    return str(caught.value).removeprefix("/l/0.yaml:")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "nice: -1",
            "4:11: services.web.nice: vigild may give no niceness below 0 (write 0 or more, or give it CAP_SYS_NICE)",
        ),
        (
            "oom-score-adj: 99",
            "4:20: services.web.oom-score-adj: vigild may give no score below 100 (write 100 or more",
        ),
        (
            "limits: {nofile: 1025}",
            "4:22: services.web.limits.nofile: vigild's own hard limit is 1024, and it may not go beyond",
        ),
        ("limits: {nofile: '1:1025'}", "4:22: services.web.limits.nofile: vigild's own hard limit is 1024"),
        ("limits: {nofile: unlimited}", "4:22: services.web.limits.nofile: vigild's own hard limit is 1024"),
        (
            "limits: {as: 5, RLIMIT_CORE: unlimited}",
            "4:34: services.web.limits.RLIMIT_CORE: vigild's own hard limit is 4096",
        ),
    ],
)
def test_what_vigild_may_not_do_is_an_error_where_it_stands(line: str, message: str) -> None:
    assert refused(line).startswith(message)


@pytest.mark.parametrize(
    "line",
    [
        *("nice: 0", "nice: 19", "oom-score-adj: 100", "oom-score-adj: 1000", "limits: {nofile: 1024, core: '0:4096'}"),
        "limits: {as: unlimited}",
    ],
)
def test_what_it_may_is_no_error(line: str) -> None:
    assert loaded(POOR, line).warnings == ()


@pytest.mark.parametrize(
    "line",
    ["nice: -20", "oom-score-adj: -1000", "limits: {nofile: unlimited, core: unlimited}", "limits: {nofile: 1048576}"],
)
def test_with_the_rights_all_of_it_is_right_up_to_what_the_kernel_has(line: str) -> None:
    assert loaded(RICH, line).warnings == ()
    with pytest.raises(PlanError, match="hard limit is 1048576"):
        loaded(RICH, "limits: {nofile: 1048577}")


def test_a_niceness_that_the_services_own_limit_may_allow_is_left_to_the_kernel() -> None:
    assert loaded(POOR, "nice: -1", "limits: {nice: 21}").warnings == ()


def test_when_a_plan_is_only_checked_it_is_a_warning_because_vigild_may_run_as_somebody_else() -> None:
    found = loaded(POOR, "nice: -1", "limits: {nofile: 2000}", check=True).warnings
    assert [one.field for one in found] == ["services.web.nice", "services.web.limits.nofile"]


def test_so_it_is_with_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "own", lambda: Own(1000, 1000, may_set_uid=False, may_set_gid=False))
    (tmp_path / "a.yaml").write_text(layer("command: run", "user: root"))
    (found,) = load(read(str(tmp_path), check=True), check=True).warnings
    assert "vigild runs as user id 1000 and may not start anything as user id 0" in found.message
    with pytest.raises(PlanError, match="may not start anything as user id 0"):
        load(read(str(tmp_path)))


def test_rights_are_read_once_and_go_with_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "own", lambda: POOR)
    (tmp_path / "a.yaml").write_text(layer("command: run", "nice: -1"))
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(read(str(tmp_path))), type=Sources)
    monkeypatch.setattr(rights, "own", lambda: RICH)
    with pytest.raises(PlanError, match="no niceness below 0"):
        load(kept)
    (tmp_path / "a.yaml").write_text(layer("command: run", "umask: 022"))
    assert read(str(tmp_path)).rights is None


def capable(monkeypatch: pytest.MonkeyPatch, *, bits: int, first: bool) -> Rights:
    monkeypatch.setattr(rights, "effective_capabilities", lambda: bits)
    monkeypatch.setattr(rights, "_first_namespace", lambda: first)
    return rights.own()


def test_rights_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    poor = capable(monkeypatch, bits=0, first=True)
    assert poor.nice <= os.getpriority(os.PRIO_PROCESS, 0)
    assert dict(poor.hard)[NOFILE] == min(resource.getrlimit(NOFILE)[1], poor.files)
    rich = capable(monkeypatch, bits=-1, first=True)
    assert (rich.nice, rich.oom_score_adj, rich.hard) == (-20, -1000, ((NOFILE, rich.files),))


def test_the_lowest_score_is_what_the_kernel_takes_and_trying_it_changes_nothing() -> None:
    script = textwrap.dedent("""
        from vigil.plan import rights

        def score(*wanted):
            with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
                if wanted:
                    file.write(b"%d" % wanted[0])
                return int(file.read(9)) if not wanted else None

        before = score()
        all_found = set()
        for present in range(500, 516):
            score(present)
            all_found.add(rights._lowest_score())
            assert score() == present
        (found,) = all_found
        score(found)
        try:
            score(found - 1)
        except OSError:
            print("exact", found <= before)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("exact True\n", "")


def test_capabilities_of_another_user_namespace_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert capable(monkeypatch, bits=-1, first=False) == capable(monkeypatch, bits=0, first=True)


def test_a_limit_of_niceness_lets_it_go_as_low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda number: (25, 25) if number == NICE else (100, 100))
    assert capable(monkeypatch, bits=0, first=True).nice == min(-5, os.getpriority(os.PRIO_PROCESS, 0))
