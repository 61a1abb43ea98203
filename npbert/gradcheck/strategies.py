"""Hypothesis strategies for tests of hand-written backward passes.

>>> from hypothesis import given, settings
>>> from npbert.gradcheck import check, strategies
>>> from npbert.ops import layernorm_backward, layernorm_forward
>>> @settings(max_examples=10)
... @given(x=strategies.degenerate_rows((5, 7)), weight=strategies.weights(7), bias=strategies.normals(7))
... def test_layernorm(x, weight, bias):
...     report = check(layernorm_forward, layernorm_backward, (x, weight, bias, 0.3))
...     assert report.status != "failed", str(report)
>>> test_layernorm()

"Not failed", because what is drawn may leave nothing to prove: with a weight of zeros ``dx`` is zero. Where
several arguments share their sizes, draw a shape and a seed, and the arrays with `npbert.gradcheck.draw`, of
whose functions the strategies here are made:

>>> from npbert.gradcheck import draw
>>> from npbert.ops import linear_backward, linear_forward
>>> @settings(max_examples=10)
... @given(shape=strategies.shapes(3, most=100), seed=strategies.seeds)
... def test_linear(shape, seed):
...     rng = np.random.default_rng(seed)
...     rows, inputs, outputs = shape
...     args = (draw.normal(rng, rows, inputs), draw.weights(rng, outputs, inputs), draw.normal(rng, outputs))
...     report = check(linear_forward, linear_backward, args)
...     assert report.status != "failed", str(report)
>>> test_linear()

Hypothesis draws shapes, seeds and kinds; the numbers come from ``numpy.random.default_rng(seed)``. Of arrays
that hypothesis drew element by element, 69 % of the rows were constant, and on those half of the mistakes in
a backward pass do not show.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npbert.gradcheck import draw

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("npbert.gradcheck.strategies needs hypothesis: pip install hypothesis") from error

Array = NDArray[Any]
Shape = int | Sequence[int] | st.SearchStrategy[tuple[int, ...]]

# Odd, and coprime but for 3 and 33: an axis taken for another one cannot go unnoticed.
SIZES = (1, 2, 3, 5, 7, 31, 33)

seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from((0.1, 1.0, 3.0))
flags = st.booleans()


def shapes(axes: int, most: int = 1500) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of which no two axes are alike unless both are 1.

    Parameters
    ----------
    axes : int
    most : int
        How many elements an array of that shape may have.

    Returns
    -------
    SearchStrategy of tuple of int
    """
    found = [
        shape
        for shape in itertools.product(SIZES, repeat=axes)
        if math.prod(shape) <= most and all(shape.count(size) == 1 for size in shape if size > 1)
    ]
    return st.sampled_from(sorted(found, key=math.prod))


def normals(shape: Shape, scale: float = 1.0, dtype: DTypeLike = np.float64) -> st.SearchStrategy[Array]:
    """Arrays of normal numbers.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
        What `shapes` returns is a strategy of shapes; here as in every other function.
    scale : float
        Their standard deviation.
    dtype : dtype

    Returns
    -------
    SearchStrategy of ndarray
    """
    return _arrays(shape, lambda rng, *axes: draw.normal(rng, *axes, scale=scale), dtype)


def weights(shape: Shape, dtype: DTypeLike = np.float64) -> st.SearchStrategy[Array]:
    """Arrays of normal numbers of both signs, about one in six of them exactly 0, as after pruning.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
    dtype : dtype

    Returns
    -------
    SearchStrategy of ndarray
    """
    return _arrays(shape, draw.weights, dtype)


def whole_numbers(shape: Shape, dtype: DTypeLike = np.float64) -> st.SearchStrategy[Array]:
    """Arrays of whole numbers from -9 to 9: sums of them are exact, so that tests can ask for equality.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
    dtype : dtype

    Returns
    -------
    SearchStrategy of ndarray
    """
    return _arrays(shape, draw.integers, dtype)


