"""Derivatives of a forward that owe nothing to the backward under test.

Both oracles differentiate along one direction, so they see a function of one number: ``terms(t)`` returns
the array of the terms ``dy * f(x + t v)``, whose sum is the scalar ``L(t)``, and the oracle answers
``dL/dt`` at 0. They get the terms rather than their sum because the terms that do not depend on ``t`` then
cancel exactly, and because the sum of the terms' magnitudes is what round-off is proportional to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPS = float(np.finfo(np.float64).eps)
COMPLEX_STEP = 1e-30
# Each step of Ridders' is the last one divided by this. With 2, values rounded to a coarse grid (a forward in
# float32) can agree from step to step for no other reason than that the grid is binary.
SHRINK = 2.1

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
    """Differentiate by central differences at shrinking steps, extrapolated to step zero.

    Column 0 of the table holds the differences, whose error is a series in the squared step; each further
    column removes one more term of that series. The entry that changes least from its two parents is the
    answer, and that change its error estimate.

    Where the left and right derivatives differ (a relu at 0), the central difference converges to their mean
    without complaint. Half the jump is then the error estimate: see `_jump`. Where it bends within the
    smallest step, no step is small enough: see `_drift`.

    Parameters
    ----------
    terms : callable
        ``terms(t)`` for a real t.
    first_step : float
        The largest step; should be comparable with the size of what is varied.
    levels : int
        Number of steps; at least 7.

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
    center = np.asarray(terms(0.0))
    steps = first_step / SHRINK ** np.arange(levels)
    table = np.zeros((levels, levels))
    bends, round_off = np.zeros(levels), np.zeros(levels)
    varies = np.zeros(center.shape, dtype=bool)  # a small change may be lost at the smaller steps
    for level, step in enumerate(steps):
        plus, minus = np.asarray(terms(float(step))), np.asarray(terms(-float(step)))
        change = plus - minus
        varies |= change != 0
        table[level, 0] = np.sum(change) / (2 * step)
        bends[level] = np.sum(plus - 2 * center + minus) / step
        round_off[level] = EPS * np.sum(np.abs(plus[varies])) / step
        for order in range(1, level + 1):
            fine, coarse = table[level, order - 1], table[level - 1, order - 1]
            table[level, order] = fine + (fine - coarse) / (SHRINK ** (2 * order) - 1)
    floors = np.maximum(round_off, _noise(table, steps) / steps)
    best = Estimate(float("nan"), float("inf"), 0.0)
    for level in range(1, levels):
        for order in range(1, level + 1):
            value, parents = table[level, order], table[level - 1 : level + 1, order - 1]
            estimate = Estimate(float(value), float(np.max(np.abs(value - parents))), float(floors[level]))
            if estimate.error + estimate.floor < best.error + best.floor:
                best = estimate
    error = max(best.error, _jump(bends), _drift(table[:, 0], best.value))
    return Estimate(best.value, error, best.floor)


def _noise(table: NDArray[Any], steps: NDArray[Any]) -> float:
    """Return the noise in the function's values, seen in the differences at the smallest steps.

    There the extrapolated column 2 no longer changes but for noise divided by the step. A forward that
    computes in float32 has a thousand million times the noise that float64 lets one expect.
    """
    return float(np.median(np.abs(np.diff(table[-5:, 2])) * steps[-4:]))


def _drift(differences: NDArray[Any], value: float) -> float:
    """Return how far the differences move away from the value as the steps shrink; 0 where they approach it.

    They move away, step by step and in one direction, where the function bends within the smallest step, as
    tanh(1e9 t) does: no step is then small enough. Round-off moves them too, but to and fro.
    """
    gaps = (differences - value)[-5:]
    moves_away = np.all(gaps[1:] * np.sign(gaps[-1]) > 1.05 * np.abs(gaps[:-1]))
    return float(np.abs(gaps[-1])) if moves_away else 0.0


def _jump(bends: NDArray[Any]) -> float:
    """Return half the difference between the right and the left derivative; 0 where the function is smooth.

    ``bend(h) = (L(h) - 2 L(0) + L(-h)) / h`` is ``jump + h L'' + ...``: extrapolating two of them to h = 0
    leaves the jump. A smooth function leaves a vanishing fraction of its largest bend at the best step.
    """
    jump = float(np.min(np.abs(SHRINK * bends[1:] - bends[:-1]))) / (SHRINK - 1)
    return jump / 2 if jump > 1e-4 * np.max(np.abs(bends)) else 0.0


def contradiction(terms: Terms, derivative: float, scale: float) -> float | None:
    """Return the derivative by real differences if it plainly contradicts the given one, else None.

    This is how a forward that is not analytic (``abs``, ``np.var``, ``.real``) is told from one that is: the
    complex step then returns a wrong number without any other sign. Central differences at several steps
    each come with a bound: their asymmetry (the difference of the two one-sided derivatives, which also sees
    kinks) plus round-off. The first good one that agrees ends the search. Else the best of them decides, if
    another confirms it: where they differ from step to step, the function bends within the steps. And if
    smaller steps do not come closer to the given derivative: then it was no small step.
    """
    center = np.asarray(terms(0.0))
    size = EPS * float(np.sum(np.abs(center)))
    found = []
    for step in (1e-5 * scale, 1e-4 * scale, 1e-6 * scale, 1e-3 * scale, 1e-7 * scale, 1e-8 * scale):
        plus, minus = np.asarray(terms(step)), np.asarray(terms(-step))
        change = plus - minus
        difference = float(np.sum(change)) / (2 * step)
        asymmetry = abs(float(np.sum(plus - 2 * center + minus))) / step
        bound = 10 * (asymmetry + 10 * EPS * float(np.sum(np.abs(plus[change != 0]))) / step)
        if abs(difference - derivative) <= bound <= 1e-2 * abs(derivative):
            return None
        # A change smaller than the last digit of a term is lost, and then not among those that changed.
        found.append((bound, difference, 10 * size / step, step))
    bound, best, round_off, step = min(found)
    confirmed = any(abs(other - best) <= bound + 1e-2 * abs(best) for _, other, _, _ in sorted(found)[1:])
    tolerance = bound + round_off + 1e-6 * max(abs(best), abs(derivative))
    gap = abs(best - derivative)
    if not confirmed or gap <= tolerance:
        return None
    smaller = [(other, doubt) for _, other, doubt, at in found if at < step]
    tenth = np.asarray(terms(step / 10)) - np.asarray(terms(-step / 10))
    smaller.append((float(np.sum(tenth)) / (2 * step / 10), 10 * round_off))
    is_converging = any(abs(other - derivative) < 0.5 * gap and doubt < 0.1 * gap for other, doubt in smaller)
    return None if is_converging else best
