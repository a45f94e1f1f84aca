"""A new plan in the real thing: what changed is started, stopped, restarted or told; nothing else notices."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import CLIENT, LIMIT, Daemon

WRITER = "i=0; while :; do for k in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1)); echo $i; done; sleep 0.3; done"


def ask(daemon: Daemon, headers: dict[str, str] | None = None, **body: bool) -> tuple[int, Any]:
    """POST /v1/replan, as it is answered."""
    status, answer = daemon.api("POST", "/v1/replan", body or None, headers)
    return status, answer["result"]


def replan(daemon: Daemon, text: str | None = None, **body: bool) -> dict[str, Any]:
    """The layers become ``text``; what the replan answered, with its change as it ended."""
    if text is not None:
        (daemon.layers / "10-test.yaml").write_text(text)
    status, result = ask(daemon, **body)
    assert status == 200, result
    if result["change"] is not None:
        result["change"] = daemon.api("GET", f"/v1/changes/{result['change']['id']}/wait?timeout=30")[1]["result"]
    return dict(result)


def pids(daemon: Daemon) -> dict[str, int | None]:
    return {name: service["pid"] for name, service in daemon.services().items()}


def plain(*names: str) -> str:
    return "services:\n" + "".join(f"  {name}: {{command: sleep 1000, startup: enabled}}\n" for name in names)


def speaker(name: str, folder: Path, *signals: str) -> str:
    """A command that writes what happens to it to ``folder``/order."""
    traps = " ".join(f"trap 'echo {name} {word} >>{folder}/order; exit 0' {word};" for word in signals or ("TERM",))
    return f'[/bin/sh, -c, "{traps} echo {name} starts >>{folder}/order; while :; do sleep 0.02; done"]'


def _target(pid: int, fd: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except FileNotFoundError:
        return ""


def told(folder: Path) -> list[str]:
    path = folder / "order"
    return path.read_text().splitlines() if path.exists() else []


def test_of_100_services_under_load_one_changes(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    def layers(environment: str) -> str:
        lines = [f"  s{n}: {{startup: enabled, command: [/bin/sh, -c, '{WRITER}']}}" for n in range(98)]
        lines.append(f"  db: {{startup: enabled, command: {speaker('db', tmp_path)}, environment: {{{environment}}}}}")
        lines.append(f"  web: {{startup: enabled, command: {speaker('web', tmp_path)}, requires: [db]}}")
        return "services:\n" + "\n".join(lines) + "\n"

    daemon = vigild(layers("A: 1"))
    daemon.wait_state("web", "active")
    daemon.until(lambda: all(s["current"] == "active" for s in daemon.services().values()), "all to run")
    daemon.until(lambda: told(tmp_path) == ["db starts", "web starts"], "both to speak")
    before = pids(daemon)
    result = replan(daemon, layers("A: 2, WORKERS: 3"))
    assert result["restarted"] == ["db", "web"]
    assert {step["service"]: step["why"] for step in result["steps"]} == {
        "db": ["environment changed (A, WORKERS)"],
        "web": ["db is restarted, which it requires"],
    }
    assert (result["change"]["status"], result["change"]["err"]) == ("done", None)
    after = pids(daemon)
    assert {name for name in before if before[name] != after[name]} == {"db", "web"}
    daemon.until(lambda: len(told(tmp_path)) == 6, "both to speak again")
    assert told(tmp_path)[2:] == ["web TERM", "db TERM", "db starts", "web starts"]
    assert all(service["restarts"] == 0 for service in daemon.services().values())
    count = len(daemon.stdout)
    daemon.until(lambda: len(daemon.stdout) > count + 20_000, "more lines")
    assert daemon.stop() == 0
    numbers: dict[str, list[int]] = {}
    for name, number in re.findall(r"^\[(s\d+)\] (\d+)$", daemon.stdout, re.MULTILINE):
        numbers.setdefault(name, []).append(int(number))
    assert len(numbers) == 98
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values()), "a line was lost or doubled"


def test_a_dry_run_says_all_and_does_nothing(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web", "old"))
    daemon.wait_state("old", "active")
    before, changes = pids(daemon), daemon.api("GET", "/v1/changes")[1]["result"]
    plan = daemon.api("GET", "/v1/plan")[1]["result"]
    text = "services: {web: {command: sleep 999, startup: enabled}, new: {command: sleep 1, startup: enabled}}"
    result = replan(daemon, text, **{"dry-run": True})
    assert (result["dry-run"], result["change"]) == (True, None)
    assert (result["started"], result["stopped"], result["restarted"]) == (["new"], ["old"], ["web"])
    assert pids(daemon) == before
    assert daemon.api("GET", "/v1/changes")[1]["result"] == changes
    assert daemon.api("GET", "/v1/plan")[1]["result"] == plan
    real = replan(daemon)
    assert real["steps"] == result["steps"]
    assert daemon.api("GET", "/v1/plan")[1]["result"] != plan


def test_a_bad_plan_is_refused_whole(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web", "old"))
    daemon.wait_state("old", "active")
    before = pids(daemon)
    layer = daemon.layers / "10-test.yaml"
    layer.write_text("services:\n  web: {command: sleep 5, kill-delay: 5 parsecs}\n  new: {command: [], startup: on}\n")
    (daemon.layers / "20-none.yaml").symlink_to("nowhere")
    status, result = ask(daemon)
    assert (status, result["kind"]) == (400, "bad-plan")
    found = {problem["field"]: problem for problem in result["problems"]}
    assert found["services.web.kill-delay"]["line"] == 2
    assert str(layer) in result["message"]
    assert "services.new.startup" in found
    assert any("20-none.yaml" in problem["file"] for problem in result["problems"])
    assert ask(daemon, **{"dry-run": True})[0] == 400
    assert daemon.api("POST", "/v1/services", {"action": "replan"})[0] == 400
    assert pids(daemon) == before
    assert [change["kind"] for change in daemon.api("GET", "/v1/changes")[1]["result"]] == ["autostart"]
    assert "refuses the plan that uid" in daemon.stderr
    (daemon.layers / "20-none.yaml").unlink()
    assert replan(daemon, plain("web"))["stopped"] == ["old"]
    assert pids(daemon) == {"web": before["web"]}


def test_the_stop_signal_of_a_new_plan_is_that_of_the_next_stop(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    command = speaker("web", tmp_path, "TERM", "USR1")
    daemon = vigild(f"services: {{web: {{startup: enabled, command: {command}}}}}")
    pid = daemon.wait_state("web", "active")["pid"]
    daemon.until(lambda: told(tmp_path), "it to speak")
    result = replan(
        daemon, f"services: {{web: {{startup: enabled, command: {command}, stop-signal: USR1, forward-signals: none}}}}"
    )
    assert (result["updated"], result["change"]["tasks"]) == (["web"], [])
    assert result["steps"][0]["why"] == ["stop-signal changed", "forward-signals changed"]
    service = daemon.service("web")
    assert (service["pid"], service["stop-signal"]) == (pid, "SIGUSR1")
    daemon.cli("stop", "web")
    assert told(tmp_path) == ["web starts", "web USR1"]


def test_the_kill_delay_of_a_new_plan_is_that_of_the_next_stop(vigild: Callable[..., Daemon]) -> None:
    def layers(delay: str) -> str:
        command = "[/bin/sh, -c, 'trap \"\" TERM; echo stands; while :; do sleep 0.05; done']"
        return f"services: {{web: {{startup: enabled, kill-delay: {delay}, command: {command}}}}}"

    daemon = vigild(layers("infinity"))
    pid = daemon.wait_state("web", "active")["pid"]
    assert daemon.out
    daemon.out.wait_for("[web] stands\n")
    assert replan(daemon, layers("200ms"))["updated"] == ["web"]
    assert daemon.service("web")["pid"] == pid
    daemon.cli("stop", "web")
    assert daemon.service("web")["exit"]["signal"] == "SIGKILL"


def test_signals_are_forwarded_as_the_new_plan_says(vigild: Callable[..., Daemon]) -> None:
    command = '[/bin/sh, -c, \'trap "echo hup" HUP; trap "echo usr2" USR2; echo stands; while :; do sleep 0.02; done\']'

    def layers(forward: str) -> str:
        return f"services: {{web: {{startup: enabled, command: {command}, forward-signals: {forward}}}}}"

    daemon = vigild(layers("[USR2]"))
    daemon.wait_state("web", "active")
    assert daemon.out
    daemon.out.wait_for("[web] stands\n")
    assert replan(daemon, layers("[HUP]"))["updated"] == ["web"]

    def hup() -> None:
        count = daemon.stdout.count("[web] hup\n")  # a signal may come to vigild before control's word does: send more
        daemon.until(lambda: daemon.signal(signal.SIGHUP) or daemon.stdout.count("[web] hup\n") > count, "HUP")

    hup()
    daemon.signal(signal.SIGUSR2)
    hup()
    assert "usr2" not in daemon.stdout
    assert replan(daemon, layers("[USR2]"))["updated"] == ["web"]
    daemon.until(lambda: daemon.signal(signal.SIGUSR2) or "[web] usr2\n" in daemon.stdout, "USR2")


def test_forwarding_of_logs_is_switched_in_place(vigild: Callable[..., Daemon]) -> None:
    command = "[/bin/sh, -c, 'i=0; while i=$((i+1)); do echo $i; sleep 0.01; done']"

    def layers(mode: str) -> str:
        return f"services: {{web: {{startup: enabled, command: {command}, logs-forward: {mode}}}}}"

    def kept() -> int:
        return int(daemon.api("GET", "/v1/logs?services=web&n=1")[1]["result"][-1]["message"])

    def shown() -> list[int]:
        return [int(number) for number in re.findall(r"^\[web\] (\d+)$", daemon.stdout, re.MULTILINE)]

    daemon = vigild(layers("enabled"), args=["--log-buffer", "20000"])
    pid = daemon.wait_state("web", "active")["pid"]
    daemon.until(lambda: len(shown()) > 10, "lines on stdout")
    assert replan(daemon, layers("disabled"))["updated"] == ["web"]
    daemon.until(lambda: kept() > shown()[-1] + 50, "stdout to be left alone")
    assert replan(daemon, layers("enabled"))["updated"] == ["web"]
    last = shown()[-1]
    daemon.until(lambda: shown()[-1] > last + 10, "lines on stdout")
    assert daemon.service("web")["pid"] == pid
    entries = daemon.api("GET", "/v1/logs?services=web&n=20000")[1]["result"]
    assert [int(entry["message"]) for entry in entries] == list(range(1, len(entries) + 1))
    assert daemon.stop() == 0
    jumps = [(a, b) for a, b in zip(shown(), shown()[1:], strict=False) if b != a + 1]
    assert len(jumps) == 1
    assert jumps[0][1] > jumps[0][0] + 50


def test_the_whole_stop_goes_in_the_order_of_the_new_plan(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    def layers(**after: str) -> str:
        lines = [
            f"  {name}: {{startup: enabled, command: {speaker(name, tmp_path)}, after: [{after.get(name, '')}]}}"
            for name in ("a", "b", "c")
        ]
        return "services:\n" + "\n".join(lines) + "\n"

    daemon = vigild(layers(b="a", c="b"))
    daemon.wait_state("c", "active")
    daemon.until(lambda: len(told(tmp_path)) == 3, "all to speak")
    result = replan(daemon, layers(a="b", b="c"))
    assert (result["updated"], result["restarted"]) == (["a", "b", "c"], [])
    daemon.kill(daemon.only("vigil-control").pid)  # whoever stops them has been told
    assert daemon.stop() == 0
    assert told(tmp_path)[3:] == ["a TERM", "b TERM", "c TERM"]


def test_an_env_file_is_read_again(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "env").write_text("GREETING=hello\n")
    command = "[/bin/sh, -c, 'echo $GREETING; exec sleep 1000']"
    daemon = vigild(
        f"services: {{web: {{startup: enabled, command: {command}, env-file: [{tmp_path}/env]}},"
        " other: {startup: enabled, command: sleep 1000}}"
    )
    daemon.wait_state("other", "active")
    assert replan(daemon)["steps"] == []
    before = pids(daemon)
    (tmp_path / "env").write_text("GREETING=farewell\n")
    result = replan(daemon)
    assert result["steps"] == [
        {"service": "web", "action": "restart", "why": ["environment changed (GREETING)"]},
    ]
    assert daemon.out
    daemon.out.wait_for("[web] farewell\n")
    assert pids(daemon)["other"] == before["other"]
    (tmp_path / "env").unlink()
    assert ask(daemon)[0] == 400


def test_a_user_that_is_another_number_now_is_another_process(
    vigild: Callable[..., Daemon], root: None, tmp_path: Path
) -> None:
    passwd = tmp_path / "passwd"
    own = Path("/etc/passwd").read_text()

    def has(uid: int) -> None:
        passwd.write_text(f"{own}vtest:x:{uid}:4300::/:/bin/sh\n")

    has(4321)
    bind = f'mount --bind {passwd} /etc/passwd && exec "$@"'  # within the namespace of this vigild alone
    layers = "services: {web: {command: sleep 1000, startup: enabled, user: vtest}}"
    daemon = vigild(layers, prefix=("/bin/sh", "-c", bind, "sh"))

    def uid() -> int:
        status = (daemon.proc / str(daemon.service("web")["pid"]) / "status").read_text()
        return int(status.partition("Uid:")[2].split()[0])

    daemon.wait_state("web", "active")
    assert uid() == 4321
    assert replan(daemon)["steps"] == []
    has(4322)
    assert replan(daemon)["steps"] == [{"service": "web", "action": "restart", "why": ["user changed"]}]
    assert uid() == 4322
    passwd.write_text(own)
    status, result = ask(daemon)
    assert (status, result["problems"][0]["field"]) == (400, "services.web.user")


def test_no_restart_leaves_it_running_and_flags_it_over_the_death_of_control(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web"))
    pid = daemon.wait_state("web", "active")["pid"]
    result = replan(
        daemon, "services: {web: {command: sleep 2000, startup: enabled, kill-delay: 1s}}", **{"no-restart": True}
    )
    assert (result["pending-restart"], result["restarted"]) == (["web"], [])
    control = daemon.only("vigil-control").pid
    daemon.kill(control)
    daemon.until(lambda: [p.pid for p in daemon.named("vigil-control")] not in ([], [control]), "the next control")
    service = daemon.ready().service("web")
    assert (service["pid"], service["pending-restart"]) == (pid, True)
    daemon.cli("restart", "web")
    assert daemon.service("web")["pending-restart"] is False
    assert any(process.args == ("sleep", "2000") for process in daemon.processes().values())


def test_a_removed_service_can_be_looked_at_until_it_is_gone(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    command = (
        f'[/bin/sh, -c, \'trap "echo last words; while ! test -e {tmp_path}/go; do sleep 0.02; done; exit 0" TERM;'
        " echo first words; while :; do sleep 0.02; done']"
    )
    daemon = vigild(
        f"services: {{web: {{startup: enabled, command: {command}, kill-delay: 60s}}, db: {{command: sleep 9}}}}"
    )
    daemon.wait_state("web", "active")
    assert daemon.out
    daemon.out.wait_for("[web] first words\n")
    (daemon.layers / "10-test.yaml").write_text("services: {db: {command: sleep 9}}")
    status, result = ask(daemon)
    assert (status, result["stopped"]) == (200, ["web"])
    assert daemon.service("web")["current"] == "stopping"
    daemon.out.wait_for("[web] last words\n")
    entries = daemon.api("GET", "/v1/logs?services=web")[1]["result"]
    assert [e["message"] for e in entries if e["stream"] == "stdout"] == ["first words", "last words"]
    assert daemon.api("POST", "/v1/services", {"action": "start", "services": ["web"]})[0] == 404
    (tmp_path / "go").touch()
    daemon.until(lambda: "web" not in daemon.services(), "it to be forgotten")
    assert daemon.api("GET", f"/v1/changes/{result['change']['id']}/wait")[1]["result"]["status"] == "done"
    assert daemon.api("GET", "/v1/logs?services=web")[0] == 404
    assert daemon.api("GET", "/v1/services?names=web")[0] == 404


def test_removed_and_added_again_while_it_still_stops(vigild: Callable[..., Daemon]) -> None:
    def layers(words: str) -> str:
        command = f"[/bin/sh, -c, 'trap \"sleep 0.5; exit 0\" TERM; echo {words}; while :; do sleep 0.02; done']"
        return f"services: {{web: {{startup: enabled, command: {command}, kill-delay: 60s}}}}"

    daemon = vigild(layers("one"))
    daemon.wait_state("web", "active")
    assert daemon.out
    daemon.out.wait_for("[web] one\n")
    (daemon.layers / "10-test.yaml").write_text("")
    assert ask(daemon)[1]["stopped"] == ["web"]
    result = replan(daemon, layers("two"))
    assert result["started"] == ["web"]
    assert [(t["kind"], t["status"]) for t in result["change"]["tasks"]] == [("start", "done")]
    daemon.out.wait_for("[web] two\n")
    entries = daemon.api("GET", "/v1/logs?services=web")[1]["result"]
    assert [e["message"] for e in entries if e["stream"] == "stdout"] == ["one", "two"]


def test_a_follower_of_all_goes_on_when_services_come_and_go(vigild: Callable[..., Daemon]) -> None:
    ticks = "[/bin/sh, -c, 'while :; do echo tick; sleep 0.02; done']"
    web = f"services:\n  web: {{startup: enabled, command: {ticks}}}\n"
    daemon = vigild(web)
    daemon.wait_state("web", "active")
    command = [*CLIENT, "logs", "-f"]
    follow = subprocess.Popen(command, env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follow.stdout
    try:
        assert "tick" in follow.stdout.readline()
        for n in range(3):
            replan(daemon, f"{web}  s{n}: {{startup: enabled, command: [/bin/sh, -c, 'echo from {n}; sleep 1000']}}\n")
            assert any(f"from {n}" in follow.stdout.readline() for _ in range(10_000))
        assert list(daemon.services()) == ["web", "s2"]
    finally:
        follow.terminate()
        follow.communicate(timeout=LIMIT)


def test_nothing_is_left_of_services_that_came_and_went(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web"))
    daemon.wait_state("web", "active")

    def cycle(n: int) -> None:
        for text, action in ((plain("web", f"s{n}"), "started"), (plain("web"), "stopped")):
            (daemon.layers / "10-test.yaml").write_text(text)
            assert ask(daemon)[1][action] == [f"s{n}"]
            if action == "started":
                daemon.wait_state(f"s{n}", "active")
        daemon.until(lambda: list(daemon.services()) == ["web"], "it to be forgotten")

    def open_files() -> list[int]:
        found = [daemon.pid, *(daemon.host_pid(daemon.only(comm).pid) for comm in ("vigil-logger", "vigil-control"))]
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in found]

    for n in range(3):
        cycle(n)
    before = daemon.until(lambda: first if (first := open_files()) == open_files() else None, "rest")
    for n in range(3, 13):
        cycle(n)
    daemon.until(lambda: open_files() <= before, f"no more descriptors than {before}, there are {open_files()}")
    logs = [name for name in os.listdir(f"/proc/{daemon.pid}/fd") if "vigil-log" in _target(daemon.pid, name)]
    assert len(logs) == 2, "those of web and of vigild itself"


def test_two_at_once_are_done_one_after_the_other(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web"))
    daemon.wait_state("web", "active")
    (daemon.layers / "10-test.yaml").write_text(plain("web", "new"))
    found: list[tuple[int, Any]] = []
    threads = [threading.Thread(target=lambda: found.append(ask(daemon))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert [status for status, _ in found] == [200] * 5
    assert sorted(result["started"] for _, result in found) == [[], [], [], [], ["new"]]
    assert len({result["change"]["id"] for _, result in found}) == 5


def test_the_same_key_is_the_same_replan(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web"))
    daemon.wait_state("web", "active")
    (daemon.layers / "10-test.yaml").write_text(plain("web", "new"))
    key = {"Idempotency-Key": "once"}
    first, again = ask(daemon, key), ask(daemon, key)
    assert first[0] == again[0] == 200
    assert first[1]["change"]["id"] == again[1]["change"]["id"]
    assert again[1]["started"] == ["new"]
    status, answer = daemon.api("POST", "/v1/services", {"action": "replan"}, key)
    assert (status, answer["change"]) == (202, first[1]["change"]["id"])
    assert daemon.api("POST", "/v1/services", {"action": "stop", "services": ["web"]}, key)[0] == 409
    assert ask(daemon, key, **{"no-restart": True})[0] == 409


def test_there_is_no_replan_while_vigild_stops(vigild: Callable[..., Daemon], tmp_path: Path) -> None:
    command = f"[/bin/sh, -c, 'trap \"\" TERM; echo stands; while ! test -e {tmp_path}/go; do sleep 0.05; done']"
    daemon = vigild(f"services: {{web: {{startup: enabled, kill-delay: 1m, command: {command}}}}}")
    daemon.wait_state("web", "active")
    assert daemon.out
    daemon.out.wait_for("[web] stands\n")
    assert daemon.api("POST", "/v1/vigild", {"action": "stop"})[0] == 200
    daemon.wait_state("web", "stopping")
    status, result = ask(daemon)
    assert (status, result["kind"]) == (503, "unavailable")
    (tmp_path / "go").touch()
    assert daemon.wait() == 0


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.03])
def test_control_is_killed_in_the_middle_of_a_replan(
    vigild: Callable[..., Daemon], tmp_path: Path, delay: float
) -> None:
    slow = "[/bin/sh, -c, 'trap \"sleep 0.3; exit 0\" TERM; while :; do sleep 0.02; done']"

    def layers(number: int, *others: str) -> str:
        lines = [f"  {name}: {{startup: enabled, command: {slow}}}" for name in ("keep", *others)]
        lines.append(f"  db: {{startup: enabled, command: {slow}, environment: {{N: {number}}}}}")
        lines.append(f"  web: {{startup: enabled, command: {slow}, requires: [db]}}")
        return "services:\n" + "\n".join(lines) + "\n"

    daemon = vigild(layers(0, "gone0"))
    daemon.wait_state("web", "active")
    for n in range(1, 4):
        before = pids(daemon)
        (daemon.layers / "10-test.yaml").write_text(layers(n, f"gone{n}"))
        control = daemon.only("vigil-control").pid
        host = daemon.host_pid(control)
        found: list[Any] = []

        def insist(n: int = n, found: list[Any] = found) -> None:
            end = time.monotonic() + LIMIT
            while not found and time.monotonic() < end:
                try:
                    found.append(ask(daemon, {"Idempotency-Key": f"replan {n}"}))
                except (OSError, ValueError, HTTPException):
                    pass  # control was killed before it had answered: ask again

        asking = threading.Thread(target=insist)
        asking.start()
        time.sleep(delay)  # the moment of the kill is the case
        os.kill(host, signal.SIGKILL)
        asking.join(LIMIT)
        ((status, result),) = found
        assert status == 200, result
        assert (result["started"], result["stopped"]) == ([f"gone{n}"], [f"gone{n - 1}"])
        assert result["restarted"] == ["db", "web"]
        change = daemon.api("GET", f"/v1/changes/{result['change']['id']}/wait?timeout=30")[1]["result"]
        assert (change["status"], change["err"]) == ("done", None)
        after = pids(daemon)
        assert after.keys() == {"keep", "db", "web", f"gone{n}"}
        assert after["keep"] == before["keep"]
        assert after["db"] != before["db"]
        assert [c["kind"] for c in daemon.api("GET", "/v1/changes")[1]["result"]] == ["autostart"] + ["replan"] * n
    assert daemon.stop() == 0


def boot_id(daemon: Daemon) -> str:
    return str(daemon.api("GET", "/v1/system-info")[1]["result"]["boot-id"])


def reboots(daemon: Daemon, boot: str) -> None:
    def rebooted() -> bool:
        try:
            return boot_id(daemon) != boot
        except (OSError, HTTPException):
            return False  # the old control has just gone

    daemon.until(rebooted, "a new boot")


def test_vigild_restart_refuses_a_bad_plan_and_takes_a_good_one(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web"))
    pid = daemon.wait_state("web", "active")["pid"]
    boot = boot_id(daemon)
    inode = daemon.socket.stat().st_ino
    layer = daemon.layers / "10-test.yaml"
    layer.write_text("services: {web: {command: sleep 1000, startup: perhaps}}")
    status, answer = daemon.api("POST", "/v1/vigild", {"action": "restart"})
    assert (status, answer["result"]["kind"]) == (400, "bad-plan")
    assert answer["result"]["problems"][0]["field"] == "services.web.startup"
    assert daemon.service("web")["pid"] == pid
    layer.write_text(plain("other"))
    assert daemon.api("POST", "/v1/vigild", {"action": "restart"})[0] == 200

    reboots(daemon, boot)
    assert list(daemon.services()) == ["other"]
    daemon.wait_state("other", "active")
    assert daemon.socket.stat().st_ino == inode
    assert daemon.stop() == 0


def test_vigild_restart_starts_the_plan_that_was_checked_whatever_becomes_of_it_meanwhile(
    vigild: Callable[..., Daemon], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    end = f"touch {told}; until [ -e {tmp_path}/go ]; do sleep 0.02; done; exit"
    script = f"trap '{end}' TERM; echo up; while :; do sleep 0.02; done"
    daemon = vigild(
        f"services: {{web: {{command: [sh, -c, {json.dumps(script)}], startup: enabled, kill-delay: 20s}}}}"
    )
    assert daemon.out is not None
    daemon.out.wait_for("[web] up")
    layer = daemon.layers / "10-test.yaml"
    layer.write_text(plain("other"))
    boot = boot_id(daemon)
    assert daemon.api("POST", "/v1/vigild", {"action": "restart"})[0] == 200
    daemon.until(told.exists, "web to be told to stop")
    layer.write_text("services: {other: {command: sleep 1000, startup: perhaps")
    (tmp_path / "go").touch()
    reboots(daemon, boot)
    daemon.wait_state("other", "active")
    status, answer = daemon.api("POST", "/v1/replan", {})
    assert (status, answer["result"]["kind"]) == (400, "bad-plan")  # and from now on the files are read again
    layer.write_text(plain("third"))
    assert daemon.api("POST", "/v1/replan", {})[1]["result"]["started"] == ["third"]
    assert daemon.stop() == 0


def test_autostart_starts_what_is_enabled_and_down(vigild: Callable[..., Daemon]) -> None:
    daemon = vigild(plain("web", "db") + "  off: {command: sleep 1000}\n")
    daemon.wait_state("db", "active")
    before = pids(daemon)
    daemon.cli("stop", "web")
    status, answer = daemon.api("POST", "/v1/services", {"action": "autostart"})
    assert status == 202
    assert (answer["result"]["kind"], [t["service"] for t in answer["result"]["tasks"]]) == ("autostart", ["web"])
    daemon.wait_state("web", "active")
    after = pids(daemon)
    assert (after["db"], after["off"]) == (before["db"], None)
