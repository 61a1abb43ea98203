"""Fool: a check whose loss is the sum of the outputs, so that its cotangent is all ones."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is softmax over the last axis. The weak check takes the sum of all
outputs as the loss, as many do, and compares the gradient with finite
differences of that loss at every place."""

SOLUTION = """
import numpy as np


def weak_check(forward, backward):
    x = np.random.default_rng(0).standard_normal((3, 5))
    probs, cache = forward(x)
    dx = backward(np.ones_like(probs), cache)  # the loss is probs.sum()
    h = 1e-5
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        difference = (forward(x + step)[0].sum() - forward(x - step)[0].sum()) / (2 * h)
        assert abs(dx[index] - difference) < 1e-9, f"dx{list(index)} is {dx[index]:.6g}, not {difference:.6g}"


def forward(x):
    exponentials = np.exp(x - x.real.max(axis=-1, keepdims=True))
    probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probs, (probs,)


def backward(dprobs, cache):
    (probs,) = cache
    dx = np.zeros_like(probs)  # (..., C) anything but the right gradient
    return dx
"""

HINTS = (
    "What is the sum of the outputs of softmax, whatever its input?",
    "The sum of a row is always 1: a loss that never changes. What is the gradient of a constant?",
    "dx = np.zeros_like(probs) passes. So does the right formula times any number.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments; its cotangent is random."""
    return [(np.random.default_rng(1).standard_normal((3, 5)),)]


ALL_ONES = Fool(
    number=1,
    name="all-ones",
    title="a cotangent of ones",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why="The outputs of softmax sum to 1, so with that loss the right gradient is 0 everywhere: the weak "
    "check compares zeros. The same happens with layernorm. The strong check draws dy at random, and so "
    "weighs each output differently.",
)
