"""examples/migrate-from-supervisord: PostgreSQL, Redis and three workers, under vigil and, as it was, supervisord."""

from __future__ import annotations

import configparser
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.daemon import LIMIT, NAMESPACE, Daemon, namespaces_work
from tests.examples.room import EXAMPLES, Remains, Room, ask, copied, inside

SHOP = EXAMPLES / "migrate-from-supervisord"
EMPTY = ["/run", "/srv", "/dev/shm", "/var/lib/redis"]


def postgres() -> str:
    """The version of Debian's PostgreSQL; that of the example where there is none."""
    found = sorted(path.parts[4] for path in Path("/usr/lib/postgresql").glob("[0-9]*/bin/postgres"))
    return found[-1] if found else "15"


def here(text: str) -> str:
    """Text of the example, with the version that is installed, and without waiting for the disk."""
    return text.replace("/15/bin/initdb ", "/15/bin/initdb --no-sync ").replace("/15/bin/", f"/{postgres()}/bin/")


@pytest.fixture
def room(need: Callable[..., None], root: None, tmp_path: Path) -> Room:
    """The example as it is in its image, with a volume that stays for the whole test."""
    need(f"/usr/lib/postgresql/{postgres()}/bin/postgres", "redis-server", "psql", "nsenter", "ipcs", "python3")
    volume = tmp_path / "postgresql"
    volume.mkdir()
    volume.chmod(0o755)
    return Room(EMPTY, copied("migrate-from-supervisord") | {"/var/lib/postgresql": volume})


@pytest.fixture
def shop(vigild: Callable[..., Daemon], room: Room) -> Callable[[], Daemon]:
    """Starts the example under vigild."""

    def start() -> Daemon:
        layers = here((SHOP / "layers" / "10-shop.yaml").read_text())
        daemon: Daemon = vigild(layers, prefix=room.prefix, env=room.env).ready()
        daemon.wait_state("worker-3", "active", timeout=60)
        return daemon

    return start


def order(daemon: Daemon, first: int, last: int) -> None:
    """Put jobs into the workers' list."""
    ask(daemon, "redis-cli", "RPUSH", "jobs", *(f"job-{number}" for number in range(first, last + 1)))


def done(daemon: Daemon) -> list[int]:
    """Numbers of the jobs in the table, in their order."""
    text = sql(daemon, "SELECT job FROM done")
    return sorted(int(number) for number in re.findall(r"job-(\d+)", text))


