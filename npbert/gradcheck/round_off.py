"""How inexact a gradient is for no fault of its formula.

Where a gradient is the small difference of large terms (a layernorm over two features, a saturated softmax),
its round-off is large beside it, and no comparison can be stricter than that. A checker that does not know
the terms has two ways to see it:

- *Shake* arguments, cotangents and the cache by a few eps and look at what that changes: other roundings of
  the same computation, or the sensitivity of the gradient to numbers that are rounded themselves.
- *Scale*: a gradient so small that moving the argument by its own size changes the outputs by less than
  their last digit is made of terms that cancel. This sees saturation, which shaking does not: there the
  intermediate results round the same way every time.

Neither excuses a wrong formula: a wrong result moves no more than a right one when it is shaken, and the
second allowance is limited to a thousandth of the gradient.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npbert.gradcheck.objective import Objective
from npbert.gradcheck.oracles import EPS
from npbert.gradcheck.pair import Array, BrokenPair

# A handful of shakes underestimates the worst case, hence the margin.
SHAKES, SHAKEN_BY, MARGIN = 4, 2 * EPS, 10.0
LAST_DIGITS, SHARE = 4 * EPS, 1e-3


def round_off(
    objective: Objective,
    gradients: Sequence[Array],
    base: Sequence[Array],
    rng: np.random.Generator,
) -> list[Array]:
    """Return the round-off of every entry of every gradient, the same throughout a row.

    Parameters
    ----------
    objective : Objective
        The pair, at its arguments and cotangents.
    gradients : sequence of ndarray
        What the backward returned.
    base : sequence of ndarray
        The outputs of the forward.
    rng : Generator
        Draws the shakes.
    """
    size = LAST_DIGITS * float(np.linalg.norm(objective.terms(base)))
    noise = []
    for number, (gradient, moves) in enumerate(
        zip(gradients, _moves(objective, gradients, rng), strict=True)
    ):
        saturated = np.minimum(size / objective.scale(number), SHARE * row_norm(gradient))
        noise.append(np.maximum(MARGIN * row_norm(moves), saturated))
    return noise


def _moves(objective: Objective, gradients: Sequence[Array], rng: np.random.Generator) -> list[Array]:
    """Return how far each entry moves at most when arguments, cotangents and cache are shaken."""
    pair = objective.pair
    moves = [np.zeros(gradient.shape) for gradient in gradients]
    for _ in range(SHAKES):
        cotangents = [_shaken(dout, rng) for dout in objective.cotangents]
        values = [_shaken(value, rng) for value in objective.values]
        try:
            forward = pair.forward(pair.arguments(values))
            found = pair.gradients(cotangents, replace(forward, cache=_shaken(forward.cache, rng)))
        except BrokenPair:
            continue
        for number, (gradient, moved) in enumerate(zip(gradients, found, strict=True)):
            if _is_finite(moved) and np.shape(moved) == gradient.shape:
                moves[number] = np.fmax(moves[number], np.abs(moved - gradient))
    return moves


def _shaken(value: Any, rng: np.random.Generator) -> Any:
    """Return a copy in which every floating-point array is shaken, in tuples, lists and dictionaries too.

    Whatever else a cache may hold stays what it is.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return np.asarray(value * (1 + SHAKEN_BY * rng.uniform(-1, 1, value.shape)), dtype=value.dtype)
    if type(value) is dict:
        return {key: _shaken(one, rng) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_shaken(one, rng) for one in value))
    if type(value) in (tuple, list):
        return type(value)(_shaken(one, rng) for one in value)
    return value


def _is_finite(value: Any) -> bool:
    """Tell whether something that a backward returned is an array of finite floating-point numbers."""
    is_array = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind == "f"
    return is_array and bool(np.all(np.isfinite(value)))


def row_norm(value: Array) -> Array:
    """Return the norm of each row (the last axis), at every entry of the row."""
    rows = np.atleast_1d(value)
    largest = np.max(np.abs(rows), axis=-1, keepdims=True, initial=0.0)
    # Relative to the largest entry no square overflows, which would make the norm infinite.
    relative = rows / np.where(largest > 0, largest, 1)
    norms = largest * np.sqrt(np.sum(np.square(relative), axis=-1, keepdims=True))
    return np.broadcast_to(norms, rows.shape).reshape(value.shape)
