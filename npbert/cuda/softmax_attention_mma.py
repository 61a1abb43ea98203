"""The attention kernels on tensor cores (``kernels/softmax_attention_mma.cu``): float16, no bias, sm_80 on.

This is the internal pair of functions that :mod:`npbert.cuda.attention_options` describes. They take what
:mod:`npbert.cuda.softmax_attention` has checked; :func:`supports` says whether they take it.
"""

import numpy as np

from npbert.cuda.attention_options import (
    AttentionOptions,
    Sequences,
    blocks_of_tiles,
    layout_arguments,
    score_scale,
    scoring_arguments,
)
from npbert.cuda.runtime import Kernel, compute_capability, launch, storage_defines
from npbert.ops.array_module import Array, array_module

FILE = "softmax_attention_mma.cu"
THREADS = 128
BACKWARD_ROWS = 64  # of a block

WIDTH_STEP = 16  # mma.sync m16n8k16 takes that many columns at a time
WIDEST_HEAD = 128
WIDEST_NARROW_HEAD = 64  # up to here a block has registers for twice as many sums
OLDEST_DEVICE = (8, 0)  # compute capability: of m16n8k16 and cp.async


def supports(q: Array, options: AttentionOptions) -> bool:
    """Return whether these kernels take such queries, on the device that they are on.

    Parameters
    ----------
    q : (query tokens, N, H) floating
    options : AttentionOptions

    Returns
    -------
    bool
        The scalar kernels take what these do not.
    """
    return _obstacle(q, options) is None


def attention_forward(
    q: Array, k: Array, v: Array, sequences: Sequences, options: AttentionOptions
) -> tuple[Array, Array]:
    """Run the forward kernel on rows.

    Parameters
    ----------
    q : (query tokens, N, H) float16
        As `k` and `v`: C-contiguous, from a multiple of 16 bytes on. H is a multiple of 16 up to 128.
    k, v : (key tokens, N, H) float16
    sequences : Sequences
    options : AttentionOptions
        Without a bias.

    Returns
    -------
    context : (query tokens, N, H) float16
    lse : (N, query tokens) float32
        Log-sum-exp of each row of scores; +inf where there was no key to look at.

    Raises
    ------
    ValueError
        For what there is no kernel for: see :func:`supports`.
    """
    _check(q, options)
    xp = array_module(q)
    rows, heads, width = q.shape
    context = xp.empty_like(q)
    lse = xp.empty((heads, rows), dtype=np.float32)
    blocks = blocks_of_tiles(sequences.texts, heads, sequences.max_queries, forward_rows(width))
    if blocks > 0:
        launch(
            _kernel("softmax_attention_mma_forward", width),
            grid=(blocks,),
            block=(THREADS,),
            args=[
                q,
                k,
                v,
                *layout_arguments(q, sequences),
                score_scale(width),
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
) -> tuple[Array, Array, Array, None]:
    """Run the backward kernels on rows: dq and D by rows of scores, then dk and dv by columns.

    Parameters
    ----------
    dcontext : (query tokens, N, H) float16
        C-contiguous, from a multiple of 16 bytes on.
    q, k, v, context, lse, sequences, options
        What :func:`attention_forward` took and returned.

    Returns
    -------
    dq : (query tokens, N, H) float16
    dk, dv : (key tokens, N, H) float16
    dbias : None
        There is no bias.

    Raises
    ------
    ValueError
        For what there is no kernel for: see :func:`supports`.
    """
    _check(q, options)
    xp = array_module(q)
    _, heads, width = q.shape
    dots = xp.empty_like(lse)
    dq, dk, dv = (xp.empty_like(x) for x in (q, k, v))
    layout = layout_arguments(q, sequences)
    scoring = [score_scale(width), *scoring_arguments(options)]
    blocks = blocks_of_tiles(sequences.texts, heads, sequences.max_queries, BACKWARD_ROWS)
    if blocks > 0:
        launch(
            _kernel("softmax_attention_mma_backward_queries", width),
            grid=(blocks,),
            block=(THREADS,),
            args=[dcontext, q, k, v, context, *layout, *scoring, lse, dq, dots],
        )
    blocks = blocks_of_tiles(sequences.texts, heads, sequences.max_keys, BACKWARD_ROWS)
    if blocks > 0:
        launch(
            _kernel("softmax_attention_mma_backward_keys", width),
            grid=(blocks, blocks_for_each_key_tile(width)),
            block=(THREADS,),
            args=[dcontext, q, k, v, *layout, *scoring, lse, dots, dk, dv],
        )
    return dq, dk, dv, None


def forward_rows(width: int) -> int:
    """Return how many queries a block of the forward kernel has; H is `width`."""
    return 128 if width <= WIDEST_NARROW_HEAD else 64


def blocks_for_each_key_tile(width: int) -> int:
    """Return how many blocks share the keys of a tile in the backward: two where dk and dv take one each."""
    return 1 if width <= WIDEST_NARROW_HEAD else 2


def _obstacle(q: Array, options: AttentionOptions) -> str | None:
    """Say what there is no kernel for, or None."""
    width = q.shape[-1]
    if q.dtype != np.float16:
        return f"q is {q.dtype}; the tensor-core kernels take float16"
    if not 0 < width <= WIDEST_HEAD or width % WIDTH_STEP != 0:
        return (
            f"the head width is {width}; "
            f"the tensor-core kernels take multiples of {WIDTH_STEP} up to {WIDEST_HEAD}"
        )
    if options.bias is not None:
        return "there is a bias; the tensor-core kernels take none"
    capability = compute_capability(q)
    if capability < OLDEST_DEVICE:
        found, needed = (".".join(map(str, version)) for version in (capability, OLDEST_DEVICE))
        return f"the device has compute capability {found}; the tensor-core kernels need {needed}"
    return None


def _check(q: Array, options: AttentionOptions) -> None:
    obstacle = _obstacle(q, options)
    if obstacle is not None:
        raise ValueError(f"softmax_attention: {obstacle}")


def _kernel(name: str, width: int) -> Kernel:
    return Kernel(FILE, name, (*storage_defines(np.float16), ("HEAD_WIDTH", str(width))))
