"""Compile the C parts of vigil: the hatchling build hook, and a program for developers.

    python build.py ext                          vigil/_native/_vigil.abi3.so, in place
    python build.py vigild                       build/vigild
    python build.py testmod                      build/testmod/_vigil_init.abi3.so: C modules of PID 1, for unit tests
    python build.py objects                      build/objects/*.o: what vigild is linked from, to be looked into

    --cc CC       compiler (default: $CC, else the first of cc, gcc, clang)
    --sanitize    with AddressSanitizer and UndefinedBehaviorSanitizer, linked dynamically
    --out FILE    where the result goes

All are made with one set of flags. CFLAGS and LDFLAGS from the environment are added at the end. VIGIL_WERROR=1 makes
warnings errors; that is for our own tests, since a newer compiler of a user's may warn of what today's does not.

The extensions are cffi modules in API mode. ffi.compile() is not used: it runs setuptools, which discovers packages in
the current folder and refuses to choose between csrc and vigil. The C text is emitted and compiled here instead.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
INIT = CSRC / "init"
FLAGS = shlex.split(
    "-std=c11 -D_GNU_SOURCE -O2 -g1 -pthread -fno-common -fno-strict-aliasing -ffunction-sections -fdata-sections"
)
INCLUDE = (f"-I{CSRC}", f"-I{INIT}")
DROP_UNUSED = "-Wl,--gc-sections"
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion")
SANITIZE = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
LIMITED_API = "0x030b0000"  # Python 3.11, as requires-python says
TESTED_MODULES = ("table", "chan", "lines", "ring")


class BuildError(Exception):
    """What could not be built, and why: one sentence for the user."""


class Toolchain:
    """A C compiler and what was found out about it."""

    def __init__(self, cc: str | None = None, sanitize: bool = False) -> None:
        self.command = shlex.split(cc or os.environ.get("CC") or self._first())
        if not self.command or shutil.which(self.command[0]) is None:
            raise BuildError(
                f"cannot find the C compiler {cc or os.environ.get('CC') or 'cc'}: vigil needs one when it is installed"
                " from source (Debian, Ubuntu: apt-get install gcc libc6-dev; Alpine: apk add gcc musl-dev;"
                " Fedora: dnf install gcc)"
            )
        self.sanitize = sanitize
        self.flags = [*FLAGS, *INCLUDE, *(SANITIZE if sanitize else ()), f'-DVIGIL_VERSION="{version()}"']
        self.warnings = [*WARNINGS, *(["-Werror"] if os.environ.get("VIGIL_WERROR") == "1" else [])]
        self.cflags = shlex.split(os.environ.get("CFLAGS", ""))
        self.ldflags = shlex.split(os.environ.get("LDFLAGS", ""))

    @staticmethod
    def _first() -> str:
        return next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "cc")

    def run(self, arguments: Sequence[str]) -> None:
        """Run the compiler; its messages go to stderr as they are."""
        command = [*self.command, *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stdout + done.stderr)
        if done.returncode:
            raise BuildError(f"cannot compile: {shlex.join(command)} exited with {done.returncode}")

    def links_statically(self) -> bool:
        """Whether a static executable can be made, which is told only by making one."""
        if self.sanitize:
            return False
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.c")
            source.write_text("#include <pthread.h>\nint main(void) { return pthread_self() == 0; }\n")
            command = [*self.command, *self.flags, *self.cflags, "-static", str(source), "-o", f"{folder}/try"]
            command += self.ldflags
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            return done.returncode == 0

    def compile(
        self, sources: Sequence[Path], folder: Path, extra: Sequence[str] = (), *, quiet: bool = False
    ) -> list[str]:
        """Compile each source to an object in folder; quiet ones are not ours and may warn."""
        warnings = ["-w"] if quiet else self.warnings

        def one(source: Path) -> str:
            # The name of its folder too: csrc/init/ring.c and csrc/ext/ring.c are two objects.
            target = str(folder / f"{source.parent.name}-{source.stem}.o")
            self.run([*self.flags, *warnings, *extra, *self.cflags, "-c", str(source), "-o", target])
            return target

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(one, sources))

    def link(self, objects: Sequence[str], out: Path, extra: Sequence[str]) -> None:
        """Link objects; the result replaces out in one step, so that who runs the old one is not disturbed."""
        out.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own per process, since two builds at a time are normal while tests run.
        fresh = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            self.run([*self.flags, *self.cflags, *extra, *objects, "-o", str(fresh), *self.ldflags])
            fresh.replace(out)
        finally:
            fresh.unlink(missing_ok=True)


def version() -> str:
    """The project's version, as vigil/__init__.py says it."""
    text = (ROOT / "vigil" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise BuildError("cannot find __version__ in vigil/__init__.py")
    return found.group(1)


def declarations(header: Path) -> str:
    """The part of a header that cffi can parse: between its marks."""
    text = header.read_text(encoding="utf-8")
    found: list[str] = re.findall(r"/\* cffi: begin \*/(.*?)/\* cffi: end \*/", text, re.DOTALL)
    return "\n".join(found)


def build_vigild(tools: Toolchain, out: Path) -> None:
    """Compile and link the executable."""
    sources = sorted((INIT).glob("*.c"))
    if not sources:
        raise BuildError(f"cannot build vigild: no source in {CSRC / 'init'}")
    static = tools.links_statically()
    if not static and not tools.sanitize:
        print(
            f"build.py: {tools.command[0]} cannot link statically: vigild will need this system's C library to run",
            file=sys.stderr,
        )
    with tempfile.TemporaryDirectory() as folder:
        objects = tools.compile(sources, Path(folder))
        tools.link(objects, out, [DROP_UNUSED, *(["-static"] if static else ["-Wl,-z,relro,-z,now"])])


def build_objects(tools: Toolchain, out: Path) -> None:
    """Compile what vigild is linked from, and leave it there: a test looks at which functions it calls."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tools.compile(sorted(INIT.glob("*.c")), out)


def build_module(tools: Toolchain, out: Path, name: str, headers: Sequence[Path], sources: Sequence[Path]) -> None:
    """Compile a cffi extension that offers what the headers declare between their marks."""
    try:
        from cffi import FFI  # here, since vigild alone is built without it
    except ImportError as missing:
        raise BuildError("cannot build an extension: the Python package cffi is missing: pip install cffi") from missing
    include = list(dict.fromkeys((sysconfig.get_path("include"), sysconfig.get_path("platinclude"))))
    if not any(Path(folder, "Python.h").is_file() for folder in include):
        raise BuildError(
            f"cannot build an extension: no Python.h in {' or '.join(include)}: install Python's headers"
            " (Debian, Ubuntu: apt-get install python3-dev; Alpine: apk add python3-dev;"
            " Fedora: dnf install python3-devel)"
        )
    present = [header for header in headers if header.is_file()]
    ffi = FFI()
    ffi.cdef("\n".join(declarations(header) for header in present))
    ffi.set_source(name, "\n".join(f'#include "{header}"' for header in present))
    # Hidden, so that the linker drops what the declared functions do not reach.
    extra = ["-fPIC", "-fvisibility=hidden", *(f"-I{folder}" for folder in include)]
    # A free-threaded Python has no limited API.
    limited = [] if sysconfig.get_config_var("Py_GIL_DISABLED") else [f"-DPy_LIMITED_API={LIMITED_API}"]
    with tempfile.TemporaryDirectory() as folder:
        emitted = Path(folder, f"{name.rpartition('.')[2]}.c")
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of its work
            ffi.emit_c_code(str(emitted))
        objects = tools.compile(sources, Path(folder), extra)
        objects += tools.compile([emitted], Path(folder), [*extra, *limited], quiet=True)
        tools.link(objects, out, ["-shared", "-fPIC", DROP_UNUSED])


def module_file(name: str) -> str:
    """File name of an extension: one for all Pythons with the limited API."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return name + str(sysconfig.get_config_var("EXT_SUFFIX"))
    return f"{name}.abi3.so"


def build_ext(tools: Toolchain, out: Path) -> None:
    """Compile vigil._native._vigil: the wire's structs, the log's format, and csrc/ext."""
    headers = [CSRC / "protocol.h", CSRC / "ring.h", CSRC / "notice.h", CSRC / "ext" / "ext.h"]
    shared = INIT / "ring.c"  # logs are made and read by Python too
    sources = sorted((CSRC / "ext").glob("*.c")) + ([shared] if shared.is_file() else [])
    build_module(tools, out, "vigil._native._vigil", headers, sources)


def with_needed(modules: Sequence[str]) -> list[Path]:
    """Sources of these modules of csrc/init and, since each includes what it calls, of all that they need."""
    wanted = list(modules)
    for module in wanted:
        for file in (INIT / f"{module}.c", INIT / f"{module}.h"):
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
            wanted += [name for name in re.findall(r'^#include "(\w+)\.h"', text, re.MULTILINE) if name not in wanted]
    return [source for module in wanted if (source := INIT / f"{module}.c").is_file()]


def build_testmod(tools: Toolchain, out: Path) -> None:
    """Compile PID 1's tested modules into an extension."""
    tested = [INIT / f"{module}.h" for module in TESTED_MODULES]
    headers = [CSRC / "protocol.h", CSRC / "ring.h", *tested]
    build_module(tools, out, "_vigil_init", headers, with_needed(TESTED_MODULES))


def wheel_tag() -> str:
    """Tag of the wheel: any Python from 3.11 on this platform."""
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        python = f"cp{sys.version_info.major}{sys.version_info.minor}"
        return f"{python}-{python}t-{platform}"
    return f"cp311-abi3-{platform}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one part, as the command line says."""
    parts = {
        "ext": (build_ext, ROOT / "vigil" / "_native" / module_file("_vigil")),
        "vigild": (build_vigild, ROOT / "build" / "vigild"),
        "testmod": (build_testmod, ROOT / "build" / "testmod" / module_file("_vigil_init")),
        "objects": (build_objects, ROOT / "build" / "objects"),
    }
    parser = argparse.ArgumentParser(prog="build.py", description="Compile the C parts of vigil.", allow_abbrev=False)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--cc", help="compiler (default: $CC, else the first of cc, gcc, clang)")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UndefinedBehaviorSanitizer")
    parser.add_argument("--out", type=Path, help="where the result goes")
    options = parser.parse_args(arguments)
    build, default = parts[options.part]
    out: Path = options.out or default
    try:
        build(Toolchain(options.cc, options.sanitize), out)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
else:
    # hatchling loads this file as a module; as a program it must run where hatchling is not installed.
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class VigilBuildHook(BuildHookInterface[Any]):
        """Adds vigild and the extension to a wheel."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile both; ``version`` is "editable" for ``pip install -e``, where the extension is made in place."""
            editable = version == "editable"
            vigild = Path(self.directory, ".vigild")
            module = ROOT / "vigil" / "_native" / module_file("_vigil") if editable else Path(self.directory, ".ext.so")
            try:
                tools = Toolchain()
                build_vigild(tools, vigild)
                build_ext(tools, module)
            except BuildError as error:
                raise SystemExit(f"\nvigil: {error}\n") from None  # one sentence instead of a traceback of installers
            build_data["pure_python"] = False
            build_data["tag"] = wheel_tag()
            build_data["shared_scripts"][str(vigild)] = "vigild"
            if not editable:
                build_data["force_include"][str(module)] = f"vigil/_native/{module_file('_vigil')}"

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            """Leave nothing but the wheel in its folder."""
            for name in (".vigild", ".ext.so"):
                Path(self.directory, name).unlink(missing_ok=True)
