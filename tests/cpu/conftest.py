"""Settings for the tests of the CPU engine."""

from collections.abc import Generator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def overflow_and_nan_are_errors() -> Generator[None, None, None]:
    """NumPy only warns of them; this thread is one of the workers."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield
