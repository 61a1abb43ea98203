"""Softmax over the last axis, with places that may be excluded:  p_i = exp(x_i) / sum_j exp(x_j)."""

from typing import NamedTuple

from npbert.ops.array_module import Array, array_module


class SoftmaxCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    probs: Array  # (..., C), the output itself: softmax's derivative is a function of it alone


def softmax_forward(x: Array, mask: Array | None = None) -> tuple[Array, SoftmaxCache]:
    """Turn each row of scores into probabilities.

    The row's maximum is subtracted first: the result is the same, and no exponential overflows.
    Masked places count as minus infinity: their probability is exactly 0. A row whose places are all
    masked has no distribution to give; it is all zeros (and so is its gradient).

    Parameters
    ----------
    x : (..., C) floating
    mask : bool, broadcastable to x, or None
        True where a place takes part. None: all do.

    Returns
    -------
    probs : (..., C)
        Rows sum to 1, except fully masked ones.
    cache : SoftmaxCache

    Examples
    --------
    >>> import numpy as np
    >>> softmax_forward(np.array([0.0, 0.0, 5.0]), np.array([True, True, False]))[0]
    array([0.5, 0.5, 0. ])
    """
    xp = array_module(x)
    if mask is not None:
        x = xp.where(mask, x, xp.asarray(-xp.inf, dtype=x.dtype))  # (..., C)
    row_max = x.real.max(axis=-1, keepdims=True)  # (..., 1), a constant: it cancels
    row_max = xp.where(row_max == -xp.inf, 0, row_max)  # fully masked row: -inf - -inf would be NaN
    exponentials = xp.exp(x - row_max)  # (..., C)
    total = exponentials.sum(axis=-1, keepdims=True)  # (..., 1)
    probs = exponentials / xp.where(total == 0, 1, total)  # (..., C)
    return probs, SoftmaxCache(probs)


def softmax_backward(dprobs: Array, cache: SoftmaxCache) -> Array:
    """Backward of :func:`softmax_forward`.

    ``∂p_i/∂x_j = p_i (δ_ij - p_j)``, hence::

        dx_j = sum_i dp_i p_i (δ_ij - p_j) = p_j (dp_j - sum_i dp_i p_i)

    The sum is one number a row. Rows of dx sum to 0, since adding a constant to a row of x changes
    nothing; masked places have p = 0 and so get exactly 0.

    Parameters
    ----------
    dprobs : (..., C) floating
    cache : SoftmaxCache

    Returns
    -------
    dx : (..., C)
    """
    probs = cache.probs
    expected_dprobs = (dprobs * probs).sum(axis=-1, keepdims=True)  # (..., 1)
    dx = probs * (dprobs - expected_dprobs)  # (..., C)
    return dx
