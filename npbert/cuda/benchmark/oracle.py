"""Whether a fused op is right: against the textbook in float64 on the host, beside the unfused op.

The kernel's largest error may be twice that of the unfused op of the same precision, plus four roundings of
the largest element. Both ran on the device; both are compared with what NumPy makes, in float64, of the very
same arguments.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.cuda.benchmark.cases import Case, Pair
from npbert.ops.array_module import Array

RATIO: Final = 2
ROUNDINGS: Final = 4


class Outputs(NamedTuple):
    """What a forward and its backward return, without what is None."""

    value: Array
    gradients: tuple[Array, ...]


class Comparison(NamedTuple):
    """How far off one result is.

    Attributes
    ----------
    name : str
        "value", or "gradient 2" for that of the third argument.
    error, unfused_error : float
        The largest differences from float64. NaN where a result is not finite.
    allowed : float
        What ``error`` may be.
    """

    name: str
    error: float
    unfused_error: float
    allowed: float

    @property
    def is_right(self) -> bool:
        """Whether the error is allowed; that of a NaN never is."""
        return self.error <= self.allowed


def run(pair: Pair, arguments: Sequence[Any], dy: Any) -> Outputs:
    """Call a forward and its backward."""
    value, cache = pair.forward(*arguments)
    gradients = pair.backward(dy, cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return Outputs(value, tuple(gradient for gradient in gradients if gradient is not None))


def compare(case: Case, fused: Outputs, unfused: Outputs) -> list[Comparison]:
    """Compare with the oracle, a few rows at a time.

    Parameters
    ----------
    case : Case
    fused, unfused : Outputs
        NumPy arrays.

    Returns
    -------
    list of Comparison
        Of the value, then of the gradients.
    """
    positions = [position for position in case.gradients if position is not None]
    names = ["value", *(f"gradient {position}" for position in positions)]
    has_rows = [np.ndim(case.dy) > 0, *(position in case.rows for position in positions)]
    tallies = [_Tally() for _ in names]
    sums: list[Any] = [0.0] * len(names)
    for part, exact in _expected(case):
        for slot, expected in enumerate((exact.value, *exact.gradients)):
            if has_rows[slot]:
                tallies[slot].add(expected, _result(fused, slot)[part], _result(unfused, slot)[part])
            else:
                sums[slot] = sums[slot] + expected
    for slot, tally in enumerate(tallies):
        if not has_rows[slot]:
            tally.add(sums[slot], _result(fused, slot), _result(unfused, slot))
    precision = np.finfo(fused.value.dtype)
    return [tally.comparison(name, precision) for name, tally in zip(names, tallies, strict=True)]


def _expected(case: Case) -> Iterator[tuple[slice, Outputs]]:
    """Yield what the textbook says in float64, for a few rows at a time."""
    count = len(case.arguments[case.rows[0]])
    for start in range(0, count, case.rows_at_once):
        part = slice(start, start + case.rows_at_once)
        arguments = [
            _widened(argument[part] if position in case.rows else argument)
            for position, argument in enumerate(case.arguments)
        ]
        dy = _widened(case.dy[part] if np.ndim(case.dy) else case.dy)
        yield part, run(case.textbook, arguments, dy)


def _widened(value: Any) -> Any:
    is_floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.float64) if is_floating else value


def _result(outputs: Outputs, slot: int) -> Array:
    return outputs.value if slot == 0 else outputs.gradients[slot - 1]


class _Tally:
    """The largest numbers of one result, seen part by part."""

    def __init__(self) -> None:
        self.error = self.unfused_error = self.largest = 0.0

    def add(self, expected: Array, fused: Array, unfused: Array) -> None:
        self.largest = _larger(self.largest, expected)
        self.error = _larger(self.error, fused - expected)
        self.unfused_error = _larger(self.unfused_error, unfused - expected)

    def comparison(self, name: str, precision: Any) -> Comparison:
        # An unfused op that overflows allows nothing. Half of eps is the largest error of one rounding.
        baseline = self.unfused_error if np.isfinite(self.unfused_error) else 0.0
        allowed = RATIO * baseline + ROUNDINGS * float(precision.epsneg) * self.largest
        return Comparison(name, self.error, self.unfused_error, max(allowed, float(precision.tiny)))


def _larger(largest: float, values: Array) -> float:
    """Return the larger of a number and of the absolute values; NaN, once there is one, stays."""
    return float(np.maximum(largest, np.abs(values).max())) if np.size(values) else largest
