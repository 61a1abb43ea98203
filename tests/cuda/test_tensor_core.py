"""Tensor-core instructions: who holds which element, and copies that only a wait makes sure of.

The layouts are written down here a second time, from the PTX ISA, so that with ``--cuda`` the device is asked
whether they are right, and without it the emulator.
"""

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.source import inline_includes, kernel_folder
from tests.comparisons import assert_identical
from tests.tolerances import MATMUL_FLOAT32

pytestmark = pytest.mark.usefixtures("compiler", "tensor_cores")

LANES = 32
PAIR_OF = """
__device__ unsigned int pair_of(const __half *matrix, int first, int step) {
    __half pair[2] = {matrix[first], matrix[first + step]};
    return *reinterpret_cast<unsigned int *>(pair);
}
"""

# Fragments gathered from global memory, by the ISA's figures for .m16n8k16 with .f16 and .f32.
MMA = """
extern "C" __global__ void product(const __half *a, const __half *b, const float *c, float *d) {
    int group = threadIdx.x >> 2, thread_in_group = threadIdx.x & 3;
    unsigned int a_fragment[4], b_fragment[2];
    float sums[4];
    for (int i = 0; i < 8; i += 2) {
        int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? group : group + 8;
        int column = thread_in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
        a_fragment[i / 2] = pair_of(a, 16 * row + column, 1);
    }
    for (int i = 0; i < 4; i += 2) {
        int row = thread_in_group * 2 + (i & 1) + (i < 2 ? 0 : 8);
        b_fragment[i / 2] = pair_of(b, 8 * row + group, 8);
    }
    for (int i = 0; i < 4; ++i) {
        int row = i < 2 ? group : group + 8, column = thread_in_group * 2 + (i & 1);
        sums[i] = c[8 * row + column];
    }
    mma_m16n8k16(sums, a_fragment, b_fragment);
    for (int i = 0; i < 4; ++i) {
        int row = i < 2 ? group : group + 8, column = thread_in_group * 2 + (i & 1);
        d[8 * row + column] = sums[i];
    }
}
"""

# Two products that read all their operands by ldmatrix: b as it lies, (16, 16), and its transpose.
LOADED = """
extern "C" __global__ void loaded_product(const __half *a, const __half *b, float *plain, float *transposed) {
    __shared__ uint4 tiles[2][16][3];
    for (int i = threadIdx.x; i < 32; i += 32) {
        int row = i / 2, chunk = i % 2;
        tiles[0][row][chunk] = reinterpret_cast<const uint4 *>(a)[i];
        tiles[1][row][chunk] = reinterpret_cast<const uint4 *>(b)[i];
    }
    __syncthreads();
    int lane = threadIdx.x;
    unsigned int a_fragment[4], rows[4], columns[4];
    load_matrix_x4(a_fragment, &tiles[0][lane % 16][lane / 16]);
    load_matrix_x4(rows, &tiles[1][lane / 16 * 8 + lane % 8][lane / 8 % 2]);
    load_matrix_x4_transposed(columns, &tiles[1][lane % 16][lane / 16]);
    for (int half = 0; half < 2; ++half) {
        float by_columns[4] = {0, 0, 0, 0}, by_rows[4] = {0, 0, 0, 0};
        mma_m16n8k16(by_columns, a_fragment, columns + 2 * half);
        mma_m16n8k16(by_rows, a_fragment, rows + 2 * half);
        for (int i = 0; i < 4; ++i) {
            int place = 16 * (lane / 4 + i / 2 * 8) + 8 * half + lane % 4 * 2 + i % 2;
            plain[place] = by_columns[i];
            transposed[place] = by_rows[i];
        }
    }
}
"""