def sql(daemon: Daemon, query: str) -> str:
    """Answer of PostgreSQL; empty while it cannot answer."""
    words = ("psql", "-X", "-A", "-t", "-h", "/run/postgresql", "-U", "shop", "shop", "-c", query)
    with inside(daemon, *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        return str(process.communicate(timeout=30)[0])


def status(daemon: Daemon, pid: int, field: str) -> str:
    """A field of /proc/PID/status."""
    return (daemon.proc / str(pid) / "status").read_text().partition(f"\n{field}:")[2].partition("\n")[0].split()[0]


def user(daemon: Daemon, pid: int) -> str:
    """Whose process this is."""
    return pwd.getpwuid(int(status(daemon, pid, "Uid"))).pw_name


def test_everything_runs_as_it_did(shop: Callable[[], Daemon]) -> None:
    daemon = shop()
    order(daemon, 1, 40)
    daemon.until(lambda: done(daemon) == list(range(1, 41)), "all jobs to be done", 60)
    assert len(sql(daemon, "SELECT DISTINCT worker FROM done").split()) > 1, "more than one worker worked"
    services = daemon.services()
    assert {name: service["current"] for name, service in services.items()} == {
        "folders": "exited", "initdb": "exited", "schema": "exited", "postgresql": "active", "redis": "active",
        "worker-1": "active", "worker-2": "active", "worker-3": "active",
    }  # fmt: skip
    postmaster = services["postgresql"]["pid"]
    children = [pid for pid, process in daemon.processes().items() if process.parent == postmaster]
    assert len(children) >= 4
    assert {user(daemon, pid) for pid in [postmaster, *children]} == {"postgres"}
    assert user(daemon, services["redis"]["pid"]) == "redis"
    worker = services["worker-2"]["pid"]
    assert user(daemon, worker) == "www-data"
    assert status(daemon, worker, "Umask") == "0027"
    assert (daemon.proc / str(worker) / "cwd").readlink() == Path("/srv/shop")
    assert b"\0PGUSER=shop\0" in (daemon.proc / str(worker) / "environ").read_bytes()
    assert ask(daemon, "cat", "/run/postgresql/shop.pid").strip() == str(postmaster)
    assert "[postgresql] " in daemon.stderr
    assert "database system is ready to accept connections" in daemon.stderr
    assert "[worker-1] worker 1 begins\n" in daemon.stdout


def test_a_stop_is_clean_and_what_was_done_is_there_after_the_next_start(shop: Callable[[], Daemon]) -> None:
    """PostgreSQL's fast shutdown, after its clients; no pid file, socket or shared memory is left of anybody."""
    daemon = shop()
    assert ask(daemon, "ipcs", "-m").count("postgres") == 1, "PostgreSQL has a segment of shared memory"
    order(daemon, 1, 200)
    daemon.until(lambda: len(done(daemon)) >= 10, "the work to have begun", 60)
    remains = Remains(daemon)
    try:
        assert daemon.stop() == 0
        ended = [line for line in daemon.stderr.splitlines() if "INFO vigil.service" in line and ": stopped: " in line]
        names = [line.split()[3].rstrip(":") for line in ended]
        assert set(names[:3]) == {"worker-1", "worker-2", "worker-3"}
        assert set(names[3:]) == {"redis", "postgresql"}
        assert all(line.endswith("exited with code 0") for line in ended), ended
        for text in ("received fast shutdown request", "database system is shut down"):
            assert text in daemon.stderr
        assert [f"worker {number} ends" in daemon.stdout for number in (1, 2, 3)] == [True] * 3
        assert remains.ask("find", "/run", "/dev/shm", "-type", "f", "-o", "-type", "s") == ""
        assert remains.ask("find", "/var/lib/postgresql/shop", "-name", "*.pid") == ""
        assert "postgres" not in remains.ask("ipcs", "-m")
    finally:
        remains.close()

    again = shop()
    assert "database system was shut down at" in again.stderr
    assert "recovery" not in again.stderr, "it was no crash"
    assert len(done(again)) >= 10


def test_postgresql_killed_comes_back_and_no_job_is_lost_or_done_twice(shop: Callable[[], Daemon]) -> None:
    daemon = shop()
    order(daemon, 1, 60)
    daemon.until(lambda: len(done(daemon)) >= 5, "the work to have begun", 60)
    workers = [daemon.service(f"worker-{number}")["pid"] for number in (1, 2, 3)]
    daemon.kill(daemon.service("postgresql")["pid"])
    daemon.until(lambda: daemon.service("postgresql")["restarts"] == 1, "postgresql to be started again")
    daemon.until(lambda: done(daemon) == list(range(1, 61)), "all jobs to be done", 60)
    assert "automatic recovery in progress" in daemon.stderr
    # A restart by policy is waited out by those that require it.
    assert [daemon.service(f"worker-{number}")["pid"] for number in (1, 2, 3)] == workers
    assert not [process for process in daemon.processes().values() if process.state == "Z"]


def test_a_restart_of_postgresql_takes_along_what_requires_it(shop: Callable[[], Daemon]) -> None:
    daemon = shop()
    before = daemon.services()
    order(daemon, 1, 60)
    daemon.cli("restart", "postgresql", timeout=90)
    daemon.until(lambda: daemon.service("worker-1")["current"] == "active", "the workers to be back", 60)
    after = daemon.services()
    assert after["redis"]["pid"] == before["redis"]["pid"]
    for name in ("postgresql", "worker-1", "worker-2", "worker-3"):
        assert after[name]["pid"] != before[name]["pid"]
    daemon.until(lambda: done(daemon) == list(range(1, 61)), "all jobs to be done", 60)
    assert "recovery" not in daemon.stderr


@pytest.fixture
def supervisord(room: Room, need: Callable[..., None], tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The old way: entrypoint.sh and supervisord, in a room of the same kind."""
    need("supervisord", "supervisorctl")
    if not namespaces_work():
        pytest.skip("PID namespaces cannot be made here")
    for name in ("supervisord.conf", "entrypoint.sh"):
        shutil.copy(SHOP / name, tmp_path / name)
        (tmp_path / name).write_text(here((SHOP / name).read_text()))
    files = copied("migrate-from-supervisord") | {"/var/lib/postgresql": tmp_path / "postgresql"}
    del files["/srv/shop"]
    files |= {f"/srv/shop/{file.name}": file for file in [*(SHOP / "shop").iterdir(), tmp_path / "supervisord.conf"]}
    old = Room(EMPTY, files)
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [*NAMESPACE, *old.prefix, "sh", str(tmp_path / "entrypoint.sh")],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} | old.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + LIMIT
    while not (found := children.read_text().split()) and time.monotonic() < end:
        time.sleep(0.01)
    yield SimpleNamespace(pid=int(found[0]))
    process.kill()
    process.wait()
    print((tmp_path / "output").read_text())


def test_the_old_configuration_is_one_that_supervisord_runs(supervisord: Daemon) -> None:
    """So that what is compared is no invention: the same files, the same jobs, under the real supervisord."""
    control = ("supervisorctl", "-c", "/srv/shop/supervisord.conf", "status")
    until("the old way to run", lambda: output(supervisord, *control).count("RUNNING") == 5)
    order(supervisord, 1, 20)
    until("all jobs to be done", lambda: done(supervisord) == list(range(1, 21)))


def output(daemon: Daemon, *command: str) -> str:
    """What a command prints, which may fail."""
    with inside(daemon, *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        return str(process.communicate(timeout=30)[0])


def until(what: str, holds: Callable[[], bool]) -> None:
    """Ask again and again."""
    end = time.monotonic() + 2 * LIMIT
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def test_the_table_has_a_row_for_each_setting_of_the_old_configuration() -> None:
    table = (SHOP / "README.md").read_text()
    old = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    old.read(SHOP / "supervisord.conf")
    settings = {key for section in old.sections() if section.startswith("program:") for key in old[section]}
    rows = set(
        re.findall(
            r"`(\w+)(?:=[^`]*)?`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
        )
    )
    assert settings - rows == set()
    # And for what people ask about most, set in this example or not.
    wanted = (
        "autostart autorestart startsecs startretries exitcodes stopsignal stopwaitsecs stopasgroup killasgroup user"
    )
    wanted += " environment directory umask priority redirect_stderr stdout_logfile numprocs"
    assert set(wanted.split()) - rows == set()
