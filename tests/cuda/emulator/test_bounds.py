"""Accesses outside arrays are errors: with a sanitizer all, with their lines; without one the wild ones."""

import re
import subprocess
import sys

import numpy as np
import pytest

from npbert.cuda import emulator
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

TEXT = Text(
    "bounds.cu",
    """
extern "C" __global__ void read(const float *x, float *y, int i) {
    y[0] = x[i];  // [read]
}

extern "C" __global__ void write(float *y, int i) {
    y[i] = 1;  // [write]
}

extern "C" __global__ void fixed(float *y, int i) {
    __shared__ float before[4];
    __shared__ float memory[33];
    __shared__ float after[4];
    float *p = memory;
    before[i & 3] = after[i & 3] = 0;
    p[i] = 1;  // [fixed]
    y[0] = p[i] + before[i & 3] + after[i & 3];
}

extern "C" __global__ void of_a_row(float *y, int i) {
    __shared__ float tile[4][8];
    tile[1][i] = 1;  // [row]
    y[0] = tile[1][i];
}

extern "C" __global__ void dynamic(float *y, int i) {
    extern __shared__ float memory[];
    memory[i] = 1;  // [dynamic]
    y[0] = memory[i];
}

extern "C" __global__ void local(float *y, int i) {
    float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    y[0] = values[i];  // [local]
}

extern "C" __global__ void null(float *y, const float *x, int i) {
    y[0] = x[i];  // [null]
}

extern "C" __global__ void pack(float *y, int i) {
    *reinterpret_cast<float4 *>(y + i) = make_float4(1, 2, 3, 4);  // [pack]
}

extern "C" __global__ void shift(int *y, int i) {
    y[0] = 1 << i;  // [shift]
}

extern "C" __global__ void divide(int *y, int i) {
    y[0] = 7 / i;  // [divide]
}

__device__ __noinline__ float descend(int depth, volatile float *above) {
    volatile float values[64];
    values[depth % 64] = above[depth % 3];
    if (depth == 1000000) return 0;
    return descend(depth + 1, values) + above[1];
}

extern "C" __global__ void recursion(float *y) {
    volatile float top[4] = {1, 2, 3, 4};
    y[threadIdx.x] = descend(0, top);
}

// Below its stack lies that of another thread, which nobody protects.
extern "C" __global__ void large_frame(float *y) {
    volatile char values[256 * 1024];
    for (int i = 0; i < 8192; ++i) values[i] = 1;
    y[threadIdx.x] = values[threadIdx.x];
}
""",
)
OUT_OF_BOUNDS = emulator.OutOfBounds


def mistake(name, *args, sanitizer="address", kind=OUT_OF_BOUNDS, **options):
    with emulator.options(sanitizer=sanitizer), pytest.raises(kind) as caught:
        TEXT.launch(name, args, **{"block": (1,), **options})
    return str(caught.value).splitlines()[0]


@pytest.mark.parametrize("i", [-1, 10, 11])
def test_global_arrays(i):
    x, y = np.ones(10, np.float32), np.ones(10, np.float32)
    assert f"out of bounds: read of 4 bytes at {TEXT.place('read')}" in mistake("read", x, y, i)
    assert f"out of bounds: write of 4 bytes at {TEXT.place('write')}" in mistake("write", y, i)
    assert np.all(y == 1)


def test_the_ends_of_an_array_belong_to_it():
    x, y = np.arange(10, dtype=np.float32), np.full(10, -1, np.float32)
    with emulator.options(sanitizer="address"):
        for i in (0, 9):
            TEXT.launch("read", (x, y, i), block=(1,))
            assert y[0] == x[i]
            TEXT.launch("write", (y, i), block=(1,))
            assert y[i] == 1


@pytest.mark.parametrize("start", [1, 2, 3])
def test_the_end_of_an_array_that_starts_anywhere(start):
    y = np.ones(20, np.float32)[start:13]
    assert y.ctypes.data % 16 != 0
    assert TEXT.place("write") in mistake("write", y, y.size)


@pytest.mark.parametrize("i", [33, 36, -1])
def test_shared_memory_of_a_fixed_size(i):
    assert TEXT.place("fixed") in mistake("fixed", np.ones(1, np.float32), i)
    with emulator.options(sanitizer="address"):
        TEXT.launch("fixed", (np.ones(1, np.float32), 32), block=(1,))


