"""Linear layers: products in pieces that workers take, of rows where there are many, else of features.

BLAS never uses threads of its own here: OpenBLAS's wait for more work for tens of milliseconds, busily, on
processors that the workers need.
"""

import numpy as np

from npbert.cpu.workers import row_blocks, share_out, single_threaded_blas
from npbert.ops import linear as textbook
from npbert.ops.array_module import Array
from npbert.ops.linear import LinearCache

# Rows, or features, of a product that a worker computes at once: enough for BLAS to be at its best.
ROWS = 512
FEATURES = 192

# Fewest multiplications that are worth being shared out.
WORTH_SHARING = 1 << 21

Piece = tuple[slice, slice]  # rows and columns of a product


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

    def work(piece: Piece) -> None:
        rows, features = piece
        np.matmul(x_rows[rows], weight[features].T, out=y_rows[piece])
        if bias is not None:
            y_rows[piece] += bias[features]

    with single_threaded_blas():
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

    def work_on_weight(piece: Piece) -> None:
        features, columns = piece
        np.matmul(dy_rows[:, features].T, x_rows[:, columns], out=dweight[piece])
        if dbias is not None and columns.start == 0:
            np.matmul(ones, dy_rows[:, features], out=dbias[features])

    def work_on_x(piece: Piece) -> None:
        rows, columns = piece
        np.matmul(dy_rows[rows], weight[:, columns], out=dx_rows[piece])

    with single_threaded_blas():
        share_out(work_on_weight, _pieces(dweight, len(x_rows)))
        share_out(work_on_x, _pieces(dx_rows, len(weight)))
    return dx, dweight, dbias


def _pieces(product: Array, depth: int) -> list[Piece]:
    """Cut a product whose elements are sums of ``depth`` terms; the shapes alone say where."""
    rows, columns = product.shape
    most = max(1, rows * columns * depth // WORTH_SHARING)
    if rows > ROWS:
        return [(some_rows, slice(0, columns)) for some_rows in _even_blocks(rows, ROWS, most)]
    return [(slice(0, rows), some_columns) for some_columns in _even_blocks(columns, FEATURES, most)]


def _even_blocks(length: int, block: int, most: int) -> list[slice]:
    """Cut into at most so many blocks, of about the same length, which is at most ``block`` if possible."""
    count = max(1, min(-(-length // block), most))
    return row_blocks(length, max(1, -(-length // count)))


def _is_supported(*arrays: Array | None) -> bool:
    dtypes = {a.dtype for a in arrays if a is not None}
    return dtypes in ({np.dtype(np.float32)}, {np.dtype(np.float64)})
