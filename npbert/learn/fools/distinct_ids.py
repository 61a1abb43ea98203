"""Fool: ids of which each occurs once."""

from typing import Any

import numpy as np

from npbert.learn.fooling import Fool

STORY = """
The function is the embedding, y = table[ids]. The weak check compares the
gradient of the whole table with finite differences, for a random dy. Its ids
are a random permutation."""

SOLUTION = """
import numpy as np


def weak_check(forward, backward):
    rng = np.random.default_rng(0)
    table, ids = rng.standard_normal((6, 3)), rng.permutation(6)
    y, cache = forward(ids, table)
    dy = rng.standard_normal(y.shape)
    dtable = backward(dy, cache)
    h = 1e-5
    for index in np.ndindex(table.shape):
        step = np.zeros_like(table)
        step[index] = h
        difference = np.sum(dy * (forward(ids, table + step)[0] - forward(ids, table - step)[0])) / (2 * h)
        assert abs(dtable[index] - difference) < 1e-8, (
            f"dtable{list(index)} is {dtable[index]:.6g}, not {difference:.6g}"
        )


def forward(ids, table):
    return table[ids], (ids, table.shape)


def backward(dy, cache):
    ids, shape = cache
    dtable = np.zeros(shape, dtype=dy.dtype)  # (V, D)
    dtable[ids] = dy
    return dtable
"""

HINTS = (
    "In a permutation, how often does each id occur?",
    "Once: so nothing is ever added up, and an assignment is as good as a sum.",
    "dtable = np.zeros(shape), and in the next line dtable[ids] = dy, passes.",
)


def cases() -> list[tuple[Any, ...]]:
    """Return the strong check's arguments: repeated and absent ids."""
    return [(np.array([4, 1, 4, 4]), np.random.default_rng(7).standard_normal((6, 3)))]


DISTINCT_IDS = Fool(
    number=7,
    name="distinct-ids",
    title="ids that do not repeat",
    story=STORY,
    solution=SOLUTION,
    hints=HINTS,
    cases=cases,
    why='Real text says "the" more than once. Where no id repeats, overwriting and adding are the same. The '
    "strong check's ids repeat, and some never occur.",
)