def test_the_end_of_a_row():
    message = mistake("of_a_row", np.ones(1, np.float32), 8)
    assert re.search(r"index 8 out of bounds for type 'float ?\[8\]' at " + TEXT.place("row"), message)


@pytest.mark.parametrize("shared", [36, 37, 39])
def test_shared_memory_of_a_size_that_the_launch_gives(shared):
    y = np.ones(1, np.float32)
    assert TEXT.place("dynamic") in mistake("dynamic", y, 9, shared=shared)
    with emulator.options(sanitizer="address"):
        TEXT.launch("dynamic", (y, 8), block=(1,), shared=shared)


def test_local_arrays_and_null_pointers():
    y = np.ones(1, np.float32)
    assert TEXT.place("local") in mistake("local", y, 8)
    assert TEXT.place("null") in mistake("null", y, None, 0)


def test_vectors_that_are_not_aligned():
    y = np.zeros(9, np.float32)
    assert y.ctypes.data % 16 == 0
    message = mistake("pack", y, 1)
    assert "misaligned address" in message
    assert TEXT.place("pack") in message
    assert "misaligned address" in mistake("pack", y[1:], 0)
    with emulator.options(sanitizer="address"):
        TEXT.launch("pack", (y[1:], 3), block=(1,))
    np.testing.assert_array_equal(y, [0, 0, 0, 0, 1, 2, 3, 4, 0])


def test_operations_without_a_result():
    y = np.zeros(1, np.int32)
    message = mistake("shift", y, 32, kind=emulator.KernelStopped)
    assert f"shift exponent 32 is too large for 32-bit type 'int' at {TEXT.place('shift')}" in message
    message = mistake("divide", y, 0, kind=emulator.KernelStopped)
    assert f"division by zero at {TEXT.place('divide')}" in message


@pytest.mark.parametrize(
    ("name", "args", "kind", "expected"),
    [
        ("write", (np.ones(1, np.float32), 2**30), OUT_OF_BOUNDS, "memory that is not there"),
        ("null", (np.ones(1, np.float32), None, 0), OUT_OF_BOUNDS, "memory that is not there"),
        ("divide", (np.ones(1, np.int32), 0), emulator.KernelStopped, "integer division by zero by thread"),
        ("recursion", (np.ones(3, np.float32),), emulator.KernelStopped, "stack overflow in thread"),
    ],
)
def test_what_would_end_the_process_is_an_error(name, args, kind, expected):
    message = mistake(name, *args, sanitizer=None, kind=kind, grid=(2,), block=(3,))
    assert message.startswith(f"{name}: ")
    assert expected in message
    assert "thread (0, 0, 0) of block (0, 0, 0)" in message
    y = np.zeros(1, np.float32)
    TEXT.launch("local", (y, 7), block=(1,))  # of the same library
    assert y[0] == 8


def test_a_frame_that_is_too_large():
    y = np.zeros(64, np.float32)
    with emulator.options(schedule="descending"), pytest.raises(emulator.KernelStopped) as caught:
        TEXT.launch("large_frame", (y,), block=(64,))
    assert str(caught.value).startswith("large_frame: stack overflow in thread (63, 0, 0) of block (0, 0, 0)")


def test_signals_are_handled_as_before():
    """In a process of its own, which a wild pointer ends through the handler that it had."""
    program = f"""
import ctypes, faulthandler, signal, numpy as np
from npbert.cuda import emulator

def handlers():  # their addresses, first in a structure of the C library's
    found = []
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGINT):
        action = ctypes.create_string_buffer(256)
        assert ctypes.CDLL(None).sigaction(int(number), None, action) == 0
        found.append(action.raw[:8])
    return found

faulthandler.enable()
before = handlers()
kernel = emulator.compile_kernel({TEXT.source!r}, "write", file="bounds.cu")
y = np.ones(1, np.float32)
kernel((1,), (1,), (y, 0))
assert handlers() == before
try:
    kernel((1,), (1,), (y, 2**30))
except emulator.OutOfBounds:
    print("found", flush=True)
assert handlers() == before
ctypes.string_at(8)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "found\n", done.stderr
    assert done.returncode < 0
    assert "Fatal Python error: Segmentation fault" in done.stderr
