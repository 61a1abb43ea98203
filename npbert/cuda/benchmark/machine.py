"""What a benchmark was run on, and what that can do at best."""

import platform
import shutil
import subprocess
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.cuda.facts.devices import DEVICES, Device

# CUDA's names of the devices of `npbert.cuda.facts.devices`. Others of nearly the same name (PCIe, 40 GB,
# laptops) are slower.
NAMES: Final = {
    "Tesla T4": "T4",
    "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA B200": "B200",
}


class Throughput(NamedTuple):
    """Floating-point operations that one multiprocessor does in a clock cycle."""

    float32: int
    float64: int
    tensor: int  # float16 in, float32 sums, dense


# CUDA C++ programming guide, "Throughput of native arithmetic instructions" (a multiplication and an addition
# are two operations); tensor cores: NVIDIA's white papers about each architecture. Consumers' devices of 8.6,
# 8.9 and 12.0 have half of the latter.
THROUGHPUT: Final = {
    "75": Throughput(128, 4, 1024),
    "80": Throughput(128, 64, 2048),
    "86": Throughput(256, 4, 1024),
    "89": Throughput(256, 4, 1024),
    "90": Throughput(256, 128, 4096),
    "100": Throughput(256, 128, 8192),
    "120": Throughput(256, 4, 1024),
}

# Of nvidia-smi --help-query-gpu.
QUERIES: Final = (
    "driver_version",
    "pstate",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "temperature.gpu",
    "power.draw",
    "power.limit",
)


class Machine(NamedTuple):
    """The device and the software; what is not known is None.

    Attributes
    ----------
    device : str
        As the driver calls it.
    compute_capability : str
        Such as "9.0".
    multiprocessors, memory_bytes, l2_bytes : int
    cuda_driver, cuda_runtime, nvrtc : str
        Releases of CUDA.
    cupy, numpy, python, npbert : str
        Versions.
    driver : str or None
        Version of the driver.
    """

    device: str
    compute_capability: str
    multiprocessors: int
    memory_bytes: int
    l2_bytes: int
    cuda_driver: str
    cuda_runtime: str
    nvrtc: str
    cupy: str
    numpy: str
    python: str
    npbert: str
    driver: str | None


class Clocks(NamedTuple):
    """What nvidia-smi says of the device at a moment: None, and why, where it says nothing."""

    values: dict[str, str] | None
    missing: str | None


class Peak(NamedTuple):
    """What a device can do at best, and where that is known from; None, and why, where it is not."""

    device: Device | None
    source: str


def describe_machine(cupy: Any) -> Machine:
    """Return what CuPy's current device is, and what runs on it."""
    from npbert import __version__

    device = cupy.cuda.Device()
    runtime = cupy.cuda.runtime
    clocks = read_clocks(cupy)
    major, minor = cupy.cuda.nvrtc.getVersion()
    return Machine(
        device=_name(cupy),
        compute_capability=_dotted(device.compute_capability),
        multiprocessors=device.attributes["MultiProcessorCount"],
        memory_bytes=runtime.memGetInfo()[1],
        l2_bytes=device.attributes["L2CacheSize"],
        cuda_driver=_release(runtime.driverGetVersion()),
        cuda_runtime=_release(runtime.runtimeGetVersion()),
        nvrtc=f"{major}.{minor}",
        cupy=cupy.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
        npbert=__version__,
        driver=None if clocks.values is None else clocks.values["driver_version"],
    )


def read_clocks(cupy: Any) -> Clocks:
    """Ask nvidia-smi about clocks, power and temperature of CuPy's current device, as they are now."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Clocks(None, "nvidia-smi is not on the PATH: clocks and the driver's version are not recorded")
    command = [
        program,
        f"--id={cupy.cuda.Device().pci_bus_id}",
        f"--query-gpu={','.join(QUERIES)}",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Clocks(None, f"nvidia-smi does not answer: {error}")
    values = [value.strip() for value in done.stdout.split(",")]
    if done.returncode != 0 or len(values) != len(QUERIES):
        return Clocks(None, f"nvidia-smi does not answer: {(done.stderr or done.stdout).strip()}")
    return Clocks(dict(zip(QUERIES, values, strict=True)), None)


def find_peak(cupy: Any) -> Peak:
    """Return what CuPy's current device can do at best: by its data sheet, or by its clock rates."""
    name = _name(cupy)
    if name in NAMES:
        device = next(device for device in DEVICES if device.name == NAMES[name])
        return Peak(device, f"data sheet: {device.source}")
    return _peak_from_clocks(name, cupy.cuda.Device())


def _peak_from_clocks(name: str, device: Any) -> Peak:
    attributes = device.attributes
    per_cycle = THROUGHPUT.get(device.compute_capability)
    needed = ("MultiProcessorCount", "ClockRate", "MemoryClockRate", "GlobalMemoryBusWidth")
    missing = [attribute for attribute in needed if not attributes.get(attribute)]
    if per_cycle is None or missing:
        why = (
            f"compute capability {_dotted(device.compute_capability)} is not in the table of npbert"
            if per_cycle is None
            else f"the driver does not report {', '.join(missing)}"
        )
        return Peak(None, f"unknown: no data sheet of {name} in npbert, and {why}")
    cycles = attributes["MultiProcessorCount"] * attributes["ClockRate"] * 1e3
    # Memory transfers twice in a cycle.
    bandwidth = 2 * attributes["MemoryClockRate"] * 1e3 * attributes["GlobalMemoryBusWidth"] / 8
    found = Device(
        name,
        f"sm_{device.compute_capability}",
        float32=per_cycle.float32 * cycles,
        float64=per_cycle.float64 * cycles,
        tensor=per_cycle.tensor * cycles,
        bandwidth=bandwidth,
        source="clock rates as the driver reports them",
    )
    return Peak(
        found, f"computed from clock rates as the driver reports them; no data sheet of {name} in npbert"
    )


def _name(cupy: Any) -> str:
    name: bytes = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"]
    return name.decode()


def _dotted(compute_capability: str) -> str:
    """Return "9.0" for "90"."""
    return f"{compute_capability[:-1]}.{compute_capability[-1]}"


def _release(version: int) -> str:
    """Return "13.2" for 13020."""
    return f"{version // 1000}.{version % 1000 // 10}"
