"""One gradient against its reference: which coordinates are compared, and what counts as an error.

The error of a coordinate is ``|gradient - reference|`` relative to the norm of the reference's *row* (its
last axis): an entry that is small because its row cancels there is not held to a precision that no
summation order could give. Nor is a row that is tiny beside the rest of its tensor: errors below
``RESOLUTION`` times the largest row's norm count as round-off.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npbert.gradcheck import mpmath_oracle
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.oracles import EPS, Estimate, complex_step, ridders
from npbert.gradcheck.pair import Array, BrokenPair, Leaf
from npbert.gradcheck.report import Entries, TensorResult
from npbert.gradcheck.round_off import row_norm
from npbert.gradcheck.sample import Sample, verdict

# What an oracle can resolve beside the largest row of a tensor: a few roundings of the sums that form it, or
# the round-off of real differences.
RESOLUTION = {"complex_step": 8 * EPS, "ridders": 1e-10, "mpmath": 8 * EPS}
DEFAULT_RTOL = {"complex_step": 1e-11, "ridders": 1e-7, "mpmath": 1e-11}
DIRECTIONS = 2  # random directions through a tensor of which only some coordinates are compared


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
    if oracle == "mpmath":
        return mpmath_oracle.derivative(objective, {number: along})
    terms = objective.along({number: along})
    if oracle == "complex_step":
        return complex_step(terms)
    try:
        # Along a direction all entries move at once: a large step would cross many kinks.
        step = 0.1 if np.count_nonzero(along) == 1 else 1e-2
        return ridders(terms, step * objective.scale(number))
    except BrokenPair:
        return Estimate(float("nan"), float("inf"), 0.0)  # the forward raises so near to its arguments


def reference_of(
    objective: Objective, number: int, gradient: Array, oracle: str, limit: int, rng: np.random.Generator
) -> Reference:
    """Ask the oracle about every coordinate of a leaf, or about ``limit`` of them and some directions."""
    value = objective.values[number]
    indices = choose_coordinates(gradient, limit, rng)
    estimates = [differentiate(objective, number, unit(value, index), oracle) for index in indices]
    count = 0 if len(indices) == value.size else DIRECTIONS
    directions = [rng.standard_normal(value.shape) for _ in range(count)]
    projections = [differentiate(objective, number, along, oracle) for along in directions]
    return Reference(indices, estimates, directions, projections)


def choose_coordinates(gradient: Array, limit: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
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
    noise: Array,
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
    noise : ndarray
        The round-off of the gradient's entries, from `npbert.gradcheck.round_off`.
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
    points, lines = _samples(gradient, ref, noise, rtol, RESOLUTION[oracle] / rtol, zero_scale)
    status, note = verdict(points, lines, largest, zero_scale)
    result = TensorResult(
        name=leaf.name,
        shape=leaf.value.shape,
        dtype=str(leaf.value.dtype),
        status=status,
        projection_error=float(np.max(lines.relative)) if ref.projections else None,
        compared=len(ref.indices),
        size=leaf.value.size,
        oracle=oracle,
        structural_zero=zero_scale is not None,
        note=note,
    )
    if not ref.indices:
        return result
    candidates = np.flatnonzero(points.wrong) if points.wrong.any() else np.arange(len(ref.indices))
    worst = int(candidates[np.argmax(points.relative[candidates])])
    return replace(
        result,
        max_error=float(points.relative[worst]),
        worst_index=ref.indices[worst],
        gradient=float(points.got[worst]),
        reference=float(points.want[worst]),
        uncertainty=float(points.uncertainty[worst]),
        fraction_wrong=float(np.mean(points.wrong)),
        entries=Entries(
            _flat(ref.indices, gradient.shape), points.got, points.want, points.relative, points.wrong
        ),
    )


def _flat(indices: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the positions of coordinates in the tensor laid out in C order."""
    if not shape:
        return np.zeros(len(indices), dtype=np.int64)
    flat: NDArray[np.int64] = np.ravel_multi_index(tuple(np.array(indices).T), shape).astype(np.int64)
    return flat


def _samples(
    gradient: Array, ref: Reference, noise: Array, rtol: float, floor: float, zero_scale: float | None
) -> tuple[Sample, Sample]:
    """Return the comparison at the coordinates, and that along the directions."""

    def sample(got: Array, estimates: Sequence[Estimate], noise: Array, scale: Array) -> Sample:
        want = np.array([estimate.value for estimate in estimates])
        uncertainty = np.array([estimate.uncertainty for estimate in estimates])
        if any(estimate.error > 0 for estimate in estimates):
            # Real differences of one forward are equally noisy: where they seem far surer than the others,
            # two of them agreed by luck.
            uncertainty = np.maximum(uncertainty, np.median(uncertainty))
        apart = np.abs(got - want) if zero_scale is None else np.maximum(np.abs(got), np.abs(want))
        return Sample(got, want, uncertainty, noise, scale, apart, rtol)

    got = np.array([gradient[index] for index in ref.indices])
    scale = _row_scale(gradient, ref, floor) if zero_scale is None else np.full(got.shape, zero_scale)
    points = sample(got, ref.estimates, np.array([noise[index] for index in ref.indices]), scale)

    got = np.array([np.sum(gradient * along) for along in ref.directions])
    # One direction may happen to be nearly orthogonal to the gradient, so they share one scale.
    size = max((abs(estimate.value) for estimate in ref.projections), default=0.0)
    size = size if zero_scale is None else zero_scale * float(np.sqrt(gradient.size))
    line_noise = np.array([np.sum(np.abs(along) * noise) for along in ref.directions])
    return points, sample(got, ref.projections, line_noise, np.full(got.shape, size))


def _row_scale(gradient: Array, ref: Reference, floor: float) -> Array:
    """Return the norm of the reference's row at each coordinate, at least ``floor`` times the largest.

    Where a row was only sampled, the gradient under test stands in for the rest of it; that it is right
    there too is what the projections decide.
    """
    rows = np.array(gradient)
    for index, estimate in zip(ref.indices, ref.estimates, strict=True):
        rows[index] = estimate.value if np.isfinite(estimate.value) else 0.0
    norms = row_norm(rows)
    norms = np.maximum(norms, floor * np.max(norms, initial=0.0))
    return np.array([norms[index] for index in ref.indices])
