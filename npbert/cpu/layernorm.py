"""Layer normalisation in blocks of rows that stay in a core's cache, with or without a residual added first.

The formulas are the textbook's, and so is the cache; what it makes fresh arrays for is done in place. Sums
along a row are dot products of BLAS, one a row: no row's bits depend on its place among the others.
"""

from collections.abc import Callable

import numpy as np

from npbert.cpu.workers import BLOCK, row_blocks, row_by_row, scratch, share_out
from npbert.ops import layernorm as textbook
from npbert.ops.array_module import Array
from npbert.ops.layernorm import LayerNormCache


def layernorm_forward(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, LayerNormCache]:
    """Normalise each row of ``x`` to mean 0 and variance 1, then scale and shift it.

    See :func:`npbert.ops.layernorm_forward`.

    Parameters
    ----------
    x : (..., D) float32 or float64
        Anything else is left to the textbook.
    weight, bias : (D,) of the dtype of `x`
    eps : float

    Returns
    -------
    y : (..., D)
    cache : LayerNormCache
    """
    if not _is_fast(x, weight, bias):
        return textbook.layernorm_forward(x, weight, bias, eps)
    rows = x.reshape(-1, x.shape[-1])
    return _forward(rows, lambda part, _: rows[part], weight, bias, eps, x.shape)


def layernorm_backward(dy: Array, cache: LayerNormCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`layernorm_forward`.

    Parameters
    ----------
    dy : (..., D) floating
    cache : LayerNormCache

    Returns
    -------
    dx : (..., D)
    dweight, dbias : (D,)
    """
    if not _is_fast(dy, *cache):
        return textbook.layernorm_backward(dy, cache)
    width = dy.shape[-1]
    dy_rows, x_hat, inv_std = (
        dy.reshape(-1, width),
        cache.x_hat.reshape(-1, width),
        cache.inv_std.reshape(-1, 1),
    )
    dx = np.empty(dy_rows.shape, dy.dtype)
    parts = _parts(dx)
    sums = np.empty((2, len(parts), width), dy.dtype)

    def work(piece: int) -> None:
        part = parts[piece]
        dy_part, x_hat_part, dx_part = dy_rows[part], x_hat[part], dx[part]
        product = scratch("layernorm product", dx_part.shape, dx.dtype)
        np.multiply(dy_part, x_hat_part, out=product)
        np.add.reduce(product, axis=0, out=sums[0, piece])
        np.add.reduce(dy_part, axis=0, out=sums[1, piece])
        through_mean = _row_means(dy_part, cache.weight)
        through_variance = _row_means(product, cache.weight)
        np.multiply(dy_part, cache.weight, out=dx_part)
        with row_by_row():
            dx_part -= np.multiply(x_hat_part, through_variance, out=product)
            dx_part -= through_mean
            dx_part *= inv_std[part]

    share_out(work, range(len(parts)))
    dweight, dbias = sums.sum(axis=1)
    return dx.reshape(dy.shape), dweight, dbias


def residual_layernorm_forward(
    x: Array, residual: Array, weight: Array, bias: Array, eps: float
) -> tuple[Array, LayerNormCache]:
    """Return ``layernorm_forward(x + residual, weight, bias, eps)`` without storing the sum.

    Parameters
    ----------
    x, residual : (..., D) float32 or float64
    weight, bias : (D,) of the dtype of `x`
    eps : float

    Returns
    -------
    y : (..., D)
    cache : LayerNormCache
    """
    if not _is_fast(x, residual, weight, bias):
        return textbook.layernorm_forward(x + residual, weight, bias, eps)
    rows, residual_rows = (array.reshape(-1, x.shape[-1]) for array in (x, residual))

    def source(part: slice, out: Array) -> Array:
        return np.add(rows[part], residual_rows[part], out=out)

    return _forward(rows, source, weight, bias, eps, x.shape)


def residual_layernorm_backward(dy: Array, cache: LayerNormCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`residual_layernorm_forward`.

    Parameters
    ----------
    dy : (..., D) floating
    cache : LayerNormCache

    Returns
    -------
    dsum : (..., D)
        The gradient of ``x + residual``: that of x, and that of residual.
    dweight, dbias : (D,)
    """
    return layernorm_backward(dy, cache)


def normalise_rows(x: Array, x_hat: Array, eps: float) -> Array:
    """Normalise each row to mean 0 and variance 1, on the calling thread.

    Parameters
    ----------
    x : (rows, D) float32 or float64
    x_hat : (rows, D) of the dtype of `x`
        Is written; may be `x`.
    eps : float

    Returns
    -------
    inv_std : (rows, 1)

    Examples
    --------
    >>> x = np.array([[1.0, 3.0]])
    >>> normalise_rows(x, x, eps=0.0)
    array([[1.]])
    >>> x
    array([[-1.,  1.]])
    """
    means = _row_means(x, np.ones(x.shape[1], x.dtype))
    np.subtract(x, means, out=x_hat)
    inv_std: Array = 1 / np.sqrt(_row_means(x_hat, x_hat) + eps)
    x_hat *= inv_std
    return inv_std


def _forward(
    x: Array,
    source: Callable[[slice, Array], Array],
    weight: Array,
    bias: Array,
    eps: float,
    shape: tuple[int, ...],
) -> tuple[Array, LayerNormCache]:
    """Return the layer norm of the rows of ``source(part, out)``, which may be ``out``, in another shape."""
    y, x_hat, inv_std = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype), np.empty((len(x), 1), x.dtype)

    def work(part: slice) -> None:
        with row_by_row():
            inv_std[part] = normalise_rows(source(part, x_hat[part]), x_hat[part], eps)
            np.multiply(x_hat[part], weight, out=y[part])
            y[part] += bias

    share_out(work, _parts(x))
    return y.reshape(shape), LayerNormCache(x_hat.reshape(shape), inv_std.reshape(*shape[:-1], 1), weight)


def _row_means(x: Array, factor: Array) -> Array:
    """Return the means of the rows of ``x * factor``, (rows, 1)."""
    means: Array = np.vecdot(x, factor)[:, None] / x.shape[1]
    return means


def _parts(x: Array) -> list[slice]:
    return row_blocks(len(x), max(BLOCK // x.shape[1], 1))


def _is_fast(x: Array, *others: Array) -> bool:
    """Return whether this is all of one dtype that the blocks are for, and not empty."""
    return x.dtype in (np.float32, np.float64) and x.size > 0 and all(o.dtype == x.dtype for o in others)
