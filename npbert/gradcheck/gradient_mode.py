"""Gradient mode, the default: the gradient for one random cotangent, compared coordinate by coordinate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from npbert.gradcheck import mpmath_oracle
from npbert.gradcheck.compare import Reference, differentiate, judge, reference_of
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.options import Settings
from npbert.gradcheck.oracles import Estimate
from npbert.gradcheck.pair import Array, Leaf
from npbert.gradcheck.report import CheckResult, TensorResult

# What mpmath arbitrates, being a thousand times slower: coordinates of a tensor, in a problem of so many
# entries; and, unless it was asked for, no relative error as large as this, about which there is no doubt.
MPMATH_COORDINATES, MPMATH_ENTRIES, PLAINLY_WRONG = 50, 1000, 1e-3


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
        self.largest = 0.0  # the largest reference

    def compare(self, oracle: str) -> tuple[TensorResult, ...]:
        """Return one result a leaf."""
        leaves = self.objective.pair.leaves
        references = {
            number: self._reference(number, oracle, self.settings.max_coordinates)
            for number, leaf in enumerate(leaves)
            if leaf.name not in self.unusable
        }
        self.largest = max(
            (
                ref.largest
                for number, ref in references.items()
                if leaves[number].name not in self.settings.zeros
            ),
            default=0.0,
        )
        return tuple(
            self._judge(number, references[number], oracle)
            if number in references
            else not_compared(leaf, self.unusable[leaf.name])
            for number, leaf in enumerate(leaves)
        )

    def ask_mpmath(
        self, tensors: Sequence[TensorResult], base: Sequence[Array], oracle: str
    ) -> tuple[tuple[TensorResult, ...], list[CheckResult]]:
        """Let mpmath compute the outputs, and have the last word on the tensors that have not passed.

        Where the caller did not ask for mpmath, only on those in doubt: those that are not far off, or
        compared with real differences.
        """
        given = self.settings.mpmath_given
        entries = sum(value.size for value in (*self.objective.values, *base))
        doubtful = [
            number
            for number, row in enumerate(tensors)
            if row.status != "passed"
            and row.compared
            and (given or oracle == "ridders" or not (row.max_error or 0.0) >= PLAINLY_WRONG)
            and entries <= MPMATH_ENTRIES
        ]
        if not doubtful and not given:
            return tuple(tensors), []
        found = mpmath_oracle.same_values(self.objective, base)
        results = list(tensors)
        if found.status == "passed" and oracle != "mpmath":
            for number in doubtful:
                reference = self._reference(number, "mpmath", MPMATH_COORDINATES)
                results[number] = _last_word(tensors[number], self._judge(number, reference, "mpmath"))
        return tuple(results), [found]

    def _reference(self, number: int, oracle: str, limit: int) -> Reference:
        rng = np.random.default_rng([self.settings.seed, number])
        return reference_of(self.objective, number, self.gradients[number], oracle, limit, rng)

    def _judge(self, number: int, reference: Reference, oracle: str) -> TensorResult:
        leaf = self.objective.pair.leaves[number]
        return judge(
            leaf,
            self.gradients[number],
            reference,
            self.noise[number],
            oracle=oracle,
            rtol=self.settings.tolerance(oracle),
            largest=self.largest,
            zero_scale=self.settings.zero_scale(leaf.name, self.largest),
        )

    def misled(self, tensors: Sequence[TensorResult]) -> str | None:
        """Return what shows that the complex step, which gave these results, is wrong, if anything does."""
        return contradiction_at_worst(lambda row: self.objective, tensors)


def _last_word(row: TensorResult, exact: TensorResult) -> TensorResult:
    """Return mpmath's result, and say what it means beside the oracle's."""
    oracle = row.oracle.replace("_", " ")
    before = f"failed by the {oracle}" if row.status == "failed" else f"inconclusive by the {oracle}"
    meaning = {"passed": "the gradient is right", "failed": "the gradient is wrong"}.get(exact.status)
    note = f"{before}; mpmath, with 50 digits: {meaning or exact.note}"
    return replace(exact, note=note)


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
        arbiter = differentiate(objective, number, along, "ridders")
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
