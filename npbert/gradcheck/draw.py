"""Rich inputs for the check of a backward pass, drawn from a ``numpy.random.Generator``.

Most mistakes in a backward pass do not show on bland inputs: a forgotten mask where nothing is masked, ``=``
for ``+=`` where no id occurs twice, a lost mean where a row is constant. `npbert.gradcheck.strategies` makes
hypothesis strategies of these functions.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

ROWS = ("ordinary", "constant", "nearly constant", "zero", "far from zero", "one spike")
LOGITS = ("ordinary", "huge", "equal", "several largest", "one certain")


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Floats:
    """Draw normal numbers."""
    return scale * rng.normal(size=shape)


def weights(rng: np.random.Generator, *shape: int) -> Floats:
    """Draw normal numbers of both signs, about one in six of them exactly 0."""
    return rng.normal(size=shape) * (rng.random(shape) > 1 / 6)


def integers(rng: np.random.Generator, *shape: int) -> Floats:
    """Draw whole numbers in float64, so that sums of them are exact in any order."""
    return rng.integers(-9, 10, size=shape).astype(np.float64)


def degenerate_rows(rng: np.random.Generator, *shape: int) -> Floats:
    """Draw rows (along the last axis) each of which is one of `ROWS`; hard on layer norms and softmax.

    A layer norm of a constant row with a tiny ``eps`` has gradients that no difference quotient can check.
    """
    rows = rng.normal(size=shape)
    kind = np.array(ROWS)[rng.integers(len(ROWS), size=(*shape[:-1], 1))]
    level = rng.normal(size=kind.shape)
    spike = np.where(np.arange(shape[-1]) == rng.integers(shape[-1], size=kind.shape), 30.0, 0.0)
    kinds = [
        (kind == "constant", level + np.zeros(shape)),
        (kind == "nearly constant", level + 1e-4 * rows),
        (kind == "zero", np.zeros(shape)),
        (kind == "far from zero", 1e3 * level + rows),
        (kind == "one spike", spike),
    ]
    return np.select([condition for condition, _ in kinds], [values for _, values in kinds], rows)


def logits(rng: np.random.Generator, *shape: int, largest: float = 1e4) -> Floats:
    """Draw rows of logits (along the last axis) each of which is one of `LOGITS`.

    Parameters
    ----------
    rng : numpy.random.Generator
    *shape : int
    largest : float
        About how large the huge ones are.
    """
    rows = rng.normal(size=shape)
    kind = np.array(LOGITS)[rng.integers(len(LOGITS), size=(*shape[:-1], 1))]
    chosen = np.arange(shape[-1]) == rng.integers(shape[-1], size=kind.shape)
    kinds = [
        (kind == "huge", largest / 3 * np.clip(rows, -3, 3)),
        (kind == "equal", np.zeros(shape) + rng.normal(size=kind.shape)),
        (kind == "several largest", np.minimum(rows, 0.0)),
        (kind == "one certain", rows + largest * chosen),
    ]
    return np.select([condition for condition, _ in kinds], [values for _, values in kinds], rows)


def padding_mask(rng: np.random.Generator, batch: int, tokens: int, empty_text: bool) -> Mask:
    """Draw a (B, T) mask of texts padded on the right, True for real tokens; the last text may have none."""
    lengths = rng.integers(1, tokens + 1, size=batch)
    if empty_text:
        lengths[-1] = 0
    return np.arange(tokens) < lengths[:, None]


def scattered_mask(rng: np.random.Generator, batch: int, tokens: int, empty_text: bool) -> Mask:
    """Draw a (B, T) mask with holes anywhere, True for real tokens; the last text may have none."""
    mask = rng.random((batch, tokens)) < 0.6
    mask[np.arange(batch), rng.integers(0, tokens, size=batch)] = True
    if empty_text:
        mask[-1] = False
    return mask


def keep_mask(rng: np.random.Generator, *shape: int, rate: float) -> Mask:
    """Draw a dropout mask, True for what is kept; ``rate`` of it is dropped on average."""
    return rng.random(shape) >= rate


def ids(rng: np.random.Generator, *shape: int, size: int, padding: int | None = None) -> Integers:
    """Draw ids below ``size``, of which some occur repeatedly and, where there are three or more, some never.

    Parameters
    ----------
    rng : numpy.random.Generator
    *shape : int
    size : int
        Rows of the table that they look up.
    padding : int, optional
        An id that gets no gradient; about a quarter of the ids are this one.
    """
    used = rng.choice(size, (size + 1) // 2, replace=False)
    found = rng.choice(used, shape)
    return found if padding is None else np.where(rng.random(shape) < 0.25, padding, found)


def labels(
    rng: np.random.Generator, *shape: int, classes: int, ignore_index: int = -100, ignored: float = 0.4
) -> Integers:
    """Draw classes, of which the fraction ``ignored`` is ``ignore_index`` instead (1.0: all of them)."""
    found = rng.integers(classes, size=shape)
    return np.where(rng.random(shape) < ignored, ignore_index, found)