FRAGMENTS = """
extern "C" __global__ void fragments(
    const unsigned int *rows, unsigned int *plain, unsigned int *transposed) {
    __shared__ uint4 tile[32];
    tile[threadIdx.x] = reinterpret_cast<const uint4 *>(rows)[threadIdx.x];
    __syncthreads();
    unsigned int loaded[4], turned[4];
    load_matrix_x4(loaded, &tile[threadIdx.x]);
    load_matrix_x4_transposed(turned, &tile[threadIdx.x]);
    for (int i = 0; i < 4; ++i) {
        plain[4 * threadIdx.x + i] = loaded[i];
        transposed[4 * threadIdx.x + i] = turned[i];
    }
}
"""

# Each thread copies 16 bytes in each of three groups, and reads what its neighbour copied.
COPIES = """
extern "C" __global__ void copies(const float *x, float *y, int valid_threads) {
    __shared__ uint4 arrived[3][32];
    for (int group = 0; group < 3; ++group) {
        copy_async_16(&arrived[group][threadIdx.x], x + 4 * (32 * group + threadIdx.x),
                      (int)threadIdx.x < valid_threads);
        copy_async_commit();
    }
    WAIT;
    BARRIER;
    for (int group = 0; group < 3; ++group)
        reinterpret_cast<uint4 *>(y)[32 * group + threadIdx.x] = arrived[group][threadIdx.x ^ 1];
}
"""

SMALL_COPIES = """
extern "C" __global__ void small_copies(const float *x, float *y) {
    __shared__ float arrived[32];
    copy_async_4(&arrived[threadIdx.x], x + threadIdx.x, threadIdx.x % 3 != 0);
    copy_async_commit();
    copy_async_wait<0>();
    y[threadIdx.x] = arrived[threadIdx.x];
}
"""

# The destination is being read by another thread when the copy begins; it is waited for only afterwards.
EARLY_COPY = """
extern "C" __global__ void early_copy(const float *x, float *y) {
    __shared__ __align__(16) float place[32][NUMBERS];
    for (int i = 0; i < NUMBERS; ++i) place[threadIdx.x][i] = 7;
    __syncthreads();
    y[threadIdx.x] = place[threadIdx.x ^ 1][0];
    BARRIER;
    COPY(place[threadIdx.x], x + NUMBERS * threadIdx.x, true);
    copy_async_commit();
    y[32 + threadIdx.x] = place[threadIdx.x][0];
    __syncthreads();
    copy_async_wait<0>();
}
"""

# The first block leaves a copy under way; the second one waits, and has none.
LEFT_OVER = """
extern "C" __global__ void left_over(const float *x, float *y) {
    __shared__ float place[32];
    if (blockIdx.x == 0) {
        copy_async_4(&place[threadIdx.x], x + threadIdx.x, true);
        copy_async_commit();
    } else {
        copy_async_wait<0>();
        y[threadIdx.x] = place[threadIdx.x];
    }
}
"""

# Each thread begins a copy, and another one writes to its place, after a barrier and perhaps a wait.
LATE_COPY = """
extern "C" __global__ void late_copy(const float *x, float *y) {
    __shared__ float place[32];
    copy_async_4(&place[threadIdx.x], x + threadIdx.x, true);
    COMMIT;
    WAIT;
    __syncthreads();
    place[threadIdx.x ^ 1] = 7;
    y[threadIdx.x] = place[threadIdx.x ^ 1];
}
"""

MISALIGNED = """
extern "C" __global__ void misaligned(const float *x, float *y) {
    __shared__ __align__(16) unsigned char place[528];
    DO;
    y[threadIdx.x] = 0;
}
"""

DIVERGENT = """
extern "C" __global__ void divergent(float *y) {
    float d[4] = {0, 0, 0, 0};
    unsigned int fragment[4] = {0, 0, 0, 0};
    if (threadIdx.x != 5) mma_m16n8k16(d, fragment, fragment);
    y[threadIdx.x] = d[0];
}
"""


def run(text, name, *args, blocks=1, **defines):
    """Compile a kernel with the functions of tensor_core.cuh, and launch it in blocks of one warp."""
    source = f'#include <cuda_fp16.h>\n#include "tensor_core.cuh"\n{PAIR_OF}{text}'
    source = inline_includes(source, f"{name}.cu", kernel_folder())
    emulator.compile_kernel(source, name, defines)(grid=(blocks,), block=(LANES,), args=args)


