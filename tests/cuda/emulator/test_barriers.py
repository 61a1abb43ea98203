"""Threads that wait for others that never come: at barriers of a block, in functions of a warp."""

import re

import numpy as np
import pytest

from npbert.cuda import emulator
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

TEXT = Text(
    "barriers.cu",
    """
extern "C" __global__ void leaves(float *y, int n) {
    if (threadIdx.x >= n) return;
    __syncthreads();  // [leaves]
    y[threadIdx.x] = 1;
}

extern "C" __global__ void one_branch(float *y, int n) {
    if (threadIdx.x < n) __syncthreads();  // [one branch]
    y[threadIdx.x] = 1;
}

extern "C" __global__ void two_branches(float *y, int n) {
    if (threadIdx.x < n)
        __syncthreads();  // [first branch]
    else
        __syncthreads();  // [second branch]
    y[threadIdx.x] = 1;
}

extern "C" __global__ void trips(float *y, int n) {
    for (int i = 0; i < (threadIdx.x < 32 ? n : 2); ++i) __syncthreads();  // [trips]
    y[threadIdx.x] = 1;
}

extern "C" __global__ void one_warp(float *y, int n) {
    if (threadIdx.x >= n) return;
    __syncwarp();  // [one warp]
    y[threadIdx.x] = 1;
}

extern "C" __global__ void missing_lane(float *y, int n) {
    float value = threadIdx.x;
    if (threadIdx.x != n) value = __shfl_xor_sync(0xffffffff, value, 1);  // [shuffle]
    __syncthreads();  // [after the shuffle]
    y[threadIdx.x] = value;
}

extern "C" __global__ void not_in_its_mask(float *y, unsigned int mask) {
    y[threadIdx.x] = __shfl_sync(mask, y[threadIdx.x], 0);  // [mask]
}

extern "C" __global__ void two_masks(float *y, int n) {
    y[threadIdx.x] = __ballot_sync(threadIdx.x < n ? 0xffffffffu : 0xfffffffeu, 1);  // [two masks]
}

extern "C" __global__ void two_functions(float *y, int n) {
    float value = threadIdx.x;
    if (threadIdx.x < n)
        value = __shfl_xor_sync(0xffffffff, value, 1);  // [one function]
    else
        value = __ballot_sync(0xffffffff, value > 7);  // [other function]
    y[threadIdx.x] = value;
}

extern "C" __global__ void bad_width(float *y, int width) {
    y[threadIdx.x] = __shfl_down_sync(0xffffffff, y[threadIdx.x], 1, width);  // [width]
}

extern "C" __global__ void votes(const int *vote, int *count, int *both, int *any) {
    int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    count[t] = __syncthreads_count(vote[t]);
    both[t] = __syncthreads_and(vote[t]);
    any[t] = __syncthreads_or(vote[t]);
}
""",
)


def divergence(kernel, *args, block, kind=emulator.BarrierDivergence):
    y = np.zeros(max(block, 64), np.float32)
    with pytest.raises(kind) as caught:
        TEXT.launch(kernel, (y, *args), block=(block,))
    return str(caught.value)


def test_a_thread_that_left_the_kernel():
    message = divergence("leaves", 50, block=64)
    assert (
        f"barrier divergence: thread (0, 0, 0) of block (0, 0, 0) waits at {TEXT.place('leaves')}" in message
    )
    assert "thread (50, 0, 0) of block (0, 0, 0) has left the kernel" in message


def test_a_barrier_in_one_branch():
    message = divergence("one_branch", 32, block=64)
    assert f"waits at {TEXT.place('one branch')}, thread (32, 0, 0) of block (0, 0, 0) has left" in message


def test_different_barriers_in_two_branches():
    message = divergence("two_branches", 40, block=64)
    assert f"thread (0, 0, 0) of block (0, 0, 0) waits at {TEXT.place('first branch')}" in message
    assert f"thread (40, 0, 0) of block (0, 0, 0) at {TEXT.place('second branch')}" in message


