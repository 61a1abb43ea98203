"""Exercise: the embedding, a lookup in a table."""

from collections.abc import Callable
from typing import Any

import numpy as np

from npbert.gradcheck.suite.case import held_row
from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    y = table[ids]        which is the matrix product  y = one_hot table

    ids             (...) integer   ids repeat, and some never occur
    table           (V, D)
    y, dy           (..., D)
    one_hot         (tokens, V)     1 at the id of the token, 0 elsewhere
    padding_idx     int or None     this row of the table is read like any
                                    other, but gets no gradient"""

SOLUTION = """
import numpy as np


def embedding_forward(ids, table, padding_idx):
    y = table[ids]  # (...) -> (..., D)
    return y, (ids, table.shape, padding_idx)


def embedding_backward(dy, cache):
    ids, (vocabulary, width), padding_idx = cache
    dy_rows = dy.reshape(-1, width)  # (tokens, D)
    one_hot = ids.reshape(-1, 1) == np.arange(vocabulary)  # (tokens, V) bool
    learns = np.arange(vocabulary) != padding_idx  # (V,) bool: False for the padding row
    dtable = (one_hot & learns).T.astype(dy.dtype) @ dy_rows  # (V, D)
    return dtable
"""

HINTS = (
    "One row of the table may be read many times. What is the gradient of a value that is used many times?",
    "y = one_hot table is a linear layer, so dtable = one_hotᵀ dy: each row of the table gets the sum of dy "
    "over the tokens that read it. The column of padding_idx is to be switched off. (np.arange(V) != None "
    "is True everywhere, so None needs no special care.)",
    "one_hot = ids.reshape(-1, 1) == np.arange(vocabulary); dtable = (one_hot & learns).T.astype(dy.dtype) "
    "@ dy_rows. Faster, in two lines: dtable = np.zeros((V, D), dy.dtype), then np.add.at(dtable, ids, dy).",
)

_LAST_WINS = """np.zeros((vocabulary, width), dtype=dy.dtype)
    dtable[ids.reshape(-1)] = dy_rows
    dtable[~learns] = 0"""

WRONG_ANSWERS = (
    WrongAnswer(
        "overwrites where ids repeat",
        "dtable[ids] = dy keeps only the last token of each id, and so does dtable[ids] += dy. The rows "
        "must be added: a product with one_hot, or np.add.at.",
        "dtable is right in rows that were read once or never, and wrong in those that were read more often",
        {"dtable": _LAST_WINS},
    ),
    WrongAnswer(
        "gives the padding row a gradient",
        "the row of padding_idx stays as it is: padding is not to be learned.",
        "dtable is right except in the padding row, which should be 0",
        {"dtable": "one_hot.T.astype(dy.dtype) @ dy_rows"},
    ),
    WrongAnswer(
        "averages where ids repeat",
        "each token that reads a row adds its own part to the loss; the parts add up. They are not averaged.",
        "dtable is too small in rows that were read more than once, by the number of times",
        {
            "dtable": "(one_hot & learns).T.astype(dy.dtype) @ dy_rows"
            " / np.maximum(one_hot.sum(axis=0), 1).astype(dy.dtype)[:, None]"
        },
    ),
    WrongAnswer(
        "counts the tokens instead of adding their dy",
        "the number of times that a row was read is the gradient of y.sum(); any other loss weighs the "
        "tokens with dy.",
        "all entries of a row of dtable are equal, to a whole number",
        {"dtable": "np.repeat((one_hot & learns).sum(axis=0).astype(dy.dtype)[:, None], width, axis=1)"},
    ),
    WrongAnswer(
        "is off by one row",
        "ids count from 0: id 0 is the first row of the table.",
        "dtable has the right rows, each in its neighbour's place",
        {"one_hot": "ids.reshape(-1, 1) == np.arange(vocabulary) + 1"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments with repeated, absent and padding ids; the last in float32."""
    rng = np.random.default_rng(7)
    ids = np.array([[2, 5, 2, 0], [3, 2, 0, 0]])
    return [
        (ids, rng.standard_normal((6, 3)), 0),
        (ids, rng.standard_normal((7, 2)), None),
        (np.array([4, 4, 1]), rng.standard_normal((5, 1)), 1),
        (ids, rng.standard_normal((6, 3)).astype(np.float32), 0),
    ]


def holding_the_padding_row(forward: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    """Return the forward with a padding row that stays as it is in ``args``, whatever table it is given."""
    _, original, padding_idx = args

    def held(ids: Any, table: Any, padding_idx: int) -> Any:
        return forward(ids, held_row(table, padding_idx, original), padding_idx)

    return forward if padding_idx is None else held


EMBEDDING = Exercise(
    name="embedding",
    title="a lookup in a table",
    formula=FORMULA,
    solution=SOLUTION,
    function="embedding",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="A lookup is a product with a one-hot matrix; on the way back, rows are added, never assigned.",
    differentiable=holding_the_padding_row,
)
