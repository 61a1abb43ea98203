"""Products of N heads with as many others, and the layouts in which OpenBLAS multiplies them fastest.

A head is a few dozen columns of a matrix whose rows lie kilobytes apart. Of products as small as those of
attention, what is not arithmetic decides the time: fetching such rows, and copying operands to where they can
be read faster than as they lie.

Each head is multiplied on its own, and cut by its own size: its result does not depend on the others.
"""

import numpy as np

from npbert.cpu.workers import row_blocks, scratch
from npbert.ops.array_module import Array

# Multiplications in a product up to which OpenBLAS does without copies of its operands, unless these are rows
# to be multiplied by rows.
SMALL_PRODUCT = 10**6

# A product is not cut into fewer rows than this.
FEWEST_ROWS = 64

# Rows kilobytes apart that stay in the first-level cache together: they share a few of its places.
DISTANT_ROWS = 48


def multiply(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` to ``out``, in products that are small.

    Parameters
    ----------
    a : (..., rows, inner)
    b : (..., inner, columns)
        Best with contiguous rows: ``b`` as the transpose of an array makes no product small.
    out : (..., rows, columns)
    """
    rows, inner = a.shape[-2:]
    most = SMALL_PRODUCT // (inner * b.shape[-1])
    if rows <= most or most < FEWEST_ROWS:
        np.matmul(a, b, out=out)
        return
    pieces = -(-rows // most)
    for some in row_blocks(rows, -(-rows // pieces)):
        np.matmul(a[..., some, :], b, out=out[..., some, :])


def add_product(a: Array, b: Array, total: Array, first: bool) -> None:
    """Add ``a @ b`` to a sum that is not there before the first one."""
    if first:
        multiply(a, b, total)
    else:
        product = scratch("product", total.shape, total.dtype)
        multiply(a, b, product)
        total += product


def gathered(name: str, x: Array) -> Array:
    """Return an (N, T, H) array whose rows lie close together, or are few: else a copy in scratch memory."""
    if x.shape[1] <= DISTANT_ROWS:
        return x
    copy = scratch(name, x.shape, x.dtype)
    copy[...] = x
    return copy


def transposed(name: str, x: Array, factor: float, ones: bool = False) -> Array:
    """(N, T, H) -> (N, H, T), a multiple in scratch memory; with ``ones`` one more row, (N, H + 1, T)."""
    heads, rows, width = x.shape
    with_ones = scratch(name, (heads, width + ones, rows), x.dtype)
    for some in row_blocks(rows, DISTANT_ROWS):
        with_ones[:, :width, some] = x[:, some].swapaxes(1, 2)
    with_ones.reshape(heads, -1)[:, : width * rows] *= factor  # contiguous, for NumPy to see it
    with_ones[:, width:] = 1
    return with_ones


def widened(name: str, x: Array, column: Array) -> Array:
    """(N, T, H) -> (N, T, H + 1): one more column, in scratch memory."""
    heads, rows, width = x.shape
    with_column = scratch(name, (heads, rows, width + 1), x.dtype)
    with_column[..., :-1] = x
    with_column[..., -1] = column
    return with_column
