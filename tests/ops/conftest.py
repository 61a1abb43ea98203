"""Settings for the tests of the ops."""

from collections.abc import Generator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def overflow_and_nan_are_errors() -> Generator[None, None, None]:
    """NumPy only warns of them, and an op may then repair its result; a user would still see the warnings."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield
