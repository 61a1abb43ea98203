"""Dropout on all workers, without a branch for an element.

NumPy chooses between two arrays (``where``) one element at a time, several times slower than it multiplies.
So x is scaled, and the bits of each result are multiplied by 1 or 0: what is dropped becomes 0 whatever it
was, infinity and NaN too.
"""

import math
from typing import Any

import numpy as np

from npbert.cpu.keep_mask import draw_kept
from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.ops import dropout as textbook
from npbert.ops.array_module import Array
from npbert.ops.dropout import DropoutCache

BLOCK = 32768  # elements, a multiple of the 4 that one counter of Philox decides
BITS = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}


def dropout_keep_mask(
    shape: tuple[int, ...], rate: float, seed: int, layer: int, site: int, xp: Any = np
) -> Array:
    """Draw which elements of a tensor survive: the bits of :func:`npbert.ops.dropout_keep_mask`.

    Parameters
    ----------
    shape : tuple of int
    rate : float in [0, 1)
    seed : int in [0, 2^64)
    layer, site : int in [0, 2^32)
    xp : module, optional
        Another one than ``numpy`` is left to the textbook.

    Returns
    -------
    bool array of shape `shape`

    Raises
    ------
    ValueError
        For an argument outside its range.
    """
    if xp is not np:
        return textbook.dropout_keep_mask(shape, rate, seed, layer, site, xp)
    textbook.dropout_keep_mask((0,), rate, seed, layer, site)  # checks the arguments
    keep = np.empty(math.prod(shape), bool)

    def work(part: slice) -> None:
        keep[part] = draw_kept(part.start, part.stop - part.start, rate, seed, layer, site)

    share_out(work, row_blocks(keep.size, BLOCK))
    return keep.reshape(shape)


def dropout_forward(x: Array, keep_mask: Array | None, rate: float) -> tuple[Array, DropoutCache]:
    """Set the dropped elements to 0 and scale the others; see :func:`npbert.ops.dropout_forward`.

    Parameters
    ----------
    x : array of any shape, float32 or float64
        Anything else is left to the textbook.
    keep_mask : bool array of the shape of `x`, or None
        True where the element is kept; None keeps all and scales nothing.
    rate : float in [0, 1)
        The rate that the mask was drawn with.

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : DropoutCache
    """
    return _drop(x, keep_mask, rate), DropoutCache(keep_mask, rate)


def dropout_backward(dy: Array, cache: DropoutCache) -> Array:
    """Return the gradient of the dropout's input; see :func:`npbert.ops.dropout_backward`.

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : DropoutCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`
    """
    return _drop(dy, cache.keep_mask, cache.rate)


def drop(x: Array, keep_mask: Array, rate: float, out: Array) -> None:
    """Write :func:`dropout_forward` of ``x`` to ``out``, which may be ``x``, on the calling thread.

    Parameters
    ----------
    x : C-contiguous array of any shape, float32 or float64
    keep_mask : bool array of the shape of `x`, C-contiguous
    rate : float in [0, 1)
    out : array of the shape and dtype of `x`, C-contiguous

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> drop(x, np.array([True, False, True]), 0.5, out=x)
    >>> x
    array([2., 0., 6.])
    """
    x, keep_mask, out = x.reshape(-1), keep_mask.reshape(-1), out.reshape(-1)
    for part in row_blocks(x.size, BLOCK):
        _drop_block(x[part], keep_mask[part], rate, out[part])


def _drop(x: Array, keep_mask: Array | None, rate: float) -> Array:
    """Apply the mask: the same linear map forward and backward."""
    if keep_mask is None or x.dtype not in BITS or keep_mask.shape != x.shape:
        return textbook.dropout_forward(x, keep_mask, rate)[0]
    y = np.empty(x.shape, x.dtype)
    x_flat, y_flat, keep = x.reshape(-1), y.reshape(-1), keep_mask.reshape(-1)
    share_out(
        lambda part: _drop_block(x_flat[part], keep[part], rate, y_flat[part]), row_blocks(y.size, BLOCK)
    )
    return y


def _drop_block(x: Array, keep: Array, rate: float, out: Array) -> None:
    np.multiply(x, 1.0 / (1.0 - rate), out=out)
    kept = scratch("dropout kept", keep.shape, BITS[x.dtype])
    np.copyto(kept, keep.view(np.int8))
    out_bits = out.view(BITS[x.dtype])
    out_bits *= kept
