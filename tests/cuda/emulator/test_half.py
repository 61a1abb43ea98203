"""The emulator's cuda_fp16.h: every number of half precision, and its arithmetic, against NumPy's float16."""

import numpy as np
import pytest

from npbert.cuda import emulator
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

TEXT = Text(
    "half.cu",
    """
#include <cuda_fp16.h>

__device__ int index() { return blockIdx.x * blockDim.x + threadIdx.x; }

extern "C" __global__ void widen(const __half *x, float *y) { y[index()] = __half2float(x[index()]); }

extern "C" __global__ void narrow(const float *x, __half *y, int n) {
    if (index() < n) y[index()] = __float2half_rn(x[index()]);
}

extern "C" __global__ void narrow_double(const double *x, __half *y, int n) {
    if (index() < n) y[index()] = __half(x[index()]);
}

extern "C" __global__ void arithmetic(const __half *a, const __half *b, const __half *c, __half *y, int n) {
    int i = index();
    if (i >= n) return;
    y[i] = a[i] + b[i] + c[i];
    y[n + i] = a[i] * b[i] - c[i];
    y[2 * n + i] = a[i] / b[i];
    y[3 * n + i] = -a[i];
    __half sum = a[i];
    sum += b[i];
    sum *= c[i];
    y[4 * n + i] = a[i] < b[i] ? sum : __half(0.0f);
}

extern "C" __global__ void pairs(const __half *x, float *y, __half *z, unsigned short *bits, __half number) {
    __half2 pair = reinterpret_cast<const __half2 *>(x)[index()];
    float2 wide = __half22float2(pair);
    y[2 * index()] = wide.y;
    y[2 * index() + 1] = wide.x;
    reinterpret_cast<__half2 *>(z)[index()] = __floats2half2_rn(__low2half(pair), wide.y + float(number));
    bits[index()] = __half_as_ushort(__high2half(pair));
}
""",
)
EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16)


def same(actual, expected):
    """Equal bits, but for which NaN it is."""
    assert actual.dtype == expected.dtype
    number = ~np.isnan(expected)
    integer = np.dtype(f"u{actual.itemsize}")
    np.testing.assert_array_equal(actual.view(integer)[number], expected.view(integer)[number])
    assert np.all(np.isnan(actual[~number]))


def blocks(n):
    return (-(-n // 1024),)


def test_every_half_as_a_float():
    """Of the numbers that a device flushes, which are those below float's normal range, half has none."""
    y = np.zeros(2**16, np.float32)
    TEXT.launch("widen", (EVERY_HALF, y), grid=(64,), block=(1024,))
    same(y, EVERY_HALF.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_half(dtype):
    rng = np.random.default_rng(0)
    halves = EVERY_HALF[np.isfinite(EVERY_HALF)].astype(dtype)
    ordered = np.unique(halves)
    ties = (ordered[1:] + ordered[:-1]) / 2
    bits = rng.integers(2**32, size=20000, dtype=np.uint32).view(np.float32)
    bits = bits[~np.isnan(bits)].astype(dtype)
    scaled = (rng.normal(size=5000) * 2.0 ** rng.integers(-28, 18, 5000)).astype(dtype)
    edges = np.array([65504, 65519.99, 65520, 65536, 1e30, 2.0**-24, 2.0**-25, 2.0**-26, 6e-8, np.inf], dtype)
    not_a_number = np.array([np.nan], dtype)
    near = [np.nextafter(ties, np.array(sign * np.inf, dtype)) for sign in (1, -1)]
    x = np.concatenate([halves, ties, *near, bits, scaled, edges, -edges, not_a_number])
    y = np.zeros(x.size, np.float16)
    name = "narrow" if dtype == np.float32 else "narrow_double"
    TEXT.launch(name, (x, y, x.size), grid=blocks(x.size), block=(1024,))
    with np.errstate(over="ignore"):
        same(y, x.astype(np.float16))


def test_arithmetic_is_rounded_after_each_operation():
    rng = np.random.default_rng(1)
    n = 20000
    a, b, c = rng.integers(2**16, size=(3, n), dtype=np.uint16).view(np.float16)
    a[: n // 2], b[: n // 2], c[: n // 2] = rng.normal(size=(3, n // 2)).astype(np.float16)
    y = np.zeros((5, n), np.float16)
    TEXT.launch("arithmetic", (a, b, c, y, n), grid=blocks(n), block=(1024,))
    with np.errstate(all="ignore"):
        expected = [a + b + c, a * b - c, a / b, -a, np.where(a < b, (a + b) * c, np.float16(0))]
    for actual, wanted in zip(y, expected, strict=True):
        same(actual, wanted)


def test_pairs():
    x = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float16)
    y, z, bits = np.zeros((32, 2), np.float32), np.zeros_like(x), np.zeros(32, np.uint16)
    TEXT.launch("pairs", (x, y, z, bits, 0.5))
    np.testing.assert_array_equal(y, x[:, ::-1].astype(np.float32))
    np.testing.assert_array_equal(z, np.c_[x[:, 0], (x[:, 1].astype(np.float32) + 0.5).astype(np.float16)])
    np.testing.assert_array_equal(bits, x[:, 1].view(np.uint16))


def test_half_precision_under_a_sanitizer():
    x = EVERY_HALF[:2048].copy()
    y = np.zeros(2048, np.float32)
    with emulator.options(sanitizer="address"):
        TEXT.launch("widen", (x, y), grid=(2,), block=(1024,))
    same(y, x.astype(np.float32))
