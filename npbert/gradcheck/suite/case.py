"""One line of the table: a pair, and inputs rich enough to tell a right backward from a wrong one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npbert.gradcheck.pair import Array


class Problem(NamedTuple):
    """The arguments of one call of `npbert.gradcheck.check`."""

    fn: Callable[..., Any]
    backward: Callable[..., Any]
    args: tuple[Any, ...]
    structural_zeros: tuple[str, ...] | dict[str, float | None] = ()
    max_coordinates: int = 400


class Case(NamedTuple):
    """A named way to draw a problem."""

    name: str
    draw: Callable[[np.random.Generator], Problem]


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    """Draw a float32 array: check() computes in float64, and sees that float32 stays float32."""
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def with_zeros(rng: np.random.Generator, *shape: int) -> Array:
    """Draw weights of which about one in ten is exactly zero, as after pruning."""
    return np.where(rng.random(shape) < 0.1, np.float32(0), normal(rng, *shape))


def held_row(table: Array, row: int, value: Array) -> Array:
    """Return the table with one row replaced by a constant, so that the oracle too sees no gradient there."""
    return np.where((np.arange(len(table)) == row)[:, None], value[row], table)
