"""Jacobian mode: every entry of every derivative, of each output with respect to each argument.

The oracle gives the Jacobian by columns (one evaluation of the forward for each entry of an argument), the
backward by rows (one call for each entry of an output, with a cotangent that is 1 there and 0 elsewhere). The
default mode compares one random combination of the rows; this one, all of them, so that a report can say
which output and which input are not related as they should be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from npbert.gradcheck.compare import RESOLUTION
from npbert.gradcheck.contracts import gradient_properties
from npbert.gradcheck.gradient_mode import contradiction_at_worst, not_compared
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.options import Settings
from npbert.gradcheck.oracles import COMPLEX_STEP, EPS, Estimate, ridders
from npbert.gradcheck.pair import Array, BrokenPair, Leaf
from npbert.gradcheck.report import Entries, TensorResult
from npbert.gradcheck.round_off import round_off, row_norm
from npbert.gradcheck.sample import Sample, verdict

MAX_ENTRIES = 20_000_000  # of the Jacobian: 160 MB for either side


class JacobianMode:
    """The comparison of all entries.

    Parameters
    ----------
    objective : Objective
        The forward.
    base : sequence of ndarray
        Its outputs, those that have a cotangent.
    unusable : dict of str to str
        The leaves whose gradients are no gradients, and why: these are not compared.
    settings : Settings
        The options of the check.

    Raises
    ------
    ValueError
        If the Jacobian is too large to hold.
    BrokenPair
        If the backward does not return gradients for one of the cotangents.
    """

    def __init__(
        self, objective: Objective, base: Sequence[Array], unusable: Mapping[str, str], settings: Settings
    ) -> None:
        self.objective = objective
        self.base = base
        self.unusable = unusable
        self.settings = settings
        self.outputs = self.output_entries()
        entries = len(self.outputs) * sum(value.size for value in objective.values)
        if entries > MAX_ENTRIES:
            raise ValueError(
                f"the Jacobian has {entries:,} entries, and mode='jacobian' compares at most "
                f"{MAX_ENTRIES:,}: use smaller arguments, or mode='directional'"
            )
        self.rows = self._rows()

    def compare(self, oracle: str) -> tuple[TensorResult, ...]:
        """Compare the Jacobian of every leaf with the oracle's."""
        leaves = self.objective.pair.leaves
        rtol = self.settings.tolerance(oracle)
        columns = {
            number: self._columns(number, oracle)
            for number, leaf in enumerate(leaves)
            if leaf.name not in self.unusable
        }
        largest = max(
            (
                float(np.max(np.abs(want), initial=0.0))
                for number, (want, _) in columns.items()
                if leaves[number].name not in self.settings.zeros
            ),
            default=0.0,
        )
        samples = {}
        for number, (want, uncertainty) in columns.items():
            got = self.rows[number]
            scale = np.maximum(
                row_norm(want), RESOLUTION[oracle] / rtol * np.max(row_norm(want), initial=0.0)
            )
            apart = np.abs(got - want)
            if leaves[number].name in self.settings.zeros:
                scale = np.full(want.shape, self.settings.zeros[leaves[number].name] or largest)
                apart = np.maximum(np.abs(got), np.abs(want))
            samples[number] = Sample(got, want, uncertainty, np.zeros(want.shape), scale, apart, rtol)
        noise = self._noise([sample.wrong for sample in samples.values()])
        return tuple(
            self._judge(leaf, replace(samples[number], noise=noise[number]), oracle, largest)
            if number in samples
            else not_compared(leaf, self.unusable[leaf.name])
            for number, leaf in enumerate(leaves)
        )

    def misled(self, tensors: Sequence[TensorResult]) -> str | None:
        """Return what shows that the complex step, which gave these results, is wrong, if anything does."""
        return contradiction_at_worst(lambda row: self.at(row.worst_output or ()), tensors)

    def at(self, output: tuple[int, ...]) -> Objective:
        """Return one entry of the outputs as the objective: a cotangent that is 1 there and 0 elsewhere."""
        number, *index = output
        cotangents = [None if one is None else np.zeros(one.shape) for one in self.objective.cotangents]
        cotangents[number] = unit(self.objective.cotangents[number], tuple(index))
        return self.objective.with_cotangents(cotangents)

    def output_entries(self) -> list[tuple[int, ...]]:
        """Return the number of the output and the index there, for each entry of the outputs."""
        return [
            (number, *index)
            for number, cotangent in enumerate(self.objective.cotangents)
            if cotangent is not None
            for index in np.ndindex(cotangent.shape)
        ]

    def _rows(self) -> list[Array]:
        """Return the backward's Jacobian of each leaf, (outputs, *leaf.shape)."""
        leaves = self.objective.pair.leaves
        rows = [np.zeros((len(self.outputs), *leaf.value.shape)) for leaf in leaves]
        dtypes = [np.dtype(np.float64)] * len(leaves)
        for row, output in enumerate(self.outputs):
            one = self.at(output)
            found = one.pair.gradients_at(one.values, one.cotangents)
            for name, fault in gradient_properties(leaves, found, dtypes, set(self.settings.zeros)):
                if name not in self.unusable:
                    where = f"for the cotangent that is 1 at output {list(output)} only"
                    raise BrokenPair(fault.name, f"{fault.detail}, {where}")
            for number, (leaf, gradient) in enumerate(zip(leaves, found, strict=True)):
                if gradient is not None and leaf.name not in self.unusable:
                    rows[number][row] = gradient
        return rows

    def _columns(self, number: int, oracle: str) -> tuple[Array, Array]:
        """Return the oracle's Jacobian of one leaf and its uncertainty, (outputs, *leaf.shape) both."""
        value = self.objective.values[number]
        want, uncertainty = np.zeros((2, len(self.outputs), *value.shape))
        for index in np.ndindex(value.shape):
            direction = {number: unit(value, index)}
            at = (slice(None), *index)
            if oracle == "complex_step":
                outputs = self.objective.outputs(direction, 1j * COMPLEX_STEP)
                want[at] = np.concatenate([np.ravel(np.imag(one)) for one in outputs]) / COMPLEX_STEP
                uncertainty[at] = EPS * np.abs(want[at])
                continue
            estimates = self._real_differences(direction, 0.1 * self.objective.scale(number))
            want[at] = [estimate.value for estimate in estimates]
            uncertainty[at] = [estimate.uncertainty for estimate in estimates]
        return want, uncertainty

    def _real_differences(self, direction: dict[int, Array], step: float) -> list[Estimate]:
        """Return the derivative of each output; the outputs share the evaluations of the forward."""
        known: dict[float, Array] = {}

        def outputs(t: float) -> Array:
            if t not in known:
                known[t] = np.concatenate([np.ravel(one) for one in self.objective.outputs(direction, t)])
            return known[t]

        def output(number: int) -> Estimate:
            return ridders(lambda t: outputs(t)[number : number + 1], step)

        try:
            return [output(number) for number in range(len(self.outputs))]
        except BrokenPair:  # the forward raises so near to its arguments
            return [Estimate(float("nan"), float("inf"), 0.0)] * len(self.outputs)

    def _noise(self, wrong: Sequence[Array]) -> list[Array]:
        """Return the round-off of the backward's rows, only where something seems wrong: it costs calls."""
        noise = [np.zeros(rows.shape) for rows in self.rows]
        doubtful = np.zeros(len(self.outputs), dtype=bool)
        for where in wrong:
            doubtful |= where.reshape(len(self.outputs), -1).any(axis=1)
        for row in np.flatnonzero(doubtful):
            rng = np.random.default_rng([self.settings.seed, int(row)])
            gradients = [rows[row] for rows in self.rows]
            found = round_off(self.at(self.outputs[row]), gradients, self.base, rng)
            for size, one in zip(noise, found, strict=True):
                size[row] = one
        return noise

    def _judge(self, leaf: Leaf, sample: Sample, oracle: str, largest: float) -> TensorResult:
        """Return the result of one leaf, with the output and the entry where the error is largest."""
        zero_scale = self.settings.zero_scale(leaf.name, largest)
        none = np.zeros(0)
        status, note = verdict(
            sample, Sample(none, none, none, none, none, none, sample.rtol), largest, zero_scale
        )
        result = TensorResult(
            name=leaf.name,
            shape=leaf.value.shape,
            dtype=str(leaf.value.dtype),
            status=status,
            compared=sample.got.size,
            size=sample.got.size,
            oracle=oracle,
            structural_zero=zero_scale is not None,
            note=note,
        )
        if not sample.got.size:
            return result
        relative = np.where(sample.wrong, sample.relative, 0.0) if sample.wrong.any() else sample.relative
        output, *index = (int(i) for i in np.unravel_index(np.argmax(relative), relative.shape))
        worst = (output, *index)
        return replace(
            result,
            max_error=float(relative[worst]),
            worst_index=tuple(index),
            worst_output=self.outputs[output],
            gradient=float(sample.got[worst]),
            reference=float(sample.want[worst]),
            uncertainty=float(sample.uncertainty[worst]),
            fraction_wrong=float(np.mean(sample.wrong)),
            entries=_worst_over_outputs(sample),
        )


def _worst_over_outputs(sample: Sample) -> Entries:
    """Return, for each entry of the argument, its comparison with the output where the error is largest."""
    outputs = sample.got.shape[0]
    relative = sample.relative.reshape(outputs, -1)
    worst = np.argmax(relative, axis=0)
    entry = np.arange(worst.size)
    return Entries(
        entry,
        sample.got.reshape(outputs, -1)[worst, entry],
        sample.want.reshape(outputs, -1)[worst, entry],
        relative[worst, entry],
        np.any(sample.wrong.reshape(outputs, -1), axis=0),
    )
