"""Exercise: a decoder that is tied to the embedding, one table used twice."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    hidden = tanh(table[ids])         in BERT, the encoder stands for tanh
    logits = hidden tableᵀ + bias     the same table: a score for each word

    ids                 (T,) integer, may repeat
    table               (V, D)
    bias                (V,)
    hidden              (T, D)
    logits, dlogits     (T, V)

The table is used at both ends. tanh' = 1 - tanh²."""

SOLUTION = """
import numpy as np


def tied_decoder_forward(ids, table, bias):
    hidden = np.tanh(table[ids])  # (T,) -> (T, D)
    logits = hidden @ table.T + bias  # (T, D) @ (D, V) -> (T, V)
    return logits, (ids, table, hidden)


def tied_decoder_backward(dlogits, cache):
    ids, table, hidden = cache
    dbias = dlogits.sum(axis=0)  # (V,)
    dtable_decoder = dlogits.T @ hidden  # (V, D) from the use as a decoder
    dhidden = dlogits @ table  # (T, D)
    dlookup = dhidden * (1 - hidden * hidden)  # (T, D) back through tanh
    one_hot = (ids[:, None] == np.arange(len(table))).astype(table.dtype)  # (T, V)
    dtable_embedding = one_hot.T @ dlookup  # (V, D) from the use as an embedding
    dtable = dtable_decoder + dtable_embedding  # (V, D)
    return dtable, dbias
"""

HINTS = (
    "Pretend that there are two tables, one for each use, and find the gradient of each. What does it mean "
    "that they are one?",
    "The decoder is a linear layer: dtable_decoder = dlogitsᵀ hidden, dhidden = dlogits table. Then back "
    "through tanh, and through the lookup, with one_hotᵀ. A value that is used twice gets the sum of both "
    "gradients.",
    "dlookup = dhidden * (1 - hidden * hidden); one_hot as in the exercise embedding, in the dtype of table; "
    "dtable = dtable_decoder + dtable_embedding.",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "loses the decoder's gradient",
        "the table is the decoder's weight as well, and this gradient reaches every word of the vocabulary, "
        "whether it occurs in the text or not.",
        "dtable is 0 in the rows of words that do not occur, and wrong in all others; dbias is right",
        {"dtable": "dtable_embedding"},
    ),
    WrongAnswer(
        "loses the embedding's gradient",
        "the table was also looked up. One gradient was computed and then left out of the sum.",
        "dtable is right in the rows of words that do not occur in ids, and wrong in those of words that do",
        {"dtable": "dtable_decoder"},
    ),
    WrongAnswer(
        "averages the two gradients",
        "the loss changes through both uses at once: the changes add up.",
        "dtable is half of what it should be, everywhere",
        {"dtable": "(dtable_decoder + dtable_embedding) / 2"},
    ),
    WrongAnswer(
        "forgets what lies between the two uses",
        "between the lookup and the decoder there is tanh (in BERT: twelve layers), and the gradient must "
        "go back through it.",
        "dtable is right in the rows of words that do not occur; in the others it is wrong, most where "
        "|hidden| is large",
        {"dlookup": "dhidden"},
    ),
    WrongAnswer(
        "overwrites where ids repeat",
        "dtable[ids] += dlookup adds only the last of several equal ids: NumPy reads, adds and writes once "
        "for each id.",
        "dtable is right in all rows except those of words that occur more than once",
        {
            "dtable_embedding": "np.zeros_like(table)\n    dtable_embedding[ids] += dlookup",
        },
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments with repeated and absent words; the last in float32."""
    rng = np.random.default_rng(9)
    ids = np.array([3, 1, 3, 5])
    return [
        (ids, rng.standard_normal((7, 3)), rng.standard_normal(7)),
        (np.array([0, 0]), rng.standard_normal((3, 1)), rng.standard_normal(3)),
        (ids, rng.standard_normal((7, 3)).astype(np.float32), rng.standard_normal(7).astype(np.float32)),
    ]


TIED_DECODER = Exercise(
    name="tied-decoder",
    title="one table used twice: embedding and decoder",
    formula=FORMULA,
    solution=SOLUTION,
    function="tied_decoder",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="A value that is used twice gets the sum of the gradients of its uses.",
)