def halves(rng, *shape):
    return rng.normal(size=shape).astype(np.float16)


def small_integers(rng, *shape):
    return rng.integers(-8, 9, size=shape).astype(np.float16)


def assert_product(actual, a, b, added=0):
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = MATMUL_FLOAT32 * (np.abs(a) @ np.abs(b) + np.abs(added))
    assert (np.abs(actual - (a @ b + added)) <= bound).all()


@pytest.mark.parametrize("draw", [small_integers, halves])
def test_product(draw):
    rng = np.random.default_rng(1)
    a, b = draw(rng, 16, 16), draw(rng, 16, 8)
    c = draw(rng, 16, 8).astype(np.float32)
    d = np.full((16, 8), np.nan, np.float32)
    run(MMA, "product", a, b, c, d)
    if draw is small_integers:
        assert_identical(d, (a.astype(np.float64) @ b + c).astype(np.float32), "d")
    assert_product(d, a, b, c)


def test_each_element_is_multiplied_with_its_own():
    """One non-zero element at a time: none is in another's place."""
    rng = np.random.default_rng(2)
    b = small_integers(rng, 16, 8) + np.float16(20)
    for row, column in [(0, 0), (3, 5), (9, 2), (4, 13), (15, 15), (8, 8)]:
        a = np.zeros((16, 16), np.float16)
        a[row, column] = 3
        d = np.empty((16, 8), np.float32)
        run(MMA, "product", a, b, np.zeros((16, 8), np.float32), d)
        assert_identical(d, (a @ b).astype(np.float32), f"from element {row}, {column}")


def test_subnormal_halves_count():
    a = np.full((16, 16), 2.0**-24, np.float16)
    b = np.full((16, 8), 2.0**-14, np.float16)
    d = np.empty((16, 8), np.float32)
    run(MMA, "product", a, b, np.zeros((16, 8), np.float32), d)
    assert_identical(d, np.full((16, 8), 2.0**-34, np.float32), "d")


@pytest.mark.parametrize("draw", [small_integers, halves])
def test_products_of_loaded_fragments(draw):
    rng = np.random.default_rng(3)
    a, b = draw(rng, 16, 16), draw(rng, 16, 16)
    plain, transposed = np.empty((2, 16, 16), np.float32)
    run(LOADED, "loaded_product", a, b, plain, transposed)
    assert_product(plain, a, b)
    assert_product(transposed, a, b.T)


def test_fragments():
    """Lane l gets row l / 4 of each matrix, columns 2 (l mod 4) and the next; or of its transpose."""
    matrices = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    plain, transposed = np.zeros((2, LANES, 4), np.uint32)
    run(FRAGMENTS, "fragments", matrices.view(np.uint32).reshape(-1), plain, transposed)
    lane, matrix, which = np.ogrid[:LANES, :4, :2]
    row, column = lane // 4, 2 * (lane % 4) + which
    assert_identical(plain.view(np.uint16).reshape(LANES, 4, 2), matrices[matrix, row, column], "plain")
    assert_identical(
        transposed.view(np.uint16).reshape(LANES, 4, 2), matrices[matrix, column, row], "transposed"
    )


def copied(wait, barrier="__syncthreads()", valid_threads=LANES):
    x = np.random.default_rng(4).normal(size=(3, LANES, 4)).astype(np.float32)
    y = np.zeros((3, LANES, 4), np.float32)
    run(COPIES, "copies", x, y, valid_threads, WAIT=wait, BARRIER=barrier)
    return y, x[:, np.arange(LANES) ^ 1]


def test_copies_arrive():
    found, expected = copied("copy_async_wait<0>()")
    assert_identical(found, expected, "copies")


def test_copies_that_are_not_valid_are_zeros():
    found, expected = copied("copy_async_wait<0>()", valid_threads=10)
    assert_identical(found[:, :10], expected[:, :10], "valid copies")
    assert_identical(found[:, 10:], np.zeros((3, 22, 4), np.float32), "the others")


