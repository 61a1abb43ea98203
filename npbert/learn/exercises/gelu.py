"""Exercise: GELU."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    y = x g(x),    g(x) = normal_cdf(x) = (1 + erf(x / sqrt(2))) / 2

    x, y, dy    any shape; everything is element by element

The derivative of normal_cdf is the normal density, exp(-x² / 2) / sqrt(2 pi)."""

SOLUTION = """
import math

import numpy as np

from npbert.ops import normal_cdf


def gelu_forward(x):
    gate = normal_cdf(x)  # the costly part: kept
    return x * gate, (x, gate)


def gelu_backward(dy, cache):
    x, gate = cache
    dgate_dx = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)  # (the shape of x) the normal density
    slope = gate + x * dgate_dx  # (the shape of x) dy/dx
    dx = dy * slope  # (the shape of x)
    return dx
"""

HINTS = (
    "y is a product of two factors that both depend on x.",
    "The product rule: dy/dx = 1 · g(x) + x · g'(x). g(x) is in the cache; g'(x) is the normal density.",
    "slope = gate + x * dgate_dx, and dx = dy * slope. Use math.sqrt(2 * math.pi): np.sqrt would give a "
    "float64, which turns float32 gradients into float64 ones.",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "forgets that the gate depends on x",
        "the gate is a function of x too, and the product rule has a second term, x g'(x).",
        "dx is nearly right far from 0, and most wrong near |x| = 1",
        {"slope": "gate"},
    ),
    WrongAnswer(
        "forgets the factor x's own term",
        "x g'(x) is what comes through the gate; the factor x itself gives g(x), the first term of the "
        "product rule.",
        "dx is right for very negative x, and nearly 0 for large x, where it should be dy",
        {"slope": "x * dgate_dx"},
    ),
    WrongAnswer(
        "forgets the 1 / sqrt(2 pi) of the density",
        "without it the density has the area sqrt(2 pi) = 2.5, not 1.",
        "dx is right at 0 and far from it, and too far from the gate by a factor of 2.5 in between",
        {"dgate_dx": "np.exp(-x * x / 2)"},
    ),
    WrongAnswer(
        "has exp(-x²) for exp(-x² / 2)",
        "the normal density has the half in its exponent; exp(-x²) belongs to erf(x), without the sqrt(2).",
        "dx is right at 0 and far from it, and the x g'(x) in it too small in between, the more so the "
        "larger |x|",
        {"dgate_dx": "np.exp(-x * x) / math.sqrt(2 * math.pi)"},
    ),
    WrongAnswer(
        "is that of the tanh approximation",
        "the forward is the exact GELU (erf). The tanh form is another function, and its slope differs by "
        "up to a thousandth: enough to fail here, and too little for a loose check to see.",
        "dx is wrong by less than 0.2 percent of dy, everywhere between -5 and 5",
        {
            "slope": "(lambda u, du: (1 + np.tanh(u)) / 2 + x * (1 - np.tanh(u) ** 2) * du / 2)("
            "math.sqrt(2 / math.pi) * (x + 0.044715 * x**3), math.sqrt(2 / math.pi) * (1 + 0.134145 * x * x))"
        },
    ),
    WrongAnswer(
        "forgets dy",
        "the slope says how y changes with x; the loss changes with y by dy. The chain rule multiplies the "
        "two.",
        "dx does not change with dy",
        {"dx": "slope"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments on both sides of 0, into both tails; the last in float32."""
    rng = np.random.default_rng(3)
    return [
        (rng.uniform(-4, 4, (3, 5)),),
        (np.linspace(-12, 12, 21),),
        (rng.uniform(-4, 4, (2, 3)).astype(np.float32),),
    ]


GELU = Exercise(
    name="gelu",
    title="y = x normal_cdf(x), the activation of BERT",
    formula=FORMULA,
    solution=SOLUTION,
    function="gelu",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="Element by element, a backward is dy times a slope; all the work is in the slope.",
)
