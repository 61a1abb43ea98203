"""Exercise: adding a bias, that is, the way back through broadcasting."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    y = x + bias        one entry of bias is added to many entries of x

    x, y, dy    any shape, for example (B, T, D)
    bias        a shape that broadcasts to it: (D,), (T, 1), (1, 1, D), ...

NumPy broadcasts in two ways: it puts axes in front until there are as many as
in x, and it stretches axes of length 1. dbias must have the shape of bias
again."""

SOLUTION = """
def add_bias_forward(x, bias):
    y = x + bias
    return y, (bias.shape,)


def add_bias_backward(dy, cache):
    (bias_shape,) = cache
    added = dy.ndim - len(bias_shape)  # (), an int: how many axes were put in front
    summed = dy.sum(axis=tuple(range(added)))  # (the last axes of dy, as many as bias has)
    stretched = tuple(i for i, n in enumerate(bias_shape) if n == 1)  # (), a tuple: the axes of length 1
    dbias = summed.sum(axis=stretched, keepdims=True)  # (bias_shape)
    dx = dy  # (the shape of x)
    return dx, dbias
"""

HINTS = (
    "One entry of bias is used in many entries of y. What is the gradient of a value that is used many "
    "times?",
    "dbias is dy, summed over every axis along which bias was repeated. Those that were put in front vanish "
    "(sum without keepdims); those that were stretched keep their length of 1 (keepdims=True).",
    "sum(axis=()) sums over nothing, so no case needs an if: the axes in front are tuple(range(added)); the "
    "stretched ones are those i where bias_shape[i] == 1. dx is dy itself.",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "does not sum over the broadcast axes",
        "bias is smaller than dy, and one entry of it has a part in many entries of y: the gradient is the "
        "sum over all of them, not the whole array.",
        "dbias has the shape of dy instead of that of bias",
        {"summed": "dy", "dbias": "summed"},
    ),
    WrongAnswer(
        "averages dbias instead of summing",
        "each use of an entry adds its own part to the loss; the parts add up. They are not averaged.",
        "dbias is too small everywhere, by one and the same factor: how often an entry is repeated",
        {
            "summed": "dy.mean(axis=tuple(range(added)))",
            "dbias": "summed.mean(axis=stretched, keepdims=True)",
        },
    ),
    WrongAnswer(
        "sums over the axes in front only",
        "axes of length 1 were repeated as well: they are to be summed, and kept with length 1.",
        "where bias has an axis of length 1, dbias has the full length there; elsewhere all is right",
        {"dbias": "summed"},
    ),
    WrongAnswer(
        "takes the first example only",
        "picking one index gives an array of the right shape, but the other examples used the bias too.",
        "dbias is wrong everywhere with the right shape, and changes of dy in later examples do not show in "
        "it",
        {
            "summed": "dy[(0,) * added]",
            "dbias": "summed[tuple(slice(0, 1) if n == 1 else slice(None) for n in bias_shape)]",
        },
    ),
    WrongAnswer(
        "sums over every axis",
        "each entry of bias gets the sum over the places where it was used itself, not over all places.",
        "all entries of dbias are equal",
        {"dbias": "np.full(bias_shape, dy.sum(), dtype=dy.dtype)"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments that broadcast in front, by stretching, in both ways; the last in float32."""
    rng = np.random.default_rng(2)
    shapes = [
        ((2, 3, 5), (3, 1)),
        ((2, 3, 5), (5,)),
        ((4, 3), (4, 3)),
        ((2, 3, 4, 3), (1, 4, 1)),
        ((2, 3, 5), (5,)),
    ]
    drawn = [(rng.standard_normal(x), rng.standard_normal(bias)) for x, bias in shapes]
    return [*drawn[:-1], tuple(array.astype(np.float32) for array in drawn[-1])]


BIAS = Exercise(
    name="bias",
    title="y = x + bias, the way back through broadcasting",
    formula=FORMULA,
    solution="import numpy as np\n\n" + SOLUTION,
    function="add_bias",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="What broadcasting repeats on the way forward, the way back sums.",
)