@pytest.mark.parametrize("schedule", ["ascending", "descending", "random"])
def test_different_numbers_of_trips(schedule):
    with emulator.options(schedule=schedule):
        message = divergence("trips", 3, block=64)
    assert f"waits at {TEXT.place('trips')}" in message
    assert "has left the kernel" in message


def test_threads_that_all_take_the_same_way_are_no_divergence():
    y = np.zeros(64, np.float32)
    for kernel, n in (
        ("leaves", 64),
        ("one_branch", 64),
        ("one_branch", 0),
        ("two_branches", 64),
        ("trips", 2),
    ):
        y[:] = 0
        TEXT.launch(kernel, (y, n), block=(64,))
        assert np.all(y == 1), kernel


def test_a_lane_that_left_the_kernel():
    message = divergence("one_warp", 40, block=64)
    assert f"waits in __syncwarp at {TEXT.place('one warp')} for lane 8, which has left the kernel" in message


def test_a_lane_that_does_not_exist():
    message = divergence("one_warp", 40, block=40)
    assert f"waits in __syncwarp at {TEXT.place('one warp')} for lane 8, which does not exist" in message


def test_a_lane_that_waits_elsewhere():
    message = divergence("missing_lane", 37, block=64)
    assert f"waits in __shfl_xor_sync at {TEXT.place('shuffle')} (mask 0xffffffff)" in message
    assert f"thread (37, 0, 0) of block (0, 0, 0) at {TEXT.place('after the shuffle')}" in message


def test_a_lane_outside_its_own_mask():
    message = divergence("not_in_its_mask", 0x0000FFFF, block=32)
    assert f"__shfl_sync at {TEXT.place('mask')}: thread (16, 0, 0) of block (0, 0, 0) is lane 16" in message
    assert "not in its own mask 0x0000ffff" in message


@pytest.mark.parametrize("schedule", ["ascending", "descending"])
def test_lanes_that_do_not_agree_on_the_mask(schedule):
    with emulator.options(schedule=schedule):
        message = divergence("two_masks", 5, block=32)
    assert re.search(r"warp divergence: thread \(0, 0, 0\) .* waits in __ballot_sync", message)
    assert TEXT.place("two masks") in message


@pytest.mark.parametrize("schedule", ["ascending", "descending", "random"])
def test_lanes_in_two_functions(schedule):
    with emulator.options(schedule=schedule):
        message = divergence("two_functions", 5, block=32)
    assert f"waits in __shfl_xor_sync at {TEXT.place('one function')}" in message
    assert f"thread (5, 0, 0) of block (0, 0, 0) at {TEXT.place('other function')}" in message


@pytest.mark.parametrize("width", [0, 3, 64, -8])
def test_a_width_that_no_shuffle_has(width):
    message = divergence("bad_width", width, block=32, kind=emulator.KernelStopped)
    assert "a shuffle's width must be 1, 2, 4, 8, 16 or 32" in message
    assert f"at {TEXT.place('width')}" in message


def test_the_launch_after_a_failure_starts_afresh():
    y = np.full(1024, -1, np.float32)
    divergence("trips", 3, block=64)
    TEXT.launch("trips", (y, 2), block=(1024,))
    assert np.all(y == 1)
    divergence("missing_lane", 37, block=64)
    TEXT.launch("missing_lane", (y, -1), block=(64,))
    np.testing.assert_array_equal(y[:64], np.arange(64) ^ 1)


@pytest.mark.parametrize("block", [(100,), (8, 5, 3)])
def test_votes_of_a_block(block):
    rng = np.random.default_rng(0)
    threads = int(np.prod(block))
    mixed = rng.integers(-1, 2, threads).astype(np.int32)
    mixed[:2] = 0, 7
    for vote in (mixed, np.zeros(threads, np.int32), np.full(threads, 4, np.int32)):
        count, both, any_ = (np.full(threads, -1, np.int32) for _ in range(3))
        TEXT.launch("votes", (vote, count, both, any_), block=block)
        assert np.all(count == np.count_nonzero(vote))
        assert np.all((both != 0) == np.all(vote != 0))
        assert np.all((any_ != 0) == np.any(vote != 0))
