"""An encoder layer of packed texts, forward only: each token is a column of a (D, columns) matrix.

Columns, because everything that a token does alone then goes along whole rows of memory: means over features
add up rows, and so do the sums of a softmax over keys; nowhere is anything summed along a short row, which
NumPy is slow at. And of a few columns BLAS has the product ``weight @ x`` in half the time of the transposed
one.

A worker that waits for Python's lock loses more time than an addition takes. So the blocks are large.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypeVar

import numpy as np

from npbert import ops
from npbert.config import BertConfig
from npbert.cpu.gelu import bias_gelu_in_place
from npbert.cpu.workers import row_blocks, row_by_row, scratch, single_threaded_blas
from npbert.ops.activations import GELU_FORMS
from npbert.ops.array_module import Array
from npbert.params import Params

# Scores that are computed at once.
SCORES = 1 << 17

# Scores nearer to 0 than this, to the base of 2, need no maximum subtracted: nothing of that size times a
# number of keys and a value leaves float32, upwards or downwards.
MODERATE = 90.0
# From so many elements on NumPy is quicker with a row at a time.
LONG_ROW = 400

Item = TypeVar("Item")

LOG2_E = math.log2(math.e)


def encoder_layer(params: Params, config: BertConfig, hidden: Array, lengths: Sequence[int]) -> None:
    """Apply one layer in place.

    Parameters
    ----------
    params : dict of str to array
        The layer's, under names like ``"attention.self.query.weight"``.
    config : BertConfig
    hidden : (D, columns) float32 or float64, C-contiguous
        The texts' tokens, one text after the other, and perhaps more columns, which nobody reads.
    lengths : sequence of int
        Tokens of each text.
    """
    with row_by_row() if hidden.shape[1] >= LONG_ROW else nullcontext():
        _encoder_layer(params, config, hidden, lengths)


def _encoder_layer(params: Params, config: BertConfig, hidden: Array, lengths: Sequence[int]) -> None:
    names = ("query", "key", "value", "context", "out")
    query, key, value, context, out = (scratch(name, hidden.shape, hidden.dtype) for name in names)
    wide = scratch("wide", (config.intermediate_size, hidden.shape[1]), hidden.dtype)
    for name, x in (("query", query), ("key", key), ("value", value)):
        np.matmul(params[f"attention.self.{name}.weight"], hidden, out=x)
    query += params["attention.self.query.bias"][:, None]
    # exp2 is quicker than exp. Here a factor costs less than on the scores.
    query *= LOG2_E / math.sqrt(config.head_width)
    # A key's bias adds the same to all scores of a query, and softmax does not see it.
    value += params["attention.self.value.bias"][:, None]
    # Some of these products have edges, where bits could depend on the number of threads.
    with single_threaded_blas():
        _attention(query, key, value, context, lengths, config.num_attention_heads)
    context[:, sum(lengths) :] = 0

    np.matmul(params["attention.output.dense.weight"], context, out=out)
    hidden += out
    layer_norm(hidden, params, "attention.output.LayerNorm", config.layer_norm_eps, "attention.output.dense")

    np.matmul(params["intermediate.dense.weight"], hidden, out=wide)
    _activate(wide, params["intermediate.dense.bias"][:, None], config.hidden_act)
    np.matmul(params["output.dense.weight"], wide, out=out)
    hidden += out
    layer_norm(hidden, params, "output.LayerNorm", config.layer_norm_eps, "output.dense")


def layer_norm(x: Array, params: Params, name: str, eps: float, dense: str | None = None) -> None:
    """Replace the columns of ``x``, (D, columns), by their layer norm; first add the bias of ``dense``."""
    weight, bias = params[f"{name}.weight"][:, None], params[f"{name}.bias"][:, None]
    if dense is not None:
        x += params[f"{dense}.bias"][:, None]
    x -= np.add.reduce(x, axis=0) / len(x)
    x *= 1 / np.sqrt(np.einsum("dc,dc->c", x, x) / len(x) + eps)
    x *= weight
    x += bias


def _activate(x: Array, bias: Array, name: str) -> None:
    """Replace ``x``, (F, columns), by the activation of x + bias."""
    if name in GELU_FORMS and x.dtype == np.float32:
        bias_gelu_in_place(x, bias, GELU_FORMS[name])
    else:
        x += bias
        x[...] = ops.activation_forward(x, name)[0]


def _attention(q: Array, k: Array, v: Array, context: Array, lengths: Sequence[int], heads: int) -> None:
    """Write each text's attention to its columns of ``context``; all are (D, columns)."""
    start = 0
    for count, (length, moderate) in runs(
        list(zip(lengths, _are_moderate(q, k, lengths, heads), strict=True))
    ):
        texts_at_once = max(1, SCORES // (heads * length * length))
        heads_at_once = max(1, min(heads, SCORES // (length * length)))
        for texts in row_blocks(count, texts_at_once):
            columns = slice(start + texts.start * length, start + texts.stop * length)
            shape = (heads, -1, texts.stop - texts.start, length)
            parts = [x[:, columns].reshape(shape) for x in (q, k, v, context)]  # (N, H, texts, T)
            for some in row_blocks(heads, heads_at_once):
                _attend([x[some] for x in parts], moderate)
        start += count * length


def _are_moderate(q: Array, k: Array, lengths: Sequence[int], heads: int) -> list[bool]:
    """Return of each text whether its scores are so small that exp2 neither overflows nor vanishes.

    No score is larger than the length of the longest query times that of the longest key.
    """
    starts = np.cumsum([0, *lengths[:-1]])
    longest = []
    for x in (q, k):
        by_head = x[:, : sum(lengths)].reshape(heads, -1, sum(lengths))  # (N, H, tokens)
        squares = np.einsum("nhc,nhc->nc", by_head, by_head)
        longest.append(np.maximum.reduceat(squares, starts, axis=1))  # (N, texts)
    bounds: list[bool] = ((longest[0] * longest[1]).max(axis=0) <= MODERATE**2).tolist()
    return bounds


def _attend(q_k_v_context: Sequence[Array], moderate: bool) -> None:
    """Write softmax(kᵀ q) v to ``context``; all are (N, H, texts, T). The softmax is to the base of 2.

    Scores lie in memory with their keys first, so that sums over keys are sums of long rows.
    """
    q, k, v, context = q_k_v_context
    heads, width, texts, length = q.shape
    scores = scratch("scores", (length, texts, heads, length), q.dtype)  # (keys, texts, N, queries)
    np.matmul(k.transpose(2, 0, 3, 1), q.transpose(2, 0, 1, 3), out=scores.transpose(1, 2, 0, 3))
    if not moderate:
        scores -= scores.max(axis=0)
    np.exp2(scores, out=scores)
    totals = np.add.reduce(scores, axis=0)  # (texts, N, queries)
    # Scores or contexts are divided: where there are more, but in longer rows, that is as quick.
    divides_scores = length <= 4 * width
    if divides_scores:
        scores /= totals
    np.matmul(v.transpose(2, 0, 1, 3), scores.transpose(1, 2, 0, 3), out=context.transpose(2, 0, 1, 3))
    if not divides_scores:
        context /= totals.swapaxes(0, 1)[:, None]


def runs(items: Sequence[Item]) -> list[tuple[int, Item]]:
    """Return how many items in a row are equal, and which.

    Examples
    --------
    >>> runs([7, 7, 4])
    [(2, 7), (1, 4)]
    """
    found: list[tuple[int, Item]] = []
    for item in items:
        if found and found[-1][1] == item:
            found[-1] = (found[-1][0] + 1, item)
        else:
            found.append((1, item))
    return found
