"""reduce.cuh by itself: sums and maxima of a block, one after the other on the same scratch memory."""

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.runtime import storage_defines
from npbert.cuda.source import inline_includes, kernel_folder
from tests.comparisons import assert_identical
from tests.cuda.kernel_contract import SCHEDULES
from tests.strategies import integers

pytestmark = pytest.mark.usefixtures("emulated")

ROUNDS = 3
SOURCE = """#include "reduce.cuh"
extern "C" __global__ void reduce(const ACC *x, ACC *sums, ACC *maxima, int rounds) {
    __shared__ ACC scratch[WARP];
    for (int round = 0; round < rounds; ++round) {
        int i = round * blockDim.x + threadIdx.x;
        sums[i] = block_sum(x[i], scratch);
        maxima[i] = block_max(x[i], scratch);
    }
}
"""
every_size = pytest.mark.parametrize("threads", [32, 64, 96, 1024])


def reduce(x):
    """Sums and maxima of each row, as every thread of a block has them."""
    source = inline_includes(SOURCE, "reduce_test.cu", kernel_folder())
    kernel = emulator.compile_kernel(source, "reduce", dict(storage_defines(x.dtype)))
    sums, maxima = np.zeros_like(x), np.zeros_like(x)
    kernel((1,), (x.shape[1],), (x, sums, maxima, len(x)))
    return sums, maxima


@every_size
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shift", [-1000, 0, 1000])
def test_every_thread_has_the_sum_and_the_maximum(threads, dtype, shift):
    x = (shift + integers(np.random.default_rng(threads), ROUNDS, threads)).astype(dtype)
    sums, maxima = reduce(x)
    assert_identical(sums, np.broadcast_to(x.sum(axis=1, keepdims=True), x.shape), "sums")
    assert_identical(maxima, np.broadcast_to(x.max(axis=1, keepdims=True), x.shape), "maxima")


@every_size
def test_all_schedules_give_the_same_bits(threads):
    x = np.random.default_rng(1).normal(size=(ROUNDS, threads)).astype(np.float32)
    expected = reduce(x)
    assert np.ptp(expected[0], axis=1).max() == np.ptp(expected[1], axis=1).max() == 0
    for schedule in SCHEDULES:
        with emulator.options(schedule=schedule, seed=2):
            found = reduce(x)
        assert_identical(found[0], expected[0], "sums")
        assert_identical(found[1], expected[1], "maxima")


def test_the_maximum_of_infinities_is_no_nan():
    x = np.full((1, 64), -np.inf)
    np.testing.assert_array_equal(reduce(x)[1], x, strict=True)
    x[0, 40] = 3
    np.testing.assert_array_equal(reduce(x)[1], np.full((1, 64), 3.0), strict=True)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_clean(sanitizer):
    x = np.random.default_rng(3).normal(size=(ROUNDS, 96)).astype(np.float32)
    expected = reduce(x)
    with emulator.options(sanitizer=sanitizer):
        found = reduce(x)
    assert_identical(found[0], expected[0], "sums")
    assert_identical(found[1], expected[1], "maxima")
