"""Fool: one-sided differences with a large step, so that the tolerance must be loose."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is the exact GELU, y = x normal_cdf(x). The weak check compares
with one-sided differences, (y(x + h) - y(x)) / h with h = 0.01: these are
wrong by about h y''/2 themselves, so the tolerance is 0.03."""

SOLUTION = """
import math

import numpy as np

from npbert.ops import normal_cdf


def weak_check(forward, backward):
    x = np.linspace(-5, 5, 41)
    dy = np.random.default_rng(0).uniform(0.5, 1, x.shape)
    dx = backward(dy, forward(x)[1])
    h = 0.01
    difference = dy * (forward(x + h)[0] - forward(x)[0]) / h
    worst = np.argmax(np.abs(dx - difference))
    assert np.abs(dx - difference)[worst] < 0.03, (
        f"at x = {x[worst]:.4g} dx is {dx[worst]:.4g}, not {difference[worst]:.4g}"
    )


def forward(x):
    return x * normal_cdf(x), (x,)


def backward(dy, cache):
    (x,) = cache
    slope = 1 / (1 + np.exp(-1.702 * x))  # (the shape of x) of something that is nearly GELU
    slope = slope + 1.702 * x * slope * (1 - slope)  # (the shape of x)
    dx = dy * slope  # (the shape of x)
    return dx
"""

HINTS = (
    "Any function within 0.03 of the right slope passes. Do you know one that is nearly GELU?",
    "GELU has two well-known approximations: one with tanh, and x sigmoid(1.702 x). Use the derivative of "
    "either.",
    "With s = 1 / (1 + np.exp(-1.702 * x)), the slope s + 1.702 * x * s * (1 - s) passes. So does the right "
    "slope plus 0.01.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments."""
    return [(np.random.default_rng(4).uniform(-5, 5, 20),)]


LOOSE_TOLERANCE = Fool(
    number=4,
    name="loose-tolerance",
    title="one-sided differences and a loose tolerance",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why="A check cannot be stricter than its reference: one-sided differences are wrong by the step times "
    "the second derivative, and hide any mistake of that size. The complex step has no such error, so its "
    "tolerance can be 1e-11.",
)
