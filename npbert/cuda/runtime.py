"""Where a kernel runs: the only module that knows CuPy from the emulator.

A kernel that is given NumPy arrays runs on the emulator, one that is given CuPy arrays on their device.
Either way its arguments are checked against the C signature first, since neither would complain: a wrong
dtype or a transposed array would simply be read as something else.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npbert.cuda import emulator
from npbert.cuda.arguments import bind_arguments, check_grid
from npbert.cuda.source import Parameter, kernel_signatures, kernel_source
from npbert.ops.array_module import array_module

# What CuPy compiles with, beside -ftz=true, which it always adds.
CUPY_OPTIONS = ("-std=c++17",)

STORAGE = {
    "float64": (("REAL", "double"), ("ACC", "double")),
    "float32": (("REAL", "float"), ("ACC", "float")),
    "float16": (("REAL", "__half"), ("ACC", "float"), ("REAL_IS_HALF", "1")),
}


class Kernel(NamedTuple):
    """One kernel of one file, compiled one way."""

    file: str  # in kernels/, like "layernorm.cu"
    name: str  # of the extern "C" function
    defines: tuple[tuple[str, str], ...] = ()  # preprocessor macros


def storage_defines(dtype: DTypeLike) -> tuple[tuple[str, str], ...]:
    """Return the macros of a kernel for arrays of ``dtype``: what is stored, and what sums are made in.

    Parameters
    ----------
    dtype : float64, float32 or float16
        float16 is accumulated in float32.

    Returns
    -------
    defines : tuple of (str, str)

    Raises
    ------
    ValueError
        For another dtype.
    """
    name = np.dtype(dtype).name
    if name not in STORAGE:
        raise ValueError(f"dtype is {name}; kernels exist for {', '.join(STORAGE)}")
    return STORAGE[name]


def launch(
    kernel: Kernel,
    grid: Sequence[int],
    block: Sequence[int],
    args: Sequence[Any],
    shared_bytes: int = 0,
) -> None:
    """Run a kernel on the arrays' own device, or on the emulator.

    Parameters
    ----------
    kernel : Kernel
    grid, block : sequence of one to three int
        Blocks of the grid, and threads of a block.
    args : sequence
        One for each parameter of the kernel, in order: contiguous arrays, None for a null pointer, numbers.
    shared_bytes : int
        Dynamic shared memory of a block.

    Raises
    ------
    ValueError
        If an argument does not fit the kernel's signature; names the kernel and the parameter.
    """
    parameters = _signatures(kernel.file)[kernel.name]
    values = bind_arguments(kernel.name, parameters, dict(kernel.defines), args)
    check_grid(kernel.name, grid, block)
    program = emulator.Program(kernel_source(kernel.file), kernel.defines, kernel.file)
    is_host = all(array_module(value) is np for value in args)
    run = emulator.run if is_host else run_on_device
    run(program, kernel.name, _three(grid), _three(block), values, shared_bytes)


def run_on_device(
    program: emulator.Program,
    kernel: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    values: Sequence[Any],
    shared_bytes: int = 0,
) -> None:
    """Run a kernel on the device that its arrays are on; the counterpart of :func:`npbert.cuda.emulator.run`.

    Parameters
    ----------
    program : Program
    kernel : str
        Name of one of its kernels.
    grid, block : (int, int, int)
    values : sequence
        Contiguous CuPy arrays, None for null pointers, NumPy scalars of the parameters' types; checked by the
        caller.
    shared_bytes : int
        Dynamic shared memory of a block.
    """
    compiled = _compile_for_cupy(program, kernel)
    # CuPy takes None for no argument at all; a null pointer is an integer of a pointer's size.
    arguments = tuple(np.uintp(0) if value is None else value for value in values)
    device = next(value.device for value in values if array_module(value) is not np)
    with device:  # the current one may be another
        # More than 48 KiB, with what the kernel itself declares, has to be asked for.
        if shared_bytes > compiled.max_dynamic_shared_size_bytes:
            compiled.max_dynamic_shared_size_bytes = shared_bytes
        compiled(grid, block, arguments, shared_mem=shared_bytes)


def multiprocessor_limit(x: Any) -> int:
    """Return how much shared memory a block may have where ``x`` lives, in bytes."""
    if array_module(x) is np:
        return emulator.SHARED_BYTES
    return int(array_module(x).cuda.Device(x.device.id).attributes["MaxSharedMemoryPerBlockOptin"])


def compute_capability(x: Any) -> tuple[int, int]:
    """Return the compute capability of the device of ``x``; the emulator can do all that kernels use."""
    if array_module(x) is np:
        return emulator.COMPUTE_CAPABILITY
    digits = str(array_module(x).cuda.Device(x.device.id).compute_capability)
    return int(digits[:-1]), int(digits[-1])


def cupy_options(defines: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return what CuPy is told about how to compile a kernel with these macros."""
    return (*CUPY_OPTIONS, *(f"-D{name}={value}" for name, value in defines))


@cache
def _signatures(file: str) -> dict[str, tuple[Parameter, ...]]:
    return kernel_signatures(kernel_source(file))


@cache
def _compile_for_cupy(program: emulator.Program, kernel: str) -> Any:
    """Compile on first use: without a device, CuPy can be imported but not asked for anything."""
    import cupy

    return cupy.RawKernel(program.source, kernel, options=cupy_options(program.defines))


def _three(sizes: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
