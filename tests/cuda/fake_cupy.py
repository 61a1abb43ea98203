"""A stand-in for CuPy whose device is the emulator: what calls CuPy can be run where there is no GPU.

Its arrays are NumPy's in a wrapper that refuses to become NumPy's by itself, its kernels run emulated, its
clock is the host's. It shows that arrays are moved, that launches are given what CuPy takes, what is reported
and in which order. It shows nothing about a device: no test that uses it ever ran on one.

    pytest -p tests.cuda.fake_cupy --cuda

runs the tests for a device on the stand-in.
"""

import operator
import re
import sys
import time
import types
from collections import deque
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from npbert.cuda import emulator
from npbert.cuda.source import kernel_signatures

NAME = "the emulator in place of a device"
ATTRIBUTES = {
    "MaxSharedMemoryPerBlock": 48 * 1024,
    "MaxSharedMemoryPerBlockOptin": emulator.SHARED_BYTES,
    "MultiProcessorCount": 2,
    "ClockRate": 1_000_000,  # kHz
    "MemoryClockRate": 1_000_000,  # kHz
    "GlobalMemoryBusWidth": 64,  # bits
    "L2CacheSize": 4096,
}


def pytest_load_initial_conftests() -> None:
    """As a plugin of pytest: before the option --cuda looks for a device."""
    install(pytest.MonkeyPatch())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """As a plugin of pytest: say where kernels ran."""
    terminalreporter.write_line(f"{RawKernel.count} launches on {NAME}")


def install(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> types.ModuleType:
    """Put the stand-in where ``import cupy`` and ``import cupyx.profiler`` find it, and return it.

    ``settings`` are those of `make`.
    """
    cupy = make(**settings)
    cupyx = types.ModuleType("cupyx")
    cupyx.profiler = types.ModuleType("cupyx.profiler")
    cupyx.profiler.benchmark = benchmark
    for module in (cupy, cupy.cuda, cupyx, cupyx.profiler):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return cupy


# --- arrays ---------------------------------------------------------------------------------------------


METHODS = """
    all any argmax argsort astype clip conj copy cumsum diagonal dot fill max mean min nonzero prod ravel
    repeat reshape round squeeze std sum swapaxes take trace transpose var view
"""
OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift lt le eq ne gt ge"


class Flags(NamedTuple):
    """What CuPy says of an array's memory; not whether it may be written to."""

    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class DeviceArray:
    """An array in another memory: works with its own kind and with numbers, and with nothing else."""

    __array_priority__ = 100
    __array_ufunc__ = None

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    shape = property(lambda self: self.values.shape)
    strides = property(lambda self: self.values.strides)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    itemsize = property(lambda self: self.values.itemsize)
    T = property(lambda self: DeviceArray(self.values.T))
    real = property(lambda self: DeviceArray(self.values.real))
    imag = property(lambda self: DeviceArray(self.values.imag))
    device = property(lambda self: Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self.values.ctypes.data))

    @property
    def flags(self) -> Flags:
        flags = self.values.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, flags.owndata)

    def get(self) -> np.ndarray:
        """Copy to the host."""
        return self.values.copy()

    def item(self, *index):
        return self.values.item(*index)

    def tolist(self):
        return self.values.tolist()

    def __getattr__(self, name: str):
        if name not in METHODS.split():
            raise AttributeError(f"the stand-in's arrays have no {name}")
        return _on_device(getattr(self.values, name))

    def __getitem__(self, index):
        return _wrapped(self.values[_unwrapped(index)])

    def __setitem__(self, index, value) -> None:
        self.values[_unwrapped(index)] = _unwrapped(value)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.values)

    def __int__(self) -> int:
        return int(self.values)

    def __float__(self) -> float:
        return float(self.values)

    def __index__(self) -> int:
        return operator.index(self.values)

    def __repr__(self) -> str:
        return f"DeviceArray({self.values!r})"


def _unary(name: str) -> None:
    function = getattr(operator, name)
    setattr(DeviceArray, f"__{name}__", lambda self: _wrapped(function(self.values)))


