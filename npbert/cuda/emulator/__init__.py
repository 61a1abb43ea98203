"""Runs CUDA kernels on a CPU: the very text of a ``.cu`` file, every thread of it, on NumPy arrays.

For whoever has no GPU, wants to see a kernel's mistakes, or wants to check its gradients:

>>> import numpy as np
>>> from npbert.cuda import emulator
>>> scale = emulator.compile_kernel('''
...     extern "C" __global__ void scale(float *x, float factor, int n) {
...         int i = blockIdx.x * blockDim.x + threadIdx.x;
...         if (i < n) x[i] *= factor;
...     }''', "scale")
>>> x = np.arange(5, dtype=np.float32)
>>> scale(grid=(2,), block=(4,), args=(x, 2.0, 5))
>>> x
array([0., 2., 4., 6., 8.], dtype=float32)

With `options`, accesses out of bounds are errors, and races between threads, and it is seen whether a result
depends on the order of threads or on the last bits of ``exp``; barriers that not all threads reach are always
errors. ``kernels/README.md`` shows each on a kernel, and says what cannot be seen here: a device's memory
model beyond races, its compiler's mistakes, a launch that fails, speed.

Needs Linux and a C++ compiler, and nothing else. Kernels are compiled once, and kept (`cache_folder`). They
run one at a time, while Python's other threads go on, and can be interrupted.
"""

from npbert.cuda.emulator.cache import cache_folder
from npbert.cuda.emulator.compile import Program, compiler
from npbert.cuda.emulator.errors import (
    BarrierDivergence,
    EmulatorError,
    KernelStopped,
    OutOfBounds,
    RaceError,
)
from npbert.cuda.emulator.interception import Launch, intercepted
from npbert.cuda.emulator.launching import COMPUTE_CAPABILITY, SHARED_BYTES, run
from npbert.cuda.emulator.options import Options, current_options, options
from npbert.cuda.emulator.tracing import Trace, trace
from npbert.cuda.emulator.user_kernel import EmulatedKernel, compile_kernel

__all__ = [
    "COMPUTE_CAPABILITY",
    "SHARED_BYTES",
    "BarrierDivergence",
    "EmulatedKernel",
    "EmulatorError",
    "KernelStopped",
    "Launch",
    "Options",
    "OutOfBounds",
    "Program",
    "RaceError",
    "Trace",
    "cache_folder",
    "compile_kernel",
    "compiler",
    "current_options",
    "intercepted",
    "options",
    "run",
    "trace",
]
