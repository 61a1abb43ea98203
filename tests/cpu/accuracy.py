"""What an op of the CPU engine may err by in float32: at most twice what the textbook does."""

from collections.abc import Callable, Sequence

import numpy as np

from tests.cuda.kernel_contract import assert_within_budget
from tests.op_contract import Op, as_dtype


def assert_as_accurate_as_the_textbook(
    engine: tuple[Callable, Callable],
    textbook: tuple[Callable, Callable],
    args: Sequence,
    rng: np.random.Generator,
    *,
    gradients: Sequence[str],
    terms: Callable,
) -> None:
    """Run both in float32, and compare each with the textbook in float64 at the same, rounded, arguments.

    Parameters
    ----------
    engine, textbook : (forward, backward)
    args : sequence
        Floating-point arrays in float64.
    rng : numpy.random.Generator
        Draws the cotangent.
    gradients, terms
        As in `tests.op_contract.assert_op_contract`.
    """
    exact = Op(*textbook, tuple(args), tuple(gradients), (), terms).rounded_to(np.float32)
    dy = as_dtype(np.float64, np.float32(rng.normal(size=np.shape(exact.value(*exact.args)))))
    rounded = [as_dtype(np.float32, arg) for arg in exact.args]

    def results(op: tuple[Callable, Callable], arguments, cotangent) -> list:
        y, found = Op(*op, tuple(arguments), tuple(gradients), (), terms).run(cotangent)
        return [y, *found]

    expected = results(textbook, exact.args, dy)
    unfused = results(textbook, rounded, np.float32(dy))
    actual = results(engine, rounded, np.float32(dy))
    sizes = terms(dy, *exact.args)
    for slot, name in enumerate(("the value", *(f"d{name}" for name in gradients))):
        if expected[slot] is None:
            assert actual[slot] is None
        else:
            what = f"{name} in float32"
            assert_within_budget(actual[slot], expected[slot], unfused[slot], sizes[slot], what)
