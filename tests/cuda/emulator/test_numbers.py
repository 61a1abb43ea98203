"""How the emulator computes: denormal numbers, errors of mathematical functions, the order of threads."""

import ctypes
import math
import platform

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.emulator import compile, launching
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

FUNCTIONS = "exp exp2 expm1 log log2 log10 log1p sinh cosh tanh erf erfc sin cos tan atan cbrt rsqrt normcdf"
NAMES = FUNCTIONS.split()

TEXT = Text(
    "numbers.cu",
    """
extern "C" __global__ void functions(const REAL *x, REAL *y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        REAL *out = y + i;
"""
    + "".join(f"        *out = {name}(x[i]); out += n;\n" for name in NAMES)
    + """
    }
}

extern "C" __global__ void by_the_other_name(const float *x, float *y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float *out = y + i;
"""
    + "".join(f"        *out = {name}f(x[i]); out += n;\n" for name in NAMES)
    + """
    }
}

extern "C" __global__ void powers(const REAL *x, REAL *y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = pow(x[i], x[n - 1 - i]);
}

extern "C" __global__ void denormals(const REAL *x, REAL *y) {
    y[0] = x[0] * REAL(0.5);  // a denormal result
    y[1] = x[1] * REAL(4);    // a denormal operand
    y[2] = x[0];              // a copy is no operation
    __syncthreads();
    y[3] = x[1] + x[1];       // on a stack that was left in between
    y[4] = x[0] * REAL(0.25) * REAL(8);
}

// The last thread wins: right only in one order.
extern "C" __global__ void last_wins(int *y, int *order, int *count) {
    int t = threadIdx.x + blockDim.x * blockIdx.x;
    y[0] = t;
    order[atomicAdd(count, 1)] = t;
}

extern "C" __global__ void indices(int *y, int width) {
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int *mine = y + 6 * (block * width + thread);
    mine[0] = blockIdx.x, mine[1] = blockIdx.y, mine[2] = blockIdx.z;
    mine[3] = threadIdx.x, mine[4] = threadIdx.y, mine[5] = threadIdx.z;
}
""",
    REAL="float",
)
DOUBLE = Text(TEXT.file, TEXT.source, REAL="double")


def evaluate(dtype, x, kernel="functions", **options):
    rows = 1 if kernel == "powers" else len(NAMES)
    y = np.zeros((rows, x.size), dtype)
    with emulator.options(**options):
        (DOUBLE if dtype == np.float64 else TEXT).launch(kernel, (x, y, x.size))
    return y


def ulps(a, b):
    """The distance of positive or of negative numbers, in units in the last place."""
    integer = np.dtype(f"i{a.itemsize}")
    return np.abs(a.view(integer).astype(np.int64) - b.view(integer).astype(np.int64))


# --- mathematical functions -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_are_those_that_they_are_called(dtype):
    x = np.random.default_rng(0).uniform(0.1, 3, 50).astype(dtype)
    y = evaluate(dtype, x)
    models = {
        "rsqrt": lambda v: 1 / math.sqrt(v),
        "normcdf": lambda v: 0.5 * math.erfc(-v * math.sqrt(0.5)),
        "cbrt": lambda v: v ** (1 / 3),
    }
    for name, row in zip(NAMES, y, strict=True):
        model = models.get(name) or getattr(math, name)
        expected = np.array([model(float(value)) for value in x])
        np.testing.assert_allclose(row, expected, rtol=4 * np.finfo(dtype).eps, err_msg=name)
    np.testing.assert_allclose(evaluate(dtype, x, "powers")[0], x ** x[::-1], rtol=4 * np.finfo(dtype).eps)


