"""Exercise: softmax cross-entropy, with ignored labels."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    loss of a row = -log softmax(x)[label] = log sum_j exp(x_j) - x_label
    loss          = the sum over the rows that count, times weight

    logits      (..., C)    the scores x
    labels      (...)       the right class, or -100: such a row does not count
    loss, dloss ()          one number

The cache has:

    probs       (..., C)    the softmax of the logits
    labels      (...)       with 0 in the place of -100
    counted     (...)       False for the rows that do not count
    weight                  1 / (rows that count) for a mean, 1 for a sum"""

SOLUTION = """
import numpy as np


def cross_entropy_forward(logits, labels, ignore_index=-100, reduction="mean"):
    counted = labels != ignore_index
    safe_labels = np.where(counted, labels, 0)
    weight = 1 / max(int(counted.sum()), 1) if reduction == "mean" else 1.0
    shifted = logits - logits.real.max(axis=-1, keepdims=True)  # a constant: it cancels
    total = np.exp(shifted).sum(axis=-1)
    label_logit = np.take_along_axis(shifted, safe_labels[..., None], axis=-1)[..., 0]
    loss = np.where(counted, np.log(total) - label_logit, 0).sum() * weight
    probs = np.exp(shifted) / total[..., None]
    return loss, (probs, safe_labels, counted, weight)


def cross_entropy_backward(dloss, cache):
    probs, labels, counted, weight = cache
    one_hot = labels[..., None] == np.arange(probs.shape[-1])  # (..., C) True at the label
    drow_loss = (dloss * weight * counted).astype(probs.dtype)  # (...) what each row's loss counts for
    dlogits = (probs - one_hot) * drow_loss[..., None]  # (..., C)
    return dlogits
"""

HINTS = (
    "Differentiate log sum_j exp(x_j) and x_label separately. The first gives something that you have in "
    "the cache.",
    "∂/∂x_j of log sum exp(x) is exp(x_j) / sum exp(x) = p_j; ∂/∂x_j of x_label is 1 where j is the label, 0 "
    "elsewhere. So a row's gradient is p - one_hot, times what the row counts for: dloss * weight, or 0.",
    "one_hot = labels[..., None] == np.arange(C). drow_loss = dloss * weight * counted, in the dtype of "
    "probs. dlogits = (probs - one_hot) * drow_loss[..., None].",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "forgets the 1/n of the mean",
        "the loss is a mean over the rows that count: each row's loss has the weight 1/n, and so has its "
        "gradient.",
        "with a mean, dlogits is too large everywhere, by the number of rows that count; with a sum it is "
        "right",
        {"drow_loss": "(dloss * counted).astype(probs.dtype)"},
    ),
    WrongAnswer(
        "divides by all rows, ignored ones too",
        "rows with label -100 count neither in the sum nor in the divisor.",
        "with a mean, dlogits is too small everywhere, by labelled rows over all rows; without -100 it is "
        "right",
        {
            "drow_loss": "(dloss * counted * (1 / counted.size if weight != 1 else 1.0)).astype(probs.dtype)",
        },
    ),
    WrongAnswer(
        "lets ignored rows through",
        "a row with label -100 has no part in the loss, so its gradient is exactly 0. The 0 in its place in "
        "labels is only there so that it can be used as an index.",
        "dlogits is right except in the rows with label -100, which should be 0",
        {"drow_loss": "np.broadcast_to(dloss * weight, counted.shape).astype(probs.dtype)"},
    ),
    WrongAnswer(
        "forgets to subtract the label",
        "p is what comes from log sum exp; the label's score itself gives -1 at its own place.",
        "dlogits is wrong at one place in each row, the label's, and its rows do not sum to 0",
        {"dlogits": "probs * drow_loss[..., None]"},
    ),
    WrongAnswer(
        "has the sign the wrong way round",
        "the loss falls as the label's score rises: dlogits is p - one_hot, negative at the label. Yours "
        "would make training climb.",
        "dlogits is minus what it should be, everywhere",
        {"dlogits": "(one_hot - probs) * drow_loss[..., None]"},
    ),
    WrongAnswer(
        "forgets dloss",
        "the loss may be a part of something larger, weighted or summed with others. dloss says how much it "
        "counts for.",
        "dlogits does not change with dloss: it is off by one factor everywhere, also for a sum",
        {"drow_loss": "(weight * counted).astype(probs.dtype)"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments with ignored labels, repeated ones, a mean and a sum; the last in float32."""
    rng = np.random.default_rng(5)
    labels = np.array([[1, -100, 0], [3, 3, -100]])
    return [
        (2 * rng.standard_normal((2, 3, 4)), labels, -100, "mean"),
        (2 * rng.standard_normal((2, 3, 4)), labels, -100, "sum"),
        (9 * rng.standard_normal((5, 3)), np.array([0, 2, 2, 1, 0]), -100, "mean"),
        (rng.standard_normal((2, 3, 4)).astype(np.float32), labels, -100, "mean"),
    ]


CROSS_ENTROPY = Exercise(
    name="cross-entropy",
    title="the loss of a classifier, with ignored labels",
    formula=FORMULA,
    solution=SOLUTION,
    function="cross_entropy",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="Through softmax and logarithm together the gradient is what is believed minus what is true.",
)