def test_copies_of_four_bytes():
    x, y = np.random.default_rng(5).normal(size=(2, LANES)).astype(np.float32)
    run(SMALL_COPIES, "small_copies", x, y)
    assert_identical(y, np.where(np.arange(LANES) % 3, x, np.float32(0)), "y")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("pending", [1, 2, 3])
def test_what_was_not_waited_for_is_not_there(pending):
    """The youngest groups are NaN until a wait reaches them."""
    found, expected = copied(f"copy_async_wait<{pending}>()")
    assert_identical(found[: 3 - pending], expected[: 3 - pending], "the oldest groups")
    assert np.isnan(found[3 - pending :]).all()


@pytest.mark.usefixtures("emulated")
def test_no_wait_at_all():
    assert np.isnan(copied("")[0]).all()


@pytest.mark.usefixtures("emulated")
def test_a_wait_is_for_a_threads_own_copies():
    with emulator.options(sanitizer="thread"):
        copied("copy_async_wait<0>()")
        with pytest.raises(emulator.RaceError, match=r"copies\.cu|tensor_core"):
            copied("copy_async_wait<0>()", barrier="")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("nbytes", [4, 16])
def test_a_copy_may_write_as_soon_as_it_begins(nbytes):
    x, y = np.ones((LANES, nbytes // 4), np.float32), np.zeros((2, LANES), np.float32)
    macros = {"NUMBERS": nbytes // 4, "COPY": f"copy_async_{nbytes}"}
    run(EARLY_COPY, "early_copy", x, y, BARRIER="__syncthreads()", **macros)
    assert_identical(y[0], np.full(LANES, 7, np.float32), "what was read before")
    assert np.isnan(y[1]).all()
    with emulator.options(sanitizer="thread"):
        run(EARLY_COPY, "early_copy", x, y, BARRIER="__syncthreads()", **macros)
        with pytest.raises(emulator.RaceError):
            run(EARLY_COPY, "early_copy", x, y, BARRIER="", **macros)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("commit", ["", "copy_async_commit()"])
def test_a_copy_that_nobody_waits_for_races(commit):
    x, y = np.ones(LANES, np.float32), np.zeros(LANES, np.float32)
    with emulator.options(sanitizer="thread"):
        if commit:
            run(LATE_COPY, "late_copy", x, y, COMMIT=commit, WAIT="copy_async_wait<0>()")
            assert_identical(y, np.full(LANES, 7, np.float32), "y")
        with pytest.raises(emulator.RaceError, match=r"late_copy\.cu|tensor_core"):
            run(LATE_COPY, "late_copy", x, y, COMMIT=commit, WAIT="")


@pytest.mark.usefixtures("emulated")
def test_a_copy_ends_with_its_block():
    x, y = np.ones(LANES, np.float32), np.zeros(LANES, np.float32)
    run(LEFT_OVER, "left_over", x, y, blocks=2)
    assert np.isnan(y).all()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    "statement, message",
    [
        (
            "unsigned int f[4]; load_matrix_x4(f, place + 16 * threadIdx.x + 8)",
            "ldmatrix: a row is not aligned",
        ),
        ("copy_async_16(place + 16 * threadIdx.x + 4, x, true)", "cp.async: the shared address"),
        ("copy_async_16(place + 16 * threadIdx.x, x + 1, true)", "cp.async: the global address"),
        ("for (;;) copy_async_4(place, x, true)", "cp.async: a thread has more copies"),
    ],
)
def test_mistakes_stop_the_kernel(statement, message):
    x, y = np.ones((2, LANES), np.float32)
    with pytest.raises(emulator.KernelStopped, match=message):
        run(MISALIGNED, "misaligned", x, y, DO=statement)


@pytest.mark.usefixtures("emulated")
def test_all_lanes_take_part():
    with pytest.raises(emulator.BarrierDivergence, match=r"mma\.m16n8k16 at tensor_core\.cuh"):
        run(DIVERGENT, "divergent", np.zeros(LANES, np.float32))
