"""What tests of compiled kernels need."""

import pytest

from npbert.cuda.facts.toolchain import ToolchainError, require_toolchain


@pytest.fixture(scope="session")
def toolchain() -> str:
    """Return the version of NVIDIA's compiler; skip a test that compiles where it is not installed."""
    try:
        return require_toolchain()
    except ToolchainError as error:
        pytest.skip(f"no CUDA compiler: {error}")
