"""Compiling kernels for the emulator, each once: results are kept by the hash of what went in."""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from npbert.cuda.emulator.cache import fetch
from npbert.cuda.emulator.errors import EmulatorError
from npbert.cuda.emulator.translation import translate

HOST = Path(__file__).parent / "host"
# Linked in with one kind of result only; all other files with each.
OPTIONAL_HOST_FILES = ("program.cpp", "trace.cpp")
GCC_ONLY = ("-fno-ipa-icf", "-fno-tree-sra", "--param")
COMPILERS = ("c++", "g++", "clang++")
BASE_FLAGS = ("-std=c++17", "-O2", "-g1", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC")
# Faster conversions of half precision and fused multiply-adds, where the processor has them.
PROCESSOR_FLAGS = {"f16c": "-mf16c", "fma": "-mfma", "avx2": "-mavx2"}


class Program(NamedTuple):
    """A CUDA source and the macros that it is compiled with."""

    source: str
    defines: tuple[tuple[str, str], ...] = ()
    name: str = "kernel.cu"  # what messages call it


class Kind(NamedTuple):
    """What a program is compiled to."""

    name: str
    unit_flags: tuple[str, ...]  # the kernels themselves
    link_flags: tuple[str, ...]
    host_file: str | None = None  # of OPTIONAL_HOST_FILES
    host_flags: tuple[str, ...] = ()


_ADDRESS = (
    "-fsanitize=address,alignment,bounds,integer-divide-by-zero,shift",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-fno-ipa-icf",
)
# Functions that are alike stay apart: else a report may name a line of the other.
_THREAD = ("-fsanitize=thread", "-fno-ipa-icf")
_SHARED = ("-shared", "-Wl,-z,defs")
LIBRARY = Kind("library", (), _SHARED)
EXECUTABLES = {
    "address": Kind("address", _ADDRESS, _ADDRESS, "program.cpp"),
    "thread": Kind("thread", _THREAD, _THREAD, "program.cpp"),
}
_TRACED_CALLS = ("emulator_shared", "emulator_dynamic_shared", "emulator_warp_exchange")
# A call before every access, which host/trace.cpp answers; structures are copied whole, loops stay loops.
TRACER = Kind(
    "trace",
    (*_THREAD, "-O1", "-fno-tree-sra", "--param=max-completely-peel-times=0"),
    (*_SHARED, *(f"-Wl,--wrap={name}" for name in _TRACED_CALLS)),
    "trace.cpp",
)


@cache
def compiler() -> Path:
    """Return the path of the C++ compiler: that of the environment variable CXX, else the first one found.

    Raises
    ------
    EmulatorError
        If there is none.
    """
    wanted = shlex.split(os.environ.get("CXX", ""))
    for name in wanted[:1] or COMPILERS:
        found = shutil.which(name)
        if found:
            return Path(found)
    missing = f"CXX is {wanted[0]!r}, which" if wanted else f"none of {', '.join(COMPILERS)}"
    raise EmulatorError(
        f"the emulator needs a C++ compiler, and {missing} is {'not ' if wanted else ''}on the PATH: install "
        "GCC 12 or newer (Debian: apt install g++), Clang 15 or newer, or set CXX"
    )


def build_library(program: Program) -> Path:
    """Return a shared library with the kernels of ``program``, compiled now or before.

    Raises
    ------
    EmulatorError
        Without a compiler, for a source that does not compile, for a cache folder that cannot be written to.
    """
    return build(program, LIBRARY)


def build_executable(program: Program, sanitizer: str) -> Path:
    """Return an executable that runs a kernel of ``program`` under a sanitizer, compiled now or before.

    Raises
    ------
    EmulatorError
        As `build_library`.
    """
    return build(program, EXECUTABLES[sanitizer])


def build_tracer(program: Program) -> Path:
    """Return a shared library whose kernels write down their accesses, compiled now or before.

    Raises
    ------
    EmulatorError
        As `build_library`.
    """
    return build(program, TRACER)


def build(program: Program, kind: Kind) -> Path:
    """Return what a program is compiled to, made now or before."""
    compiler()  # an error where there is none, even if all that is needed has been compiled before

    def make(path: Path) -> None:
        host = _build_host(kind)
        unit = path.with_suffix(".cpp")
        unit.write_text(_unit(program), encoding="utf-8")
        compiled = path.with_suffix(".o")
        include = f"-I{HOST}"
        _compile(program.name, *_flags(program, kind), "-w", include, "-c", str(unit), "-o", str(compiled))
        _compile(program.name, *_understood(kind.link_flags), str(compiled), str(host), "-o", str(path))

    return fetch(_name(program, kind, _compiler_identity()), make)


def _build_host(kind: Kind) -> Path:
    """Return the emulator itself as one object file, compiled now or before: kernels are linked with it."""
    flags = (*BASE_FLAGS, *_processor_flags(), *kind.host_flags)
    optional = [name for name in OPTIONAL_HOST_FILES if name != kind.host_file]
    files = [str(path) for path in sorted(HOST.glob("*.cpp")) if path.name not in optional]

    def make(path: Path) -> None:
        _compile("the emulator", *flags, "-r", "-nostdlib", *files, "-o", str(path))

    key = _hash(*flags, *files, _compiler_identity(), *_host_texts())
    return fetch(f"host-{key}.o", make)


@cache
def _name(program: Program, kind: Kind, compiled_by: str) -> str:
    """Name a result by all that it depends on."""
    parts = (_unit(program), *_flags(program, kind), *kind.link_flags, *kind.host_flags, kind.name)
    return f"{Path(program.name).stem}-{_hash(*parts, compiled_by, *_host_texts())}"


@cache
def _unit(program: Program) -> str:
    return translate(program.source, program.name)


def _flags(program: Program, kind: Kind) -> tuple[str, ...]:
    macros = tuple(f"-D{name}={value}" for name, value in program.defines)
    return (*BASE_FLAGS, *_processor_flags(), *_understood(kind.unit_flags), *macros)


def _understood(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out what Clang does not know, and does not do."""
    if "clang" not in _compiler_identity():
        return flags
    return tuple(flag for flag in flags if not flag.startswith(GCC_ONLY))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@cache
def _host_texts() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in sorted(HOST.iterdir()) if path.is_file())


def _compile(what: str, *arguments: str) -> None:
    result = _run((*_command(), *arguments))
    if result.returncode != 0:
        raise EmulatorError(f"{what} does not compile for the emulator: {_complaint(result)}")


def _complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return the first error that a compiler or linker reports."""
    lines = [line for line in result.stderr.splitlines() if re.search(r"error:|undefined|cannot find", line)]
    return lines[0] if lines else result.stderr.strip() or f"exit code {result.returncode}"


def _command() -> tuple[str, ...]:
    """Return the compiler with the arguments that CXX gives it."""
    return (str(compiler()), *shlex.split(os.environ.get("CXX", ""))[1:])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EmulatorError(f"the C++ compiler {command[0]} cannot be run: {error.strerror}") from error


def _compiler_identity() -> str:
    """Name the compiler in the cache's key: another version may compile differently."""
    return _identity(_command())


@cache
def _identity(command: tuple[str, ...]) -> str:
    return f"{command}\n{_run((*command, '--version')).stdout}\n{platform.machine()}"


@cache
def _processor_flags() -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    known = set(match[1].split()) if match else set()
    return tuple(flag for name, flag in PROCESSOR_FLAGS.items() if name in known)