def test_the_names_with_f_are_the_same_functions():
    x = np.random.default_rng(0).uniform(0.1, 3, 50).astype(np.float32)
    for perturb in (False, True):
        expected = evaluate(np.float32, x, perturb=perturb)
        np.testing.assert_array_equal(
            evaluate(np.float32, x, kernel="by_the_other_name", perturb=perturb), expected
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_perturbed_functions_err_by_up_to_two_ulp(dtype):
    x = np.random.default_rng(0).uniform(0.1, 3, 500).astype(dtype)
    for kernel in ("functions", "powers"):
        exact, perturbed = (evaluate(dtype, x, kernel, perturb=perturb) for perturb in (False, True))
        for row, (a, b) in enumerate(zip(exact, perturbed, strict=True)):
            distance = ulps(a, b)
            assert set(distance) == {0, 1, 2}, NAMES[row]
            assert np.any(a < b), NAMES[row]
            assert np.any(a > b), NAMES[row]
        again = evaluate(dtype, x, kernel, perturb=True, schedule="descending")
        np.testing.assert_array_equal(again, perturbed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_results_stay(dtype):
    """exp(0), log(1), what overflows, what underflows to 0, infinity and NaN are as without perturbation."""
    limits = np.finfo(dtype)
    x = np.array([0, 1, limits.max, -limits.max, np.inf, -np.inf, np.nan], dtype)
    exact, perturbed = (evaluate(dtype, x, perturb=perturb) for perturb in (False, True))
    zero_one = {
        "exp": 0,
        "exp2": 0,
        "expm1": 0,
        "log1p": 0,
        "log": 1,
        "log2": 1,
        "log10": 1,
        "erf": 0,
        "tanh": 0,
    }
    for name, column in zero_one.items():
        row = NAMES.index(name)
        assert perturbed[row, column] == exact[row, column] == {"exp": 1, "exp2": 1}.get(name, 0), name
    for column in (4, 5, 6):
        np.testing.assert_array_equal(perturbed[:, column], exact[:, column])
    row = NAMES.index("exp")
    assert perturbed[row, 2:4].tolist() == [np.inf, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers_do_not_become_infinite(dtype):
    """Powers within 2 ULP of the largest number: rounding of the exponents leaves one of fifty there."""
    limits = np.finfo(dtype)
    bases = np.linspace(2, 20, 20_000).astype(dtype)
    exponents = (np.log(limits.max) / np.log(bases.astype(np.longdouble))).astype(dtype)
    x = np.concatenate([bases, exponents[::-1]])
    exact, perturbed = (evaluate(dtype, x, "powers", perturb=p)[0, : bases.size] for p in (False, True))
    nearest = np.isfinite(exact) & (exact >= limits.max * (1 - 2 * limits.eps))
    assert np.count_nonzero(nearest) > 20
    assert np.isfinite(perturbed[nearest]).all()
    assert not np.array_equal(perturbed[nearest], exact[nearest])


# --- denormal numbers -----------------------------------------------------------------------------------

X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="flushes on x86 only")


def denormal_results(dtype, text, **options):
    tiny = np.finfo(dtype).tiny
    x, y = np.array([tiny, tiny / 4], dtype), np.full(5, -1, dtype)
    with emulator.options(**options):
        text.launch("denormals", (x, y), block=(1,))
    return y / tiny


@X86
@pytest.mark.parametrize("sanitizer", [None, "address", "thread"])
def test_float32_flushes_denormal_numbers(sanitizer):
    assert denormal_results(np.float32, TEXT, sanitizer=sanitizer).tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("sanitizer", [None, "address"])
def test_float64_keeps_denormal_numbers(sanitizer):
    assert denormal_results(np.float64, DOUBLE, sanitizer=sanitizer).tolist() == [0.5, 1, 1, 0.5, 2]


def test_the_processors_mode_is_as_before():
    half_of_tiny = np.finfo(np.float32).tiny / np.array([2], np.float32)
    assert half_of_tiny[0] > 0
    denormal_results(np.float32, TEXT)
    np.testing.assert_array_equal(np.finfo(np.float32).tiny / np.array([2], np.float32), half_of_tiny)
    with pytest.raises(emulator.OutOfBounds):  # a null pointer
        TEXT.launch("denormals", (None, np.zeros(5, np.float32)), block=(1,))
    np.testing.assert_array_equal(np.finfo(np.float32).tiny / np.array([2], np.float32), half_of_tiny)
    denormal_results(np.float64, DOUBLE)
    np.testing.assert_array_equal(np.finfo(np.float32).tiny / np.array([2], np.float32), half_of_tiny)


# --- order ----------------------------------------------------------------------------------------------


def order_of(schedule, seed=0, blocks=5, threads=40):
    y, order, count = np.zeros(1, np.int32), np.full(blocks * threads, -1, np.int32), np.zeros(1, np.int32)
    with emulator.options(schedule=schedule, seed=seed):
        TEXT.launch("last_wins", (y, order, count), grid=(blocks,), block=(threads,))
    assert count[0] == order.size
    assert y[0] == order[-1]
    return order


def test_schedules():
    everyone = np.arange(200)
    np.testing.assert_array_equal(order_of("ascending"), everyone)
    np.testing.assert_array_equal(order_of("descending"), everyone[::-1])
    random = [order_of("random", seed) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(random[0], random[2])
    assert not np.array_equal(random[0], random[1])
    for order in random[:2]:
        np.testing.assert_array_equal(np.sort(order), everyone)
        blocks, threads = order.reshape(5, 40) // 40, order.reshape(5, 40) % 40
        assert np.all(blocks == blocks[:, :1])  # one after the other, in no order
        assert not np.all(np.diff(blocks[:, 0]) > 0)
        assert not np.array_equal(threads[0], threads[1])


@pytest.mark.parametrize(
    ("grid", "block"),
    [((1,), (1,)), ((3,), (1024,)), ((2, 3), (7, 5)), ((2, 1, 3), (4, 2, 3)), ((5,), (33,))],
)
@pytest.mark.parametrize("schedule", ["ascending", "random"])
def test_every_thread_of_every_block_runs_once(grid, block, schedule):
    blocks, threads = math.prod(grid), math.prod(block)
    y = np.full((blocks, threads, 6), -1, np.int32)
    with emulator.options(schedule=schedule):
        TEXT.launch("indices", (y, threads), grid=grid, block=block)
    shape = tuple(reversed((*grid, 1, 1)[:3])) + tuple(reversed((*block, 1, 1)[:3]))
    z, y_, x, tz, ty, tx = np.indices(shape)
    expected = np.stack([x, y_, z, tx, ty, tz], axis=-1).reshape(y.shape)
    np.testing.assert_array_equal(y, expected)


# --- the other way to switch stacks ---------------------------------------------------------------------


def test_ucontext_gives_the_same_bits():
    """Where there is no assembly for the processor, the C library switches stacks."""
    kind = compile.LIBRARY._replace(host_flags=("-DEMULATOR_UCONTEXT",))
    library = launching.load(compile.build(TEXT.program, kind))
    assert not hasattr(library, "emulator_switch_stack")
    x = np.random.default_rng(0).uniform(0.1, 3, 64).astype(np.float32)
    tiny = np.array([np.finfo(np.float32).tiny] * 2, np.float32) / np.array([1, 4], np.float32)
    order, count, last = np.zeros(64, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32)
    for how in (emulator.Options(), emulator.Options("random", 3, True)):
        y, denormal = np.zeros((len(NAMES), 64), np.float32), np.zeros(5, np.float32)
        size = np.int32(64)
        count[:] = 0
        for _ in range(2):
            launching.run_library(library, "denormals", ((1, 1, 1), (1, 1, 1)), (tiny, denormal), 0, how)
            np.testing.assert_array_equal(denormal / tiny[0], denormal_results(np.float32, TEXT))
            launching.run_library(library, "functions", ((1, 1, 1), (32, 1, 1)), (x, y, size), 0, how)
        launching.run_library(library, "last_wins", ((2, 1, 1), (32, 1, 1)), (last, order, count), 0, how)
        expected = evaluate(np.float32, x, schedule=how.schedule, seed=how.seed, perturb=how.perturb)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(order, order_of(how.schedule, how.seed, 2, 32))
    assert isinstance(library, ctypes.CDLL)
