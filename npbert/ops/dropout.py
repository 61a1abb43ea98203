"""Dropout with masks that any device can draw again, bit for bit.

Forward::

    y = x * keep / (1 - rate)

Backward, since y is linear in x::

    dx = dy * keep / (1 - rate)

The mask
--------
Element ``index`` of a tensor (its position in C order, whatever its layout in memory) is decided by one
32-bit word of Philox4x32-10, and by nothing else::

    key     = (seed mod 2^32, seed div 2^32)
    counter = (block mod 2^32, block div 2^32, layer, site)      block = index div 4
    word    = philox4x32(counter, key)[index mod 4]
    keep    = word >= floor(rate * 2^32)                         unsigned comparison

Four neighbours share one counter, because one evaluation of Philox gives four words.  A kernel that
follows these four lines draws the same mask, however it splits the tensor into tiles.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from npbert.ops.array_module import Array, array_module
from npbert.ops.elementwise import blocks
from npbert.ops.philox import philox4x32

# The places of a BERT that drop: the fourth word of the counter.  Saved seeds depend on these values.
SITE_EMBEDDING = 0
SITE_ATTENTION_PROBS = 1
SITE_ATTENTION_OUTPUT = 2
SITE_FEED_FORWARD_OUTPUT = 3
SITE_CLASSIFIER = 4


class DropoutCache(NamedTuple):
    """What the backward needs; x is not part of it, because dropout is linear in x."""

    keep_mask: Array | None  # the shape of x, bool: which elements were kept; None: all of them
    rate: float  # the share that was dropped, for the scale 1 / (1 - rate)


def dropout_keep_mask(
    shape: tuple[int, ...], rate: float, seed: int, layer: int, site: int, xp: Any = np
) -> Array:
    """Draw which elements of a tensor survive.

    Parameters
    ----------
    shape : tuple of int
        Shape of the tensor.
    rate : float in [0, 1)
        Probability of dropping an element.
    seed : int in [0, 2^64)
        One seed for a whole forward pass; a new one for the next.
    layer, site : int in [0, 2^32)
        Which layer, and which place in it (``SITE_...``), so that each place gets a mask of its own.
    xp : module, optional
        ``numpy`` or ``cupy``: where the mask is wanted.

    Returns
    -------
    bool array of shape `shape`
        True where the element is kept.

    Raises
    ------
    ValueError
        For an argument outside its range.

    Examples
    --------
    >>> dropout_keep_mask((2, 4), rate=0.5, seed=0, layer=0, site=SITE_EMBEDDING).astype(int)
    array([[0, 1, 1, 1],
           [1, 0, 1, 0]])
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"rate is {rate}; it must be at least 0 and less than 1")
    for name, value, bits in (("seed", seed, 64), ("layer", layer, 32), ("site", site, 32)):
        if not 0 <= value < 2**bits:
            raise ValueError(f"{name} is {value}; it must be at least 0 and less than 2^{bits}")
    size = math.prod(shape)
    threshold = math.floor(rate * 2**32)
    keep = xp.empty(((size + 3) // 4, 4), dtype=bool)  # a row is the four words of one counter
    for part in blocks(len(keep), xp):
        block = xp.arange(part.start, part.stop, dtype=np.uint64)
        words = philox4x32((block & 0xFFFFFFFF, block >> 32, layer, site), (seed % 2**32, seed >> 32), xp)
        keep[part] = xp.stack(words, axis=-1) >= threshold
    return keep.reshape(-1)[:size].reshape(shape)


def dropout_forward(x: Array, keep_mask: Array | None, rate: float) -> tuple[Array, DropoutCache]:
    """Set the dropped elements to 0 and scale the others so that the expected value stays.

    Parameters
    ----------
    x : array of any shape, floating or complex
    keep_mask : bool array of the shape of `x`, or None
        True where the element is kept; None keeps all and scales nothing.
    rate : float in [0, 1)
        The rate that the mask was drawn with.

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : DropoutCache

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> y, cache = dropout_forward(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), 0.5)
    >>> y
    array([2., 0., 6.])
    """
    return _drop(x, keep_mask, rate), DropoutCache(keep_mask, rate)


def dropout_backward(dy: Array, cache: DropoutCache) -> Array:
    """Return the gradient of the dropout's input.

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : DropoutCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`

    Examples
    --------
    >>> y, cache = dropout_forward(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), 0.5)
    >>> dropout_backward(np.array([1.0, 1.0, 1.0]), cache)
    array([2., 0., 2.])
    """
    return _drop(dy, cache.keep_mask, cache.rate)


def _drop(x: Array, keep_mask: Array | None, rate: float) -> Array:
    """Apply the mask: the same linear map forward and backward."""
    if keep_mask is None:
        return x
    # where, not a product: an infinity that is dropped must leave no NaN behind.
    return array_module(x).where(keep_mask, x * (1.0 / (1.0 - rate)), 0.0)
