"""Fool: layernorm as it is when training begins."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is layernorm without a bias: y = x̂ weight, where x̂ = (x - mean)
/ sqrt(variance + eps). The weak check compares dx and dweight closely, for a
random dy. The weight is all ones, as a new layer has it."""

SOLUTION = """
import numpy as np


def weak_check(forward, backward):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 4)), np.ones(4)
    y, cache = forward(x, weight)
    dy = rng.standard_normal(y.shape)
    dx, dweight = backward(dy, cache)
    right = (dy * cache[0]).sum(axis=0)
    assert np.allclose(dweight, right), f"dweight is {dweight}, not {right}"
    h = 1e-5
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        difference = np.sum(dy * (forward(x + step, weight)[0] - forward(x - step, weight)[0])) / (2 * h)
        assert abs(dx[index] - difference) < 1e-8, f"dx{list(index)} is {dx[index]:.6g}, not {difference:.6g}"


def forward(x, weight):
    centred = x - x.mean(axis=-1, keepdims=True)
    inv_std = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5)
    x_hat = centred * inv_std
    return x_hat * weight, (x_hat, inv_std, weight)


def backward(dy, cache):
    x_hat, inv_std, weight = cache
    dweight = (dy * x_hat).sum(axis=0)  # (D,)
    dx_hat = dy  # (rows, D)
    through_mean = dx_hat.mean(axis=-1, keepdims=True)  # (rows, 1)
    through_variance = (dx_hat * x_hat).mean(axis=-1, keepdims=True)  # (rows, 1)
    dx = (dx_hat - through_mean - x_hat * through_variance) * inv_std  # (rows, D)
    return dx, dweight
"""

HINTS = (
    "Where does weight enter the backward, and what does it do there?",
    "dx_hat = dy * weight. With ones, that is dy.",
    "Write the right backward (exercise layernorm), with dx_hat = dy.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments: weights of both signs."""
    rng = np.random.default_rng(8)
    return [(rng.standard_normal((3, 4)), rng.standard_normal(4))]


UNIT_WEIGHT = Fool(
    number=8,
    name="unit-weight",
    title="a weight of ones",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why="Freshly initialised parameters are special: ones and zeros, by which to multiply or to add does "
    "nothing. The strong check's are random, negative ones among them.",
)
