"""autograd.test_util.check_grads (HIPS autograd) on a NumPy pair: a primitive with its defvjp.

First order, reverse mode (a gradient from NumPy is not differentiable again), with the step and tolerances
that it has built in (1e-6 each). It compares one random projection, drawn from NumPy's global generator.

References
----------
https://github.com/HIPS/autograd/blob/master/docs/tutorial.md#extend-autograd-by-defining-your-own-primitives
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from autograd.extend import defvjp, primitive
from autograd.test_util import check_grads

from benchmarks.op_pairs import OpPair


def check(pair: OpPair) -> None:
    """Raise if the checker finds the pair wrong."""
    plain = pair.plain()
    values = plain.values

    @primitive
    def wrapped(*values: Any) -> Any:
        return plain.forward(*values)[0]

    def vjp(number: int, y: Any, *values: Any) -> Callable[[Any], Any]:
        _, cache = plain.forward(*values)
        return lambda dy: plain.backward(dy, cache)[number]

    defvjp(wrapped, *(partial(vjp, number) for number in range(len(values))))
    np.random.seed(pair.seed)  # noqa: NPY002 (the generator that autograd draws from)
    check_grads(wrapped, tuple(range(len(values))), modes=["rev"], order=1)(*values)


VERSION = f"autograd {version('autograd')}"
CHECKERS: dict[str, Callable[[OpPair], None]] = {"autograd check_grads": check}
