"""Running compiled kernels: in this process or, under a sanitizer, in one of their own."""

import ctypes
import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from npbert.cuda.emulator.compile import Program, build_library
from npbert.cuda.emulator.errors import BarrierDivergence, EmulatorError, KernelStopped, OutOfBounds
from npbert.cuda.emulator.interception import Launch, current_interceptor, intercepted
from npbert.cuda.emulator.options import SCHEDULES, Options, current_options
from npbert.cuda.emulator.sanitized import run_in_a_process

# What the emulated device has: shared memory for a block, and the instructions of this compute capability.
SHARED_BYTES = 227 * 1024
COMPUTE_CAPABILITY = (9, 0)

MESSAGE_BYTES = 1024
# By the codes of host/scheduler.h.
ERRORS = {1: BarrierDivergence, 2: KernelStopped, 3: EmulatorError, 4: OutOfBounds, 5: EmulatorError}
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
        ("take_signals", ctypes.c_uint32),
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
    """Run a kernel on the CPU, and wait for it. Of several threads of Python, one at a time runs a kernel.

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
        And its kinds: for a mistake in the kernel that was found. What the kernel wrote until then is in the
        arrays, unless it ran under a sanitizer.
    ValueError
        For more shared memory than a block can have.
    KeyboardInterrupt
        If a user interrupts it: the kernel is left where it is.
    """
    if not 0 <= shared_bytes <= SHARED_BYTES:
        raise ValueError(
            f"{kernel}: {shared_bytes} bytes of shared memory; a block has at most {SHARED_BYTES}"
        )
    sizes = (three(grid), three(block))
    interceptor = current_interceptor()
    if interceptor is not None:
        with intercepted(None):  # what it launches is run
            interceptor(Launch(program, kernel, *sizes, tuple(values), shared_bytes))
        return
    how = current_options()
    if how.sanitizer is None:
        run_library(load(build_library(program)), kernel, sizes, values, shared_bytes, how)
    else:
        flush_denormals = _flushes_denormals(values)
        code, message = run_in_a_process(program, kernel, sizes, values, shared_bytes, how, flush_denormals)
        _check(kernel, code, message)


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
        entry=_entry(library, kernel),
        arguments=arguments,
        grid=sizes[0],
        block=sizes[1],
        dynamic_shared_bytes=shared_bytes,
        schedule=SCHEDULES.index(how.schedule),
        seed=how.seed,
        perturb=how.perturb,
        flush_denormals=_flushes_denormals(values),
        take_signals=1,
        message=ctypes.cast(message, ctypes.c_char_p),
        message_size=MESSAGE_BYTES,
    )
    with _ONE_AT_A_TIME:
        code = library.emulator_run(ctypes.byref(request))
    _check(kernel, code, message.value.decode())


def load(path: Path) -> ctypes.CDLL:
    """Return a compiled library.

    Raises
    ------
    EmulatorError
        If the system does not load it.
    """
    try:
        return _load(path)
    except OSError as error:
        raise EmulatorError(
            f"a compiled kernel cannot be loaded: {error}; if programs may not be run from {path.parent}, "
            "set XDG_CACHE_HOME to another folder"
        ) from error


@cache
def _load(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(os.fspath(path))


def three(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return the sizes of a grid or a block along x, y and z."""
    x, y, z = (*sizes, 1, 1)[:3]
    return int(x), int(y), int(z)


def _check(kernel: str, code: int, message: str) -> None:
    if code != 0:
        raise ERRORS[code](f"{kernel}: {message}")


def _entry(library: ctypes.CDLL, kernel: str) -> ctypes.c_void_p:
    try:
        return ctypes.cast(getattr(library, f"emulator_entry_{kernel}"), ctypes.c_void_p)
    except AttributeError:
        raise EmulatorError(
            f"{kernel}: the source has no such kernel, as the preprocessor leaves it"
        ) from None


def _c_value(value: Any) -> Any:
    """Return a ctypes object that holds an argument: a pointer, or a number's bytes."""
    if value is None:
        return ctypes.c_void_p(0)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.create_string_buffer(value.tobytes(), value.nbytes)


def _flushes_denormals(values: Sequence[Any]) -> bool:
    """Float32 flushes denormal numbers on the device (CuPy compiles with ``-ftz=true``), float64 does not."""
    return not any(getattr(value, "dtype", None) == np.float64 for value in values)
