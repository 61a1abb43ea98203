"""Linear (dense, fully connected) layer:  y = x Wᵀ + b."""

from typing import NamedTuple

from npbert.ops.array_module import Array


class LinearCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    x: Array  # (..., in), kept: dweight is a product with it
    weight: Array  # (out, in), kept: dx is a product with it
    has_bias: bool


def linear_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, LinearCache]:
    """Apply a linear map to the last axis of ``x``.

    Parameters
    ----------
    x : (..., in) floating
        Any number of leading axes.
    weight : (out, in) floating
        In the layout of ``torch.nn.Linear``: one row an output feature.
    bias : (out,) floating or None

    Returns
    -------
    y : (..., out)
    cache : LinearCache

    Examples
    --------
    >>> import numpy as np
    >>> x, weight, bias = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.5, 0.0])
    >>> y, cache = linear_forward(x, weight, bias)
    >>> y
    array([[11.5, 17. ]])
    """
    y = x @ weight.T  # (..., in) @ (in, out) -> (..., out)
    if bias is not None:
        y = y + bias
    return y, LinearCache(x, weight, bias is not None)


def linear_backward(dy: Array, cache: LinearCache) -> tuple[Array, Array, Array | None]:
    """Backward of :func:`linear_forward`.

    With one row an example, ``y_ro = sum_i x_ri W_oi + b_o``. Each factor's gradient is ``dy`` times
    the other factor, summed over the indices that the factor does not have::

        dx_ri = sum_o dy_ro W_oi        dW_oi = sum_r dy_ro x_ri        db_o = sum_r dy_ro

    Parameters
    ----------
    dy : (..., out) floating
    cache : LinearCache

    Returns
    -------
    dx : (..., in)
    dweight : (out, in)
    dbias : (out,), or None where the forward had no bias
    """
    x, weight, has_bias = cache
    out_features, in_features = weight.shape
    dy_rows = dy.reshape(-1, out_features)  # (..., out) -> (rows, out)
    x_rows = x.reshape(-1, in_features)  # (..., in) -> (rows, in)

    dbias = dy_rows.sum(axis=0) if has_bias else None  # (out,)
    dweight = dy_rows.T @ x_rows  # (out, rows) @ (rows, in) -> (out, in)
    dx = dy @ weight  # (..., out) @ (out, in) -> (..., in)
    return dx, dweight, dbias
