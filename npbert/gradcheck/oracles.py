"""Derivatives of a forward that owe nothing to the backward under test.

Both oracles differentiate along one direction, so they see a function of one number: ``terms(t)`` returns
the array of the terms ``dy * f(x + t v)``, whose sum is the scalar ``L(t)``, and the oracle answers
``dL/dt`` at 0. They get the terms rather than their sum because the terms that do not depend on ``t`` then
cancel exactly, and because the sum of the terms' magnitudes is what round-off is proportional to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPS = float(np.finfo(np.float64).eps)
COMPLEX_STEP = 1e-30

Terms = Callable[[Any], NDArray[Any]]


@dataclass(frozen=True)
class Estimate:
    """A derivative, with what the oracle knows about its own error.

    Attributes
    ----------
    value : float
        The derivative.
    error : float
        The oracle's estimate of the truncation error: an estimate, not a bound.
    floor : float
        The round-off that the evaluation cannot be better than.
    """

    value: float
    error: float
    floor: float

    @property
    def uncertainty(self) -> float:
        """Ten times the error estimate, plus the round-off floor.

        Ridders' estimate alone covers the true error in fewer than half of the cases; ten times the
        estimate covers it in more than nine out of ten.
        """
        return 10.0 * self.error + self.floor


def complex_step(terms: Terms, step: float = COMPLEX_STEP) -> Estimate:
    """Differentiate through one evaluation at an imaginary argument.

    For an analytic ``L``, ``L(i h) = L(0) + i h L'(0) - h**2 L''(0) / 2 - ...``: the imaginary part over h is
    the derivative, with an error of order ``h**2``. Nothing is subtracted, so h can be so small that this
    error vanishes, and the result is as precise as the evaluation of ``L`` itself.

    Parameters
    ----------
    terms : callable
        ``terms(t)`` for a complex t returns a complex array. Must be analytic: see `contradiction`.
    step : float
        The h above.

    References
    ----------
    W. Squire and G. Trapp, "Using complex variables to estimate derivatives of real functions",
    SIAM Review 40 (1998) 110-112.

    Examples
    --------
    >>> slope = complex_step(lambda t: np.exp(t) * np.sin(1 + t))
    >>> bool(abs(slope.value - (np.sin(1) + np.cos(1))) < 1e-15)
    True
    """
    derivatives = np.imag(terms(1j * step)) / step
    return Estimate(float(np.sum(derivatives)), 0.0, EPS * float(np.sum(np.abs(derivatives))))


def ridders(terms: Terms, first_step: float = 0.1, levels: int = 11) -> Estimate:
    """Differentiate by central differences at halving steps, extrapolated to step zero.

    Column 0 of the table holds the differences, whose error is a series in the squared step; each further
    column removes one more term of that series. The entry that changes least from its two parents is the
    answer, and that change its error estimate.

    Where the left and right derivatives differ (a relu at 0), the central difference converges to their mean
    without complaint. Half the jump is then the error estimate: see `_jump`.

    Parameters
    ----------
    terms : callable
        ``terms(t)`` for a real t.
    first_step : float
        The largest step; should be comparable with the size of what is varied.
    levels : int
        Number of halvings, plus one.

    References
    ----------
    C. J. F. Ridders, "Accurate computation of F'(x) and F'(x) F''(x)", Advances in Engineering Software 4
    (1982) 75-76.

    Examples
    --------
    >>> slope = ridders(lambda t: np.exp(t) * np.sin(1 + t))
    >>> bool(abs(slope.value - (np.sin(1) + np.cos(1))) < slope.uncertainty < 1e-9)
    True
    >>> ridders(np.abs).uncertainty  # the derivative is anything from -1 to 1
    10.0
    """
    center = terms(0.0)
    table = np.zeros((levels, levels))
    bends = []
    best = Estimate(float("nan"), float("inf"), 0.0)
    step = first_step
    for level in range(levels):
        plus, minus = terms(step), terms(-step)
        change = plus - minus
        table[level, 0] = np.sum(change) / (2 * step)
        bends.append(float(np.sum(plus - 2 * center + minus)) / step)
        floor = EPS * float(np.sum(np.abs(plus[change != 0]))) / step
        for order in range(1, level + 1):
            coarse, fine = table[level - 1, order - 1], table[level, order - 1]
            value = fine + (fine - coarse) / (4.0**order - 1)
            table[level, order] = value
            estimate = Estimate(float(value), float(max(abs(value - fine), abs(value - coarse))), floor)
            if estimate.error + estimate.floor < best.error + best.floor:
                best = estimate
        step /= 2
    return Estimate(best.value, max(best.error, _jump(bends)), best.floor)


def _jump(bends: list[float]) -> float:
    """Return half the difference between the right and the left derivative; 0 where the function is smooth.

    ``bend(h) = (L(h) - 2 L(0) + L(-h)) / h`` is ``jump + h L'' + ...``: extrapolating two of them to h = 0
    leaves the jump. A smooth function leaves a vanishing fraction of its largest bend at the best step.
    """
    extrapolated = [abs(2 * fine - coarse) for coarse, fine in pairwise(bends)]
    jump = min(extrapolated)
    return jump / 2 if jump > 1e-4 * max(map(abs, bends)) else 0.0


def contradiction(terms: Terms, derivative: float, scale: float) -> float | None:
    """Return the derivative by real differences if it plainly contradicts the given one, else None.

    This is how a forward that is not analytic (``abs``, ``np.var``, ``.real``) is told from one that is: the
    complex step then returns a wrong number without any other sign. Central differences at several steps
    each come with a bound: their asymmetry (the difference of the two one-sided derivatives, which also sees
    kinks) plus round-off. The best of them decides; the first good one that agrees ends the search.
    """
    center = terms(0.0)
    best, best_bound = derivative, float("inf")
    for step in (1e-5 * scale, 1e-4 * scale, 1e-6 * scale, 1e-3 * scale, 1e-7 * scale, 1e-8 * scale):
        plus, minus = terms(step), terms(-step)
        change = plus - minus
        difference = float(np.sum(change)) / (2 * step)
        asymmetry = abs(float(np.sum(plus - 2 * center + minus))) / step
        bound = 10 * (asymmetry + 10 * EPS * float(np.sum(np.abs(plus[change != 0]))) / step)
        if abs(difference - derivative) <= bound <= 1e-2 * abs(derivative):
            return None
        if bound < best_bound:
            best, best_bound = difference, bound
    # What cancels to zero is round-off in the complex step, and may be exactly zero in the differences.
    round_off = 100 * EPS * float(np.sum(np.abs(center))) / scale
    tolerance = best_bound + round_off + 1e-6 * max(abs(best), abs(derivative))
    return best if abs(best - derivative) > tolerance else None
