"""A gradient and its reference side by side: what counts as an error, and the verdict on a tensor."""

from dataclasses import dataclass

import numpy as np

from npbert.gradcheck.oracles import EPS
from npbert.gradcheck.pair import Array
from npbert.gradcheck.report import Status

ROUND_OFF_OF_ZERO = 100 * EPS  # a reference this small beside the largest one is a zero, up to round-off


@dataclass(frozen=True)
class Sample:
    """Gradient and reference side by side, at some coordinates or along some directions: one entry each.

    Attributes
    ----------
    got, want : ndarray
        What the backward says, and the oracle.
    uncertainty : ndarray
        The oracle's.
    noise : ndarray
        The backward's own round-off.
    scale : ndarray
        What errors are relative to.
    error : ndarray
        How far apart the two are; for a declared zero, how far the farther one is from zero.
    rtol : float
        The tolerance.
    """

    got: Array
    want: Array
    uncertainty: Array
    noise: Array
    scale: Array
    error: Array
    rtol: float

    @property
    def relative(self) -> Array:
        """The relative errors."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.error > 0, self.error / self.scale, 0.0)

    @property
    def too_far(self) -> Array:
        """Where the error exceeds the tolerance."""
        return self.error > self.rtol * self.scale

    @property
    def uncertain(self) -> Array:
        """Where the oracle is less certain than the tolerance, or has no finite answer."""
        return ~(self.uncertainty <= self.rtol * self.scale + self.noise) | ~np.isfinite(self.want)

    @property
    def wrong(self) -> Array:
        """Where nothing excuses the error: not the backward's round-off, not ten times the oracle's doubt."""
        doubt = np.where(self.uncertain, 10 * self.uncertainty, 0.0)
        return self.error > self.rtol * self.scale + self.noise + doubt


def verdict(points: Sample, lines: Sample, largest: float, zero_scale: float | None) -> tuple[Status, str]:
    """Return the status of a tensor and, where there is something to say, why."""
    if not points.got.size:
        return "passed", "has no entries"
    wrong, unsure = bool(points.wrong.any() or lines.wrong.any()), int(np.sum(points.uncertain))
    if zero_scale is not None and wrong:
        culprit = "gradient" if np.max(np.abs(points.got)) >= np.max(np.abs(points.want)) else "reference"
        return "failed", f"declared a structural zero, but the {culprit} is not one (scale {zero_scale:.3g})"
    if zero_scale is None:
        if not wrong and not points.want.any() and not lines.want.any():
            return "inconclusive", "the reference is zero everywhere, so agreement proves nothing"
        size = max(np.max(np.abs(points.got)), np.max(np.abs(points.want)))
        if points.too_far.any() and size <= max(ROUND_OFF_OF_ZERO * largest, np.max(points.noise)):
            return "inconclusive", "gradient and reference are zero up to round-off: a structural zero?"
    if wrong:
        return "failed", "" if points.wrong.any() else "wrong along a random direction: outside the sample"
    if unsure or lines.uncertain.any():
        return "inconclusive", f"the oracle is less certain than the tolerance at {unsure} coordinates"
    if points.too_far.any() or lines.too_far.any():
        return "passed", "apart by no more than the round-off of the backward itself"
    return "passed", ""
