"""Philox4x32-10: random words that are a pure function of a counter and a key.

No state is carried from one number to the next, so a CPU and a GPU, or two tiles of one array, draw the
same number for the same counter.  Each of the ten rounds multiplies two of the four counter words and
mixes the halves of the products into the other two; the key moves on by a constant a round.

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
Supercomputing 2011.
"""

from typing import Any

import numpy as np

from npbert.ops.array_module import Array

ROUNDS = 10
MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_2 = 0xCD9E8D57
KEY_STEP_0 = 0x9E3779B9  # 2^32 over the golden ratio
KEY_STEP_1 = 0xBB67AE85  # 2^32 (sqrt(3) - 1)
WORD = 0xFFFFFFFF


def philox4x32(
    counter: tuple[Array, Array, Array, Array], key: tuple[int, int], xp: Any = np
) -> tuple[Array, Array, Array, Array]:
    """Return four random 32-bit words for each 128-bit counter.

    Parameters
    ----------
    counter : four integer arrays (or ints) that broadcast together, values in [0, 2^32)
        The four words of the counter.
    key : two ints in [0, 2^32)
    xp : module, optional
        ``numpy`` or ``cupy``: where to compute.

    Returns
    -------
    four uint32 arrays of the broadcast shape

    Examples
    --------
    >>> [f"{int(word):08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    # 32-bit words are held in 64 bits, where the product of two of them fits.
    c0, c1, c2, c3 = (xp.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        product_0 = c0 * MULTIPLIER_0
        product_2 = c2 * MULTIPLIER_2
        c0, c1, c2, c3 = (
            (product_2 >> 32) ^ c1 ^ k0,
            product_2 & WORD,
            (product_0 >> 32) ^ c3 ^ k1,
            product_0 & WORD,
        )
        k0 = (k0 + KEY_STEP_0) & WORD
        k1 = (k1 + KEY_STEP_1) & WORD
    w0, w1, w2, w3 = (word.astype(np.uint32) for word in xp.broadcast_arrays(c0, c1, c2, c3))
    return w0, w1, w2, w3
