"""Whether kernels can run on a GPU here, and what is missing where they cannot."""

import os
from typing import Any, Final

from npbert.errors import BackendError

HOW_TO_INSTALL: Final = 'pip install "npbert[cuda13]" (or "npbert[cuda12]", for a driver of CUDA 12)'


class DeviceError(BackendError):
    """CuPy, a CUDA device or CUDA's compiler is missing; the message says which, and what to install."""


def require_device() -> Any:
    """Return the module ``cupy``, where there is a device that it can use.

    Returns
    -------
    cupy : module

    Raises
    ------
    DeviceError
        If CuPy is not installed, does not find a CUDA device, or does not find CUDA's compiler.
    """
    cupy = _import_cupy()
    _check_device(cupy)
    _check_compiler(cupy)
    return cupy


def _import_cupy() -> Any:
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise DeviceError(f"CuPy is installed but lacks a module: {_in_one_line(error)}") from None
        raise DeviceError(f"CuPy is not installed: {HOW_TO_INSTALL}") from None
    except ImportError as error:
        raise DeviceError(f"CuPy is installed but cannot be imported: {_in_one_line(error)}") from None
    return cupy


def _check_device(cupy: Any) -> None:
    runtime = cupy.cuda.runtime
    try:
        if runtime.getDeviceCount() > 0:
            return
        found = "the driver lists no GPU"
    except runtime.CUDARuntimeError as error:  # which is also how "there are none" is said
        found = _in_one_line(error)
    raise DeviceError(
        f"CuPy {cupy.__version__} is installed, but there is no CUDA device: {_why(runtime)} ({found})"
    )


def _why(runtime: Any) -> str:
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return "NVIDIA's driver is not installed; kernels need it, and a GPU"
    if driver // 1000 < needed // 1000:
        instead = ', or pip install "npbert[cuda12]" in place of this CuPy' if driver // 1000 == 12 else ""
        return (
            f"the driver is one of CUDA {_release(driver)}, this CuPy is for CUDA {_release(needed)}; "
            f"update the driver{instead}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r}"
    return f"the driver is installed, but sees no GPU{hidden}"


def _check_compiler(cupy: Any) -> None:
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # what it raises where the library is missing has changed between releases
        raise DeviceError(
            f"CuPy {cupy.__version__} has a device, but does not find CUDA's compiler (NVRTC): "
            f"{HOW_TO_INSTALL} ({_in_one_line(error)})"
        ) from None


def _release(version: int) -> str:
    """Return "13.2" for 13020."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
