"""Accesses that no barrier orders are reported, with both their places; repaired kernels give no report."""

import re

import numpy as np
import pytest

from npbert.cuda import emulator
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

# Each kernel has its barrier, or its atomic addition, where BARRIER or ADD says so; the test takes them away.
KERNELS = """
#ifdef REPAIRED
#define BARRIER() __syncthreads()
#define WARP_BARRIER() __syncwarp()
#define ADD(address, value) atomicAdd(address, value)
#else
#define BARRIER() ((void)0)
#define WARP_BARRIER() ((void)0)
#define ADD(address, value) (*(address) += (value))
#endif

// Written before the barrier, read by another thread after it.
extern "C" __global__ void exchange(float *y) {
    __shared__ float memory[64];
    int t = threadIdx.x;
    memory[t] = y[t];  // [exchange write]
    BARRIER();
    y[t] = memory[63 - t];  // [exchange read]
}

// A sum in a tree: no barrier between the steps, the last of which are within one warp.
extern "C" __global__ void tree(float *y) {
    __shared__ float memory[64];
    int t = threadIdx.x;
    memory[t] = y[t];
    __syncthreads();
    for (int distance = 32; distance > 0; distance /= 2) {
        if (t < distance) memory[t] += memory[t + distance];  // [tree]
        BARRIER();
    }
    y[t] = memory[0];
}

// The last steps by one warp alone, which lanes do not make in step.
extern "C" __global__ void warp_steps(float *y) {
    __shared__ float memory[32];
    int t = threadIdx.x;
    memory[t] = y[t];
    __syncwarp();
    for (int distance = 16; distance > 0; distance /= 2) {
        float other = memory[(t + distance) % 32];  // [warp read]
        WARP_BARRIER();
        memory[t] += other;  // [warp write]
        __syncwarp();
    }
    y[t] = memory[0];
}

// Two halves of a warp that meet by themselves: what one wrote is not ready for the other.
extern "C" __global__ void half_warps(float *y) {
    __shared__ float memory[32];
    int t = threadIdx.x;
    memory[t] = y[t];  // [halves write]
    __syncwarp(t < 16 ? 0x0000ffff : 0xffff0000);
    WARP_BARRIER();
    y[t] = memory[31 - t];  // [halves read]
}

// A shuffle brings lanes together, and orders no memory.
extern "C" __global__ void shuffled(float *y) {
    __shared__ float memory[32];
    int t = threadIdx.x;
    memory[t] = y[t];  // [shuffled write]
    float one = __shfl_sync(0xffffffff, y[t], 1);
    WARP_BARRIER();
    y[t] = one + memory[t ^ 1];  // [shuffled read]
}

// The barrier at the end of a loop: the next trip overwrites what others still read.
extern "C" __global__ void loop_end(float *y) {
    __shared__ float memory[64];
    int t = threadIdx.x;
    float sum = 0;
    for (int trip = 0; trip < 3; ++trip) {
        memory[t] = y[t] + trip;  // [loop write]
        __syncthreads();
        sum += memory[63 - t];  // [loop read]
        BARRIER();
    }
    y[t] = sum;
}

// Two buffers need one barrier a trip, not none.
extern "C" __global__ void two_buffers(float *y) {
    __shared__ float memory[2][64];
    int t = threadIdx.x;
    float sum = 0;
    memory[0][t] = y[t];
    __syncthreads();
    for (int trip = 0; trip < 4; ++trip) {
        memory[(trip + 1) % 2][t] = y[t] + trip;  // [buffers write]
        sum += memory[trip % 2][63 - t];  // [buffers read]
        BARRIER();
    }
    y[t] = sum;
}

// Only every other barrier is missing. To a detector with one object for all barriers, a thread that leaves
// one would be ordered after others' way to the next.
extern "C" __global__ void every_other(float *y) {
    __shared__ float memory[64];
    int t = threadIdx.x;
    float sum = 0;
    for (int trip = 0; trip < 4; ++trip) {
        __syncthreads();
        memory[t] = y[t] + trip;  // [other write]
        BARRIER();
        sum += memory[(t + 1) % 64];  // [other read]
    }
    y[t] = sum;
}

// All threads write one number.
extern "C" __global__ void same_element(float *y) {
    if (blockIdx.x == 0) ADD(&y[0], 1);  // [same element]
}

// All blocks add to one number.
extern "C" __global__ void across_blocks(float *y) {
    if (threadIdx.x == 0) ADD(&y[0], 1);  // [across blocks]
}

// The same behind a barrier, which orders the threads of a block, not the blocks.
extern "C" __global__ void behind_a_barrier(float *y) {
    __syncthreads();
    if (threadIdx.x == 0) ADD(&y[0], 1);  // [behind]
    __syncthreads();
}

// Blocks that are far apart: by as many as the detector tells apart at a time.
extern "C" __global__ void distant_blocks(float *y) {
    __syncthreads();
    if (threadIdx.x == 0) ADD(&y[blockIdx.x % 12], 1);  // [distant]
}

// Each block writes one element too many: thread t of a block where thread 0 of the t-th next one does.
extern "C" __global__ void neighbours(float *y) {
#ifdef REPAIRED
    int i = blockIdx.x * blockDim.x + threadIdx.x;
#else
    int i = blockIdx.x + threadIdx.x;
#endif
    y[i] = 1;  // [neighbours]
}

// A plain read of what another block changes atomically.
extern "C" __global__ void reads_a_counter(float *y) {
    if (blockIdx.x == 0) {
#ifdef REPAIRED
        y[1 + threadIdx.x] = atomicAdd(&y[0], 0.0f);
#else
        y[1 + threadIdx.x] = y[0];  // [plain read]
#endif
    } else {
        atomicAdd(&y[0], 1.0f);  // [atomic]
    }
}

// What one block leaves for another, with a flag: nothing orders what it wrote before the flag.
extern "C" __global__ void left_for_another(float *y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        y[1 + t] = 1;  // [left]
        __threadfence();
        atomicAdd(&y[0], 1.0f);
    } else {
        float flag = atomicAdd(&y[0], 0.0f);
#ifndef REPAIRED
        y[100 + t] = flag > 0 ? y[1 + t] : 0;  // [taken]
#endif
    }
}
"""
RACY = Text("races.cu", KERNELS)
REPAIRED = Text("races.cu", KERNELS, REPAIRED=1)

