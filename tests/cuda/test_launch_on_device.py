"""What CuPy is given for a launch, and what is said without a device. CuPy is a stand-in: none ran this."""

import sys

import numpy as np
import pytest

from npbert.cuda import emulator, runtime
from npbert.cuda.device import DeviceError, require_device
from npbert.cuda.runtime import Kernel, launch, storage_defines
from tests.cuda import fake_cupy

LARGE = 50_000  # bytes of shared memory, more than every device gives unasked

KERNEL = """
extern "C" __global__ void scale(const REAL *x, const float *offset, REAL *y, float factor, long long n) {
    extern __shared__ __align__(16) unsigned char memory[];
    __shared__ int shared[8];
    shared[threadIdx.x] = threadIdx.x;
    float *copy = (float *)memory;
    int i = blockIdx.x * blockDim.x + shared[threadIdx.x];
    if (i < n) {
        copy[threadIdx.x] = x[i] * factor;
        y[i] = copy[threadIdx.x] + (offset == 0 ? 0.0f : offset[i]);
    }
}
"""


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in, and no kernel compiled for another one."""
    module = fake_cupy.install(monkeypatch)
    fake_cupy.RawKernel.launches.clear()
    runtime._compile_for_cupy.cache_clear()
    yield module
    runtime._compile_for_cupy.cache_clear()


@pytest.fixture
def scale(monkeypatch):
    """A kernel that is in no file."""
    monkeypatch.setattr(runtime, "kernel_source", lambda file: KERNEL)
    runtime._signatures.cache_clear()
    yield Kernel("scale.cu", "scale", storage_defines(np.float32))
    runtime._signatures.cache_clear()


@pytest.mark.usefixtures("emulated")
def test_a_launch_gives_cupy_what_it_takes(cupy, scale):
    x = cupy.asarray(np.arange(10, dtype=np.float32))
    y = cupy.empty(10, np.float32)
    launch(scale, grid=(2,), block=(8,), args=[x, None, y, 3, 10], shared_bytes=64)
    np.testing.assert_array_equal(y.get(), 3 * np.arange(10, dtype=np.float32))

    (made,) = cupy.RawKernel.launches
    assert made.options == ("-std=c++17", "-DREAL=float", "-DACC=float")
    assert (made.grid, made.block, made.shared_mem) == ((2, 1, 1), (8, 1, 1), 64)
    assert made.args[0] is x
    assert [type(value) for value in made.args[1:2] + made.args[3:]] == [np.uintp, np.float32, np.int64]
    assert made.args[1] == 0, "a null pointer"


@pytest.mark.usefixtures("emulated")
def test_much_shared_memory_is_asked_for(cupy, scale):
    x, y = cupy.asarray(np.ones(8, np.float32)), cupy.empty(8, np.float32)
    launch(scale, grid=(1,), block=(8,), args=[x, x, y, 1.5, 8], shared_bytes=LARGE)
    assert y.get().tolist() == [2.5] * 8
    program = emulator.Program(KERNEL, scale.defines, scale.file)
    assert runtime._compile_for_cupy(program, "scale").max_dynamic_shared_size_bytes == LARGE


@pytest.mark.usefixtures("emulated")
def test_a_device_refuses_much_shared_memory_that_was_not_asked_for(cupy, scale):
    """So that the test before this one can fail."""
    kernel = cupy.RawKernel(KERNEL, "scale", ("-DREAL=float",))
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        kernel((1, 1, 1), (8, 1, 1), (np.uintp(0),) * 3 + (np.float32(1), np.int64(0)), shared_mem=LARGE)


@pytest.mark.usefixtures("emulated")
def test_a_launch_is_made_on_the_device_of_the_arrays(cupy, scale, monkeypatch):
    current, seen = [], []
    run = cupy.RawKernel.__call__

    def called(kernel, *args, **options):
        seen.extend(current)
        run(kernel, *args, **options)

    monkeypatch.setattr(fake_cupy.Device, "__enter__", lambda self: current.append(self.id))
    monkeypatch.setattr(fake_cupy.Device, "__exit__", lambda self, *exception: current.pop())
    monkeypatch.setattr(cupy.RawKernel, "__call__", called)
    x, y = cupy.asarray(np.ones(8, np.float32)), cupy.empty(8, np.float32)
    launch(scale, grid=(1,), block=(8,), args=[x, x, y, 1.5, 8], shared_bytes=64)
    assert seen == [x.device.id]
    assert not current


@pytest.mark.parametrize(("digits", "expected"), [("75", (7, 5)), ("90", (9, 0)), ("120", (12, 0))])
def test_the_compute_capability_of_a_device(cupy, monkeypatch, digits, expected):
    monkeypatch.setattr(fake_cupy.Device, "compute_capability", digits)
    assert runtime.compute_capability(cupy.empty(1)) == expected


def test_arguments_are_checked_before_the_launch(cupy, scale):
    x, y = cupy.asarray(np.ones((8, 8), np.float32)), cupy.empty((8, 8), np.float32)
    host = np.ones((8, 8), np.float32)
    for args, message in (
        ([x.T, None, y, 1, 64], "scale: x is not C-contiguous"),
        ([x.astype(np.float64), None, y, 1, 64], "scale: x is float64; the kernel takes float32"),
        ([x, host, y, 1, 64], "x is on device 0 .*, offset on the host"),
        ([x, None, y, 1, 2.5], "scale: n is 2.5; it must be an integer"),
    ):
        with pytest.raises(ValueError, match=message):
            launch(scale, grid=(8,), block=(8,), args=args)
    assert not cupy.RawKernel.launches


# --- what is missing ------------------------------------------------------------------------------------


def test_a_device_is_found(monkeypatch):
    cupy = fake_cupy.install(monkeypatch)
    assert require_device() is cupy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"driver": 0}, "there is no CUDA device: NVIDIA's driver is not installed"),
        (
            {"driver": 12040},
            r"driver is one of CUDA 12.4, this CuPy is for CUDA 13.2; .*npbert\[cuda12\]",
        ),
        ({"driver": 11080}, r"CUDA 11.8, this CuPy is for CUDA 13.2; update the driver \("),
        ({"devices": 0}, "no CUDA device: the driver is installed, but sees no GPU.*cudaErrorNoDevice"),
    ],
)
def test_a_device_that_is_missing_is_named(monkeypatch, settings, message):
    fake_cupy.install(monkeypatch, **settings)
    with pytest.raises(DeviceError, match=message):
        require_device()


def test_gpus_that_were_hidden_are_mentioned(monkeypatch):
    fake_cupy.install(monkeypatch, devices=0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match="sees no GPU; CUDA_VISIBLE_DEVICES is ''"):
        require_device()


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    def missing():
        raise RuntimeError("CuPy failed to load libnvrtc.so.13:\n  OSError")

    monkeypatch.setattr(fake_cupy.install(monkeypatch).cuda.nvrtc, "getVersion", missing)
    with pytest.raises(DeviceError, match=r"does not find CUDA's compiler .*pip install.*libnvrtc.so.13: OS"):
        require_device()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, r'^CuPy is not installed: pip install "npbert\[cuda13\]" \(or "npbert\[cuda12\]", for'),
        (ImportError("libcudart.so.13:\ncannot open"), "cannot be imported: libcudart.so.13: cannot open"),
        (ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"), "lacks a module: .*fastrlock"),
    ],
)
def test_a_cupy_that_is_missing_is_named(monkeypatch, error, message):
    class Finder:
        @staticmethod
        def find_spec(name, path, target=None):
            if name == "cupy" and error is not None:
                raise error

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    if error is None:
        monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(DeviceError, match=message):
        require_device()
