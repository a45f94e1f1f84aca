"""examples/php-fpm-nginx: masters and workers, changed users, /dev/stdout as log file, pid files, graceful stops."""

from __future__ import annotations

import pwd
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.examples.room import EXAMPLES, Remains, Room, ask, copied, inside

NAMES = ("nginx", "php-fpm", "redis")


def php_fpm() -> str:
    """Debian's PHP-FPM, whichever version it is; php-fpm where there is none."""
    found = sorted(path.name for path in Path("/usr/sbin").glob("php-fpm[0-9]*"))
    return found[-1] if found else "php-fpm"


@pytest.fixture
def site(vigild: Callable[..., Daemon], need: Callable[..., None], root: None) -> Daemon:
    """The example as it is in its image; started and answering."""
    need("nginx", php_fpm(), "redis-server", "curl", "nsenter")
    room = Room(["/run", "/srv", "/var/lib/redis", "/var/log/nginx"], copied("php-fpm-nginx"))
    layers = (EXAMPLES / "php-fpm-nginx" / "layers" / "10-site.yaml").read_text().replace("php-fpm8.2", php_fpm())
    daemon: Daemon = vigild(layers, prefix=room.prefix, env=room.env)
    daemon.ready()
    daemon.until(lambda: get(daemon).startswith("visit "), "the site to answer")
    return daemon


def get(daemon: Daemon, path: str = "/") -> str:
    """Body of an answer; empty where there is none."""
    with inside(daemon, "curl", "-sf", "-m", "20", f"http://127.0.0.1:8080{path}", stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(timeout=30)
    return str(out)


def users(daemon: Daemon, master: int) -> tuple[str, list[str]]:
    """User of this process, and of its children."""

    def user(pid: int) -> str:
        status = (daemon.proc / str(pid) / "status").read_text()
        return pwd.getpwuid(int(status.partition("Uid:")[2].split()[1])).pw_name

    children = [pid for pid, process in daemon.processes().items() if process.parent == master]
    return user(master), [user(pid) for pid in children]


def messages(daemon: Daemon, service: str) -> list[str]:
    """All lines of a service, as ``STREAM LINE``."""
    status, answer = daemon.api("GET", f"/v1/logs?services={service}&n=1000")
    assert status == 200
    return [f"{entry['stream']} {entry['message']}" for entry in answer["result"]]


def test_masters_are_root_workers_are_not_and_every_log_arrives(site: Daemon) -> None:
    pids = {name: site.service(name)["pid"] for name in NAMES}
    assert users(site, pids["nginx"]) == ("root", ["www-data"] * 2)
    site.until(lambda: users(site, pids["php-fpm"]) == ("root", ["www-data"] * 4), "all workers to be there")
    assert users(site, pids["redis"]) == ("redis", [])
    for name, file in zip(NAMES, ("/run/nginx.pid", "/run/php/php-fpm.pid", "/run/redis/redis.pid"), strict=True):
        assert ask(site, "cat", file).strip() == str(pids[name])
    # access_log /dev/stdout is opened by root and written by workers; the error_log of PHP goes worker, master, vigil;
    # redis opens /dev/stdout itself, as its own user, for each line.
    assert get(site, "/nothing.php") == ""
    for service, stream, text in (
        ("nginx", "stdout", '"GET /nothing.php HTTP/1.1" 404'),
        ("nginx", "stderr", "start worker process"),
        ("php-fpm", "stderr", "this is visit 1"),
        ("php-fpm", "stderr", "ready to handle connections"),
        ("redis", "stdout", "Ready to accept connections"),
    ):
        site.until(
            lambda service=service, stream=stream, text=text: any(
                line.startswith(stream) and text in line for line in messages(site, service)
            ),
            f"{service} to say {text} on {stream}",
        )
    assert not any("denied" in line.lower() for name in NAMES for line in messages(site, name))


def test_nginx_reopens_dev_stdout_and_reloads_without_losing_a_line(site: Daemon) -> None:
    pid = site.service("nginx")["pid"]
    # USR1 opens the logs anew, in the workers as www-data; HUP starts new workers.
    for number, signo in enumerate((signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1)):
        site.kill(pid, signo)
        wanted = "reopening logs" if signo == signal.SIGUSR1 else "reconfiguring"
        site.until(
            lambda wanted=wanted, number=number: (
                sum(wanted in line for line in messages(site, "nginx")) >= (2 if number == 2 else 1)
            ),
            f"nginx to say {wanted}",
        )
        assert get(site, f"/?after={number}")
        site.until(lambda number=number: f'"GET /?after={number} HTTP/1.1" 200' in site.stdout, "its line of the log")
    assert site.service("nginx")["pid"] == pid
    assert "denied" not in site.stderr.lower()


def test_what_dies_comes_back_and_leaves_nothing(site: Daemon) -> None:
    master = site.service("php-fpm")["pid"]
    worker = next(pid for pid, process in site.processes().items() if process.parent == master)
    site.kill(worker)
    site.until(lambda: "exited on signal 9" in site.stderr, "the master to see that its worker was killed")
    assert get(site).startswith("visit ")
    assert site.service("php-fpm")["pid"] == master, "a worker is the master's business"
    # The master: its workers are ended, its socket is replaced, and nginx, which requires it, comes back.
    site.kill(master)
    site.until(lambda: site.service("php-fpm")["restarts"] == 1, "php-fpm to be started again")
    site.until(lambda: get(site).startswith("visit "), "the site to be back")
    again = site.service("php-fpm")["pid"]
    site.until(lambda: users(site, again) == ("root", ["www-data"] * 4), "all workers to have changed their user")
    assert len(site.named(php_fpm())) == 5
    assert not [process for process in site.processes().values() if process.state == "Z"]


def test_a_stop_answers_what_is_under_way_and_leaves_no_file(site: Daemon) -> None:
    remains = Remains(site)
    try:
        nginx = site.service("nginx")["pid"]
        visits = int(get(site).split()[1])
        with inside(site, "curl", "-sf", "http://127.0.0.1:8080/?sleep=3", stdout=subprocess.PIPE) as slow:
            site.until(lambda: redis(site, "GET visits") == str(visits + 1), "the slow request to be under way")
            assert site.stop() == 0
            assert slow.communicate(timeout=10)[0] == f"visit {visits + 1}\n"
        # nginx first, which waits for its answer; redis, which others need, last.
        stopped = [
            line.partition("INFO vigil.service ")[2] for line in site.stderr.splitlines() if ": stopped: " in line
        ]
        assert [line.partition(":")[0] for line in stopped] == ["nginx", "php-fpm", "redis"]
        assert all(line.endswith("exited with code 0") for line in stopped), stopped
        # Not only did they end in that order: php-fpm was not told before nginx had ended.
        told = [site.stderr.index(text) for text in ("gracefully shutting down", f"#{nginx}: exit\n", "Finishing ...")]
        assert told == sorted(told)
        left = remains.ask("find", "/run", "/var/lib/redis", "-type", "f", "-o", "-type", "s").split()
        assert left == ["/var/lib/redis/dump.rdb"], "no pid file, no socket"
    finally:
        remains.close()


def redis(daemon: Daemon, command: str) -> str:
    """Ask redis something."""
    return ask(daemon, "redis-cli", *command.split()).strip()
