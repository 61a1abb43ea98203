"""The logistic function, without overflow."""

from npbert.ops.array_module import Array, array_module


def sigmoid(x: Array) -> Array:
    """Logistic function 1 / (1 + exp(-x)), written so that exp never overflows.

    With e = exp(-|x|) it is 1 / (1 + e) for x >= 0 and e / (1 + e) for x < 0, each to full relative
    accuracy.  Its derivative is sigmoid(x) (1 - sigmoid(x)).

    Parameters
    ----------
    x : array of any shape, floating or complex

    Returns
    -------
    array of the shape and dtype of `x`

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    xp = array_module(x)
    magnitude = xp.copysign(1.0, x.real) * x
    e = xp.exp(-magnitude)
    return xp.where(x.real < 0, e, 1.0) / (1.0 + e)
