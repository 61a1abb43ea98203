"""How to pack texts so that a text's bits do not depend on the others.

BLAS promises no such thing. A column of ``weight @ x`` is a sum of the same terms wherever it is, but the
library cuts the product into tiles, and the code for whole tiles, for those left over at the edges, and for
small products may add the terms in different orders; where the tiles begin may depend on the threads. Of
OpenBLAS's kernels,

- those for AVX-512 add in one order, whatever the threads, if the number of columns is a multiple of 16 and
  the product is not one of the small ones;
- those for processors older than AVX2 do so on one thread;
- those for AVX2 do not: there the order depends on a column's place.

What holds of the library in use is tried once, with random numbers. If nothing does, texts share no product.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from npbert.cpu.workers import single_threaded_blas
from npbert.ops.array_module import Array

# Products of fewer multiplications than this may be computed in another way, small products' own.
SMALL = 1 << 20

TRIAL_WEIGHTS = (
    (256, 256),
    (96, 400),
    (40, 24),
    (17, 12),
)  # shapes; the last two make edges in all directions
TRIAL_COLUMNS = 600
TRIAL_STEP = 37


class PackingRule(NamedTuple):
    """What texts that share a product have to heed.

    Attributes
    ----------
    multiple : int
        The number of columns is a multiple of this.
    least : int
        No product has fewer multiplications than this.
    one_thread : bool
        Whether BLAS must not use threads.
    one_text : bool
        Whether texts must not be packed together at all.
    """

    multiple: int
    least: int
    one_thread: bool
    one_text: bool

    def columns(self, tokens: int, smallest_weight: int) -> int:
        """Return how many columns to compute for so many tokens.

        Parameters
        ----------
        tokens : int
        smallest_weight : int
            Elements of the smallest weight that the columns are multiplied with.

        Examples
        --------
        >>> BY_COLUMNS.columns(17, smallest_weight=384 * 384)
        32
        >>> BY_COLUMNS.columns(17, smallest_weight=64 * 64)
        272
        """
        columns = max(tokens, self.least // smallest_weight + 1 if self.least else 1)
        return -(-columns // self.multiple) * self.multiple


ANYHOW = PackingRule(multiple=1, least=0, one_thread=False, one_text=False)
BY_COLUMNS = PackingRule(multiple=16, least=SMALL, one_thread=False, one_text=False)
ON_ONE_THREAD = PackingRule(multiple=16, least=SMALL, one_thread=True, one_text=False)
ALONE = PackingRule(multiple=1, least=0, one_thread=True, one_text=True)


def choose_packing(dtype: np.dtype[Any], batch_invariant: bool | None) -> PackingRule:
    """Return how to pack.

    Parameters
    ----------
    dtype : float32 or float64
    batch_invariant : bool or None
        Whether a text's vector has the same bits whatever is packed with it, and on any number of threads.
        None: if that costs little, that is, some columns more.
    """
    if batch_invariant is None:
        return BY_COLUMNS if invariant_packing(dtype) is BY_COLUMNS else ANYHOW
    return invariant_packing(dtype) if batch_invariant else ANYHOW


@cache
def invariant_packing(dtype: np.dtype[Any]) -> PackingRule:
    """Return the quickest way of packing that gives a text the same bits whatever is packed with it."""
    for packing in (BY_COLUMNS, ON_ONE_THREAD):
        if columns_are_independent(packing, dtype):
            return packing
    return ALONE


def columns_are_independent(packing: PackingRule, dtype: np.dtype[Any]) -> bool:
    """Multiply some columns alone, and the same ones among others: are the bits the same?"""
    rng = np.random.default_rng(0)
    for width, inner in TRIAL_WEIGHTS:
        weight = rng.standard_normal((width, inner)).astype(dtype)
        most = packing.columns(TRIAL_COLUMNS, weight.size) + 5 * packing.multiple
        x = rng.standard_normal((inner, most)).astype(dtype)
        with single_threaded_blas():
            together = multiply(weight, x)
        for wanted in range(1, most, max(TRIAL_STEP, most // 16)):
            columns = packing.columns(wanted, weight.size)
            some = slice((most - columns) // 2, (most - columns) // 2 + columns)
            if packing.one_thread:
                with single_threaded_blas():
                    alone = multiply(weight, x[:, some])
            else:
                alone = multiply(weight, x[:, some])
            if not np.array_equal(alone, together[:, some]):
                return False
    return True


def multiply(weight: Array, x: Array) -> Array:
    """Return the product with a C-contiguous copy of ``x``."""
    product: Array = weight @ np.ascontiguousarray(x)
    return product