def _binary(name: str) -> None:
    function = getattr(operator, f"{name}_" if name in ("and", "or") else name)

    def method(self, other):
        return _wrapped(function(self.values, _unwrapped(other)))

    def reflected(self, other):
        return _wrapped(function(_unwrapped(other), self.values))

    def in_place(self, other):
        self.values[...] = function(self.values, _unwrapped(other)).astype(self.dtype, casting="same_kind")
        return self

    setattr(DeviceArray, f"__{name}__", method)
    setattr(DeviceArray, f"__r{name}__", reflected)
    setattr(DeviceArray, f"__i{name}__", in_place)


for _name in ("neg", "pos", "abs", "invert"):
    _unary(_name)
for _name in OPERATORS.split():
    _binary(_name)
DeviceArray.__hash__ = None


def _unwrapped(value):
    """Replace the stand-in's arrays by NumPy's, inside of tuples, lists and slices too."""
    if isinstance(value, DeviceArray):
        return value.values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(_unwrapped(element) for element in value)
    return value


def _wrapped(value):
    """Replace NumPy's arrays by the stand-in's; a number that NumPy would return is an array, too."""
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    if isinstance(value, tuple | list):
        return type(value)(_wrapped(element) for element in value)
    return value


def _on_device(function):
    def call(*args, **kwargs):
        options = {name: _unwrapped(value) for name, value in kwargs.items()}
        return _wrapped(function(*_unwrapped(args), **options))

    return call


# --- functions ------------------------------------------------------------------------------------------


class FakeCupy(types.ModuleType):
    """The functions of NumPy's that are asked for, for the stand-in's arrays."""

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        thing = getattr(np, name)
        if isinstance(thing, type) or not callable(thing):
            return thing  # dtypes and constants
        function = _on_device(thing)
        if isinstance(thing, np.ufunc):
            function.at = _on_device(thing.at)
        return function


def make(devices: int = 1, driver: int = 13000) -> FakeCupy:
    """Return the module.

    Parameters
    ----------
    devices : int
        How many it finds; with none, it fails as CuPy does.
    driver : int
        The release of CUDA that the driver is for; 0 for no driver.
    """
    cupy = FakeCupy("cupy")
    cupy.__version__ = "0 (stand-in)"
    cupy.ndarray = DeviceArray
    cupy.asarray = lambda value, dtype=None: _to_device(value, dtype, copy=False)
    cupy.array = lambda value, dtype=None: _to_device(value, dtype, copy=True)
    cupy.asnumpy = lambda value: value.get() if isinstance(value, DeviceArray) else np.asarray(value)
    cupy.empty = lambda shape, dtype=np.float64: _poisoned(np.empty(shape, dtype))
    cupy.empty_like = lambda value, dtype=None: _poisoned(np.empty_like(value.values, dtype))
    cupy.RawKernel = RawKernel
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: None)
    cupy.cuda = types.ModuleType("cupy.cuda")
    cupy.cuda.Device = Device
    cupy.cuda.Event = Event
    cupy.cuda.get_elapsed_time = lambda start, end: 1000 * (end.seconds - start.seconds)
    cupy.cuda.nvrtc = types.SimpleNamespace(getVersion=lambda: (13, 0))
    cupy.cuda.runtime = _runtime(devices, driver)
    return cupy


def _to_device(value, dtype, copy: bool) -> DeviceArray:
    if isinstance(value, DeviceArray):
        return DeviceArray(np.array(value.values, dtype, copy=copy or None))
    return DeviceArray(np.array(value, dtype))


def _poisoned(values: np.ndarray) -> DeviceArray:
    """New memory holds anything: here, what cannot be used unnoticed."""
    values.fill(np.nan if values.dtype.kind in "fc" else 1 if values.dtype == bool else 99)
    return DeviceArray(values)


# --- kernels --------------------------------------------------------------------------------------------


class Launch(NamedTuple):
    """What a kernel was launched with."""

    name: str
    options: tuple[str, ...]
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: tuple
    shared_mem: int


