"""Exercise: softmax."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    p_i = exp(x_i) / sum_j exp(x_j)        along the last axis

    x, probs, dprobs    (..., C)
    mask                True where a place takes part; the others get p = 0,
                        and need no special care

From the quotient rule follows the derivative, a matrix for each row:

    ∂p_i/∂x_j = p_i ([i = j] - p_j)

Wanted is dx_j = sum_i dp_i ∂p_i/∂x_j, without ever building that matrix."""

SOLUTION = """
import numpy as np


def softmax_forward(x, mask=None):
    if mask is not None:
        x = np.where(mask, x, -np.inf).astype(x.dtype)
    row_max = x.real.max(axis=-1, keepdims=True)  # a constant: it cancels
    exponentials = np.exp(x - row_max)
    probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probs, (probs,)


def softmax_backward(dprobs, cache):
    (probs,) = cache
    weighted = dprobs * probs  # (..., C)
    expected = weighted.sum(axis=-1, keepdims=True)  # (..., 1)
    dx = probs * (dprobs - expected)  # (..., C)
    return dx
"""

HINTS = (
    "Put the derivative into the sum: it falls into two sums, one of which has a single term.",
    "dx_j = sum_i dp_i p_i [i = j] - sum_i dp_i p_i p_j = dp_j p_j - p_j sum_i dp_i p_i. The last sum does "
    "not depend on j: one number for each row.",
    "weighted = dprobs * probs; expected is its sum over the last axis, with keepdims=True so that it "
    "broadcasts against dprobs; dx = probs * (dprobs - expected).",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "forgets the sum over the row",
        "all probabilities share one denominator: raising one x lowers all the others. That is the term "
        "- p_j sum_i dp_i p_i.",
        "dx is wrong by a number times probs, another number in each row; its rows do not sum to 0",
        {"dx": "probs * dprobs"},
    ),
    WrongAnswer(
        "takes only the diagonal of the derivative",
        "dp p (1 - p) is the way back through a sigmoid, where each output depends on its own input only. "
        "Softmax's outputs depend on all inputs of the row.",
        "the rows of dx do not sum to 0, and dx is right only where all other entries of the row matter "
        "little",
        {"dx": "dprobs * probs * (1 - probs)"},
    ),
    WrongAnswer(
        "sums over the first axis",
        "the probabilities of a row compete with one another, those of a column do not: the sum is over the "
        "last axis.",
        "dx mixes the rows: changing dprobs in one row changes dx in others",
        {"expected": "weighted.sum(axis=0, keepdims=True)"},
    ),
    WrongAnswer(
        "takes the mean where the sum belongs",
        "the weights p_i sum to 1 already: the sum of dp_i p_i is their average. Dividing by C once more "
        "makes it too small.",
        "dx is wrong by a number times probs in each row, in a direction that the number of classes decides",
        {"expected": "weighted.mean(axis=-1, keepdims=True)"},
    ),
    WrongAnswer(
        "subtracts the sum without the factor p",
        "the sum goes back to x_j with the weight p_j: small probabilities take a small share of it.",
        "dx is wrong by the same number in all entries of a row",
        {"dx": "probs * dprobs - expected"},
    ),
    WrongAnswer(
        "sums dprobs without the weights p",
        "the average of dp is over the distribution: each dp_i counts with its p_i.",
        "dx is wrong by a number times probs in each row, and most where the probabilities are far from "
        "equal",
        {"expected": "dprobs.sum(axis=-1, keepdims=True)"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments: several leading axes, masked places, far apart scores; the last in float32."""
    rng = np.random.default_rng(4)
    mask = np.array([[True, True, False, True], [True, False, False, True], [True, True, True, True]])
    return [
        (2 * rng.standard_normal((3, 4)), None),
        (rng.standard_normal((3, 4)), mask),
        (8 * rng.standard_normal((2, 3, 5)), None),
        (rng.standard_normal((2, 3)).astype(np.float32), None),
    ]


SOFTMAX = Exercise(
    name="softmax",
    title="scores to probabilities",
    formula=FORMULA,
    solution=SOLUTION,
    function="softmax",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="Adding a constant to a row of x changes nothing, so each row of dx sums to 0: a free test.",
)
