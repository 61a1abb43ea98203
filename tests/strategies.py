"""What hypothesis draws for the tests: npbert's own, as users get them, under one short import.

`flags`, `scales`, `seeds` and `shapes` are strategies; the other functions take a ``numpy.random.Generator``.
"""

from npbert.gradcheck.draw import integers, padding_mask, scattered_mask, weights
from npbert.gradcheck.strategies import SIZES, flags, scales, seeds, shapes

__all__ = [
    "SIZES",
    "flags",
    "integers",
    "padding_mask",
    "scales",
    "scattered_mask",
    "seeds",
    "shapes",
    "weights",
]
