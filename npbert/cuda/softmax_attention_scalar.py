"""The scalar attention kernels (``kernels/softmax_attention.cu``): every dtype, every device.

This is the internal pair of functions that :mod:`npbert.cuda.attention_options` describes. They take what
:mod:`npbert.cuda.softmax_attention` has checked.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npbert.cuda.attention_options import (
    AttentionOptions,
    Sequences,
    blocks_of_tiles,
    layout_arguments,
    score_scale,
    scoring_arguments,
)
from npbert.cuda.runtime import Kernel, launch, storage_defines
from npbert.ops.array_module import Array, array_module

FILE = "softmax_attention.cu"
THREADS = 64
ROWS_OF_DOTS = 8  # a block's, in softmax_attention_backward_dots

WIDTH_STEP = 8
WIDEST_HEAD = 256
SHARED_BYTES = 48 * 1024  # what a block may have on every device without asking

# Rows and columns of the matrix of scores that a block works on at a time. Large tiles read keys less often;
# the first that fits into shared memory is taken.
FORWARD_TILES = ((64, 32), (32, 32), (32, 16), (16, 16), (16, 8), (8, 8))
BACKWARD_TILES = ((32, 32), (32, 16), (16, 16), (16, 8), (8, 8))


class Tiles(NamedTuple):
    """How the kernels for one head width and dtype are cut."""

    forward: tuple[int, int]
    backward: tuple[int, int]


def attention_forward(
    q: Array, k: Array, v: Array, sequences: Sequences, options: AttentionOptions
) -> tuple[Array, Array]:
    """Run the forward kernel on rows.

    Parameters
    ----------
    q : (query tokens, N, H) float64, float32 or float16
        As `k` and `v`: C-contiguous, from a multiple of 16 bytes on.
    k, v : (key tokens, N, H)
    sequences : Sequences
    options : AttentionOptions

    Returns
    -------
    context : (query tokens, N, H)
    lse : (N, query tokens) float64 or float32
        Log-sum-exp of each row of scores; +inf where there was no key to look at.

    Raises
    ------
    ValueError
        For a head width that there is no kernel for.
    """
    xp = array_module(q)
    rows, heads, width = q.shape
    context = xp.empty_like(q)
    lse = xp.empty((heads, rows), dtype=_sum_dtype(q.dtype))
    tiles = choose_tiles(width, q.dtype)
    blocks = blocks_of_tiles(sequences.texts, heads, sequences.max_queries, tiles.forward[0])
    if blocks > 0:
        launch(
            _kernel("softmax_attention_forward", tiles, q),
            grid=(blocks,),
            block=(THREADS,),
            args=[
                q,
                k,
                v,
                *layout_arguments(q, sequences),
                score_scale(width),
                options.bias,
                *scoring_arguments(options),
                context,
                lse,
            ],
        )
    return context, lse


def attention_backward(
    dcontext: Array,
    q: Array,
    k: Array,
    v: Array,
    context: Array,
    lse: Array,
    sequences: Sequences,
    options: AttentionOptions,
) -> tuple[Array, Array, Array, Array | None]:
    """Run the backward kernels on rows: D, then dq by rows of scores, then dk and dv by columns.

    Parameters
    ----------
    dcontext : (query tokens, N, H)
        C-contiguous, from a multiple of 16 bytes on.
    q, k, v, context, lse, sequences, options
        What :func:`attention_forward` took and returned.

    Returns
    -------
    dq : (query tokens, N, H)
    dk, dv : (key tokens, N, H)
    dbias : (B, N, max_queries, max_keys), or None where there was no bias
        Zero for pairs outside a text.

    Raises
    ------
    ValueError
        For a head width that there is no kernel for.
    """
    xp = array_module(q)
    rows, heads, width = q.shape
    tiles = choose_tiles(width, q.dtype)
    dots = xp.empty_like(lse)
    dq, dk, dv = (xp.empty_like(x) for x in (q, k, v))
    dbias = None if options.bias is None else xp.zeros_like(options.bias)

    blocks = -(-rows * heads // ROWS_OF_DOTS)
    if blocks > 0:
        launch(
            _kernel("softmax_attention_backward_dots", tiles, q),
            grid=(blocks,),
            block=(THREADS,),
            args=[dcontext, context, heads, rows, dots],
        )
    inputs = [
        dcontext,
        q,
        k,
        v,
        *layout_arguments(q, sequences),
        score_scale(width),
        options.bias,
        *scoring_arguments(options),
        lse,
        dots,
    ]
    for name, longest, outputs in (
        ("softmax_attention_backward_queries", sequences.max_queries, [dq, dbias]),
        ("softmax_attention_backward_keys", sequences.max_keys, [dk, dv]),
    ):
        blocks = blocks_of_tiles(sequences.texts, heads, longest, tiles.backward[0])
        if blocks > 0:
            launch(_kernel(name, tiles, q), grid=(blocks,), block=(THREADS,), args=[*inputs, *outputs])
    return dq, dk, dv, dbias


def choose_tiles(width: int, dtype: DTypeLike) -> Tiles:
    """Return the largest tiles whose rows shared memory can hold.

    Parameters
    ----------
    width : int
        H, the width of a head.
    dtype : float64, float32 or float16

    Returns
    -------
    tiles : Tiles

    Raises
    ------
    ValueError
        For a width that is not a multiple of 8 up to 256, or whose smallest tiles do not fit.
    """
    if not 0 < width <= WIDEST_HEAD or width % WIDTH_STEP != 0:
        raise ValueError(
            f"softmax_attention: the head width is {width}; the kernels take multiples of {WIDTH_STEP} "
            f"up to {WIDEST_HEAD}"
        )
    itemsize = _sum_dtype(dtype).itemsize
    forward = [tile for tile in FORWARD_TILES if _forward_bytes(width, itemsize, *tile) <= SHARED_BYTES]
    backward = [tile for tile in BACKWARD_TILES if _backward_bytes(width, itemsize, *tile) <= SHARED_BYTES]
    if not forward or not backward:
        needed = _backward_bytes(width, itemsize, *BACKWARD_TILES[-1])
        raise ValueError(
            f"softmax_attention: a head width of {width} in {np.dtype(dtype).name} needs {needed} bytes of "
            f"shared memory a block; there are {SHARED_BYTES}"
        )
    return Tiles(forward[0], backward[0])


def _forward_bytes(width: int, itemsize: int, rows: int, columns: int) -> int:
    """Return the shared memory of the forward kernel: queries; keys and values; weights; flags."""
    pad = 16 // itemsize
    numbers = (rows + 2 * columns) * (width + pad) + rows * (columns + pad)
    return numbers * itemsize + rows * columns + columns


def _backward_bytes(width: int, itemsize: int, rows: int, columns: int) -> int:
    """Return the shared memory of the hungrier backward kernel, by keys: four tiles; two of scores; flags."""
    pad = 16 // itemsize
    numbers = 2 * (rows + columns) * (width + pad) + 2 * rows * (columns + pad) + 2 * columns
    return numbers * itemsize + rows * columns


def _sum_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of ACC: what the kernels add in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _kernel(name: str, tiles: Tiles, q: Array) -> Kernel:
    sizes = {
        "HEAD_WIDTH": q.shape[-1],
        "FORWARD_ROWS": tiles.forward[0],
        "FORWARD_COLUMNS": tiles.forward[1],
        "BACKWARD_ROWS": tiles.backward[0],
        "BACKWARD_COLUMNS": tiles.backward[1],
    }
    defines = tuple((macro, str(size)) for macro, size in sizes.items())
    return Kernel(FILE, name, (*storage_defines(q.dtype), *defines))