# name: grid, block, the marks of the two accesses
CASES = {
    "exchange": (1, 64, "exchange write", "exchange read"),
    "tree": (1, 64, "tree", "tree"),
    "warp_steps": (1, 32, "warp write", "warp read"),
    "half_warps": (1, 32, "halves write", "halves read"),
    "shuffled": (1, 32, "shuffled write", "shuffled read"),
    "loop_end": (1, 64, "loop write", "loop read"),
    "two_buffers": (1, 64, "buffers write", "buffers read"),
    "every_other": (1, 64, "other write", "other read"),
    "same_element": (2, 64, "same element", "same element"),
    "across_blocks": (3, 32, "across blocks", "across blocks"),
    "behind_a_barrier": (3, 32, "behind", "behind"),
    "distant_blocks": (36, 32, "distant", "distant"),
    "neighbours": (3, 32, "neighbours", "neighbours"),
    "left_for_another": (2, 32, "left", "taken"),
    "reads_a_counter": (2, 32, "plain read", "atomic"),
}


def launch(text, name):
    grid, block, *_ = CASES[name]
    y = np.random.default_rng(0).normal(size=1024).astype(np.float32)
    text.launch(name, (y,), grid=(grid,), block=(block,))
    return y


@pytest.mark.parametrize("name", CASES)
def test_a_race_is_reported_with_both_places(name):
    with emulator.options(sanitizer="thread"), pytest.raises(emulator.RaceError) as caught:
        launch(RACY, name)
    sentence = str(caught.value).splitlines()[0]
    found = re.findall(r"((?:atomic )?read|(?:atomic )?write) of (\d+) bytes at (\S+?:\d+)", sentence)
    assert len(found) == 2, sentence
    assert {place for _, _, place in found} <= {RACY.place(mark) for mark in CASES[name][2:]}
    assert any("write" in kind for kind, _, _ in found)
    assert {nbytes for _, nbytes, _ in found} == {"4"}


@pytest.mark.parametrize("name", CASES)
def test_the_repaired_kernel_gives_no_report(name):
    plain = launch(REPAIRED, name)
    with emulator.options(sanitizer="thread"):
        np.testing.assert_array_equal(launch(REPAIRED, name), plain)


def test_the_threads_are_named():
    with emulator.options(sanitizer="thread"), pytest.raises(emulator.RaceError) as caught:
        launch(RACY, "behind_a_barrier")
    sentence = str(caught.value).splitlines()[0]
    assert re.search(
        r"by thread \(0, 0, 0\) of block \(1, 0, 0\); .* \(0, 0, 0\) of block \(0, 0, 0\)$", sentence
    )


@pytest.mark.parametrize("schedule", ["descending", "random"])
def test_a_race_is_found_in_every_schedule(schedule):
    for name in ("loop_end", "behind_a_barrier"):
        with emulator.options(sanitizer="thread", schedule=schedule), pytest.raises(emulator.RaceError):
            launch(RACY, name)


def test_what_races_do_to_results():
    """Without the detector a race shows, or not, in the results of another schedule."""
    results = []
    for schedule in ("ascending", "descending", "random"):
        with emulator.options(schedule=schedule, seed=1):
            results.append([launch(text, "loop_end") for text in (RACY, REPAIRED)])
    racy, repaired = zip(*results, strict=True)
    assert all(np.array_equal(result, repaired[0]) for result in repaired)
    assert not all(np.array_equal(result, racy[0]) for result in racy)
