"""A kernel of one's own: compile a text, launch it on NumPy arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

from npbert.cuda.arguments import bind_arguments, check_grid
from npbert.cuda.emulator.compile import Program, build_library
from npbert.cuda.emulator.launching import run
from npbert.cuda.source import kernel_signatures


class EmulatedKernel:
    """A compiled kernel; call it to launch it. Made by `compile_kernel`."""

    def __init__(self, program: Program, name: str) -> None:
        self.program = program
        self.name = name
        self.parameters = kernel_signatures(program.source)[name]

    def __repr__(self) -> str:
        return f"EmulatedKernel({self.name!r})"

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_bytes: int = 0
    ) -> None:
        """Launch the kernel, and wait for it.

        Parameters
        ----------
        grid, block : sequence of one to three int
            Blocks of the grid, and threads of a block.
        args : sequence
            One for each parameter: C-contiguous NumPy arrays of the parameter's type (bool for ``unsigned
            char``, too), None for a null pointer, numbers. Arrays are written to in place.
        shared_bytes : int
            Dynamic shared memory of a block.

        Raises
        ------
        ValueError
            If an argument does not fit the kernel's signature; names it.
        EmulatorError
            If the kernel makes a mistake that the emulator sees; see `options` for what it looks for.
        """
        values = bind_arguments(self.name, self.parameters, dict(self.program.defines), args)
        check_grid(self.name, grid, block)
        run(self.program, self.name, tuple(grid), tuple(block), values, shared_bytes)


def compile_kernel(
    source: str, name: str, defines: Mapping[str, Any] | None = None, file: str = "kernel.cu"
) -> EmulatedKernel:
    """Compile a kernel for the emulator; what was compiled before is found in the cache.

    Parameters
    ----------
    source : str
        CUDA C++ without includes other than ``cuda_fp16.h``. A kernel begins with ``extern "C" __global__``.
    name : str
        Which kernel of the source.
    defines : mapping of str to object, optional
        Preprocessor macros.
    file : str
        What messages call the source.

    Returns
    -------
    kernel : EmulatedKernel

    Raises
    ------
    ValueError
        If the source has no such kernel.
    EmulatorError
        If it does not compile, there is no C++ compiler, or the cache folder cannot be written to.

    Examples
    --------
    >>> import numpy as np
    >>> text = '''extern "C" __global__ void twice(float *x) { x[threadIdx.x] *= 2; }'''
    >>> x = np.arange(4, dtype=np.float32)
    >>> compile_kernel(text, "twice")(grid=(1,), block=(4,), args=(x,))
    >>> x
    array([0., 2., 4., 6.], dtype=float32)
    """
    kernels = kernel_signatures(source)
    if name not in kernels:
        raise ValueError(f"there is no kernel {name!r} in the source; it has: {', '.join(kernels) or 'none'}")
    macros = tuple((key, str(value)) for key, value in (defines or {}).items())
    program = Program(source, macros, file)
    build_library(program)
    return EmulatedKernel(program, name)
