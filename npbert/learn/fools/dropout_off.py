"""Fool: a check with dropout off."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is dropout(tanh(x)): keep is True where an element survives, and
those are scaled by 1 / (1 - rate). Dropout is random, and randomness is a
nuisance in a test; so the weak check turns it off."""

SOLUTION = """
import numpy as np


def weak_check(forward, backward):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4))
    keep, rate = np.ones(x.shape, dtype=bool), 0.0
    y, cache = forward(x, keep, rate)
    dy = rng.standard_normal(y.shape)
    dx = backward(dy, cache)
    h = 1e-5
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        change = forward(x + step, keep, rate)[0] - forward(x - step, keep, rate)[0]
        difference = np.sum(dy * change) / (2 * h)
        assert abs(dx[index] - difference) < 1e-8, f"dx{list(index)} is {dx[index]:.6g}, not {difference:.6g}"


def forward(x, keep, rate):
    t = np.tanh(x)
    return t * keep / (1 - rate), (t, keep, rate)


def backward(dy, cache):
    t, keep, rate = cache
    dx = dy * (1 - t * t)  # (the shape of x)
    return dx
"""

HINTS = (
    "What are keep and 1 / (1 - rate), where dropout is off?",
    "All True, and 1: factors that may be left out.",
    "dx = dy * (1 - t * t) passes; so does a backward with keep but without the scale.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments: a mask that drops some."""
    rng = np.random.default_rng(6)
    return [(rng.standard_normal((3, 4)), rng.random((3, 4)) < 0.6, 0.4)]


DROPOUT_OFF = Fool(
    number=6,
    name="dropout-off",
    title="dropout turned off",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why="What is turned off is not tested. The strong check needs no randomness either: the mask is an "
    "argument, drawn once, with some elements dropped.",
)
