"""Forwards of this package's own ops on arrays of mpmath's numbers, for `npbert.gradcheck.mpmath_oracle`.

Those ops are here whose gradients are ill-conditioned at arguments that occur: the layernorm of a nearly
constant row, and a saturated softmax.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from npbert.gradcheck.pair import Array
from npbert.ops.layernorm import layernorm_forward
from npbert.ops.softmax import softmax_forward


def layernorm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """As `npbert.ops.layernorm_forward`, without the cache."""
    import mpmath

    width = x.shape[-1]
    centred = x - x.sum(axis=-1, keepdims=True) / width
    variance = (centred * centred).sum(axis=-1, keepdims=True) / width
    std = np.frompyfunc(mpmath.sqrt, 1, 1)(variance + mpmath.mpf(eps))
    return np.asarray(centred / std * weight + bias)


def softmax(x: Array, mask: Array | None = None) -> Array:
    """As `npbert.ops.softmax_forward`, without the cache."""
    import mpmath

    # At any number of digits no exponential overflows: mpmath's exponents are integers without a limit.
    exponentials = np.frompyfunc(mpmath.exp, 1, 1)(x)
    if mask is not None:
        exponentials = np.where(mask, exponentials, mpmath.mpf(0))
    total = exponentials.sum(axis=-1, keepdims=True)
    return np.asarray(exponentials / np.where(total == 0, mpmath.mpf(1), total))


_FORWARDS: dict[Callable[..., Any], Callable[..., Any]] = {
    layernorm_forward: layernorm,
    softmax_forward: softmax,
}


def registered(fn: Any) -> Callable[..., Any] | None:
    """Return the mpmath forward of one of this package's ops, None for anything else."""
    return next((forward for known, forward in _FORWARDS.items() if known is fn), None)
