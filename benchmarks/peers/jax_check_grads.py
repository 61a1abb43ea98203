"""jax.test_util.check_grads on a NumPy pair: custom_vjp around pure_callback, as JAX's documentation has it.

First order, reverse mode (the pair has no forward mode), in float64 with the default step (1e-4) and
tolerances (1e-5, times the number of entries). It compares one random projection, always the same one.

References
----------
https://docs.jax.dev/en/latest/_autosummary/jax.test_util.check_grads.html
https://docs.jax.dev/en/latest/external-callbacks.html
"""

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.test_util

from benchmarks.op_pairs import OpPair

jax.config.update("jax_enable_x64", True)
logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)  # it logs what a wrong pair raises


def check(pair: OpPair) -> None:
    """Raise if the checker finds the pair wrong."""
    plain = pair.plain()
    shape_of_y = np.shape(plain.forward(*plain.values)[0])
    like_y = jax.ShapeDtypeStruct(shape_of_y, np.float64)
    like_values = tuple(jax.ShapeDtypeStruct(value.shape, np.float64) for value in plain.values)

    def numpy_forward(*values: Any) -> Any:
        return np.asarray(plain.forward(*map(np.asarray, values))[0])

    def numpy_backward(dy: Any, *values: Any) -> tuple[Any, ...]:
        _, cache = plain.forward(*map(np.asarray, values))
        return tuple(plain.backward(np.asarray(dy)[()], cache))

    @jax.custom_vjp
    def wrapped(*values: Any) -> Any:
        return jax.pure_callback(numpy_forward, like_y, *values)

    def forward(*values: Any) -> Any:
        return wrapped(*values), values

    def backward(values: Any, dy: Any) -> Any:
        return jax.pure_callback(numpy_backward, like_values, dy, *values)

    wrapped.defvjp(forward, backward)
    try:
        jax.test_util.check_grads(wrapped, tuple(plain.values), order=1, modes=("rev",))
    finally:
        jax.clear_caches()  # or every pair ever checked is kept, compiled: gigabytes in a full run


VERSION = f"jax {jax.__version__}"
CHECKERS: dict[str, Callable[[OpPair], None]] = {"jax check_grads": check}
