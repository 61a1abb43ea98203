"""Linear layers: products of blocks of rows, each finished, bias and all, while it is in the cache."""

import numpy as np

from npbert.cpu.workers import row_blocks, share_out
from npbert.ops import linear as textbook
from npbert.ops.array_module import Array
from npbert.ops.linear import LinearCache

# Rows of a product that a worker computes at once: many enough for BLAS to be at its best.
ROWS = 512

# Fewest multiplications that are worth being shared out.
WORTH_SHARING = 1 << 21


def linear_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, LinearCache]:
    """Apply a linear map to the last axis of ``x``; see :func:`npbert.ops.linear_forward`.

    Parameters
    ----------
    x : (..., in) floating
        Complex arrays are left to the textbook.
    weight : (out, in) floating
    bias : (out,) floating or None

    Returns
    -------
    y : (..., out)
    cache : LinearCache
    """
    if not _is_supported(x, weight, bias):
        return textbook.linear_forward(x, weight, bias)
    y = np.empty((*x.shape[:-1], len(weight)), x.dtype)
    x_rows, y_rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, len(weight))

    def work(rows: slice) -> None:
        np.matmul(x_rows[rows], weight.T, out=y_rows[rows])
        if bias is not None:
            y_rows[rows] += bias

    share_out(work, _pieces(y_rows, x.shape[-1]))
    return y, LinearCache(x, weight, bias is not None)


def linear_backward(dy: Array, cache: LinearCache) -> tuple[Array, Array, Array | None]:
    """Backward of :func:`linear_forward`; see :func:`npbert.ops.linear_backward`.

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
    if not _is_supported(x, weight, dy):
        return textbook.linear_backward(dy, cache)
    dx, dweight = np.empty(x.shape, x.dtype), np.empty(weight.shape, x.dtype)
    dbias = np.empty(len(weight), x.dtype) if has_bias else None
    dy_rows, x_rows, dx_rows = (a.reshape(-1, a.shape[-1]) for a in (dy, x, dx))
    ones = np.ones(len(dy_rows), x.dtype)

    def work_on_weight(features: slice) -> None:
        np.matmul(dy_rows[:, features].T, x_rows, out=dweight[features])
        if dbias is not None:
            np.matmul(ones, dy_rows[:, features], out=dbias[features])

    def work_on_x(rows: slice) -> None:
        np.matmul(dy_rows[rows], weight, out=dx_rows[rows])

    share_out(work_on_weight, _pieces(dweight, len(x_rows)))
    share_out(work_on_x, _pieces(dx_rows, len(weight)))
    return dx, dweight, dbias


def _pieces(product: Array, depth: int) -> list[slice]:
    """Cut the rows of a product, whose elements are sums of ``depth`` terms; the shape alone says where."""
    rows, columns = product.shape
    pieces = max(1, min(-(-rows // ROWS), rows * columns * depth // WORTH_SHARING))
    return row_blocks(rows, max(1, -(-rows // pieces)))


def _is_supported(*arrays: Array | None) -> bool:
    dtypes = {a.dtype for a in arrays if a is not None}
    return dtypes in ({np.dtype(np.float32)}, {np.dtype(np.float64)})
