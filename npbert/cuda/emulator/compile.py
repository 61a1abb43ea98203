"""Compiling kernels for the emulator, once: a cache folder keeps the results, by the hash of what went in."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from npbert.cuda.emulator.errors import EmulatorError
from npbert.cuda.emulator.translation import translate

HOST = Path(__file__).parent / "host"
COMPILERS = ("c++", "g++", "clang++")
BASE_FLAGS = ("-std=c++17", "-O2", "-g1", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-w")
# Faster conversions of half precision and fused multiply-adds, where the processor has them.
PROCESSOR_FLAGS = {"f16c": "-mf16c", "fma": "-mfma", "avx2": "-mavx2"}
SANITIZER_FLAGS = {
    None: (),
    "address": ("-fsanitize=address", "-fno-omit-frame-pointer"),
    "thread": ("-fsanitize=thread",),
    # A call before every access, which host/trace.cpp answers; structures are copied whole, loops stay loops.
    "trace": ("-fsanitize=thread", "-O1", "-fno-tree-sra", "--param=max-completely-peel-times=0"),
}
TRACED_CALLS = ("emulator_shared", "emulator_dynamic_shared", "emulator_warp_exchange")
TRACE_LINK_FLAGS = tuple(f"-Wl,--wrap={name}" for name in TRACED_CALLS)


class Program(NamedTuple):
    """A CUDA source and the macros that it is compiled with."""

    source: str
    defines: tuple[tuple[str, str], ...] = ()
    name: str = "kernel.cu"  # what messages call it


@cache
def compiler() -> Path:
    """Return the path of the C++ compiler: that of the environment variable CXX, else the first one found.

    Raises
    ------
    EmulatorError
        If there is none.
    """
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return Path(found)
    raise EmulatorError(
        f"the emulator needs a C++ compiler, and none of {', '.join(COMPILERS)} is on the PATH: install "
        "GCC 12 or newer (Debian: apt install g++), Clang 15 or newer, or set CXX"
    )


def cache_folder() -> Path:
    """Return where compiled kernels are kept: ``npbert/kernels`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "npbert" / "kernels"


def build_library(program: Program) -> Path:
    """Return a shared library with the kernels of ``program``, compiled now or before.

    Raises
    ------
    EmulatorError
        Without a compiler, for a source that does not compile, for a cache folder that cannot be written to.
    """
    return _build(program, None, None)


def build_executable(program: Program, kernel: str, sanitizer: str) -> Path:
    """Return an executable that runs one kernel under a sanitizer, compiled now or before.

    Raises
    ------
    EmulatorError
        As `build_library`.
    """
    return _build(program, sanitizer, kernel)


def build_tracer(program: Program) -> Path:
    """Return a shared library whose kernels write down their accesses, compiled now or before.

    Raises
    ------
    EmulatorError
        As `build_library`.
    """
    return _build(program, "trace", None)


@cache
def _build(program: Program, sanitizer: str | None, kernel: str | None) -> Path:
    """Compile into the cache: beside the result's place, then renamed, so that two may do it at once."""
    unit = translate(program.source, program.name)
    macros = tuple(f"-D{name}={value}" for name, value in program.defines)
    flags = (*BASE_FLAGS, *_processor_flags())
    kind = kernel or "library"
    parts = (unit, *macros, *flags, str(sanitizer), kind, _compiler_identity(), *_host_texts())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    folder = cache_folder()
    result = folder / f"{Path(program.name).stem}-{key}"
    if result.exists():
        return result
    with _work_folder(folder) as name:
        work = Path(name)
        (work / "unit.cpp").write_text(unit, encoding="utf-8")
        sources: list[tuple[str, Path, tuple[str, ...]]] = [
            ("unit.o", work / "unit.cpp", (*macros, *SANITIZER_FLAGS[sanitizer])),
        ]
        sources += [(f"{path.stem}.o", path, ()) for path in _host_sources(is_tracer=sanitizer == "trace")]
        if kernel is not None:
            main = (f"-DEMULATOR_MAIN_ENTRY=emulator_entry_{kernel}",)
            sources.append(("program.o", HOST / "program.cpp", main))
        for target, path, extra in sources:
            _run_compiler(
                program, (*flags, *extra, "-I", str(HOST), "-c", str(path), "-o", str(work / target))
            )
        if kernel is not None:
            link = SANITIZER_FLAGS[sanitizer]
        else:
            link = ("-shared", *(TRACE_LINK_FLAGS if sanitizer == "trace" else ()))
        objects = [str(work / target) for target, _, _ in sources]
        _run_compiler(program, (*link, *objects, "-o", str(work / "result")))
        (work / "result").replace(result)
    return result


def _host_sources(is_tracer: bool) -> list[Path]:
    """Return what is linked with every kernel."""
    left_out = ("program.cpp",) if is_tracer else ("program.cpp", "trace.cpp")
    return [path for path in sorted(HOST.glob("*.cpp")) if path.name not in left_out]


@cache
def _host_texts() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in sorted(HOST.iterdir()) if path.is_file())


def _work_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix="building-")
    except OSError as error:
        raise EmulatorError(
            f"the cache folder {folder} cannot be written to ({error.strerror}); compiled kernels are kept "
            "there: make it writable, or set XDG_CACHE_HOME to another folder"
        ) from error


def _run_compiler(program: Program, arguments: tuple[str, ...]) -> None:
    result = subprocess.run([compiler(), *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if re.search(r"error|undefined", line)]
        first = lines[0] if lines else result.stderr.strip() or f"exit code {result.returncode}"
        raise EmulatorError(f"{program.name} does not compile for the emulator: {first}")


@cache
def _compiler_identity() -> str:
    """Name the compiler in the cache's key: another version may compile differently."""
    result = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=False)
    return f"{compiler()}\n{result.stdout}\n{platform.machine()}"


@cache
def _processor_flags() -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    known = set(match[1].split()) if match else set()
    return tuple(flag for name, flag in PROCESSOR_FLAGS.items() if name in known)
