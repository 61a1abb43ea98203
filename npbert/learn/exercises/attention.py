"""Exercise: attention, with mask and dropout."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    scores      = (q kᵀ + bias) / sqrt(H)
    clean_probs = softmax(scores)         masked keys get probability 0
    probs       = clean_probs keep_scale  dropout
    context     = probs v

    q, k, v, context, dcontext  (B, N, T, H)  batch, heads, tokens, head width
    bias, scores, probs         (B, N, T, T)  [.., i, j]: how token i sees j
    key_mask                    (B, T)        True for real tokens
    keep_scale                  (B, N, T, T)  0 where dropped, 1 / (1 - rate)
                                              where kept

Each product sends two gradients back; softmax is the exercise that you know."""

SOLUTION = """
import math

import numpy as np


def softmax_attention_forward(q, k, v, bias=None, key_mask=None, keep_mask=None, dropout_rate=0.0):
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ k.swapaxes(-1, -2)
    if bias is not None:
        scores = scores + bias
    scores = scores * scale
    if key_mask is not None:
        scores = np.where(key_mask[:, None, None, :], scores, -np.inf).astype(scores.dtype)
    row_max = scores.real.max(axis=-1, keepdims=True)
    exponentials = np.exp(scores - np.where(row_max == -np.inf, 0, row_max))
    total = exponentials.sum(axis=-1, keepdims=True)
    clean_probs = exponentials / np.where(total == 0, 1, total)  # all keys masked: all zero
    keep_scale = np.ones(scores.shape, dtype=q.real.dtype)
    if keep_mask is not None:
        keep_scale = (keep_mask / (1 - dropout_rate)).astype(q.real.dtype)
    probs = clean_probs * keep_scale
    context = probs @ v
    return context, (q, k, v, clean_probs, keep_scale, probs, scale, bias is not None)


def softmax_attention_backward(dcontext, cache):
    q, k, v, clean_probs, keep_scale, probs, scale, has_bias = cache
    dv = probs.swapaxes(-1, -2) @ dcontext  # (B, N, T, H)
    dprobs = dcontext @ v.swapaxes(-1, -2)  # (B, N, T, T)
    dclean_probs = dprobs * keep_scale  # (B, N, T, T) back through dropout
    expected = (dclean_probs * clean_probs).sum(axis=-1, keepdims=True)  # (B, N, T, 1)
    dscores = clean_probs * (dclean_probs - expected)  # (B, N, T, T) back through softmax
    dproducts = dscores * scale  # (B, N, T, T) the gradient of q kᵀ, and of bias
    dq = dproducts @ k  # (B, N, T, H)
    dk = dproducts.swapaxes(-1, -2) @ q  # (B, N, T, H)
    return dq, dk, dv, dproducts if has_bias else None
"""

HINTS = (
    "Five statements forward, five backward, in the opposite order. Two of them are matrix products, and "
    "each product sends a gradient to both of its factors.",
    "For C = A B: dA = dC Bᵀ and dB = Aᵀ dC, with swapaxes(-1, -2) as the transpose. context = probs v "
    "gives dprobs and dv; q kᵀ gives dq = dP k and dk = dPᵀ q. Dropout is a product with keep_scale, "
    "forward and backward. The mask needs no line of its own: masked keys have p = 0.",
    "dv = probsᵀ @ dcontext, dprobs = dcontext @ vᵀ, dclean_probs = dprobs * keep_scale; then softmax's two "
    "lines with clean_probs; then * scale; then dq = dproducts @ k and dk = dproductsᵀ @ q.",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "forgets the scale",
        "the scores were divided by sqrt(H), so their gradient is too.",
        "dq, dk and dbias are too large, all by the factor sqrt(H); dv is right",
        {"dproducts": "dscores"},
    ),
    WrongAnswer(
        "forgets dropout on the way back",
        "a dropped probability has no part in the context, so it sends nothing back; a kept one was scaled "
        "by 1 / (1 - rate). Without dropout nobody would notice.",
        "dq, dk and dbias are wrong where dropout is on, and right where it is off; dv is right",
        {"dclean_probs": "dprobs"},
    ),
    WrongAnswer(
        "drops without the scale 1 / (1 - rate)",
        "dropout is one linear map, used forward and backward: zero for some, 1 / (1 - rate) for the others.",
        "dq, dk and dbias are too small where dropout is on, all by the factor 1 - rate; dv is right",
        {"dclean_probs": "dprobs * (keep_scale > 0)"},
    ),
    WrongAnswer(
        "forgets the sum in softmax",
        "the probabilities of a row compete: - p sum(dp p) is missing, as in the exercise softmax.",
        "dq, dk and dbias are wrong without a common factor, and the rows of dbias do not sum to 0; dv is "
        "right",
        {"dscores": "clean_probs * dclean_probs"},
    ),
    WrongAnswer(
        "computes dv with the probabilities before dropout",
        "v was multiplied with the probabilities after dropout; those are its other factor.",
        "dv is wrong where dropout is on, and right where it is off; dq, dk and dbias are right",
        {"dv": "clean_probs.swapaxes(-1, -2) @ dcontext"},
    ),
    WrongAnswer(
        "forgets the transpose for dk",
        "in dk_j the sum runs over the queries i, in dq_i over the keys j: one of the two products needs "
        "dPᵀ.",
        "dk is wrong without a common factor; dq, dv and dbias are right",
        {"dk": "dproducts @ q"},
    ),
    WrongAnswer(
        "swaps dq and dk",
        "q's gradient is made with its partner k, and k's with q.",
        "dq and dk are both wrong, and would be right in each other's place; dv and dbias are right",
        {"dq": "dproducts.swapaxes(-1, -2) @ q", "dk": "dproducts @ k"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments with mask, dropout and bias in turn, with a text all of whose keys are masked."""
    rng = np.random.default_rng(8)
    shape, key_mask = (2, 2, 3, 5), np.array([[True, True, False], [True, True, True]])
    q, k, v = rng.standard_normal((3, *shape))
    bias = rng.standard_normal((2, 2, 3, 3))
    keep_mask = rng.random((2, 2, 3, 3)) < 0.6
    masked = np.array([[False, False, False], [True, False, True]])
    small = (array.astype(np.float32) for array in (q, k, v))
    return [
        (q, k, v, bias, key_mask, keep_mask, 0.4),
        (q, k, v, None, masked, None, 0.0),
        (*small, None, key_mask, keep_mask, 0.4),
    ]


ATTENTION = Exercise(
    name="attention",
    title="softmax attention with mask and dropout",
    formula=FORMULA,
    solution=SOLUTION,
    function="softmax_attention",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="A long backward is the short ones you know, in the opposite order.",
)
