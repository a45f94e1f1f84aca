"""What PID 1, keepers and logger are linked from calls nothing that allocates, buffers, or waits by itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT

ALLOCATION = r"\w*alloc\w*|free|reallocarray|posix_memalign|strn?dup|sbrk|brk|v?asprintf|getline|getdelim|qsort\w*"
STDIO = (
    r"(__)?v?[dfs]?n?printf(_chk)?|f(open|dopen|reopen|close|read|write|puts|putc|gets|getc|flush|seek\w*)|puts|putchar|putc"
    r"|perror|std(in|out|err)|setv?buf|psignal|\w*dir|scandir\w*|popen|system|syslog"
)
WAITING = r"sleep|usleep|nanosleep|clock_nanosleep|pause|sigsuspend|select|pselect|flock|lockf"
FILES = r"get(pw|gr|host|addr)\w+|initgroups|(local|gm|mk)time\w*|tzset|setlocale|iconv\w*|dl(open|sym)|setenv|putenv"
THREADS = r"pthread_\w+|thrd_\w+|sem_\w+"
ALLOWED = {"chdir", "fallocate"}  # system calls that only look like those


def test_no_object_calls_what_allocates_prints_through_buffers_or_sleeps(
    need: Callable[..., None], tmp_path: Path
) -> None:
    need("nm")
    command = [sys.executable, str(ROOT / "build.py"), "objects", "--out", str(tmp_path / "objects")]
    subprocess.run(command, check=True, capture_output=True)
    objects = sorted((tmp_path / "objects").glob("*.o"))
    assert {"init-main.o", "init-keeper.o", "init-logger.o"} <= {file.name for file in objects}
    found = []
    for file in objects:
        threads = "" if file.name == "init-sink.o" else f"|{THREADS}"  # logger's: one for each sink
        forbidden = re.compile(f"{ALLOCATION}|{STDIO}|{WAITING}|{FILES}{threads}")
        called = subprocess.run(["nm", "-u", str(file)], check=True, capture_output=True, text=True).stdout.split()
        names = {name.partition("@")[0] for name in called} - {"U"} - ALLOWED
        found += [f"{file.stem}: {name}" for name in sorted(names) if forbidden.fullmatch(name)]
    assert found == []
