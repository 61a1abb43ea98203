"""When two arrays are the same."""

from typing import Any

import numpy as np

# Two ways to compute the same values differ in round-off only.
SAME = 1e-9


def same_array(one: Any, two: Any) -> bool:
    """Tell whether two values are the same array: in shape, and in value up to the dtype's round-off."""
    if one is None or two is None or one is Ellipsis or two is Ellipsis:
        return one is two
    try:
        one, two = np.asarray(one), np.asarray(two)
        if one.shape != two.shape:
            return False
        if one.dtype.kind not in "fc" and two.dtype.kind not in "fc":
            return bool(np.array_equal(one, two))
        return bool(np.all(np.abs(one - two) <= tolerance(one, two)))
    except (TypeError, ValueError):  # not numbers, or a ragged list
        return False


def tolerance(one: Any, two: Any) -> float:
    """Return how far two equal arrays may differ: relative to the second's largest entry."""
    dtypes = [array.dtype for array in (one, two) if array.dtype.kind in "fc"]
    precision = max(float(np.finfo(dtype).eps) for dtype in dtypes)
    relative = max(SAME, 100 * precision)
    return relative * float(np.max(np.abs(two), initial=0.0))