class RawKernel:
    """A kernel, which runs emulated. Refuses what CuPy or a device fails at, or takes for something else."""

    # Of all kernels, for tests to look at; the last ones only, since they keep their arrays.
    launches: ClassVar[deque[Launch]] = deque(maxlen=10)
    count = 0

    def __init__(self, code: str, name: str, options: tuple = ()) -> None:
        assert isinstance(options, tuple)
        assert all(isinstance(option, str) for option in options)
        self.code, self.name, self.options = code, name, options
        self.parameters = kernel_signatures(code)[name]
        self.max_dynamic_shared_size_bytes = ATTRIBUTES["MaxSharedMemoryPerBlock"]

    def __call__(self, grid, block, args, shared_mem: int = 0) -> None:
        for sizes in (grid, block):
            assert isinstance(sizes, tuple)
            assert len(sizes) == 3
        assert isinstance(args, tuple)
        assert len(args) == len(self.parameters)
        for parameter, value in zip(self.parameters, args, strict=True):
            if isinstance(value, DeviceArray):
                assert parameter.is_pointer, f"{parameter.name} is a number, and was given an array"
                assert value.flags.c_contiguous, f"{parameter.name}: CuPy ignores strides"
            else:  # a Python number would be passed as 8 bytes
                assert isinstance(value, np.generic), f"{parameter.name} was given a {type(value).__name__}"
                assert not parameter.is_pointer or value == np.uintp(0)
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self.launches.append(Launch(self.name, self.options, grid, block, args, shared_mem))
        RawKernel.count += 1
        defines = (option[2:].partition("=") for option in self.options if option.startswith("-D"))
        program = emulator.Program(self.code, tuple((n, value) for n, _, value in defines), _file(self.code))
        values = [_c_value(*pair) for pair in zip(self.parameters, args, strict=True)]
        with emulator.intercepted(None), emulator.options():  # pytest --cuda intercepts what is run emulated
            emulator.run(program, self.name, grid, block, values, shared_mem)


def _file(code: str) -> str:
    """Return the name of the file that the text is from, which its first line says."""
    match = re.match(r'#line 1 "(\S+)"', code)
    return "kernel.cu" if match is None else match[1]


def _c_value(parameter, value):
    if isinstance(value, DeviceArray):
        return value.values
    return None if parameter.is_pointer else value


# --- the device -----------------------------------------------------------------------------------------


class Device:
    """The only one that there is."""

    compute_capability = "{}{}".format(*emulator.COMPUTE_CAPABILITY)
    pci_bus_id = "0000:00:00.0"
    attributes = ATTRIBUTES

    def __init__(self, device: int | None = None) -> None:
        self.id = device or 0
        assert self.id == 0

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        pass

    def synchronize(self) -> None:
        pass


class CUDARuntimeError(RuntimeError):
    """As CuPy calls it."""


def _runtime(devices: int, driver: int) -> types.SimpleNamespace:
    def count() -> int:
        if driver < 13000:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
        if devices == 0:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return devices

    return types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=count,
        getDevice=lambda: 0,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 13020,
        getDeviceProperties=lambda device: {"name": NAME.encode()},
        memGetInfo=lambda: (2**30, 2**30),
        deviceSynchronize=lambda: None,
    )


class Event:
    """A moment; the stand-in does at once what it is told to do."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        pass


def benchmark(
    func, args=(), kwargs=None, n_repeat=10000, *, name=None, n_warmup=10, max_duration=float("inf")
):
    """Call a function again and again, as ``cupyx.profiler.benchmark`` does."""
    for _ in range(n_warmup):
        func(*args, **(kwargs or {}))
    times, start = [], time.perf_counter()
    for _ in range(n_repeat):
        before = time.perf_counter()
        func(*args, **(kwargs or {}))
        times.append(time.perf_counter() - before)
        if time.perf_counter() - start > max_duration:
            break
    return types.SimpleNamespace(cpu_times=np.array(times), gpu_times=np.array([times]))
