"""What a kernel does with memory and tensor cores, written down while it runs on the emulator."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.cuda.emulator.compile import build_tracer
from npbert.cuda.emulator.errors import EmulatorError
from npbert.cuda.emulator.interception import Launch
from npbert.cuda.emulator.launching import load, run_library
from npbert.cuda.emulator.options import current_options

# TraceAccess of host/trace.cpp.
ACCESS: Final = np.dtype(
    [
        ("instruction", np.uint64),  # where in the compiled program; `Trace.places` says where in the source
        ("offset", np.uint64),  # in bytes, from the start of its array
        ("range", np.uint32),  # which array: its number among the kernel's pointers, or shared memory
        ("block", np.uint32),
        ("thread", np.uint32),  # in its block
        ("bytes", np.uint16),
        ("is_write", np.uint16),
    ]
)
FIRST_SHARED: Final = 32  # ranges from here on are shared memory


class _Range(ctypes.Structure):
    """TraceRange of host/trace.cpp."""

    _fields_ = (("start", ctypes.c_uint64), ("bytes", ctypes.c_uint64))


class Trace(NamedTuple):
    """What a launch did.

    Attributes
    ----------
    accesses : (n,) array of ACCESS
        To the arrays that the kernel was given and to shared memory. Those of one thread are in the order in
        which it made them.
    matrix_products : int
        How many times a warp multiplied a 16 x 16 by a 16 x 8 matrix on tensor cores.
    library : Path
        What ran.
    base : int
        Where it was loaded.
    """

    accesses: np.ndarray[Any, np.dtype[Any]]
    matrix_products: int
    library: Path
    base: int

    def places(self, instructions: Iterable[int]) -> dict[int, str]:
        """Return where instructions stand in the source, such as "layernorm.cu:87".

        Parameters
        ----------
        instructions : iterable of int

        Returns
        -------
        dict
            An unknown place is "?"; all are where the program addr2line is not installed.
        """
        wanted = list(instructions)
        program = shutil.which("addr2line")
        if program is None or not wanted:
            return dict.fromkeys(wanted, "?")
        # A call returns to the instruction after it.
        addresses = [hex(instruction - self.base - 1) for instruction in wanted]
        done = subprocess.run(
            [program, "-e", self.library, *addresses], capture_output=True, text=True, check=True
        )
        found = [re.search(r"([^/\s]+:\d+)", line) for line in done.stdout.splitlines()]
        return {n: match[1] if match else "?" for n, match in zip(wanted, found, strict=True)}


def trace(launch: Launch) -> Trace:
    """Run a kernel on the emulator, and write down where it reads and writes, and what it multiplies.

    Parameters
    ----------
    launch : Launch
        Its arrays are written to, as in any launch.

    Returns
    -------
    Trace

    Raises
    ------
    EmulatorError
        As `npbert.cuda.emulator.run`, and for a kernel with more arrays than are told apart.
    """
    arrays = [value for value in launch.values if isinstance(value, np.ndarray)]
    if len(arrays) > FIRST_SHARED:
        raise EmulatorError(f"{launch.kernel} has {len(arrays)} arrays; a trace tells {FIRST_SHARED} apart")
    path = build_tracer(launch.program)
    library = load(path)
    _declare(library)
    ranges = (_Range * max(1, len(arrays)))(*_ranges(arrays))
    library.trace_begin(ranges, len(arrays), launch.shared_bytes)
    count = ctypes.c_uint64()
    try:
        run_library(
            library,
            launch.kernel,
            (launch.grid, launch.block),
            launch.values,
            launch.shared_bytes,
            current_options(),
        )
    finally:
        address = library.trace_end(ctypes.byref(count))
    accesses = np.empty(count.value, ACCESS)
    if count.value:
        ctypes.memmove(accesses.ctypes.data, address, accesses.nbytes)
    library.trace_free()
    return Trace(accesses, library.trace_matrix_products(), path, library.trace_base())


def _declare(library: ctypes.CDLL) -> None:
    library.trace_begin.argtypes = (ctypes.POINTER(_Range), ctypes.c_uint32, ctypes.c_uint64)
    library.trace_end.restype = ctypes.c_void_p
    library.trace_matrix_products.restype = ctypes.c_uint64
    library.trace_base.restype = ctypes.c_uint64


def _ranges(arrays: Sequence[np.ndarray[Any, Any]]) -> list[_Range]:
    return [_Range(array.ctypes.data, array.nbytes) for array in arrays]