def degenerate_rows(shape: Shape, dtype: DTypeLike = np.float64) -> st.SearchStrategy[Array]:
    """Arrays with rows that are ordinary, constant, nearly constant, zero, far from zero, or one spike.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
        Rows lie along the last axis; each draws its kind.
    dtype : dtype

    Returns
    -------
    SearchStrategy of ndarray
    """
    return _arrays(shape, draw.degenerate_rows, dtype)


def logits(shape: Shape, largest: float = 1e4, dtype: DTypeLike = np.float64) -> st.SearchStrategy[Array]:
    """Arrays of logits with rows that are ordinary, huge, equal, tied for the largest, or certain of one.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
        The classes lie along the last axis.
    largest : float
        About how large the huge ones are.
    dtype : dtype

    Returns
    -------
    SearchStrategy of ndarray
    """
    return _arrays(shape, lambda rng, *axes: draw.logits(rng, *axes, largest=largest), dtype)


def masks(batch: int, tokens: int, empty_text: bool | None = None) -> st.SearchStrategy[NDArray[np.bool_]]:
    """(B, T) masks, True for real tokens: texts padded on the right, or with holes anywhere.

    Parameters
    ----------
    batch, tokens : int
    empty_text : bool, optional
        Whether the last text has no token at all; by default sometimes.

    Returns
    -------
    SearchStrategy of ndarray of bool
    """
    empty = flags if empty_text is None else st.just(empty_text)
    kinds = st.sampled_from((draw.padding_mask, draw.scattered_mask))
    return st.builds(
        lambda seed, kind, empty_text: kind(np.random.default_rng(seed), batch, tokens, empty_text),
        seeds,
        kinds,
        empty,
    )


def dropout_masks(shape: Shape, rate: float | None = None) -> st.SearchStrategy[NDArray[np.bool_]]:
    """Dropout masks, True for what is kept.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
    rate : float, optional
        How much is dropped on average; by default anything between nothing and nearly everything.

    Returns
    -------
    SearchStrategy of ndarray of bool
    """
    rates = st.sampled_from((0.0, 0.1, 0.5, 0.9)) if rate is None else st.just(rate)
    return rates.flatmap(
        lambda rate: _arrays(shape, lambda rng, *axes: draw.keep_mask(rng, *axes, rate=rate), np.bool_)
    )


def ids(shape: Shape, size: int, padding: int | None = None) -> st.SearchStrategy[NDArray[np.int64]]:
    """Ids of which some occur repeatedly and some never.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
    size : int
        Rows of the table that they look up.
    padding : int, optional
        An id that gets no gradient; about a quarter of the ids are this one.

    Returns
    -------
    SearchStrategy of ndarray of int64
    """
    return _arrays(shape, lambda rng, *axes: draw.ids(rng, *axes, size=size, padding=padding), np.int64)


def labels(shape: Shape, classes: int, ignore_index: int = -100) -> st.SearchStrategy[NDArray[np.int64]]:
    """Labels of which none, some or all are ignored.

    Parameters
    ----------
    shape : int, sequence of int, or strategy
    classes : int
    ignore_index : int

    Returns
    -------
    SearchStrategy of ndarray of int64
    """
    fractions = st.sampled_from((0.4, 0.0, 1.0))
    return fractions.flatmap(
        lambda ignored: _arrays(
            shape,
            lambda rng, *axes: draw.labels(
                rng, *axes, classes=classes, ignore_index=ignore_index, ignored=ignored
            ),
            np.int64,
        )
    )


def _arrays(shape: Shape, function: Callable[..., Array], dtype: DTypeLike) -> st.SearchStrategy[Any]:
    """Arrays that a function of a generator and the axes draws."""
    if isinstance(shape, st.SearchStrategy):
        drawn = shape
    else:
        drawn = st.just((shape,) if isinstance(shape, int) else tuple(shape))
    return st.builds(
        lambda seed, axes: function(np.random.default_rng(seed), *axes).astype(dtype, copy=False),
        seeds,
        drawn,
    )
