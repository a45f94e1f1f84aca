"""Logger without PID 1: the test hands logger what PID 1 would, kills it, and starts the next with the same things."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from vigil.shim import notify

ROOT = Path(__file__).resolve().parents[2]
STREAM, STREAMS_END, FORGET, SETTINGS, FINISH = 64, 65, 66, 67, 68
READY, DRAINED, PING, PONG = 80, 81, 43, 10
ENABLED, DISABLED = 1, 2
NOTIFY, SIZE = 3, 376  # STREAM.stream, and how long that message is
TEXT, TIMESTAMP, JSON, RAW = range(4)
NO_SLOT, DIAGNOSTICS = 0xFFFFFFFF, 0xFFFFFFFD
LIMIT = 30.0


def compile_c(folder: Path, name: str, sources: list[str]) -> Path:
    """Build a program of the tests."""
    out = folder / name
    compiler = os.environ.get("CC") or next(cc for cc in ("cc", "gcc", "clang") if shutil.which(cc))
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-pthread"]
    if os.environ.get("VIGIL_TEST_SANITIZE") == "1":
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([*compiler.split(), *flags, *(str(ROOT / source) for source in sources), "-o", str(out)], check=True)
    return out


def build(folder: Path) -> tuple[Path, Path]:
    """logger_alone and logger_load."""
    names = ("logger", "notify", "sink", "lines", "ring", "chan", "keeper", "sig", "say")
    modules = [f"csrc/init/{name}.c" for name in names]
    return (
        compile_c(folder, "logger_alone", ["tests/init/logger_alone.c", *modules]),
        compile_c(folder, "logger_load", ["tests/init/logger_load.c", "csrc/init/ring.c"]),
    )


def pipe(size: int | None = None) -> tuple[int, int]:
    """Both ends close-on-exec."""
    ends = os.pipe2(os.O_CLOEXEC)
    if size:
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, size)
    return ends


@dataclass
class Stream:
    """What logger is told of one stream of a run."""

    run: tuple[int, int]
    stream: int
    fd: int
    log: str
    ring: int
    mode: int = ENABLED
    format: int = TEXT
    prefix: str = ""
    uid: int = 0
    tag: int = 0


@dataclass
class Play:
    """PID 1, as far as logger can tell."""

    alone: Path
    sinks: tuple[int, int]
    stall_ms: int = 5000
    without: str = ""  # "no-splice", "no-splice-in": see logger_alone.c
    streams: list[Stream] = field(default_factory=list)
    owed: list[tuple[int, int]] = field(default_factory=list)  # runs whose FORGET was sent, and not answered
    rings: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = int(subprocess.run([self.alone, "size"], capture_output=True, check=True, text=True).stdout)
        self.journal = os.memfd_create("J")
        os.ftruncate(self.journal, size)
        self.private = pipe(), pipe()
        for _read, write in self.private:
            os.set_blocking(write, False)
        self.own = self.ring("vigild", 1000, 1 << 20)
        self.board = self._made("board")
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.diagnostics = pipe()
        os.set_blocking(self.diagnostics[1], False)
        self.streams.append(Stream((DIAGNOSTICS, 1), 2, self.diagnostics[0], "vigild", self.own, format=RAW))
        self.process: subprocess.Popen[bytes] | None = None
        self.link: socket.socket | None = None

    def ring(self, name: str, lines: int = 1000, size: int = 4 << 20) -> int:
        """A new log, as control would park it."""
        self.rings[name] = self._made("ring", name, str(lines), str(size))
        return self.rings[name]

    def _made(self, *words: str) -> int:
        """What logger_alone makes and sends."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with here, there:
            subprocess.run([self.alone, *words, str(there.fileno())], pass_fds=[there.fileno()], check=True)
            _data, fds, _flags, _ = socket.recv_fds(here, 1024, 1)
        return fds[0]

    def notify(self, run: int, generation: int = 1, *, uid: int = 0, tag: int = 0) -> str:
        """A notification socket of a run: its address, as in NOTIFY_SOCKET."""
        fd, address = notify.make(None, None)
        told = Stream((run, generation), NOTIFY, fd, f"n{run}", -1, uid=uid, tag=tag)
        self.streams.append(told)
        if self.link:
            self.tell(told)
        return address

    def stream(self, run: int, stream: int, log: str, **more: int | str) -> int:
        """A new pipe of a run: its write end."""
        read, write = pipe()
        ring = self.rings.get(log) or self.ring(log)
        told = Stream((run, 1), stream, read, log, ring, prefix=f"[{log}] ")
        for name, value in more.items():
            setattr(told, name, value)
        self.streams.append(told)
        if self.link:
            self.tell(told)
        return write

    # --- the link

    def tell(self, told: Stream) -> None:
        """STREAM."""
        fds = [told.fd] if told.stream == NOTIFY else [told.fd, told.ring]
        head = struct.pack("=IHHIIIIII", SIZE, STREAM, 0, *told.run, told.stream, told.mode, told.format, len(fds) - 1)
        body = head + told.log.encode().ljust(136, b"\0") + told.prefix.encode().ljust(192, b"\0")
        assert self.link
        socket.send_fds(self.link, [body + struct.pack("=IIQ", told.uid, 0, told.tag)], fds)

    def plain(self, kind: int, value: int = 0) -> None:
        """A message of one word."""
        assert self.link
        self.link.send(struct.pack("=IHHQ", 16, kind, 0, value))

    def forget(self, run: int, generation: int = 1) -> None:
        """FORGET: the run is over."""
        self.owed.append((run, generation))
        self.tell_forget((run, generation))

    def tell_forget(self, run: tuple[int, int]) -> None:
        assert self.link
        self.link.send(struct.pack("=IHHII", 16, FORGET, 0, *run))

    def start(self, wait: bool = True) -> None:
        """A new life of logger."""
        self.link, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (r0, w0), (r1, w1) = self.private
        fds = [there.fileno(), self.journal, r0, w0, r1, w1, *self.sinks, self.own]
        last = (self.diagnostics[1], self.board, self.wake)
        passed = [fd for fd in (*fds, *last) if fd >= 0]
        words = [*fds, self.stall_ms, *last]
        command = [str(self.alone), *(str(word) for word in words), *([self.without] if self.without else [])]
        self.process = subprocess.Popen(command, pass_fds=passed, stdin=subprocess.DEVNULL)
        there.close()
        self.told()
        if wait:
            assert self.expect(READY)

    def told(self) -> None:
        """Everything a new logger is told."""
        told = {stream.log for stream in self.streams}
        for log, ring in self.rings.items():
            if log not in told:
                head = struct.pack("=IHHIIIIII", SIZE, STREAM, 0, NO_SLOT, 0, 0, 0, 0, 1)
                assert self.link
                socket.send_fds(self.link, [head + log.encode().ljust(344, b"\0")], [ring])
        for stream in self.streams:
            self.tell(stream)
        for run in self.owed:
            self.tell_forget(run)
        self.plain(STREAMS_END)

    def receive(self, timeout: float = LIMIT) -> tuple[int, tuple[int, ...]] | None:
        """(kind, words); None: logger is dead, or nothing came in time."""
        assert self.link
        if not select.select([self.link], [], [], timeout)[0]:
            return None
        try:
            data = self.link.recv(1024)
        except ConnectionResetError:
            return None
        if not data:
            return None
        kind = struct.unpack_from("=IHH", data)[1]
        words = struct.unpack_from("=II", data, 8)
        if kind == DRAINED:
            self.drained(words)
        return kind, words

    def drained(self, run: tuple[int, ...]) -> None:
        """The run's pipes can be closed now."""
        for stream in [stream for stream in self.streams if stream.run == run]:
            os.close(stream.fd)
            self.streams.remove(stream)
        self.owed = [owed for owed in self.owed if owed != run]

    def expect(self, kind: int, timeout: float = LIMIT) -> tuple[int, ...] | None:
        """Words of the next message of that kind."""
        end = time.monotonic() + timeout
        while (message := self.receive(max(end - time.monotonic(), 0))) is not None:
            if message[0] == kind:
                return message[1]
        return None

    def ping(self, value: int, timeout: float = 2.0) -> bool:
        """Whether PONG comes in time."""
        self.plain(PING, value)
        answer = self.expect(PONG, timeout)
        return answer is not None and answer[0] == value

    def kill(self) -> None:
        """SIGKILL; what it had sent is still read, as PID 1 does."""
        assert self.process
        assert self.link
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        while self.receive(0) is not None:
            pass
        self.link.close()
        self.link = None

    def finish(self, timeout: float = LIMIT) -> bool:
        """FINISH; whether it was answered."""
        self.plain(FINISH)
        end = time.monotonic() + timeout
        while (words := self.expect(DRAINED, max(end - time.monotonic(), 0))) is not None:
            if words[0] == NO_SLOT:
                return True
        return False

    def diagnosed(self) -> str:
        """What logger said, as kept in the log ``vigild``."""
        return "\n".join(message for _stream, message in read_ring(self.own))

    def close(self) -> None:
        """End everything."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.link:
            self.link.close()
        own = (self.journal, *self.private[0], *self.private[1], self.diagnostics[1], self.board, self.wake)
        for fd in (*own, *self.rings.values()):
            with contextlib.suppress(OSError):
                os.close(fd)
        for stream in self.streams:
            with contextlib.suppress(OSError):
                os.close(stream.fd)


def records(fd: int) -> list[tuple[int, int, int, int, bytes]]:
    """(seq, line, stamp, flags, message) of all a log keeps."""
    header = struct.unpack("=QIIQQQ24xQQQQQ", os.pread(fd, 104, 0))
    capacity, head, tail = header[4], header[6], header[7]
    data = os.pread(fd, capacity, 65536)
    found = []
    while tail < head:
        at = tail % capacity
        record = (data[at:] + data[:at])[:32] if at + 32 > capacity else data[at : at + 32]
        seq, line, stamp, length, flags = struct.unpack("=QQQHB", record[:27])
        body = (at + 32) % capacity
        message = data[body : body + length]
        message += data[: length - len(message)]
        found.append((seq, line, stamp, flags, message))
        tail += 32 + (length + 7) // 8 * 8
    return found


def read_ring(fd: int) -> list[tuple[str, str]]:
    """(stream, message) of all a log keeps, oldest first."""
    return [
        ("stderr" if flags & 1 else "stdout", message.decode(errors="replace"))
        for _, _, _, flags, message in records(fd)
    ]
