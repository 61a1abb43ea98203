"""Gradient mode, the default: the gradient for one random cotangent, compared coordinate by coordinate."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from npbert.gradcheck import compare
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.options import Settings
from npbert.gradcheck.oracles import Estimate
from npbert.gradcheck.pair import Array, Leaf
from npbert.gradcheck.report import TensorResult


class GradientMode:
    """The comparison of every gradient with the oracle's.

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

    def compare(self, oracle: str) -> tuple[TensorResult, ...]:
        """Return one result a leaf."""
        settings, leaves = self.settings, self.objective.pair.leaves
        references = {
            number: compare.reference(
                self.objective,
                number,
                self.gradients[number],
                oracle,
                settings.max_coordinates,
                np.random.default_rng([settings.seed, number]),
            )
            for number, leaf in enumerate(leaves)
            if leaf.name not in self.unusable
        }
        largest = max(
            (ref.largest for number, ref in references.items() if leaves[number].name not in settings.zeros),
            default=0.0,
        )
        return tuple(
            compare.judge(
                leaf,
                self.gradients[number],
                references[number],
                self.noise[number],
                oracle=oracle,
                rtol=settings.tolerance(oracle),
                largest=largest,
                zero_scale=settings.zero_scale(leaf.name, largest),
            )
            if number in references
            else not_compared(leaf, self.unusable[leaf.name])
            for number, leaf in enumerate(leaves)
        )

    def misled(self, tensors: Sequence[TensorResult]) -> str | None:
        """Return what shows that the complex step, which gave these results, is wrong, if anything does."""
        return contradiction_at_worst(lambda row: self.objective, tensors)


def not_compared(leaf: Leaf, why: str) -> TensorResult:
    return TensorResult(
        leaf.name,
        leaf.value.shape,
        str(leaf.value.dtype),
        "failed",
        size=leaf.value.size,
        note=f"not compared: {why}",
    )


def contradiction_at_worst(
    objective_of: Callable[[TensorResult], Objective], tensors: Sequence[TensorResult]
) -> str | None:
    """Let real differences arbitrate where gradient and complex step disagree most.

    `why_not_analytic` looks along one direction an argument, and may miss what only a few entries show.

    Parameters
    ----------
    objective_of : callable
        Returns the objective whose derivatives a tensor's ``gradient`` and ``reference`` are.
    tensors : sequence of TensorResult
        What the comparison with the complex step found.

    Returns
    -------
    str or None
        What shows that the complex step is wrong, None if nothing does.
    """
    for number, row in enumerate(tensors):
        if row.status != "failed" or row.worst_index is None or row.gradient is None or row.reference is None:
            continue
        objective = objective_of(row)
        along = unit(objective.values[number], row.worst_index)
        arbiter = compare.differentiate(objective, number, along, "ridders")
        if contradicts(arbiter, row.gradient, row.reference):
            where = f"{row.name}{list(row.worst_index)}"
            figures = f"the complex step gives {row.reference:.6g}, real differences {arbiter.value:.6g}"
            return f"at {where}, {figures}"
    return None


def contradicts(arbiter: Estimate, gradient: float, reference: float) -> bool:
    """Tell whether the arbiter agrees with the gradient, and plainly not with the reference."""
    return (
        abs(arbiter.value - gradient) <= arbiter.uncertainty
        and abs(arbiter.value - reference) > 100 * arbiter.uncertainty
    )
