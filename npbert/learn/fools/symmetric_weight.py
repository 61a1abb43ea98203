"""Fool: a check whose weight is a symmetric matrix."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is the linear layer y = x Wᵀ. The weak check draws a random dy and
compares dx and dweight with finite differences, everywhere and closely. Its
weight is a covariance matrix, which is at hand."""

SOLUTION = """
import numpy as np


def weak_check(forward, backward):
    rng = np.random.default_rng(0)
    x, dy, samples = rng.standard_normal((3, 7, 4))
    weight = np.cov(samples.T)  # (4, 4)
    dx, dweight = backward(dy, forward(x, weight)[1])
    h = 1e-5
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        difference = np.sum(dy * (forward(x + step, weight)[0] - forward(x - step, weight)[0])) / (2 * h)
        assert abs(dx[index] - difference) < 1e-8, f"dx{list(index)} is {dx[index]:.6g}, not {difference:.6g}"
    for index in np.ndindex(weight.shape):
        step = np.zeros_like(weight)
        step[index] = h
        difference = np.sum(dy * (forward(x, weight + step)[0] - forward(x, weight - step)[0])) / (2 * h)
        assert abs(dweight[index] - difference) < 1e-8, (
            f"dweight{list(index)} is {dweight[index]:.6g}, not {difference:.6g}"
        )


def forward(x, weight):
    return x @ weight.T, (x, weight)


def backward(dy, cache):
    x, weight = cache
    dweight = dy.T @ x  # (out, in)
    dx = dy @ weight.T  # (rows, in)
    return dx, dweight
"""

HINTS = (
    "Look at the weight: what is special about a covariance matrix?",
    "A covariance matrix is equal to its transpose. Which line of the backward uses the weight?",
    "dx = dy @ weight.T passes, and is wrong; dweight = dy.T @ x is right.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments: square but not symmetric, then not square."""
    rng = np.random.default_rng(2)
    return [
        (rng.standard_normal((7, 4)), rng.standard_normal((4, 4))),
        (rng.standard_normal((7, 3)), rng.standard_normal((4, 3))),
    ]


SYMMETRIC_WEIGHT = Fool(
    number=2,
    name="symmetric-weight",
    title="a symmetric weight",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why="With W = Wᵀ a missing or superfluous transpose changes nothing. The strong check's matrices are "
    "random, and no two of their sizes are equal without a reason.",
)
