"""Softmax over the last axis, a few rows at a time, in place."""

import numpy as np

from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.ops import softmax as textbook
from npbert.ops.array_module import Array
from npbert.ops.softmax import SoftmaxCache

BLOCK_BYTES = 1 << 18  # of each array, worked on at once: a core's second-level cache holds several

# Scores nearer to 0 than this need no maximum subtracted: neither exp(60) nor exp(-60), nor the sum of many
# of them, is near float32's limits.
SAFE_SCORE = 60.0


def softmax_forward(x: Array, mask: Array | None = None) -> tuple[Array, SoftmaxCache]:
    """Turn each row of scores into probabilities; see :func:`npbert.ops.softmax_forward`.

    Parameters
    ----------
    x : (..., C) floating
        Complex arrays are left to the textbook.
    mask : bool, broadcastable to x, or None

    Returns
    -------
    probs : (..., C)
    cache : SoftmaxCache
    """
    if x.dtype not in (np.float32, np.float64):
        return textbook.softmax_forward(x, mask)
    classes = x.shape[-1]
    probs = np.empty(x.shape, x.dtype)
    x_rows, probs_rows = x.reshape(-1, classes), probs.reshape(-1, classes)
    mask_rows = None if mask is None else np.broadcast_to(mask, x.shape).reshape(-1, classes)
    ones = np.ones(classes, x.dtype)

    def work(rows: slice) -> None:
        scores, y = x_rows[rows], probs_rows[rows]
        some = None if mask_rows is None else mask_rows[rows]
        if scores.min() >= -SAFE_SCORE and scores.max() <= SAFE_SCORE:
            np.exp(scores, out=y)
            if some is not None:
                y *= some
        else:
            np.copyto(y, scores)
            if some is not None:
                y[~some] = -np.inf
            row_max = y.max(axis=-1, keepdims=True)
            row_max[row_max == -np.inf] = 0  # nothing takes part: -inf - -inf would be NaN
            y -= row_max
            np.exp(y, out=y)
        with np.errstate(invalid="ignore"):  # BLAS may look at what lies beside a short row
            total = y @ ones
        total[total == 0] = 1
        y *= _spread(1 / total, y)

    share_out(work, row_blocks(len(x_rows), _rows_at_once(x)))
    return probs, SoftmaxCache(probs)


def softmax_backward(dprobs: Array, cache: SoftmaxCache) -> Array:
    """Backward of :func:`softmax_forward`; see :func:`npbert.ops.softmax_backward`.

    Parameters
    ----------
    dprobs : (..., C) floating
    cache : SoftmaxCache

    Returns
    -------
    dx : (..., C)
    """
    probs = cache.probs
    if probs.dtype not in (np.float32, np.float64) or dprobs.dtype != probs.dtype:
        return textbook.softmax_backward(dprobs, cache)
    classes = probs.shape[-1]
    dx = np.empty(probs.shape, probs.dtype)
    probs_rows, dprobs_rows, dx_rows = (a.reshape(-1, classes) for a in (probs, dprobs, dx))

    def work(rows: slice) -> None:
        p, dp, out = probs_rows[rows], dprobs_rows[rows], dx_rows[rows]
        expected = _spread(np.einsum("rc,rc->r", p, dp), out)
        np.subtract(dp, expected, out=out)
        out *= p

    share_out(work, row_blocks(len(dx_rows), _rows_at_once(probs)))
    return dx


def _spread(of_row: Array, like: Array) -> Array:
    """Write each row's number to all of its places: one long loop then is quicker than a loop a row."""
    spread = scratch("spread", like.shape, like.dtype)
    np.copyto(spread, of_row[:, None])
    return spread


def _rows_at_once(x: Array) -> int:
    bytes_a_row: int = x.shape[-1] * x.itemsize
    return max(1, BLOCK_BYTES // bytes_a_row)
