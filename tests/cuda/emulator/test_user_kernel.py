"""A kernel of one's own: a text, NumPy arrays, errors that say what is wrong."""

import inspect

import numpy as np
import pytest

from npbert.cuda import emulator

SOURCE = """
#include <cuda_fp16.h>
extern "C" __global__ void axpy(const REAL *x, REAL *y, REAL a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
extern "C" __global__ void negate(bool *flags) { flags[threadIdx.x] = !flags[threadIdx.x]; }
"""


@pytest.mark.parametrize(
    ("ctype", "dtype"), [("float", np.float32), ("double", np.float64), ("half", np.float16)]
)
def test_a_kernel_of_ones_own(emulated, ctype, dtype):
    x, y = np.random.default_rng(0).normal(size=(2, 100)).astype(dtype)
    expected = dtype(0.5) * x + y
    kernel = emulator.compile_kernel(SOURCE, "axpy", {"REAL": ctype})
    assert repr(kernel) == "EmulatedKernel('axpy')"
    kernel(grid=(4,), block=(32,), args=(x, y, 0.5, 100))
    np.testing.assert_array_equal(y, expected)


def test_booleans(emulated):
    flags = np.array([True, False, True])
    emulator.compile_kernel(SOURCE, "negate", {"REAL": "float"})((1,), (3,), (flags,))
    assert flags.tolist() == [False, True, False]


def test_kernels_of_a_text_are_compiled_together(emulated):
    one = emulator.compile_kernel(SOURCE, "axpy", {"REAL": "float"})
    other = emulator.compile_kernel(SOURCE, "negate", {"REAL": "float"})
    assert one.program == other.program


def test_arguments_are_checked_before_the_launch(emulated):
    kernel = emulator.compile_kernel(SOURCE, "axpy", {"REAL": "float"})
    x, y = np.ones(4, np.float32), np.ones(4)
    with pytest.raises(ValueError, match="axpy: y is float64; the kernel takes float32"):
        kernel((1,), (4,), (x, y, 1.0, 4))
    with pytest.raises(ValueError, match=r"axpy: block is \(2048,\); sizes must be integers in \[1, 1024\]"):
        kernel((1,), (2048,), (x, x, 1.0, 4))


def test_a_kernel_that_is_not_in_the_text():
    with pytest.raises(ValueError, match="there is no kernel 'axby' in the source; it has: axpy, negate"):
        emulator.compile_kernel(SOURCE, "axby")
    with pytest.raises(ValueError, match="there is no kernel 'f' in the source; it has: none"):
        emulator.compile_kernel("void f() {}", "f")


def test_what_is_public_is_documented():
    for name in emulator.__all__:
        thing = getattr(emulator, name)
        if callable(thing):
            assert inspect.getdoc(thing), name
