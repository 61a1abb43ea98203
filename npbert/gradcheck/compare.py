"""One gradient against its reference: which coordinates are compared, and what counts as an error.

The error of a coordinate is ``|gradient - reference|`` relative to the norm of the reference's *row* (its
last axis): an entry that is small because its row cancels there is not held to a precision that no
summation order could give. Nor is a row that is tiny beside the rest of its tensor: errors below
``RESOLUTION`` times the largest row's norm count as round-off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.oracles import EPS, Estimate, complex_step, ridders
from npbert.gradcheck.pair import Array, Leaf
from npbert.gradcheck.report import Status, TensorResult

# What an oracle can resolve beside the largest row of a tensor: a few roundings of the sums that form it, or
# the round-off of real differences.
RESOLUTION = {"complex_step": 8 * EPS, "ridders": 1e-10}
DEFAULT_RTOL = {"complex_step": 1e-11, "ridders": 1e-7}
DIRECTIONS = 2  # random directions through a tensor of which only some coordinates are compared
ROUND_OFF_OF_ZERO = 100 * EPS  # a reference this small beside the largest one is a zero, up to round-off


@dataclass(frozen=True)
class Reference:
    """What the oracle says about one leaf: the derivative at some coordinates, and along some directions."""

    indices: list[tuple[int, ...]]
    estimates: list[Estimate]
    directions: list[Array]
    projections: list[Estimate]

    @property
    def largest(self) -> float:
        """The largest magnitude among the coordinates."""
        return max((abs(estimate.value) for estimate in self.estimates), default=0.0)


def differentiate(objective: Objective, number: int, along: Array, oracle: str) -> Estimate:
    """Return the derivative of the objective along one direction through one leaf."""
    terms = objective.along({number: along})
    return complex_step(terms) if oracle == "complex_step" else ridders(terms, 0.1 * objective.scale(number))


def reference(
    objective: Objective, number: int, gradient: Array, oracle: str, limit: int, rng: "np.random.Generator"
) -> Reference:
    """Ask the oracle about every coordinate of a leaf, or about ``limit`` of them and some directions."""
    value = objective.values[number]
    indices = choose_coordinates(gradient, limit, rng)
    estimates = [differentiate(objective, number, unit(value, index), oracle) for index in indices]
    count = 0 if len(indices) == value.size else DIRECTIONS
    directions = [rng.standard_normal(value.shape) for _ in range(count)]
    projections = [differentiate(objective, number, along, oracle) for along in directions]
    return Reference(indices, estimates, directions, projections)


def choose_coordinates(gradient: Array, limit: int, rng: "np.random.Generator") -> list[tuple[int, ...]]:
    """Return all coordinates, or a sample of ``limit``, half of it where the gradient is not zero.

    The largest entry is always in the sample: embeddings have gradients that are zero nearly everywhere, and
    comparing zeros proves little.
    """
    size = gradient.size
    if size <= limit:
        chosen = np.arange(size)
    else:
        nonzero = np.flatnonzero(gradient)
        drawn = rng.choice(nonzero, min(limit // 2, nonzero.size), replace=False)
        largest = np.argmax(np.abs(gradient)).reshape(1)
        first = np.unique(np.concatenate([largest, drawn]))[:limit]
        others = np.setdiff1d(np.arange(size), first)
        chosen = np.sort(np.concatenate([first, rng.choice(others, limit - first.size, replace=False)]))
    return [tuple(int(i) for i in np.unravel_index(flat, gradient.shape)) for flat in chosen]


def judge(
    leaf: Leaf,
    gradient: Array,
    ref: Reference,
    *,
    oracle: str,
    rtol: float,
    largest: float,
    zero_scale: float | None,
) -> TensorResult:
    """Compare one gradient with its reference.

    Parameters
    ----------
    leaf : Leaf
        What the gradient belongs to.
    gradient : ndarray
        What the backward returned, float64.
    ref : Reference
        What the oracle returned.
    oracle : str
        Which oracle it was.
    rtol : float
        The tolerance.
    largest : float
        The largest reference among all leaves.
    zero_scale : float or None
        For a gradient declared to be a structural zero, the scale against which it is tested.

    Returns
    -------
    TensorResult
    """
    got = np.array([gradient[index] for index in ref.indices])
    want = np.array([estimate.value for estimate in ref.estimates])
    declared = zero_scale is not None
    scale = (
        np.full(got.shape, zero_scale) if declared else _row_scale(gradient, ref, RESOLUTION[oracle] / rtol)
    )
    points = _compare(got, want, scale, rtol, ref.estimates, declared)
    got_along = np.array([np.sum(gradient * along) for along in ref.directions])
    want_along = np.array([estimate.value for estimate in ref.projections])
    # One direction may happen to be nearly orthogonal to the gradient, so they share one scale.
    size = zero_scale * np.sqrt(gradient.size) if declared else np.max(np.abs(want_along), initial=0.0)
    lines = _compare(got_along, want_along, np.full(got_along.shape, size), rtol, ref.projections, declared)
    status, note = _verdict(points, lines, got, want, want_along, largest, zero_scale)
    candidates = np.flatnonzero(points.wrong) if points.wrong.any() else np.arange(len(want))
    worst = int(candidates[np.argmax(points.relative[candidates])]) if len(want) else None
    return TensorResult(
        name=leaf.name,
        shape=leaf.value.shape,
        dtype=str(leaf.value.dtype),
        status=status,
        max_error=None if worst is None else float(points.relative[worst]),
        worst_index=None if worst is None else ref.indices[worst],
        gradient=None if worst is None else float(got[worst]),
        reference=None if worst is None else float(want[worst]),
        uncertainty=None if worst is None else ref.estimates[worst].uncertainty,
        projection_error=float(np.max(lines.relative)) if ref.projections else None,
        fraction_wrong=float(np.mean(points.wrong)) if len(want) else 0.0,
        compared=len(want),
        size=leaf.value.size,
        oracle=oracle,
        structural_zero=declared,
        note=note,
    )


@dataclass(frozen=True)
class _Comparison:
    """Errors relative to their scales, and which of them are wrong, or beyond what the oracle can tell."""

    relative: Array
    wrong: Array
    unsure: Array


def _compare(
    got: Array, want: Array, scale: Array, rtol: float, estimates: Sequence[Estimate], declared_zero: bool
) -> _Comparison:
    """Hold errors against ``rtol * scale``.

    Where the oracle is less certain than that, only an error that dwarfs its uncertainty is called wrong.
    """
    error = np.maximum(np.abs(got), np.abs(want)) if declared_zero else np.abs(got - want)
    uncertainty = np.array([estimate.uncertainty for estimate in estimates])
    uncertain = ~(uncertainty <= rtol * scale)
    wrong = error > rtol * scale + np.where(uncertain, 10 * uncertainty, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(error > 0, error / scale, 0.0)
    return _Comparison(relative, wrong, uncertain & ~wrong)


def _row_scale(gradient: Array, ref: Reference, floor: float) -> Array:
    """Return the norm of the reference's row at each coordinate, at least ``floor`` times the largest.

    Where a row was only sampled, the gradient under test stands in for the rest of it; that it is right
    there too is what the projections decide.
    """
    rows = np.array(gradient)
    for index, estimate in zip(ref.indices, ref.estimates, strict=True):
        rows[index] = estimate.value
    norms = np.sqrt(np.sum(np.square(np.atleast_1d(rows)), axis=-1, keepdims=True))
    norms = np.broadcast_to(np.maximum(norms, floor * np.max(norms, initial=0.0)), np.atleast_1d(rows).shape)
    return np.array([norms.reshape(rows.shape)[index] for index in ref.indices])


def _verdict(
    points: _Comparison,
    lines: _Comparison,
    got: Array,
    want: Array,
    want_along: Array,
    largest: float,
    zero_scale: float | None,
) -> tuple[Status, str]:
    """Return the status of a tensor and, where there is something to say, why."""
    wrong, unsure = bool(points.wrong.any() or lines.wrong.any()), int(np.sum(points.unsure))
    if zero_scale is not None and wrong:
        culprit = "gradient" if np.max(np.abs(got)) >= np.max(np.abs(want)) else "reference"
        return "failed", f"declared a structural zero, but the {culprit} is not one (scale {zero_scale:.3g})"
    if zero_scale is None and want.size:
        if not np.any(want) and not np.any(want_along) and not wrong:
            return "inconclusive", "the reference is zero everywhere, so agreement proves nothing"
        round_off = ROUND_OFF_OF_ZERO * largest
        if (wrong or unsure) and max(np.max(np.abs(got)), np.max(np.abs(want))) <= round_off:
            return "inconclusive", "gradient and reference are zero up to round-off: a structural zero?"
    if wrong:
        return "failed", "" if points.wrong.any() else "wrong along a random direction: outside the sample"
    if unsure or lines.unsure.any():
        return "inconclusive", f"the oracle is less certain than the tolerance at {unsure} coordinates"
    return "passed", "" if want.size else "has no entries"
