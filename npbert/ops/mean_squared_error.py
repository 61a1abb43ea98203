"""Squared error, the loss of regression:  loss = mean (prediction - target)²."""

from typing import NamedTuple

from npbert.ops.array_module import Array
from npbert.ops.cross_entropy import reduction_weight


class MeanSquaredErrorCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    difference: Array  # (...), prediction - target
    weight: float  # what one element counts: 1 for a sum, 1 / n for a mean over n


def mse_forward(
    prediction: Array, target: Array, reduction: str = "mean"
) -> tuple[Array, MeanSquaredErrorCache]:
    """Compare predictions with the right values.

    Parameters
    ----------
    prediction, target : (...) floating
        Of one shape.
    reduction : "mean" or "sum"
        Over all elements.

    Returns
    -------
    loss : () floating
    cache : MeanSquaredErrorCache

    Examples
    --------
    >>> import numpy as np
    >>> loss, cache = mse_forward(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    >>> float(loss)
    2.0
    """
    weight = reduction_weight(reduction, prediction.size)
    difference = prediction - target  # (...)
    loss = (difference * difference).sum() * weight
    return loss, MeanSquaredErrorCache(difference, weight)


def mse_backward(dloss: Array, cache: MeanSquaredErrorCache) -> tuple[Array, Array]:
    """Backward of :func:`mse_forward`: ``∂(p - t)²/∂p = 2 (p - t)``, and minus that for t.

    Parameters
    ----------
    dloss : () floating
        Of the arrays' dtype, or a Python number.
    cache : MeanSquaredErrorCache

    Returns
    -------
    dprediction, dtarget : (...)
    """
    dprediction = 2 * cache.difference * (dloss * cache.weight)  # (...)
    dtarget = -dprediction
    return dprediction, dtarget
