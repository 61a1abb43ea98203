"""Errors without structure, and small: the gradient is right, computed with too few digits."""

from collections.abc import Iterator

import numpy as np

from npbert.gradcheck.diagnosis.finding import Clue
from npbert.gradcheck.diagnosis.surroundings import Surroundings
from npbert.gradcheck.diagnosis.wrong import Wrong

# Relative errors up to which a few operations in a type explain them.
SINGLE, HALF = 3e-6, 5e-3
# Between the two lie formulas that are not quite the right one, such as the tanh form of the erf GELU.
WRONG_CONSTANT = 5e-5


def small_error(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The error is as small as the digits of float32 or float16, or as a slightly wrong constant."""
    size = float(np.linalg.norm(wrong.reference[wrong.known]))
    error = float(np.linalg.norm(wrong.error))
    if not 0 < error <= HALF * size:
        return
    relative = error / size
    evidence = {"relative error": relative}
    got = wrong.gradient[wrong.known]
    for dtype in (np.float16, np.float32):
        with np.errstate(over="ignore"):
            rounded = got.astype(dtype).astype(np.float64)
        if np.array_equal(rounded, got) and np.any(got != np.round(got)):
            text = (
                f"is right to {relative:.0e}, all numbers of it are {dtype.__name__}: computed in that type"
            )
            yield Clue("precision", text, 1.0, evidence)
            return
    if relative <= SINGLE:
        text = f"is right to {relative:.0e}, without a pattern: something is computed in float32"
        yield Clue("precision", text, 0.9, evidence)
    elif relative <= WRONG_CONSTANT:
        text = (
            f"is right to {relative:.0e}, without a pattern: a constant is slightly wrong, or a formula only "
            "an approximation"
        )
        yield Clue("approximation", text, 0.5, evidence)
    else:
        text = (
            f"is right to {relative:.0e}, without a pattern: something is computed in float16, or by an "
            "approximation, such as the tanh form of the erf GELU"
        )
        yield Clue("approximation", text, 0.5, evidence)
