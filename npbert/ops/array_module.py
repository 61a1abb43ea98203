"""Which array library an array belongs to: the one line that lets an op run on NumPy and on CuPy."""

import sys
from typing import Any

import numpy as np

# An array of either library. CuPy's cannot be named without importing it, so checkers see Any.
Array = Any


def array_module(x: Any) -> Any:
    """Return the module whose functions work on ``x``: ``cupy`` for CuPy arrays, ``numpy`` for all else.

    CuPy is never imported from here: an array of CuPy's can only exist where CuPy is already imported.

    Examples
    --------
    >>> array_module(np.ones(3)).__name__
    'numpy'
    """
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    return np


def to_numpy(x: Any) -> Array:
    """Return an array of either library as NumPy's, copied from the device if need be; others are converted.

    Examples
    --------
    >>> to_numpy([1, 2])
    array([1, 2])
    """
    xp = array_module(x)
    return np.asarray(x) if xp is np else xp.asnumpy(x)
