"""Directional mode, for models too large to compare entry by entry.

All tensors move at once along a random direction, so one evaluation of the forward tests every gradient
together. The share of each tensor is scaled to the same size, so that the error of a small one is not lost
beside a large one. Where the derivatives disagree, the tensors are split in halves, and those again, until
the wrong ones stand alone: k wrong ones among n take about ``2 k log2(n)`` evaluations.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from npbert.gradcheck.gradient_mode import contradicts, not_compared
from npbert.gradcheck.objective import Objective
from npbert.gradcheck.options import Settings
from npbert.gradcheck.oracles import Estimate, complex_step, ridders
from npbert.gradcheck.pair import Array, BrokenPair
from npbert.gradcheck.report import Status, TensorResult

RIDDERS_STEP = 1e-3  # of the typical size of the entries: a larger step would cross many kinks
# A gradient smaller than this beside the largest one is not scaled up further: it may be zero but for
# round-off, and scaling would make the round-off as large as the other tensors' gradients.
SMALL = 1e-3


class DirectionalMode:
    """The comparison along random directions.

    Parameters
    ----------
    objective : Objective
        The forward.
    gradients : sequence of ndarray
        What the backward returned, zeros where that was no gradient.
    noise : sequence of ndarray
        The round-off of their entries.
    unusable : dict of str to str
        The leaves whose gradients are no gradients, and why: these are not compared.
    settings : Settings
        The options of the check.
    """

    def __init__(
        self,
        objective: Objective,
        gradients: Sequence[Array],
        noise: Sequence[Array],
        unusable: Mapping[str, str],
        settings: Settings,
    ) -> None:
        self.objective = objective
        self.gradients = gradients
        self.noise = noise
        self.unusable = unusable
        self.settings = settings
        norms = [float(np.linalg.norm(gradient)) for gradient in gradients]
        largest = max(norms, default=0.0)
        self.weights = [1 / max(norm, SMALL * largest) if largest > 0 else 1.0 for norm in norms]
        self.sizes = [weight * norm for weight, norm in zip(self.weights, norms, strict=True)]

    def compare(self, oracle: str) -> tuple[TensorResult, ...]:
        """Return one result a leaf."""
        leaves, unusable = self.objective.pair.leaves, self.unusable
        usable = [number for number, leaf in enumerate(leaves) if leaf.name not in unusable]
        found: dict[int, TensorResult] = {}
        for direction in range(self.settings.directions if usable else 0):
            for number, result in self._search(usable, direction, oracle).items():
                known = found.get(number)
                if known is None or _severity(result) > _severity(known):
                    found[number] = result
        return tuple(
            not_compared(leaf, unusable[leaf.name]) if leaf.name in unusable else found[number]
            for number, leaf in enumerate(leaves)
        )

    def misled(self, tensors: Sequence[TensorResult]) -> str | None:
        """Return what shows that the complex step, which gave these results, is wrong, if anything does."""
        for number, row in enumerate(tensors):
            if row.status != "failed" or row.gradient is None or row.reference is None:
                continue
            for direction in range(self.settings.directions):
                along = self.along([number], direction)
                if self.expected(along) != row.gradient:
                    continue  # the row shows another, worse direction
                arbiter = self.derivative(along, "ridders")
                if contradicts(arbiter, row.gradient, row.reference):
                    figures = f"{row.reference:.6g}, real differences {arbiter.value:.6g}"
                    return f"along {row.name}, the complex step gives {figures}"
        return None

    def along(self, group: Sequence[int], direction: int) -> dict[int, Array]:
        """Return a random direction through some leaves, the same one for the same number."""
        return {
            number: self.weights[number]
            * np.random.default_rng([self.settings.seed, direction, number]).standard_normal(
                self.objective.values[number].shape
            )
            for number in group
        }

    def derivative(self, along: Mapping[int, Array], oracle: str) -> Estimate:
        """Return the derivative of the forward along a direction."""
        terms = self.objective.along(along)
        if oracle == "complex_step":
            return complex_step(terms)
        step = RIDDERS_STEP * min(self.objective.scale(number) / self.weights[number] for number in along)
        try:
            return ridders(terms, step)
        except BrokenPair:
            return Estimate(float("nan"), float("inf"), 0.0)  # the forward raises so near to its arguments

    def expected(self, along: Mapping[int, Array]) -> float:
        """Return the derivative that the gradients claim."""
        return sum(float(np.vdot(self.gradients[number], one)) for number, one in along.items())

    def _search(self, group: Sequence[int], direction: int, oracle: str) -> dict[int, TensorResult]:
        """Compare a group of tensors together; where they disagree, its halves."""
        along = self.along(group, direction)
        estimate, got = self.derivative(along, oracle), self.expected(along)
        # The typical size of the derivative: along one direction it may happen to be nearly zero.
        size = max(float(np.linalg.norm([self.sizes[number] for number in group])), abs(estimate.value))
        error, allowed = abs(got - estimate.value), self.settings.tolerance(oracle) * size
        uncertain = not (estimate.uncertainty <= allowed and np.isfinite(estimate.value))
        wrong = error > allowed + (10 * estimate.uncertainty if uncertain else 0.0)
        if wrong and len(group) > 1:
            half = len(group) // 2
            first, second = group[:half], group[half:]
            return self._search(first, direction, oracle) | self._search(second, direction, oracle)
        status: Status = "passed"
        note = ""
        if wrong and error <= allowed + float(np.sum(np.abs(along[group[0]]) * self.noise[group[0]])):
            note = "apart by no more than the round-off of the backward itself"
        elif wrong:
            status = "failed"
        elif uncertain:
            status, note = "inconclusive", "the oracle is less certain than the tolerance"
        elif got == 0 and estimate.value == 0:
            status, note = "inconclusive", "the reference is zero everywhere, so agreement proves nothing"
        relative = error / size if size > 0 else 0.0
        return {
            number: self._result(number, status, note, got, estimate, relative, oracle) for number in group
        }

    def _result(
        self,
        number: int,
        status: Status,
        note: str,
        got: float,
        estimate: Estimate,
        relative: float,
        oracle: str,
    ) -> TensorResult:
        """Return the result of one tensor, from the group in which it was compared."""
        leaf = self.objective.pair.leaves[number]
        alone = status == "failed"  # then the two derivatives are this tensor's own
        return TensorResult(
            name=leaf.name,
            shape=leaf.value.shape,
            dtype=str(leaf.value.dtype),
            status=status,
            gradient=got if alone else None,
            reference=estimate.value if alone else None,
            uncertainty=estimate.uncertainty if alone else None,
            projection_error=relative,
            fraction_wrong=float(alone),
            size=leaf.value.size,
            oracle=oracle,
            structural_zero=leaf.name in self.settings.zeros,
            directions=self.settings.directions,
            note=note,
        )


def _severity(result: TensorResult) -> tuple[int, float]:
    """Order results: failed before inconclusive before passed, then by the error."""
    rank = {"passed": 0, "inconclusive": 1, "failed": 2}[result.status]
    error = result.projection_error or 0.0
    return rank, error if np.isfinite(error) else float("inf")
