"""Which known mistake a wrong gradient equals."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

# Two ways to compute the same wrong gradient differ in round-off only.
SAME_GRADIENT = 1e-9


class Mistake(NamedTuple):
    """A backward that is wrong in a known way."""

    name: str  # what it does: "forgets the mean term"
    description: str  # the sentence that a learner is told
    backward: Callable[..., Any]


def matching_mistake(
    mistakes: Sequence[Mistake], gradients: Sequence[Any], inputs: Sequence[tuple[Any, Any]]
) -> Mistake | None:
    """Return the mistake that gives the same gradients in every case.

    Parameters
    ----------
    mistakes : sequence of Mistake
    gradients : sequence
        What the backward under test returned, case by case.
    inputs : sequence of (cotangent, cache)
        What it returned that for.

    Returns
    -------
    Mistake or None
        None where no mistake, or no single one, explains all cases.
    """
    for mistake in mistakes:
        if all(
            same_gradients(found, _result(mistake.backward, dy, cache))
            for found, (dy, cache) in zip(gradients, inputs, strict=True)
        ):
            return mistake
    return None


def same_gradients(one: Any, two: Any) -> bool:
    """Tell whether two backwards returned the same, in number, shapes and values up to round-off."""
    arrays, others = list(flat(one)), list(flat(two))
    return len(arrays) == len(others) and all(map(same_array, arrays, others))


def same_array(one: Any, two: Any) -> bool:
    """Tell whether two values are the same array: in shape, and in value up to the dtype's round-off."""
    if one is None or two is None or one is Ellipsis or two is Ellipsis:
        return one is two
    try:
        one, two = np.asarray(one), np.asarray(two)
        if one.shape != two.shape:
            return False
        if one.dtype.kind not in "fc" and two.dtype.kind not in "fc":
            return bool(np.array_equal(one, two))
        return bool(np.all(np.abs(one - two) <= tolerance(one, two)))
    except (TypeError, ValueError):  # not numbers, or a ragged list
        return False


def tolerance(one: Any, two: Any) -> float:
    """Return how far two equal arrays may differ: relative to the second's largest entry."""
    dtypes = [array.dtype for array in (one, two) if array.dtype.kind in "fc"]
    precision = max(float(np.finfo(dtype).eps) for dtype in dtypes)
    relative = max(SAME_GRADIENT, 100 * precision)
    return relative * float(np.max(np.abs(two), initial=0.0))


def flat(gradients: Any) -> Iterator[Any]:
    """Yield the single gradients in a tuple, a dictionary (by key) or an array."""
    if isinstance(gradients, dict):
        for key in sorted(gradients):
            yield from flat(gradients[key])
    elif isinstance(gradients, tuple | list):
        for gradient in gradients:
            yield from flat(gradient)
    else:
        yield gradients


def _result(backward: Callable[..., Any], dy: Any, cache: Any) -> Any:
    try:
        return backward(dy, cache)
    except Exception:  # a mistake that makes no sense at these shapes explains nothing there
        return None
