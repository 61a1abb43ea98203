"""Launches: what gets in and out of a kernel, in this process and in one of its own."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.emulator import launching, sanitized
from tests.cuda.emulator.texts import Text

pytestmark = pytest.mark.usefixtures("emulated")

TEXT = Text(
    "launching.cu",
    """
extern "C" __global__ void scale(const float *x, float *y, float factor, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = factor * x[i];
}

extern "C" __global__ void numbers(
    double *y, double a, float b, int c, long long d, unsigned int e, unsigned long long f, unsigned char g,
    short h, const double *null, bool i) {
    y[0] = a, y[1] = b, y[2] = c, y[3] = d, y[4] = e, y[5] = f, y[6] = g, y[7] = h;
    y[8] = null == nullptr;
    y[9] = i;
}

extern "C" __global__ void stops(float *y, int n) {
    y[threadIdx.x] = 1;
    assert(int(threadIdx.x) < n);  // [assert]
    if (n == 40 && threadIdx.x == 33) __trap();  // [trap]
}

extern "C" __global__ void prints(const float *x) {
    if (threadIdx.x == 1) printf("thread %d has %.2f\\n", threadIdx.x, x[1]);
}

extern "C" __global__ void endless(volatile int *y, int barriers) {
    while (y[0] == 0)
        if (barriers) __syncthreads();
}

#ifdef EXTRA
extern "C" __global__ void extra(int *y) { y[0] = EXTRA; }
#endif

extern "C" __global__ void counts_up(int *y, int n) {
    for (int i = 0; i < n; ++i) y[blockIdx.x * blockDim.x + threadIdx.x] += i % 3;
}

extern "C" __global__ void meets(float *y, int n) {
    for (int i = 0; i < n; ++i) __syncthreads();
    y[threadIdx.x] = 1;
}
""",
)
SANITIZERS = [None, "address", "thread"]


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_numbers_of_every_type(sanitizer):
    y = np.zeros(10)
    values = (0.1, np.float32(0.1), -(2**31), -(2**63), 2**32 - 1, 2**64 - 2048, 255, -(2**15), None, True)
    with emulator.options(sanitizer=sanitizer):
        TEXT.launch("numbers", (y, *values), block=(1,))
    expected = [0.1, float(np.float32(0.1)), *map(float, values[2:8]), 1, 1]
    assert y.tolist() == expected


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_arrays_that_overlap(sanitizer):
    """In place; and rows of one array, of which one call writes some that another argument reads."""
    rng = np.random.default_rng(0)
    memory = rng.normal(size=100).astype(np.float32)
    before = memory.copy()
    with emulator.options(sanitizer=sanitizer):
        TEXT.launch("scale", (memory, memory, 2.0, 100), block=(100,))
        np.testing.assert_array_equal(memory, 2 * before)
        TEXT.launch("scale", (memory[:60], memory[40:], 0.5, 60), block=(1,))
    np.testing.assert_array_equal(memory[:40], 2 * before[:40])
    assert memory[40] == before[0]


def test_overlapping_arrays_share_memory_with_their_bounds():
    memory = np.zeros(100, np.float32)
    with emulator.options(sanitizer="address"), pytest.raises(emulator.OutOfBounds, match="write of 4 bytes"):
        TEXT.launch("scale", (memory[:50], memory[30:90], 2.0, 61), grid=(1,), block=(64,))


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_arrays_that_are_read_only_empty_or_not_contiguous_in_the_whole(sanitizer):
    x = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    x.flags.writeable = False
    y = np.zeros((4, 50), np.float32)
    empty = np.zeros((0, 3), np.float32)
    with emulator.options(sanitizer=sanitizer):
        TEXT.launch("scale", (x[2], y[1], 3.0, 50), grid=(2,), block=(32,))
        TEXT.launch("scale", (empty, empty, 3.0, 0))
    np.testing.assert_array_equal(y[1], np.float32(3) * x[2])
    assert not y[[0, 2, 3]].any()


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_a_kernel_that_stops_itself(sanitizer):
    y = np.zeros(64, np.float32)
    with emulator.options(sanitizer=sanitizer):
        with pytest.raises(emulator.KernelStopped) as caught:
            TEXT.launch("stops", (y, 8), block=(64,))
        assert str(caught.value) == (
            "stops: assert(int(threadIdx.x) < n): thread (8, 0, 0) of block (0, 0, 0) at "
            + TEXT.place("assert")
        )
        with pytest.raises(emulator.KernelStopped) as caught:
            TEXT.launch("stops", (y, 40), block=(40,))
        assert str(caught.value) == (
            "stops: __trap(): thread (33, 0, 0) of block (0, 0, 0) at " + TEXT.place("trap")
        )
        TEXT.launch("stops", (y, 64), block=(64,))
    assert np.all(y == 1)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_kernels_print(sanitizer, capfd):
    with emulator.options(sanitizer=sanitizer):
        TEXT.launch("prints", (np.array([0.5, 1.25], np.float32),), block=(2,))
    assert capfd.readouterr().out == "thread 1 has 1.25\n"


def test_what_is_printed_is_out_when_the_launch_returns(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    program = f"""
import os, numpy as np
from npbert.cuda import emulator
kernel = emulator.compile_kernel({TEXT.source!r}, "prints", file={TEXT.file!r})
kernel((1,), (2,), (np.array([0.5, 1.25], np.float32),))
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "thread 1 has 1.25\n"


def test_a_kernel_that_the_preprocessor_leaves_out():
    y = np.zeros(1, np.int32)
    Text(TEXT.file, TEXT.source, EXTRA=7).launch("extra", (y,), block=(1,))
    assert y[0] == 7
    for sanitizer in (None, "address"):
        with (
            emulator.options(sanitizer=sanitizer),
            pytest.raises(emulator.EmulatorError, match="extra: the source has no such kernel"),
        ):
            TEXT.launch("extra", (y,), block=(1,))


def interrupt_soon():
    """Once the kernel runs: what would be interrupted before is its compilation."""
    TEXT.launch("endless", (np.ones(1, np.int32), 0))
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.parametrize("barriers", [0, 1])
def test_an_endless_kernel_can_be_interrupted(barriers):
    y = np.zeros(1, np.int32)
    timer = interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        TEXT.launch("endless", (y, barriers), block=(64,))
    timer.join()
    y[0] = 1
    TEXT.launch("endless", (y, barriers), block=(64,))


def test_an_interrupt_that_somebody_else_takes():
    taken = []
    before = signal.signal(signal.SIGINT, lambda *args: taken.append(args))
    try:
        timer = interrupt_soon()
        with pytest.raises(emulator.EmulatorError, match=r"^endless: interrupted$"):
            TEXT.launch("endless", (np.zeros(1, np.int32), 0))
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(taken) == 1


def test_launches_from_several_threads():
    results = [np.zeros(64, np.int32) for _ in range(4)]
    threads = [
        threading.Thread(target=TEXT.launch, args=("counts_up", (y, 30000), (2,), (32,))) for y in results
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for y in results:
        assert np.all(y == 10000 * 3)


def test_python_goes_on_while_a_kernel_runs():
    y = np.zeros(1, np.int32)
    TEXT.launch("endless", (np.ones(1, np.int32), 0))  # compiled
    kernel = threading.Thread(target=TEXT.launch, args=("endless", (y, 0)))
    kernel.start()
    time.sleep(0.05)
    assert kernel.is_alive()
    y[0] = 1
    kernel.join(timeout=30)
    assert not kernel.is_alive()


def test_a_launch_is_fast():
    """Measured: 0.1 ms a launch, 0.1 us for a thread to meet a barrier. Ten times that is allowed."""
    y = np.zeros(256, np.float32)
    TEXT.launch("meets", (y, 1), block=(256,))

    def seconds(n, grid, repeats):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            TEXT.launch("meets", (y, n), grid=(grid,), block=(256,))
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(0, 1, 20) < 1e-3
    assert seconds(100, 4, 5) < 4 * 100 * 256 * 1e-6


def test_more_random_addresses_than_the_race_detector_can_take(monkeypatch, tmp_path):
    """It is started again without such; here by a program that complains when it is not told so."""
    calls = []
    real = sanitized._run

    def run(command):
        calls.append([str(word) for word in command])
        if "-R" not in calls[-1]:
            return type("Result", (), {"returncode": 1, "stderr": "FATAL: unexpected memory mapping 0x7f"})()
        return real(command[3:])

    monkeypatch.setattr(sanitized, "_run", run)
    monkeypatch.setattr(sanitized.shutil, "which", lambda name: f"/usr/bin/{name}")
    x = np.ones(4, np.float32)
    with emulator.options(sanitizer="thread"):
        TEXT.launch("scale", (x, x, 2.0, 4), block=(4,))
        assert np.all(x == 2)
        assert calls[1][:3] == ["/usr/bin/setarch", sanitized.platform.machine(), "-R"]
        assert calls[1][3:] == calls[0]
        monkeypatch.setattr(sanitized.shutil, "which", lambda name: None)
        with pytest.raises(emulator.EmulatorError, match=r"address space randomisation .* install setarch"):
            TEXT.launch("scale", (x, x, 2.0, 4), block=(4,))


def test_a_library_that_the_system_does_not_load(tmp_path):
    (tmp_path / "library").write_bytes(b"nothing of the kind")
    with pytest.raises(emulator.EmulatorError, match=r"a compiled kernel cannot be loaded: .*XDG_CACHE_HOME"):
        launching.load(tmp_path / "library")
