"""Exercise: layer normalisation."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    y = x̂ weight + bias
    x̂ = (x - mean) inv_std,    inv_std = 1 / sqrt(variance + eps)

    x, x̂, y, dy     (..., D)    mean and variance are those of a row
    inv_std         (..., 1)    one number a row
    weight, bias    (D,)

An x of a row has a part in x̂ in three ways: directly, through the row's mean,
and through its variance:

    ∂mean/∂x_j = 1/D        ∂inv_std/∂x_j = -inv_std² x̂_j / D"""

SOLUTION = """
import numpy as np


def layernorm_forward(x, weight, bias, eps):
    mean = x.mean(axis=-1, keepdims=True)
    centred = x - mean
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    inv_std = 1 / np.sqrt(variance + eps)
    x_hat = centred * inv_std
    y = x_hat * weight + bias
    return y, (x_hat, inv_std, weight)


def layernorm_backward(dy, cache):
    x_hat, inv_std, weight = cache
    rows = tuple(range(dy.ndim - 1))  # the axes to sum over for weight and bias: all but the last

    dbias = dy.sum(axis=rows)  # (D,)
    dweight = (dy * x_hat).sum(axis=rows)  # (D,)
    dx_hat = dy * weight  # (..., D)
    through_mean = dx_hat.mean(axis=-1, keepdims=True)  # (..., 1)
    through_variance = (dx_hat * x_hat).mean(axis=-1, keepdims=True)  # (..., 1)
    dx = (dx_hat - through_mean - x_hat * through_variance) * inv_std  # (..., D)
    return dx, dweight, dbias
"""

HINTS = (
    "Go backwards, one statement of the forward at a time. weight and bias are a product and a sum that were "
    "broadcast. Then ask in which three ways one x has a part in the x̂ of its row.",
    "x̂_i = (x_i - m) s. With ∂m/∂x_j = 1/D and ∂s/∂x_j = -s² x̂_j / D:\ndx_j = s dx̂_j - (s/D) sum_i dx̂_i "
    "- s x̂_j (1/D) sum_i dx̂_i x̂_i. Two of these are means over the row.",
    "through_mean is the row's mean of dx_hat; through_variance the row's mean of dx_hat * x_hat, both with "
    "keepdims=True; dx = (dx_hat - through_mean - x_hat * through_variance) * inv_std.",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "forgets the mean term",
        "raising one x raises the mean, and so lowers all x̂ of the row. What is missing is - mean(dx̂) in "
        "each row.",
        "dx is wrong in every row by a constant: the same number in all entries of a row; dweight and dbias "
        "are right",
        {"dx": "(dx_hat - x_hat * through_variance) * inv_std"},
    ),
    WrongAnswer(
        "forgets the variance term",
        "moving one x away from the mean raises the variance, and so shrinks all x̂ of the row. What is "
        "missing is - x̂ mean(dx̂ x̂).",
        "dx is wrong in every row by a multiple of x̂: most at the largest |x̂|; dweight and dbias are right",
        {"dx": "(dx_hat - through_mean) * inv_std"},
    ),
    WrongAnswer(
        "forgets both statistics",
        "mean and variance are computed from x; they are not constants. dx̂ / std alone is the gradient of "
        "a layer with fixed statistics, such as batch normalisation at inference.",
        "dx is wrong by a constant and by a multiple of x̂ in every row; it is dy times weight times inv_std",
        {"dx": "dx_hat * inv_std"},
    ),
    WrongAnswer(
        "forgets the weight",
        "y = x̂ weight + bias: what reaches x̂ is dy times weight. With weight = 1, as it is when training "
        "begins, nobody would notice.",
        "dx is wrong without any simple pattern, though each of its rows sums to 0; dweight and dbias are "
        "right",
        {"dx_hat": "dy"},
    ),
    WrongAnswer(
        "has sums where means belong",
        "mean and variance divide by D, and so does what flows back through them.",
        "dx is far too large: wrong by a constant and by a multiple of x̂ in every row, both D - 1 times "
        "too much",
        {
            "through_mean": "dx_hat.sum(axis=-1, keepdims=True)",
            "through_variance": "(dx_hat * x_hat).sum(axis=-1, keepdims=True)",
        },
    ),
    WrongAnswer(
        "divides by D - 1 in the variance term",
        "the forward's variance is the biased one: divided by D, not by D - 1 as np.var(ddof=1) and "
        "torch.var do.",
        "dx is wrong in every row by a multiple of x̂, a small one: 1 / (D - 1) of the variance term",
        {"through_variance": "(dx_hat * x_hat).sum(axis=-1, keepdims=True) / (dy.shape[-1] - 1)"},
    ),
    WrongAnswer(
        "forgets inv_std",
        "x̂ is (x - mean) times inv_std; the last factor of the forward is the first of the way back.",
        "each row of dx is off by one factor, another one in each row; dweight and dbias are right",
        {"dx": "dx_hat - through_mean - x_hat * through_variance"},
    ),
    WrongAnswer(
        "sums dy alone for dweight",
        "weight is multiplied with x̂, so its gradient is the sum of dy x̂. The sum of dy is that of bias.",
        "dweight equals dbias; dx and dbias are right",
        {"dweight": "dy.sum(axis=rows)"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments with a large and a tiny eps, weights of both signs; the last in float32."""
    rng = np.random.default_rng(6)

    def draw(shape: tuple[int, ...], eps: float) -> tuple[Any, ...]:
        width = shape[-1]
        return 2 * rng.standard_normal(shape) + 1, rng.standard_normal(width), rng.standard_normal(width), eps

    *arrays, eps = draw((2, 5), 0.3)
    return [
        draw((2, 3, 5), 0.3),
        draw((4, 3), 1e-12),
        draw((1, 7), 1e-12),
        (*(array.astype(np.float32) for array in arrays), eps),
    ]


LAYERNORM = Exercise(
    name="layernorm",
    title="layer normalisation of each row",
    formula=FORMULA,
    solution=SOLUTION,
    function="layernorm",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="Statistics are functions of their inputs: what was averaged on the way forward sends a mean "
    "back.",
)
