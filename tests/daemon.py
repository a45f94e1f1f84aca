"""A vigild under test: started as PID 1 of a PID namespace of its own, watched from outside, ended whatever happens."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")
LIMIT = 30.0  # seconds that anything waited for may take, on a busy machine too
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
CLIENT = (sys.executable, "-P", "-c", "import sys; from vigil.cli.main import main; sys.exit(main())")


def namespaces_work() -> bool:
    """Whether a PID namespace can be made here."""
    if shutil.which(NAMESPACE[0]) is None:
        return False
    return (
        subprocess.run([*NAMESPACE, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    )


class Output:
    """What comes out of a pipe, collected by a thread so that the writer never waits for the test."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._data = bytearray()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 1 << 20):
                with self._changed:
                    self._data += chunk
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def data(self) -> bytes:
        """All that has come so far."""
        with self._changed:
            return bytes(self._data)

    def wait_for(self, text: str | bytes, timeout: float = LIMIT) -> None:
        """Return once this text has come; AssertionError when it does not come in time, or can come no more."""
        wanted = text.encode() if isinstance(text, str) else text
        with self._changed:
            self._changed.wait_for(lambda: wanted in self._data or self._ended, timeout)
            if wanted not in self._data:
                why = "the output ended" if self._ended else f"waited {timeout} s"
                raise AssertionError(f"{why} without {wanted!r}; it ends with {bytes(self._data[-2000:])!r}")

    def finish(self) -> None:
        """Wait for the end of the pipe: every process that held it has ended."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "somebody still holds the pipe"


@dataclass(frozen=True)
class Process:
    """A process of the namespace, as its own /proc shows it."""

    pid: int  # in the namespace
    parent: int
    comm: str
    state: str  # R, S, D, Z...
    session: int
    args: tuple[str, ...]


class Daemon:
    """One vigild, its folder, its socket and its outputs. Made by the fixture ``vigild``."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        layers: Mapping[str, str] | str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        *,
        pid1: bool = True,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        prefix: Sequence[str] = (),
    ) -> None:
        """``layers``: file name to text, or the text of the only one. ``prefix``: a command that executes vigild
        (``prlimit ...``, ``setpriv ...``). Outputs that are not PIPE are the test's own to read.
        """
        self.folder = folder
        self.socket = folder / "vigild.sock"
        self.layers = folder / "layers"
        self.layers.mkdir(exist_ok=True)
        for name, text in ({"10-test.yaml": layers} if isinstance(layers, str) else layers).items():
            (self.layers / name).write_text(text, encoding="utf-8")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("VIGIL_")}
        self.env = clean | {"VIGIL_PYTHON": sys.executable, "VIGIL_SOCKET": str(self.socket)} | dict(env or {})
        self.pid1 = pid1
        self._host = 0
        self._process = subprocess.Popen(
            [*(NAMESPACE if pid1 else ()), *prefix, str(binary), "--layers-dir", str(self.layers), *args],
            env=self.env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.out = Output(self._process.stdout) if self._process.stdout else None
        self.err = Output(self._process.stderr) if self._process.stderr else None

    # What it is.

    @property
    def pid(self) -> int:
        """Process id of vigild as seen from the test; waits until its program runs."""
        if not self._host:
            self._host = self.until(self._find, "vigild to be executed")
        return self._host

    def _find(self) -> int:
        pid = self._process.pid
        if self.pid1:
            # unshare's only child; it is vigild once it has another program than unshare (and than a prefix).
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not children or not Path(f"/proc/{children[0]}/comm").read_text().startswith("vigild"):
                return 0
            pid = int(children[0])
        # Between exec and its first instruction no PID 1 has signals: what is sent then is lost (or deadly to others).
        blocked = int(Path(f"/proc/{pid}/status").read_text().partition("SigBlk:")[2].split()[0], 16)
        return pid if blocked & 1 << signal.SIGTERM - 1 else 0

    @property
    def proc(self) -> Path:
        """/proc as the namespace sees it; only while vigild runs."""
        return Path(f"/proc/{self.pid}/root/proc") if self.pid1 else Path("/proc")

    @property
    def stdout(self) -> str:
        """All that came on standard output so far."""
        return self.out.data.decode("utf-8", "replace") if self.out else ""

    @property
    def stderr(self) -> str:
        """All that came on standard error so far."""
        return self.err.data.decode("utf-8", "replace") if self.err else ""

    # Its processes.

    def processes(self) -> dict[int, Process]:
        """Every process of vigild's namespace (of vigild's descendants, where it is no PID 1), by pid."""
        found = {}
        for entry in self.proc.iterdir():
            if not entry.name.isdigit():
                continue
            try:
                head, _, tail = (entry / "stat").read_text().rpartition(") ")
                args = (entry / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
            except OSError:
                continue  # it ended meanwhile
            fields = tail.split()
            pid = int(entry.name)
            found[pid] = Process(pid, int(fields[1]), head.partition("(")[2], fields[0], int(fields[3]), tuple(args))
        if self.pid1:
            return found
        mine = {self.pid}
        while grown := {pid for pid, process in found.items() if process.parent in mine} - mine:
            mine |= grown
        return {pid: found[pid] for pid in mine if pid in found}

    def named(self, comm: str) -> list[Process]:
        """Processes of this name: vigil-control, vigil-logger, vigil-keeper, sleep."""
        return [process for process in self.processes().values() if process.comm == comm]

    def only(self, comm: str) -> Process:
        """The one process of this name, once it is there."""
        return self.until(lambda: found[0] if len(found := self.named(comm)) == 1 else None, f"one process {comm}")

    def host_pid(self, pid: int) -> int:
        """What the test must call a process of the namespace; ProcessLookupError when it has ended."""
        if not self.pid1:
            return pid
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if os.readlink(entry / "ns" / "pid") != namespace:
                    continue
                status = (entry / "status").read_text()
            except OSError:
                continue  # it ended meanwhile
            if int(status.partition("NSpid:")[2].partition("\n")[0].split()[-1]) == pid:
                return int(entry.name)
        raise ProcessLookupError(f"no process {pid} in the namespace")

    def kill(self, pid: int, signo: int = signal.SIGKILL) -> None:
        """Send a signal to a process of the namespace."""
        os.kill(self.host_pid(pid), signo)

    # Talking to it.

    def cli(self, *words: str, check: bool = True, timeout: float = LIMIT) -> subprocess.CompletedProcess[str]:
        """Run ``vigil`` with these words; where it must succeed (``check``) and does not, the test fails."""
        done = subprocess.run(
            [*CLIENT, *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"vigil {' '.join(words)} exited with {done.returncode}: {done.stderr}"
        )
        return done

    def json(self, *words: str) -> Any:
        """Answer of a listing command, as data."""
        return json.loads(self.cli(*words, "--format", "json").stdout)

    def api(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = LIMIT
    ) -> tuple[int, Any]:
        """Status and parsed body of one request on the Unix socket; OSError where nobody answers."""
        connection = _UnixConnection(str(self.socket), timeout)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def ready(self) -> Daemon:
        """Wait until the API answers."""
        self.until(self._answers, "the API to answer")
        return self

    def _answers(self) -> bool:
        try:
            return self.api("GET", "/v1/system-info")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def services(self) -> dict[str, dict[str, Any]]:
        """GET /v1/services, by name."""
        status, answer = self.api("GET", "/v1/services")
        assert status == 200, answer
        return {service["name"]: service for service in answer["result"]}

    def service(self, name: str) -> dict[str, Any]:
        """One of them."""
        return self.services()[name]

    def wait_state(self, name: str, *states: str, timeout: float = LIMIT) -> dict[str, Any]:
        """Wait until a service is in one of these states; what the API says of it then."""
        self.ready()

        def there() -> dict[str, Any] | None:
            service = self.service(name)
            return service if service["current"] in states else None

        return self.until(there, f"{name} to be {' or '.join(states)}", timeout)

    def until(self, holds: Callable[[], T | None], what: str, timeout: float = LIMIT) -> T:
        """Ask again and again until the answer is true, and return it; fails with all output when it stays false."""
        end = time.monotonic() + timeout
        while True:
            # Looked at before asking: an answer that came true right before the end counts.
            ended, late = self._process.poll() is not None, time.monotonic() > end
            try:
                if answer := holds():
                    return answer
            except OSError:
                if not ended:
                    raise
            if ended or late:
                why = f"vigild exited with {self._process.returncode}" if ended else f"waited {timeout} s"
                raise AssertionError(f"{why} without {what}\n{self.report()}")
            time.sleep(0.005)  # between two looks, not for luck: the condition decides

    # Ending it.

    def signal(self, signo: int) -> None:
        """Send a signal to vigild."""
        os.kill(self.pid, signo)

    def wait(self, timeout: float = LIMIT) -> int:
        """Exit code of vigild once it has ended (128+S where a signal ended it) and all its output is there."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"vigild still runs after {timeout} s\n{self.report()}") from None
        for output in (self.out, self.err):
            if output:
                output.finish()
        return 128 - code if code < 0 else code

    def stop(self, timeout: float = LIMIT) -> int:
        """SIGTERM, and the exit code."""
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def running(self) -> bool:
        """Whether vigild has not ended."""
        return self._process.poll() is None

    def report(self) -> str:
        """Its output, for the message of a failure."""
        return f"--- stdout of vigild\n{self.stdout[-6000:]}\n--- stderr of vigild\n{self.stderr[-6000:]}"

    def end(self) -> None:
        """End every process of it, at once. With its PID 1 the kernel ends a namespace."""
        if self._process.poll() is None:
            tree = [] if self.pid1 else [pid for pid in self.processes() if pid != self._process.pid]
            self._process.kill()  # unshare --kill-child takes the namespace with it
            self._process.wait()
            for pid in tree:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for output in (self.out, self.err):
            if output:
                output.finish()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise
