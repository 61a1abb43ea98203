"""CUDA's built-in functions on the emulator, against models in NumPy."""

import numpy as np
import pytest

from npbert.cuda import emulator
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

TEXT = Text(
    "builtins.cu",
    """
extern "C" __global__ void shuffle_float(const float *x, float *y, int kind, int operand, int width) {
    int t = threadIdx.x;
    float value = x[t];
    if (kind == 0) value = __shfl_sync(0xffffffff, value, operand, width);
    if (kind == 1) value = __shfl_up_sync(0xffffffff, value, operand, width);
    if (kind == 2) value = __shfl_down_sync(0xffffffff, value, operand, width);
    if (kind == 3) value = __shfl_xor_sync(0xffffffff, value, operand, width);
    if (kind == 4) value = __shfl_sync(0xffffffff, value, t * operand);
    y[t] = value;
}

extern "C" __global__ void shuffle_wide(const double *x, double *y, long long *z, int operand) {
    int t = threadIdx.x;
    y[t] = __shfl_xor_sync(0xffffffff, x[t], operand);
    z[t] = __shfl_up_sync(0xffffffff, (long long)(t) << 33, operand);
}

// Half of a warp by itself; who reads from a lane that takes no part gets what nobody should use.
extern "C" __global__ void shuffle_half(const float *x, float *y, float *outside) {
    int t = threadIdx.x;
    if (t % 32 >= 16) return;
    y[t] = __shfl_xor_sync(0x0000ffff, x[t], 5);
    outside[t] = __shfl_sync(0x0000ffff, x[t], 20);
}

extern "C" __global__ void ballots(const int *vote, unsigned int *ballot, int *any, int *all) {
    int t = threadIdx.x;
    unsigned mask = t < 32 ? 0xffffffffu : t % 2 ? 0xaaaaaaaau : 0x55555555u;
    ballot[t] = __ballot_sync(mask, vote[t]);
    any[t] = __any_sync(mask, vote[t]);
    all[t] = __all_sync(mask, vote[t]);
}

extern "C" __global__ void atomics(int *i, unsigned int *u, float *f, double *d, unsigned long long *l) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&i[0], t);
    atomicSub(&i[1], t);
    atomicMax(&i[2], (t * 37) % 101);
    atomicMin(&i[3], -((t * 37) % 101));
    atomicAdd(&u[0], 1);
    atomicOr(&u[1], 1u << (t % 13));
    atomicAnd(&u[2], ~(1u << (t % 13)));
    atomicXor(&u[3], t);
    atomicInc(&u[4], 9);
    atomicDec(&u[5], 9);
    atomicAdd(f, 1);
    atomicAdd(d, 0.5f);
    atomicAdd(l, 1ull << 33);
    if (atomicCAS(&i[4], -1, t) == -1) i[5] = t;
    i[6 + t] = atomicExch(&i[6 + t], t);
}

extern "C" __global__ void vectors(const float *x, float *y, double *z, unsigned char *bytes) {
    int t = threadIdx.x;
    float4 v = reinterpret_cast<const float4 *>(x)[t];
    reinterpret_cast<float4 *>(y)[t] = make_float4(v.w, v.z, v.y, v.x);
    double2 d = make_double2(v.x, v.y);
    reinterpret_cast<double2 *>(z)[t] = make_double2(d.y, d.x);
    uchar4 b = make_uchar4(1, 2, 3, (unsigned char)t);
    reinterpret_cast<uchar4 *>(bytes)[t] = b;
    static_assert(alignof(float4) == 16 && alignof(float2) == 8 && alignof(float3) == 4, "as CUDA's");
    static_assert(alignof(double2) == 16 && sizeof(short4) == 8 && alignof(uint4) == 16, "as CUDA's");
}

extern "C" __global__ void arithmetic(float *y, int *z) {
    y[0] = max(1.0f, nanf(""));
    y[1] = min(nanf(""), 2.0f);
    y[2] = max(1.0, 2.5f);
    y[3] = rsqrtf(4);
    y[4] = normcdff(0.0f);
    y[5] = fmaf(1 + 0x1p-12f, 1 + 0x1p-12f, -1);
    y[6] = powf(3, 4);
    y[7] = exp(0) + log(1.0f) + tanhf(0);
    z[0] = max(-3, 2);
    z[1] = min(5ll, -1ll) == -1 && max(3u, -1) == 0xffffffffu && min('a', 2) == 2;
    z[2] = __popc(0xf0f0u);
    z[3] = __clz(1);
    z[4] = __ffs(8);
    z[5] = __umulhi(0x80000000u, 6);
    z[6] = __float_as_int(1.0f);
    z[7] = __float_as_uint(__uint_as_float(0x12345678u));
    z[8] = __ldg(&z[0]);
    z[9] = warpSize;
}
""",
)
WIDTHS = (1, 2, 4, 8, 16, 32)


def shuffled(kind, values, operand, width):
    """What CUDA's guide says of shuffles, for the lanes of a warp."""
    lane = np.arange(32)
    first = lane // width * width
    source = {
        "idx": first + operand % width,
        "up": np.where(lane - operand >= first, lane - operand, lane),
        "down": np.where(lane + operand < first + width, lane + operand, lane),
        "xor": np.where((lane ^ operand) < first + width, lane ^ operand, lane),
    }[kind]
    return values[source]


@pytest.mark.parametrize("kind", ["idx", "up", "down", "xor"])
def test_shuffles(kind):
    rng = np.random.default_rng(0)
    number = ["idx", "up", "down", "xor"].index(kind)
    for width in WIDTHS:
        for operand in (0, 1, 2, 3, 7, 15, 16, 31):
            x = rng.normal(size=64).astype(np.float32)
            y = np.zeros_like(x)
            TEXT.launch("shuffle_float", (x, y, number, operand, width), block=(64,))
            expected = np.concatenate([shuffled(kind, x[start:][:32], operand, width) for start in (0, 32)])
            np.testing.assert_array_equal(y, expected, err_msg=f"width {width}, operand {operand}")


def test_a_shuffle_from_a_lane_of_each_ones_own():
    x = np.random.default_rng(0).normal(size=32).astype(np.float32)
    y = np.zeros_like(x)
    TEXT.launch("shuffle_float", (x, y, 4, 5, 32))
    np.testing.assert_array_equal(y, x[np.arange(32) * 5 % 32])


def test_shuffles_of_eight_bytes():
    x = np.random.default_rng(0).normal(size=32)
    y, z = np.zeros(32), np.zeros(32, np.int64)
    TEXT.launch("shuffle_wide", (x, y, z, 6))
    np.testing.assert_array_equal(y, x[np.arange(32) ^ 6])
    np.testing.assert_array_equal(z, shuffled("up", np.arange(32) << 33, 6, 32))


def test_a_lane_that_takes_no_part_has_nothing_to_give():
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    y, outside = np.zeros_like(x), np.zeros_like(x)
    TEXT.launch("shuffle_half", (x, y, outside), block=(64,))
    part = np.arange(64) % 32 < 16
    np.testing.assert_array_equal(y[part], x[(np.arange(64) ^ 5)[part]])
    assert np.all(np.isnan(outside[part]))
    assert not y[~part].any()


def test_ballots():
    rng = np.random.default_rng(0)
    for vote in (rng.integers(0, 3, 64).astype(np.int32), np.zeros(64, np.int32), np.full(64, 2, np.int32)):
        ballot, any_, all_ = np.zeros(64, np.uint32), np.zeros(64, np.int32), np.zeros(64, np.int32)
        TEXT.launch("ballots", (vote, ballot, any_, all_), block=(64,))
        for t in range(64):
            warp = t // 32 * 32
            lanes = [lane for lane in range(32) if t < 32 or lane % 2 == t % 2]
            votes = [lane for lane in lanes if vote[warp + lane]]
            assert ballot[t] == sum(1 << lane for lane in votes)
            assert bool(any_[t]) == bool(votes)
            assert bool(all_[t]) == (votes == lanes)


@pytest.mark.parametrize("schedule", ["ascending", "random"])
def test_atomics(schedule):
    t = np.arange(96)
    i = np.zeros(6 + 96, np.int32)
    i[4], i[6:] = -1, 5
    u = np.array([0, 0, 0xFFFFFFFF, 0, 0, 0], np.uint32)
    f, d, l64 = np.zeros(1, np.float32), np.zeros(1), np.zeros(1, np.uint64)
    with emulator.options(schedule=schedule):
        TEXT.launch("atomics", (i, u, f, d, l64), grid=(3,), block=(32,))
    assert (i[0], i[1]) == (t.sum(), -t.sum())
    assert (i[2], i[3]) == ((t * 37 % 101).max(), -(t * 37 % 101).max())
    assert i[4] == i[5] != -1
    assert np.all(i[6:] == 5)  # what was there before
    assert u.tolist() == [96, 2**13 - 1, 0xFFFFFFFF - (2**13 - 1), np.bitwise_xor.reduce(t), 96 % 10, 4]
    assert (f[0], d[0], l64[0]) == (96, 48, 96 << 33)


def test_vectors():
    x = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    y, z, bytes_ = np.zeros_like(x), np.zeros((32, 2)), np.zeros((32, 4), np.uint8)
    TEXT.launch("vectors", (x, y, z, bytes_))
    np.testing.assert_array_equal(y, x[:, ::-1])
    np.testing.assert_array_equal(z, x[:, 1::-1])
    np.testing.assert_array_equal(bytes_, np.c_[np.tile([1, 2, 3], (32, 1)), np.arange(32)])


def test_arithmetic():
    y, z = np.zeros(8, np.float32), np.zeros(10, np.int32)
    TEXT.launch("arithmetic", (y, z), block=(1,))
    fused = float(np.float32(1 + 2**-12)) ** 2 - 1
    np.testing.assert_array_equal(y, np.array([1, 2, 2.5, 0.5, 0.5, fused, 81, 1], np.float32))
    assert z.tolist() == [2, 1, 8, 31, 4, 3, 0x3F800000, 0x12345678, 2, 32]
