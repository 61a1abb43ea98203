"""Running compiled kernels: in this process, or, under a sanitizer, in one of their own."""

import ctypes
import os
import re
import struct
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from npbert.cuda.emulator.compile import Program, build_executable, build_library
from npbert.cuda.emulator.errors import (
    BarrierDivergence,
    EmulatorError,
    KernelStopped,
    OutOfBounds,
    RaceError,
)
from npbert.cuda.emulator.interception import Launch, current_interceptor
from npbert.cuda.emulator.options import SCHEDULES, Options, current_options

# What the emulated device has: shared memory for a block, and the instructions of this compute capability.
SHARED_BYTES = 227 * 1024
COMPUTE_CAPABILITY = (9, 0)

MESSAGE_BYTES = 1024
ERRORS = {1: BarrierDivergence, 2: KernelStopped, 3: EmulatorError}
_ONE_AT_A_TIME = threading.Lock()  # a library's fibers are its own; two launches of it must not mix


class _Launch(ctypes.Structure):
    """EmulatorLaunch of host/scheduler.h."""

    _fields_ = (
        ("entry", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared_bytes", ctypes.c_uint64),
        ("schedule", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("perturb", ctypes.c_uint32),
        ("flush_denormals", ctypes.c_uint32),
        ("memory_per_block", ctypes.c_uint32),
        ("message", ctypes.c_char_p),
        ("message_size", ctypes.c_uint64),
    )


def run(
    program: Program,
    kernel: str,
    grid: Sequence[int],
    block: Sequence[int],
    values: Sequence[Any],
    shared_bytes: int = 0,
) -> None:
    """Run a kernel on the CPU.

    Parameters
    ----------
    program : Program
    kernel : str
        Name of one of its kernels.
    grid, block : sequence of one to three int
    values : sequence
        Contiguous NumPy arrays, None for null pointers, NumPy scalars of the parameters' types; checked by
        the caller. Arrays are written to in place.
    shared_bytes : int
        Dynamic shared memory of a block.

    Raises
    ------
    EmulatorError
        And its kinds: for a mistake in the kernel that was found.
    ValueError
        For more shared memory than a block can have.
    """
    if not 0 <= shared_bytes <= SHARED_BYTES:
        raise ValueError(
            f"{kernel}: {shared_bytes} bytes of shared memory; a block has at most {SHARED_BYTES}"
        )
    sizes = (three(grid), three(block))
    interceptor = current_interceptor()
    if interceptor is not None:
        interceptor(Launch(program, kernel, *sizes, tuple(values), shared_bytes))
        return
    how = current_options()
    if how.sanitizer is None:
        run_library(load(build_library(program)), kernel, sizes, values, shared_bytes, how)
    else:
        _run_in_a_process(program, kernel, sizes, values, shared_bytes, how)


def run_library(
    library: ctypes.CDLL,
    kernel: str,
    sizes: tuple[tuple[int, int, int], tuple[int, int, int]],
    values: Sequence[Any],
    shared_bytes: int,
    how: Options,
) -> None:
    """Run a kernel of a compiled library; `run` says what the rest is."""
    kept = [_c_value(value) for value in values]
    arguments = (ctypes.c_void_p * max(1, len(kept)))(*(ctypes.addressof(value) for value in kept))
    message = ctypes.create_string_buffer(MESSAGE_BYTES)
    request = _Launch(
        entry=ctypes.cast(getattr(library, f"emulator_entry_{kernel}"), ctypes.c_void_p),
        arguments=arguments,
        grid=sizes[0],
        block=sizes[1],
        dynamic_shared_bytes=shared_bytes,
        schedule=SCHEDULES.index(how.schedule),
        seed=how.seed,
        perturb=how.perturb,
        flush_denormals=_flushes_denormals(values),
        memory_per_block=0,
        message=ctypes.cast(message, ctypes.c_char_p),
        message_size=MESSAGE_BYTES,
    )
    with _ONE_AT_A_TIME:
        code = library.emulator_run(ctypes.byref(request))
    if code != 0:
        raise ERRORS[code](f"{kernel}: {message.value.decode()}")


def _run_in_a_process(
    program: Program,
    kernel: str,
    sizes: tuple[tuple[int, int, int], tuple[int, int, int]],
    values: Sequence[Any],
    shared_bytes: int,
    how: Options,
) -> None:
    assert how.sanitizer is not None
    executable = build_executable(program, kernel, how.sanitizer)
    records = [_record(value) for value in values]
    header = struct.pack(
        "3I3IQ6I2I",
        *sizes[0],
        *sizes[1],
        shared_bytes,
        SCHEDULES.index(how.schedule),
        how.seed,
        how.perturb,
        _flushes_denormals(values),
        how.sanitizer == "thread",
        len(records),
        0,
        0,
    )
    table = b"".join(struct.pack("IIQ", kind, 0, len(content)) for kind, content in records)
    with tempfile.TemporaryDirectory(prefix="npbert-launch-") as folder:
        file = Path(folder) / "launch"
        file.write_bytes(header + table + b"".join(_padded(content) for _, content in records))
        environment = {
            **os.environ,
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:exitcode=66",
            "TSAN_OPTIONS": "exitcode=66:report_signal_unsafe=0:atexit_sleep_ms=0",  # else a second a launch
        }
        result = subprocess.run(
            [executable, file], capture_output=True, text=True, check=False, env=environment
        )
        if result.returncode != 0:
            _raise(kernel, result.returncode, result.stderr)
        content = file.read_bytes()
    offset = len(header) + len(table)
    for value, (kind, data) in zip(values, records, strict=True):
        if kind == 1 and value.flags.writeable:
            flat = np.frombuffer(content, value.dtype, value.size, offset)
            value[...] = flat.reshape(value.shape)
        offset += len(_padded(data))


def _raise(kernel: str, code: int, report: str) -> NoReturn:
    """Turn a sanitizer's report into an error with the place in the kernel."""
    if code in ERRORS:
        raise ERRORS[code](f"{kernel}: {report.strip()}")
    if "ThreadSanitizer" in report:
        raise RaceError(f"{kernel}: data race: {_accesses(report)}\n{report}")
    if "AddressSanitizer" in report:
        raise OutOfBounds(f"{kernel}: out of bounds: {_accesses(report)}\n{report}")
    raise EmulatorError(f"{kernel}: the emulated launch ended with code {code}: {report.strip()}")


def _accesses(report: str) -> str:
    """Return the accesses that a report is about, each with its place: ``write of size 4 at x.cu:12``."""
    found = []
    lines = report.splitlines()
    for number, line in enumerate(lines):
        access = re.match(
            r"\s*(?:Previous |Atomic |Previous atomic )?(read|write) of size (\d+)", line, re.IGNORECASE
        )
        if access is None:
            continue
        place = next((m for m in map(_place, lines[number + 1 : number + 8]) if m), "an unknown place")
        found.append(f"{access[1].lower()} of {access[2]} bytes at {place}")
    return "; ".join(found[:2]) or "see the report"


def _place(line: str) -> str | None:
    match = re.search(r"([^\s/]+\.cuh?:\d+)", line)
    return match[1] if match else None


def _c_value(value: Any) -> Any:
    """Return a ctypes object that holds an argument: a pointer, or a number's bytes."""
    if value is None:
        return ctypes.c_void_p(0)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.create_string_buffer(value.tobytes(), value.nbytes)


def _record(value: Any) -> tuple[int, bytes]:
    """Return how host/program.cpp reads an argument: the kind of record, and its bytes."""
    if value is None:
        return 2, b""
    return int(isinstance(value, np.ndarray)), value.tobytes()


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 16)


def _flushes_denormals(values: Sequence[Any]) -> bool:
    """Float32 flushes denormal numbers on the device (CuPy compiles with ``-ftz=true``), float64 does not."""
    return not any(getattr(value, "dtype", None) == np.float64 for value in values)


@cache
def load(path: Path) -> ctypes.CDLL:
    """Return a compiled library."""
    return ctypes.CDLL(os.fspath(path))


def three(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return the sizes of a grid or a block along x, y and z."""
    x, y, z = (*sizes, 1, 1)[:3]
    return int(x), int(y), int(z)
