"""What hypothesis draws for the tests: sizes, seeds, scales and flags.

Arrays themselves come from ``numpy.random.default_rng(seed)``. Hypothesis' own element-wise arrays are
mostly constant rows, on which half of the mistakes in a backward pass do not show.
"""

import itertools
import math

import numpy as np
from hypothesis import strategies as st

# Odd, and coprime but for 3 and 33: an axis taken for another one cannot go unnoticed.
SIZES = (1, 2, 3, 5, 7, 31, 33)

seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from((0.1, 1.0, 3.0))
flags = st.booleans()


def shapes(axes: int, most: int = 1500) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of ``axes`` axes and at most ``most`` elements; no two axes are alike unless both are 1."""
    found = [
        shape
        for shape in itertools.product(SIZES, repeat=axes)
        if math.prod(shape) <= most and all(shape.count(size) == 1 for size in shape if size > 1)
    ]
    return st.sampled_from(sorted(found, key=math.prod))


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal numbers of both signs, about one in six of them exactly 0."""
    return rng.normal(size=shape) * (rng.random(shape) > 1 / 6)


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Whole numbers in float64, so that sums of them are exact in any order."""
    return rng.integers(-9, 10, size=shape).astype(np.float64)


def padding_mask(rng: np.random.Generator, batch: int, tokens: int, empty_text: bool) -> np.ndarray:
    """A (B, T) mask of texts padded on the right, True for real tokens; the last text may have none."""
    lengths = rng.integers(1, tokens + 1, size=batch)
    if empty_text:
        lengths[-1] = 0
    return np.arange(tokens) < lengths[:, None]


def scattered_mask(rng: np.random.Generator, batch: int, tokens: int, empty_text: bool) -> np.ndarray:
    """A (B, T) mask with holes anywhere, True for real tokens; the last text may have none."""
    mask = rng.random((batch, tokens)) < 0.6
    mask[np.arange(batch), rng.integers(0, tokens, size=batch)] = True
    if empty_text:
        mask[-1] = False
    return mask
