"""Two identities that tie a gradient to its forward as a whole: the adjoint's, and Taylor's remainder."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npbert.gradcheck import mpmath_oracle
from npbert.gradcheck.objective import Objective
from npbert.gradcheck.oracles import EPS, Estimate, complex_step, ridders
from npbert.gradcheck.pair import Array, BrokenPair
from npbert.gradcheck.report import CheckResult

DIRECTIONS = 3
RIDDERS_STEP = 1e-3  # all entries move at once: a large step would cross many kinks
FIRST_STEP, HALVINGS = 0.125, 24
# The remainder is only used where it stands out of the round-off by this factor, so that its slope is clean.
ABOVE_NOISE = 300.0


def adjoint_identity(
    objective: Objective,
    gradients: Sequence[Array],
    noise: Sequence[Array],
    oracle: str,
    rtol: float,
    rng: np.random.Generator,
) -> CheckResult:
    """Test ``<J v, dy> = <v, J^T dy>`` for random directions v through all arguments together.

    The left side is the oracle's; the right side is the backward's. The error is relative to the largest
    of the left sides, as one direction may happen to be nearly orthogonal to the gradient.
    """
    name = "adjoint identity <Jv, dy> = <v, J'dy>"
    left, right, allowed = [], [], []
    for _ in range(DIRECTIONS):
        direction = {
            number: objective.scale(number) * rng.standard_normal(value.shape)
            for number, value in enumerate(objective.values)
        }
        try:
            left.append(_derivative(objective, direction, oracle))
        except BrokenPair as error:
            return CheckResult(name, "skipped", detail=f"near the arguments, {error.detail}")
        right.append(sum(float(np.sum(direction[n] * grad)) for n, grad in enumerate(gradients)))
        allowed.append(sum(float(np.sum(np.abs(direction[n]) * size)) for n, size in enumerate(noise)))
    errors = np.array([abs(one.value - two) for one, two in zip(left, right, strict=True)])
    size = max(abs(estimate.value) for estimate in left)
    uncertainty = max(estimate.uncertainty for estimate in left)
    if not np.all(np.isfinite(errors)):
        return CheckResult(name, "skipped", detail="the oracle has no finite answer along a random direction")
    figure = float(np.max(errors)) / size if size > 0 else float(np.max(errors))
    if figure > rtol and np.all(errors <= allowed):
        return CheckResult(name, "passed", figure, rtol, "within the round-off of the backward itself")
    if not uncertainty <= rtol * size and not np.max(errors) > rtol * size + 10 * uncertainty:
        detail = f"the oracle is uncertain by {uncertainty:.1e}: a kink nearby?"
        return CheckResult(name, "skipped", figure, rtol, detail)
    return CheckResult(name, "passed" if figure <= rtol else "failed", figure, rtol)


def _derivative(objective: Objective, direction: Mapping[int, Array], oracle: str) -> Estimate:
    if oracle == "mpmath":
        return mpmath_oracle.derivative(objective, direction)
    terms = objective.along(direction)
    return complex_step(terms) if oracle == "complex_step" else ridders(terms, RIDDERS_STEP)


def taylor_remainders(
    objective: Objective,
    gradients_at: Callable[[Sequence[Array]], Sequence[Array]],
    rng: np.random.Generator,
) -> list[CheckResult]:
    """Test how fast the remainders of Taylor's formula vanish along random directions.

    With ``g(t) = <gradient at x + t v, v>`` from the backward and ``L`` from the forward alone,

    - ``L(t) - L(0) - t g(0)`` is of order ``t**2``, and
    - ``L(t) - L(0) - t g(0) - t**2 h / 2`` of order ``t**3``, for the Hessian term ``h = (g(t) - g(0)) / t``.

    On a logarithmic scale that is a slope of 2 and of 3; a wrong gradient gives 1. Where the remainder is
    round-off at every step (a linear or quadratic function), it has no slope, and is as good as zero.

    Parameters
    ----------
    objective : Objective
        The forward.
    gradients_at : callable
        The backward: the gradients of all leaves at given values of them.
    rng : Generator
        Draws the directions.
    """
    names = {2: "Taylor remainder, slope 2", 3: "Taylor remainder with Hessian term, slope 3"}
    slopes: dict[int, list[float]] = {2: [], 3: []}
    try:
        for _ in range(DIRECTIONS):
            direction = [
                objective.scale(number) * rng.standard_normal(value.shape) / np.sqrt(max(value.size, 1))
                for number, value in enumerate(objective.values)
            ]
            for order, remainders in _remainders(objective, gradients_at, direction).items():
                slope = _slope(*remainders)
                if slope is not None:
                    slopes[order].append(slope)
    except (BrokenPair, TypeError, ValueError) as error:
        detail = f"near the arguments, {error}"
        return [CheckResult(name, "skipped", detail=detail) for name in names.values()]
    return [_slope_result(names[order], order, slopes[order]) for order in names]


def _remainders(
    objective: Objective,
    gradients_at: Callable[[Sequence[Array]], Sequence[Array]],
    direction: Sequence[Array],
) -> dict[int, tuple[Array, Array]]:
    """Return both remainders, and the round-off in them, at halving steps."""

    def slope_at(t: float) -> float:
        moved = [value + t * along for value, along in zip(objective.values, direction, strict=True)]
        pairs = zip(gradients_at(moved), direction, strict=True)
        return sum(float(np.sum(grad * along)) for grad, along in pairs)

    terms = objective.along(dict(enumerate(direction)))
    base, slope = terms(0.0), slope_at(0.0)
    steps = FIRST_STEP * 0.5 ** np.arange(HALVINGS)
    first, second, noise = np.zeros(HALVINGS), np.zeros(HALVINGS), np.zeros(HALVINGS)
    for number, t in enumerate(steps):
        moved = terms(float(t))
        change = float(np.sum(moved - base))
        hessian = (slope_at(float(t)) - slope) / t
        first[number] = abs(change - t * slope)
        second[number] = abs(change - t * slope - t**2 * hessian / 2)
        noise[number] = EPS * float(np.sum(np.abs(moved[moved != base]))) + EPS * abs(t * slope)
    return {2: (first, noise), 3: (second, noise)}


def _slope(remainder: Array, noise: Array) -> float | None:
    """Return the slope at the smallest steps where the remainder is clear of the noise, if there are any."""
    usable = remainder > ABOVE_NOISE * noise
    both = np.flatnonzero(usable[:-1] & usable[1:])[-3:]
    if both.size == 0:
        return None
    return float(np.median(np.log2(remainder[both] / remainder[both + 1])))


def _slope_result(name: str, order: int, slopes: Sequence[float]) -> CheckResult:
    """Judge the best slope: a remainder may cross zero along one direction, a wrong gradient spoils all."""
    limit = order - 0.3
    if not slopes:
        return CheckResult(name, "passed", limit=limit, detail="the remainder is round-off at every step")
    best = max(slopes)
    return CheckResult(name, "passed" if best >= limit else "failed", best, limit)
