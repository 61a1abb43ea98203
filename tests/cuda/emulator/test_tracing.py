"""What a kernel's launch is seen to do: what a launcher asks for, and every address that a kernel touches."""

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.emulator.tracing import ACCESS, FIRST_SHARED

# Thread t reads 16 bytes of x at once, and one number of shared memory that another thread wrote.
SOURCE = """
struct __align__(16) Four { float value[4]; };

extern "C" __global__ void turn(const float *x, const float *unused, float *y, float factor) {
    extern __shared__ float memory[];
    __shared__ float sums[32];
    int t = threadIdx.x;
    Four four = *(const Four *)(x + 4 * (blockIdx.x * blockDim.x + t));
    sums[t] = four.value[0] + four.value[1] + four.value[2] + four.value[3];
    memory[2 * t] = factor;
    __syncthreads();
    y[blockIdx.x * blockDim.x + t] = sums[31 - t] * memory[2 * t];
}
"""
THREADS, BLOCKS = 32, 3


@pytest.fixture
def launch() -> emulator.Launch:
    x = np.random.default_rng(0).normal(size=4 * THREADS * BLOCKS).astype(np.float32)
    y = np.zeros(THREADS * BLOCKS, np.float32)
    arguments = (x, None, y, np.float32(3))
    program = emulator.Program(SOURCE, (), "turn.cu")
    return emulator.Launch(program, "turn", (BLOCKS, 1, 1), (THREADS, 1, 1), arguments, 8 * THREADS)


def line_of(text: str) -> str:
    """Where a piece of the source stands."""
    return f"turn.cu:{SOURCE[: SOURCE.index(text)].count(chr(10)) + 1}"


def test_every_access_is_written_down(emulated, launch):
    trace = emulator.trace(launch)
    accesses = trace.accesses
    assert accesses.dtype == ACCESS
    places = trace.places(np.unique(accesses["instruction"]).tolist())
    found = {}
    for access in accesses:
        kind = (places[int(access["instruction"])], bool(access["is_write"]))
        found.setdefault(kind, []).append(access)
    where = {
        (line_of("Four four"), False): (0, 16, lambda block, t: 16 * (block * THREADS + t)),
        (line_of("sums[t] ="), True): (FIRST_SHARED, 4, lambda block, t: 4 * t),
        (line_of("memory[2 * t] ="), True): (2 * FIRST_SHARED - 1, 4, lambda block, t: 8 * t),
        (line_of("y[block"), True): (1, 4, lambda block, t: 4 * (block * THREADS + t)),
    }
    for kind, (number, nbytes, offset) in where.items():
        assert len(found[kind]) == THREADS * BLOCKS
        for access in found[kind]:
            assert (access["range"], access["bytes"]) == (number, nbytes)
            assert access["offset"] == offset(int(access["block"]), int(access["thread"]))
    read = found[line_of("y[block"), False]
    assert len(read) == 2 * THREADS * BLOCKS  # sums and memory
    assert {int(access["range"]) for access in read} == {FIRST_SHARED, 2 * FIRST_SHARED - 1}
    assert len(found) == 5


def test_a_traced_launch_computes_what_any_launch_does(emulated, launch):
    x, _, y, factor = launch.values
    emulator.trace(launch)
    sums = x.reshape(BLOCKS, THREADS, 4).sum(axis=2, dtype=np.float64)
    np.testing.assert_allclose(y.reshape(BLOCKS, THREADS), factor * sums[:, ::-1], rtol=1e-6, atol=1e-6)
    assert np.all(np.abs(y) > 0)


def test_two_traces_do_not_mix(emulated, launch):
    first, second = emulator.trace(launch).accesses, emulator.trace(launch).accesses
    assert len(first) == 6 * THREADS * BLOCKS
    np.testing.assert_array_equal(first, second)


def test_a_place_that_nobody_can_name(emulated, launch, monkeypatch):
    trace = emulator.trace(launch)
    monkeypatch.setenv("PATH", "")
    assert set(trace.places(trace.accesses["instruction"][:2].tolist()).values()) == {"?"}


def test_too_many_arrays_to_tell_apart(launch):
    many = launch._replace(values=(np.zeros(1),) * (FIRST_SHARED + 1))
    with pytest.raises(emulator.EmulatorError, match="turn has 33 arrays; a trace tells 32 apart"):
        emulator.trace(many)


def test_an_intercepted_launch_does_not_run(launch):
    seen = []
    with emulator.intercepted(seen.append):
        emulator.run(launch.program, "turn", (BLOCKS,), (THREADS,), launch.values, launch.shared_bytes)
    assert len(seen) == 1
    assert seen[0][:4] == (launch.program, "turn", (BLOCKS, 1, 1), (THREADS, 1, 1))
    assert all(a is b for a, b in zip(seen[0].values, launch.values, strict=True))
    assert not launch.values[2].any()


def test_an_interceptor_may_run_what_it_is_given(emulated, launch):
    def run(given):
        emulator.run(given.program, given.kernel, given.grid, given.block, given.values, given.shared_bytes)

    with emulator.intercepted(run):
        emulator.run(launch.program, "turn", (BLOCKS,), (THREADS,), launch.values, launch.shared_bytes)
    assert np.all(np.abs(launch.values[2]) > 0)


def test_products_of_tensor_cores_are_counted(emulated):
    source = """
#include <tensor_core.h>
extern "C" __global__ void multiply(float *y, int times) {
    float d[4] = {};
    unsigned a[4] = {}, b[2] = {};
    for (int i = 0; i < times; ++i) emulator_mma_m16n8k16(d, a, b, __FILE__, __LINE__);
    y[threadIdx.x] = d[0];
}
"""
    y = np.ones(64, np.float32)
    program = emulator.Program(source, (), "multiply.cu")
    launch = emulator.Launch(program, "multiply", (1, 1, 1), (64, 1, 1), (y, np.int32(5)), 0)
    assert emulator.trace(launch).matrix_products == 2 * 5  # two warps
