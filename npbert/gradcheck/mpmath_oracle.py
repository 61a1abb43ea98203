"""Derivatives with 50 digits, to arbitrate where float64 cannot: needs mpmath, and a forward written for it.

At 60 digits, central differences with a step of 1e-20 are good to more than 30: the error of the formula is
of the order of the squared step, and the round-off that of the digits divided by the step.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npbert.gradcheck.objective import Objective
from npbert.gradcheck.oracles import EPS, Estimate
from npbert.gradcheck.pair import Array, BrokenPair, describe, name_of
from npbert.gradcheck.report import CheckResult

DIGITS, STEP = 60, "1e-20"
# The largest difference between the forward's values and mpmath's, relative to the largest entry: far above
# what cancels in a sound forward, far below what another formula gives.
SAME_VALUES = 1e-6


def is_installed() -> bool:
    """Tell whether mpmath can be imported."""
    return importlib.util.find_spec("mpmath") is not None


def outputs(objective: Objective, moved: Mapping[int, Array]) -> list[Array]:
    """Return the outputs that have a cotangent, as arrays of mpmath's numbers.

    Parameters
    ----------
    objective : Objective
        Arguments, cotangents, and the pair with its forward for mpmath.
    moved : dict of int to ndarray
        Leaves that have other values than the objective's.

    Raises
    ------
    BrokenPair
        If the forward raises, or its outputs have other shapes than those of the forward under test.
    """
    fn_mpmath = objective.pair.fn_mpmath
    if fn_mpmath is None:
        raise TypeError("the pair has no forward for mpmath")
    values = [moved.get(number, value) for number, value in enumerate(objective.values)]
    exact = [value if value.dtype == object else to_mpmath(value) for value in values]
    try:
        returned = fn_mpmath(*objective.pair.arguments(exact))
    except Exception as error:
        raise BrokenPair("mpmath forward runs", f"{name_of(fn_mpmath)} raised {describe(error)}") from error
    several = returned if isinstance(returned, (tuple, list)) else (returned,)
    found = [np.asarray(one, dtype=object) for one in several]
    expected = [None if dout is None else dout.shape for dout in objective.cotangents]
    shapes = [one.shape for one in found]
    if len(shapes) != len(expected) or any(
        shape != want and want is not None for shape, want in zip(shapes, expected, strict=True)
    ):
        detail = f"{name_of(fn_mpmath)} returned the shapes {shapes}, the forward {expected}"
        raise BrokenPair("mpmath forward runs", detail)
    return [one for one, dout in zip(found, objective.cotangents, strict=True) if dout is not None]


def same_values(objective: Objective, base: Sequence[Array]) -> CheckResult:
    """Test that the forward's outputs are mpmath's: only then do they have the same derivatives."""
    import mpmath

    with mpmath.workdps(DIGITS):
        exact = outputs(objective, {})
    worst = 0.0
    for found, reference in zip(base, exact, strict=True):
        want = reference.astype(np.float64)
        size = float(np.max(np.abs(want), initial=0.0))
        error = float(np.max(np.abs(found - want), initial=0.0))
        worst = max(worst, error / size if size > 0 else error)
    passed = worst <= SAME_VALUES
    detail = "" if passed else "the two forwards do not compute the same"
    return CheckResult(
        "forward agrees with mpmath", "passed" if passed else "failed", worst, SAME_VALUES, detail
    )


def derivative(objective: Objective, direction: Mapping[int, Array]) -> Estimate:
    """Differentiate along a direction, given as ``{leaf number: array}``."""
    import mpmath

    with mpmath.workdps(DIGITS):
        step = mpmath.mpf(STEP) * min(objective.scale(number) for number in direction)

        def slope(step: Any) -> Any:
            plus, minus = (_moved(objective, direction, sign * step) for sign in (1, -1))
            up, down = outputs(objective, plus), outputs(objective, minus)
            cotangents = [to_mpmath(dout) for dout in objective.cotangents if dout is not None]
            terms = [np.sum((one - two) * dout) for one, two, dout in zip(up, down, cotangents, strict=True)]
            return sum(terms) / (2 * step)

        fine, coarse = slope(step), slope(2 * step)
        return Estimate(float(fine), float(abs(fine - coarse)), EPS * abs(float(fine)))


def to_mpmath(value: Array) -> Array:
    """Return the array with every entry an ``mpmath.mpf``, exactly equal to it."""
    import mpmath

    exact = np.empty(value.shape, dtype=object)
    exact.reshape(-1)[:] = [mpmath.mpf(float(entry)) for entry in np.ravel(value)]
    return exact


def _moved(objective: Objective, direction: Mapping[int, Array], t: Any) -> dict[int, Array]:
    return {
        number: np.asarray(to_mpmath(objective.values[number]) + t * to_mpmath(along), dtype=object)
        for number, along in direction.items()
    }
