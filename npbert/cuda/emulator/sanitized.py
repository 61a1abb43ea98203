"""A launch under a sanitizer: in a process of its own, since sanitizers must be there from its start."""

import ctypes
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npbert.cuda.emulator.compile import Program, build_executable
from npbert.cuda.emulator.errors import EmulatorError
from npbert.cuda.emulator.options import SCHEDULES, Options
from npbert.cuda.emulator.reports import error_of

ALIGNMENT = 16
EXIT_CODE = 66  # of a sanitizer
FIRST_EXIT_CODE = 100  # of host/program.cpp
# Stacks change behind the sanitizers' backs; and by default the race detector sleeps for a second at the end.
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": f"exitcode={EXIT_CODE}:detect_leaks=0:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": f"exitcode={EXIT_CODE}",
    "TSAN_OPTIONS": f"exitcode={EXIT_CODE}:halt_on_error=1:atexit_sleep_ms=0:io_sync=0:report_thread_leaks=0",
}
# What GCC's race detector says where the kernel puts memory at places that are more random than it can take.
TOO_RANDOM = "unexpected memory mapping"

SCALAR, ARRAY, NULL = range(3)  # Kind of host/program.cpp


class _Region(NamedTuple):
    """Memory that one or several arrays lie in."""

    start: int
    stop: int


def run_in_a_process(
    program: Program,
    kernel: str,
    sizes: tuple[tuple[int, int, int], tuple[int, int, int]],
    values: Sequence[Any],
    shared_bytes: int,
    how: Options,
    flush_denormals: bool,
) -> tuple[int, str]:
    """Run a kernel under a sanitizer; arrays are written to if all went well.

    Parameters
    ----------
    program, kernel, sizes, values, shared_bytes
        As of `npbert.cuda.emulator.run`.
    how : Options
        With a sanitizer.
    flush_denormals : bool

    Returns
    -------
    code : int
        What emulator_run of host/scheduler.h returned.
    message : str
        Its description of a mistake.

    Raises
    ------
    EmulatorError
        And its kinds: for what the sanitizer found.
    """
    assert how.sanitizer is not None
    executable = build_executable(program, how.sanitizer)
    regions = _regions([value for value in values if isinstance(value, np.ndarray)])
    arguments = [_argument(value, regions) for value in values]
    header = struct.pack(
        "3I3IQ6I2I",
        *sizes[0],
        *sizes[1],
        shared_bytes,
        SCHEDULES.index(how.schedule),
        how.seed,
        how.perturb,
        flush_denormals,
        len(regions),
        len(arguments),
        0,
        0,
    )
    header += b"".join(struct.pack("QQ", r.stop - r.start, r.start % ALIGNMENT) for r in regions)
    header += b"".join(arguments)
    with tempfile.TemporaryDirectory(prefix="npbert-launch-") as folder:
        file = Path(folder) / "launch"
        file.write_bytes(header + b"".join(map(_content, regions)))
        result = _run([str(executable), str(file), kernel])
        if result.returncode not in (0, EXIT_CODE) and TOO_RANDOM in result.stderr:
            result = _run([*_without_randomness(), str(executable), str(file), kernel])
        if result.returncode == 0:
            _copy_back(file.read_bytes()[len(header) :], regions, values)
            return 0, ""
    if result.returncode > FIRST_EXIT_CODE:
        return result.returncode - FIRST_EXIT_CODE, _message(result.stderr)
    raise error_of(kernel, result.returncode, result.stderr)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Its standard output is this process's own: a kernel may print.
    return subprocess.run(
        command, stderr=subprocess.PIPE, text=True, check=False, env={**os.environ, **SANITIZER_OPTIONS}
    )


def _message(output: str) -> str:
    """Return the last line: before it the sanitizer may have remarked on stacks that it does not know."""
    return output.strip().rsplit("\n", 1)[-1]


def _without_randomness() -> tuple[str, ...]:
    program = shutil.which("setarch")
    if program is None:
        raise EmulatorError(
            "this race detector cannot run with as much address space randomisation as this system has: "
            "install setarch (Debian: util-linux), or sysctl vm.mmap_rnd_bits=28"
        )
    return program, platform.machine(), "-R"


def _regions(arrays: Sequence[np.ndarray[Any, Any]]) -> list[_Region]:
    """Return the memory of arrays, those that overlap taken together, in the order of addresses."""
    regions: list[_Region] = []
    for start, stop in sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays):
        if regions and start < regions[-1].stop:
            regions[-1] = _Region(regions[-1].start, max(stop, regions[-1].stop))
        else:
            regions.append(_Region(start, stop))
    return regions


def _region_of(array: np.ndarray[Any, Any], regions: Sequence[_Region]) -> int:
    start, stop = array.ctypes.data, array.ctypes.data + array.nbytes
    return next(i for i, region in enumerate(regions) if region.start <= start and stop <= region.stop)


def _argument(value: Any, regions: Sequence[_Region]) -> bytes:
    """Return the Argument of host/program.cpp."""
    if value is None:
        return struct.pack("IIQ", NULL, 0, 0)
    if isinstance(value, np.ndarray):
        number = _region_of(value, regions)
        return struct.pack("IIQ", ARRAY, number, value.ctypes.data - regions[number].start)
    return struct.pack("II8s", SCALAR, 0, value.tobytes())


def _content(region: _Region) -> bytes:
    content = ctypes.string_at(region.start, region.stop - region.start)
    return content + bytes(-len(content) % ALIGNMENT)


def _copy_back(content: bytes, regions: Sequence[_Region], values: Sequence[Any]) -> None:
    offsets = [0]
    for region in regions:
        offsets.append(offsets[-1] + len(_content(region)))
    for value in values:
        if isinstance(value, np.ndarray) and value.flags.writeable:
            number = _region_of(value, regions)
            offset = offsets[number] + value.ctypes.data - regions[number].start
            flat = np.frombuffer(content, value.dtype, value.size, offset)
            value[...] = flat.reshape(value.shape)
