"""Where kernels run, and what happens where they cannot."""

import functools
from collections.abc import Iterator

import numpy as np
import pytest

from tests.cuda import kernel_contract


def pytest_configure(config: pytest.Config) -> None:
    """With ``--cuda``, the contract's arrays are CuPy's."""
    kernel_contract.ON_DEVICE = config.getoption("--cuda", default=False)


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip a test that runs kernels on the emulator where nothing can compile them for it."""
    from npbert.cuda import emulator

    if kernel_contract.ON_DEVICE:
        return
    try:
        emulator.compiler()
    except emulator.EmulatorError as error:
        pytest.skip(f"no C++ compiler: {error}")


@pytest.fixture(scope="session")
def emulated(compiler: None) -> None:
    """Skip a test of what only the emulator offers: schedules, sanitizers."""
    if kernel_contract.ON_DEVICE:
        pytest.skip("--cuda: a device has no such switch")


@pytest.fixture(scope="session")
def tensor_cores(compiler: None) -> None:
    """Skip a test of kernels that need tensor cores which the device has not."""
    if not kernel_contract.ON_DEVICE:
        return
    import cupy

    from npbert.cuda.runtime import compute_capability
    from npbert.cuda.softmax_attention_mma import OLDEST_DEVICE

    found = compute_capability(cupy.empty(1))
    if found < OLDEST_DEVICE:
        pytest.skip("the device has compute capability {}.{}: no mma.m16n8k16".format(*found))


@pytest.fixture(scope="session", autouse=True)
def launched_on_device() -> Iterator[None]:
    """With ``--cuda``, no kernel runs emulated, whatever arrays a test gives to its launcher."""
    if not kernel_contract.ON_DEVICE:
        yield
        return
    from npbert.cuda import emulator

    with emulator.intercepted(kernel_contract.launch_on_device):
        yield


@pytest.fixture(scope="module")
def poisoned_memory() -> Iterator[None]:
    """What ``np.empty`` returns is full of NaN, so that a number that no kernel wrote cannot pass for one."""

    def poisoned(function):
        @functools.wraps(function)
        def full_of_nan(*args, **kwargs):
            array = function(*args, **kwargs)
            if array.dtype.kind == "f":
                array.fill(np.nan)
            return array

        return full_of_nan

    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like"):
            patch.setattr(np, name, poisoned(getattr(np, name)))
        yield
