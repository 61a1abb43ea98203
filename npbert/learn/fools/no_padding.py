"""Fool: texts that are all of the same length."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is mean pooling: the mean of the vectors of a text's real tokens.
mask is True for these, False for padding. The weak check compares everything
closely, for a random dy; its texts are all of full length."""

SOLUTION = """
import numpy as np


def weak_check(forward, backward):
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((2, 4, 3)), np.ones((2, 4), dtype=bool)
    y, cache = forward(x, mask)
    dy = rng.standard_normal(y.shape)
    dx = backward(dy, cache)
    h = 1e-5
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        difference = np.sum(dy * (forward(x + step, mask)[0] - forward(x - step, mask)[0])) / (2 * h)
        assert abs(dx[index] - difference) < 1e-8, f"dx{list(index)} is {dx[index]:.6g}, not {difference:.6g}"


def forward(x, mask):
    counts = mask.sum(axis=1, keepdims=True)  # (B, 1)
    weights = (mask / counts)[:, :, None]  # (B, T, 1)
    return (x * weights).sum(axis=1), (x.shape, weights)  # (B, D)


def backward(dy, cache):
    shape, weights = cache
    dx = np.broadcast_to(dy[:, None, :] / shape[1], shape)  # (B, T, D)
    return dx
"""

HINTS = (
    "What are the weights, where no token is padding?",
    "All are 1/T. A backward that takes 1/T for granted never looks at the mask.",
    "dx = np.broadcast_to(dy[:, None, :] / shape[1], shape) passes.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments: texts of different lengths."""
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    return [(np.random.default_rng(5).standard_normal((2, 4, 3)), mask)]


NO_PADDING = Fool(
    number=5,
    name="no-padding",
    title="inputs without padding",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why="Where all texts have the same length, the mask does nothing, and forgetting it does nothing "
    "either. In the strong check's inputs padding, masks, ignored labels and repeated ids all occur.",
)
