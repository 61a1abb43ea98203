"""The dropout's masks, any stretch of them at a time: `npbert.ops.dropout_keep_mask`, bit for bit."""

import math

import numpy as np

from npbert.cpu.workers import scratch
from npbert.ops.array_module import Array
from npbert.ops.philox import KEY_STEP_0, KEY_STEP_1, MULTIPLIER_0, MULTIPLIER_2, ROUNDS, WORD

# Counters at once: seven arrays of as many 64-bit words lie in a core's second-level cache.
BLOCK = 8192


def draw_kept(first: int, count: int, rate: float, seed: int, layer: int, site: int) -> Array:
    """Draw which elements of a tensor survive, from one element on.

    Parameters
    ----------
    first : int
        Position in C order of the first element wanted.
    count : int
    rate, seed, layer, site
        See :func:`npbert.ops.dropout_keep_mask`.

    Returns
    -------
    (count,) bool
        ``dropout_keep_mask(shape, ...).reshape(-1)[first : first + count]``, whatever the shape.

    Examples
    --------
    >>> from npbert.ops import dropout_keep_mask
    >>> mask = dropout_keep_mask((2, 4), 0.5, seed=0, layer=0, site=0)
    >>> (draw_kept(3, 4, 0.5, seed=0, layer=0, site=0) == mask.reshape(-1)[3:7]).all()
    np.True_
    """
    threshold = math.floor(rate * 2**32)
    first_counter, last_counter = first // 4, (first + count + 3) // 4
    kept = np.empty((last_counter - first_counter, 4), bool)
    for start in range(first_counter, last_counter, BLOCK):
        stop = min(start + BLOCK, last_counter)
        words = _philox(start, stop, seed, layer, site)
        for lane, word in enumerate(words):
            np.greater_equal(word, threshold, out=kept[start - first_counter : stop - first_counter, lane])
    offset = first - 4 * first_counter
    drawn: Array = kept.reshape(-1)[offset : offset + count]
    return drawn


def _philox(start: int, stop: int, seed: int, layer: int, site: int) -> tuple[Array, Array, Array, Array]:
    """`npbert.ops.philox.philox4x32` of the counters from ``start`` on; uint64, in scratch memory."""
    c0, c1, c2, c3, high_0, high_2 = (
        scratch(f"philox {name}", (stop - start,), np.uint64)
        for name in ("c0", "c1", "c2", "c3", "high 0", "high 2")
    )
    c0[:] = np.arange(start, stop, dtype=np.uint64)
    np.right_shift(c0, 32, out=c1)
    c0 &= WORD
    c2[:] = layer
    c3[:] = site
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(ROUNDS):
        c0 *= MULTIPLIER_0
        c2 *= MULTIPLIER_2
        np.right_shift(c2, 32, out=high_2)
        np.right_shift(c0, 32, out=high_0)
        high_2 ^= c1
        high_2 ^= k0
        high_0 ^= c3
        high_0 ^= k1
        c2 &= WORD
        c0 &= WORD
        # The new words are (high 2, low 2, high 0, low 0): the arrays change their names.
        c0, c1, c2, c3, high_0, high_2 = high_2, c2, high_0, c0, c1, c3
        k0 = (k0 + KEY_STEP_0) & WORD
        k1 = (k1 + KEY_STEP_1) & WORD
    return c0, c1, c2, c3
