"""Shared memory: one for each block, of exactly its size, and full of NaN when the block starts."""

import numpy as np
import pytest

from npbert.cuda import emulator
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

TEXT = Text(
    "shared.cu",
    """
struct Pair { float first; int second; };

extern "C" __global__ void fresh(float *y, float *z, unsigned int *bits) {
    __shared__ float fixed[41];  // no multiple of 8 bytes
    extern __shared__ float given[];
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x;
    y[i] = fixed[t];
    z[i] = given[t];
    bits[i] = reinterpret_cast<const unsigned int *>(fixed)[t];
    __syncthreads();
    fixed[t] = 1;
    given[t] = 2;
}

// What a thread writes, another one of the same block reads, and none of another block.
extern "C" __global__ void forms(float *y) {
    __shared__ float plain[32];
    __shared__ __align__(16) float aligned[4][8];
    alignas(8) __shared__ double scalar;
    __shared__ Pair pairs[32 + 1];
    __shared__ unsigned long long
        wide[sizeof(int) > 2 ? 32 : 8];  // over two lines
    __shared__ volatile float careful[32];
    static __shared__ unsigned char bytes[/* as many as threads */ 32];
    int t = threadIdx.x;
    plain[t] = t;
    aligned[t / 8][t % 8] = 2 * t;
    if (t == 5) scalar = blockIdx.x;
    pairs[t] = {0.5f, t};
    wide[t] = t;
    careful[t] = t;
    bytes[t] = t;
    __syncthreads();
    int other = 31 - t;
    y[blockIdx.x * 32 + t] = plain[other] + aligned[other / 8][other % 8] + 1000 * scalar + pairs[other].first
                             + pairs[other].second + wide[other] + careful[other] + bytes[other];
    if (reinterpret_cast<unsigned long long>(aligned) % 16) y[0] = -1;
    if (sizeof(wide) != 32 * 8 || sizeof(pairs) != 33 * 8) y[0] = -2;
}

// Each instance of a template has its own memory.
template <int N>
__device__ float *memory() {
    __shared__ float mine[N];
    return mine;
}

extern "C" __global__ void templates(float *y) {
    int t = threadIdx.x;
    memory<32>()[t] = 1;
    memory<64>()[t] = 2;
    memory<64>()[32 + t] = 3;
    __syncthreads();
    y[t] = memory<32>()[31 - t] + 10 * memory<64>()[31 - t] + 100 * memory<64>()[63 - t];
}

extern "C" __global__ void much(float *y) {
    __shared__ float one[8 * 1024];
    __shared__ float two[SECOND];
    one[threadIdx.x] = two[threadIdx.x] = 1;
    y[threadIdx.x] = one[threadIdx.x] + two[threadIdx.x];
}
""",
    SECOND=4096,
)


@pytest.mark.parametrize("schedule", ["ascending", "random"])
@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
def test_every_block_starts_with_nan(sanitizer, schedule):
    shape = (3, 41)
    for _ in range(2):
        y, z, bits = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.uint32)
        with emulator.options(sanitizer=sanitizer, schedule=schedule):
            TEXT.launch("fresh", (y, z, bits), grid=(3,), block=(41,), shared=164)
        assert np.all(np.isnan(y))
        assert np.all(np.isnan(z))
        assert np.all(bits == 0xFFFFFFFF)


@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
def test_every_form_of_declaration(sanitizer):
    y = np.zeros((3, 32), np.float32)
    with emulator.options(sanitizer=sanitizer):
        TEXT.launch("forms", (y,), grid=(3,))
    other = 31 - np.arange(32)
    np.testing.assert_array_equal(y, 7 * other + 0.5 + 1000 * np.arange(3)[:, None])


def test_instances_of_a_template():
    y = np.zeros(32, np.float32)
    TEXT.launch("templates", (y,))
    assert np.all(y == 321)


def test_more_than_a_device_compiles():
    y = np.zeros(32, np.float32)
    TEXT.launch("much", (y,))
    assert np.all(y == 2)
    with pytest.raises(emulator.KernelStopped, match=r"much: .*take 49152 bytes at most"):
        Text(TEXT.file, TEXT.source, SECOND=4097).launch("much", (y,))


def test_more_than_a_block_can_have():
    y = np.zeros((1, 40), np.float32)
    args = (y, y.copy(), np.zeros((1, 40), np.uint32))
    TEXT.launch("fresh", args, block=(40,), shared=emulator.SHARED_BYTES)
    assert np.all(np.isnan(y))
    for size in (-1, emulator.SHARED_BYTES + 1):
        with pytest.raises(
            ValueError, match=f"fresh: {size} bytes of shared memory; a block has at most 232448"
        ):
            TEXT.launch("fresh", args, block=(40,), shared=size)
