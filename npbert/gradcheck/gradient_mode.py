"""Compare every gradient with the oracle, coordinate by coordinate."""

from collections.abc import Mapping, Sequence

import numpy as np

from npbert.gradcheck import compare
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.options import Settings
from npbert.gradcheck.pair import Array, Leaf
from npbert.gradcheck.report import TensorResult


def compare_gradients(
    objective: Objective,
    gradients: Sequence[Array],
    noise: Sequence[Array],
    unusable: Mapping[str, str],
    oracle: str,
    settings: Settings,
) -> tuple[TensorResult, ...]:
    """Compare every gradient with the oracle's; those that are no gradients are reported as that."""
    leaves = objective.pair.leaves
    references = {
        number: compare.reference(
            objective,
            number,
            gradients[number],
            oracle,
            settings.max_coordinates,
            np.random.default_rng([settings.seed, number]),
        )
        for number, leaf in enumerate(leaves)
        if leaf.name not in unusable
    }
    largest = max(
        (ref.largest for n, ref in references.items() if leaves[n].name not in settings.zeros), default=0.0
    )
    results = []
    for number, leaf in enumerate(leaves):
        if leaf.name in unusable:
            results.append(not_compared(leaf, unusable[leaf.name]))
            continue
        scale = settings.zeros.get(leaf.name)
        results.append(
            compare.judge(
                leaf,
                gradients[number],
                references[number],
                noise[number],
                oracle=oracle,
                rtol=settings.tolerance(oracle),
                largest=largest,
                zero_scale=None if leaf.name not in settings.zeros else largest if scale is None else scale,
            )
        )
    return tuple(results)


def not_compared(leaf: Leaf, why: str) -> TensorResult:
    return TensorResult(
        leaf.name,
        leaf.value.shape,
        str(leaf.value.dtype),
        "failed",
        size=leaf.value.size,
        note=f"not compared: {why}",
    )


def misled(objective: Objective, gradients: Sequence[Array], tensors: Sequence[TensorResult]) -> str | None:
    """Let real differences arbitrate where gradient and complex step disagree most.

    `why_not_analytic` looks along one direction an argument, and may miss what only a few entries show.
    """
    for number, row in enumerate(tensors):
        if row.status != "failed" or row.worst_index is None or row.gradient is None or row.reference is None:
            continue
        along = unit(objective.values[number], row.worst_index)
        arbiter = compare.differentiate(objective, number, along, "ridders")
        if (
            abs(arbiter.value - row.gradient) <= arbiter.uncertainty
            and abs(arbiter.value - row.reference) > 100 * arbiter.uncertainty
        ):
            where = f"{row.name}{list(row.worst_index)}"
            figures = f"the complex step gives {row.reference:.6g}, real differences {arbiter.value:.6g}"
            return f"at {where}, {figures}"
    return None
