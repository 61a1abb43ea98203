"""Launches of kernels that are files, on NumPy arrays: they run emulated. CuPy: test_launch_on_device.py."""

import numpy as np
import pytest

from npbert.cuda import emulator, runtime, source
from npbert.cuda.runtime import Kernel, compute_capability, launch, multiprocessor_limit, storage_defines

INCLUDED = """
__device__ REAL twice(REAL x) {
    return x + x;
}
"""
TEXT = """
#ifdef REAL_IS_HALF
#include <cuda_fp16.h>
#endif
#include "twice.cuh"
extern "C" __global__ void double_up(const REAL *x, REAL *y, unsigned char *mask, int n) {
    extern __shared__ ACC memory[];
    int i = threadIdx.y * blockDim.x + threadIdx.x + blockDim.x * blockDim.y * blockIdx.x;
    memory[i % 4] = ACC(x[i]);
    if (i < n) y[i] = twice(REAL(memory[i % 4]));
    if (mask != nullptr) mask[i] = 1;
}
"""


@pytest.fixture
def kernels(monkeypatch, tmp_path):
    """A folder with a kernel of the test's own."""
    (tmp_path / "double.cu").write_text(TEXT)
    (tmp_path / "twice.cuh").write_text(INCLUDED)
    monkeypatch.setattr(source, "kernel_folder", lambda: tmp_path)
    for function in (source.kernel_source, runtime._signatures):
        function.cache_clear()
    yield tmp_path
    for function in (source.kernel_source, runtime._signatures):
        function.cache_clear()


def kernel(dtype=np.float32):
    return Kernel("double.cu", "double_up", storage_defines(dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_kernel_runs_in_each_precision(emulated, kernels, dtype):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    y, mask = np.zeros_like(x), np.zeros(12, bool)
    accumulator = 8 if dtype == np.float64 else 4
    with emulator.options(sanitizer="address"):
        launch(kernel(dtype), grid=(3,), block=(2, 2), args=[x, y, mask, 12], shared_bytes=4 * accumulator)
    np.testing.assert_array_equal(y, 2 * x)
    assert mask.all()


def test_what_is_wrong_with_a_launch_is_said_before_it(kernels):
    """Not even a compiler is needed."""
    x, y = np.ones(4, np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="double_up: x is float64; the kernel takes float32"):
        launch(kernel(), (1,), (4,), [x.astype(float), y, None, 4])
    with pytest.raises(ValueError, match=r"double_up takes 4 arguments \(x, y, mask, n\), got 3"):
        launch(kernel(), (1,), (4,), [x, y, 4])
    with pytest.raises(ValueError, match=r"double_up: grid is \(0,\); sizes must be integers in \[1, "):
        launch(kernel(), (0,), (4,), [x, y, None, 4])
    with pytest.raises(ValueError, match=r"double_up: a block of \(64, 32\) has 2048 threads; at most 1024"):
        launch(kernel(), (1,), (64, 32), [x, y, None, 4])
    with pytest.raises(
        ValueError, match="double_up: 232449 bytes of shared memory; a block has at most 232448"
    ):
        launch(kernel(), (1,), (4,), [x, y, None, 4], shared_bytes=232449)
    assert not y.any()


def test_names_that_are_not_there(kernels):
    with pytest.raises(FileNotFoundError, match=r"triple\.cu"):
        launch(kernel()._replace(file="triple.cu"), (1,), (4,), [])
    with pytest.raises(KeyError, match="triple_up"):
        launch(kernel()._replace(name="triple_up"), (1,), (4,), [])


def test_messages_name_the_file_and_its_lines(emulated, kernels):
    x = np.ones(4, np.float32)
    (kernels / "twice.cuh").write_text(INCLUDED.replace("x + x", "x + z"))
    with pytest.raises(
        emulator.EmulatorError, match=r"double.cu does not compile .*: twice.cuh:3:\d+: error: "
    ):
        launch(kernel(), (1,), (4,), [x, x, None, 4], shared_bytes=16)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float64, (("REAL", "double"), ("ACC", "double"))),
        ("float32", (("REAL", "float"), ("ACC", "float"))),
        (np.dtype(np.float16), (("REAL", "__half"), ("ACC", "float"), ("REAL_IS_HALF", "1"))),
    ],
)
def test_what_is_stored_and_what_is_summed_in(dtype, expected):
    assert storage_defines(dtype) == expected


@pytest.mark.parametrize("dtype", [np.int32, np.complex64, np.longdouble, bool])
def test_dtypes_without_kernels(dtype):
    with pytest.raises(
        ValueError, match=f"dtype is {np.dtype(dtype).name}; kernels exist for float64, float32, float16"
    ):
        storage_defines(dtype)


def test_what_the_emulated_device_has():
    x = np.zeros(1)
    assert multiprocessor_limit(x) == emulator.SHARED_BYTES == 227 * 1024
    assert compute_capability(x) == emulator.COMPUTE_CAPABILITY == (9, 0)
