"""Fool: a check of a square weight that compares one number."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is the linear layer y = x Wᵀ again, with a square weight. The weak
check compares the shapes and the norms of the gradients with the right ones:
the numbers that a training log shows."""

SOLUTION = """
import numpy as np


def weak_check(forward, backward):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 7, 4))
    weight = rng.standard_normal((4, 4))
    gradients = backward(dy, forward(x, weight)[1])
    for name, found, right in zip(("dx", "dweight"), gradients, (dy @ weight, dy.T @ x), strict=True):
        assert found.shape == right.shape, f"{name} has shape {found.shape}, not {right.shape}"
        norms = np.linalg.norm(found), np.linalg.norm(right)
        assert np.isclose(*norms), f"the norm of {name} is {norms[0]:.6g}, not {norms[1]:.6g}"


def forward(x, weight):
    return x @ weight.T, (x, weight)


def backward(dy, cache):
    x, weight = cache
    dweight = x.T @ dy  # (out, in)
    dx = dy @ weight  # (rows, in)
    return dx, dweight
"""

HINTS = (
    "Which changes of a matrix leave its norm as it is?",
    "Exchanging entries, changing signs, transposing. The weight is square, so a transposed gradient has "
    "its shape.",
    "dweight = x.T @ dy passes, and so does minus the right one.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments: square, then not."""
    rng = np.random.default_rng(3)
    return [
        (rng.standard_normal((7, 4)), rng.standard_normal((4, 4))),
        (rng.standard_normal((7, 3)), rng.standard_normal((4, 3))),
    ]


NORM_ONLY = Fool(
    number=3,
    name="norm-only",
    title="a square weight, and norms",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why="A norm is one number; a gradient is as many as there are parameters, each with its place and sign. "
    "The strong check compares entry by entry, and its shapes are not square, so that a transpose shows at "
    "once.",
)
