"""Attention of one text, on the calling thread: no row of scores is longer than the text has keys.

A few heads, or a few queries, are done at a time, so that their scores stay in the second-level cache. Three
things make it fast, apart from that:

- The keys are transposed, and scaled by ``log2(e) / sqrt(H)``, before they are multiplied by the queries:
  ``q @ k_transposed`` reads both along their rows, which takes BLAS half the time of ``q @ k.T``, and
  exponentials of base 2 are the fastest.
- No maximum is looked for. Where a row's sum shows that exponentials overflowed, or all but vanished, its
  head is done again with the maxima subtracted: in a trained model, nowhere.
- Work on (T, H) arrays stands in for work on (T, T) arrays. The sum of exponentials divides the context. For
  the way back one number a row is kept, the logarithm of that sum, and the probabilities are computed again;
  a number to be subtracted from a row of ``A Bᵀ`` is one more column of A, beside a column of ones in B; and
  the sum of a row of ``probs * dprobs``, which the derivative of softmax asks for, is that of
  ``context * dcontext`` (Dao et al., "FlashAttention", arXiv:2205.14135, appendix B.2).

Each head is multiplied on its own, and cut by its own size: what is computed of a text depends on nothing
but the text.
"""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from npbert.cpu.workers import row_blocks, scratch
from npbert.ops.array_module import Array

# Bytes of scores that are worked on at once.
SCORE_BYTES = 1 << 18

# Multiplications in a product above which OpenBLAS copies its operands first, which costs short ones a third
# of their time.
SMALL_PRODUCT = 10**6

# Rows that are transposed at once: read at a distance, they have to stay in the first-level cache.
TRANSPOSED_ROWS = 64

# Sums of exponentials between which nothing was lost: what underflows is 2^-66 of the sum, and a value may be
# as large as 2^67 before a product with an exponential overflows.
SMALLEST_SUM, LARGEST_SUM = 2.0**-60, 2.0**60

LOG2_E = math.log2(math.e)

Keys = slice | Array  # what selects the rows that may be looked at


class Dropout(Protocol):
    """The dropout of one text's probabilities; see :mod:`npbert.cpu.keep_mask`."""

    @property
    def survivor_scale(self) -> float:
        """What the probabilities that are kept are multiplied by."""

    def kept(self, heads: slice, queries: slice, keys: Keys) -> Array:
        """Return which probabilities survive, (heads, queries, keys) bool."""


def attend(
    q: Array,
    k: Array,
    v: Array,
    context: Array,
    keys: Keys = slice(None),
    lse: Array | None = None,
    dropout: Dropout | None = None,
    bias: Array | None = None,
) -> Array | None:
    """Write ``dropout(softmax((q kᵀ + bias) / sqrt(H))) v`` of one text to ``context``.

    Parameters
    ----------
    q, k, v : (T, N, H) float32 or float64
        Contiguous along the last axis. There may be fewer queries than keys.
    context : (T, N, H)
        Is written; 0 where there is no key to look at.
    keys : slice, or array of int
        The rows of k and v that may be looked at; no other is read.
    lse : (T, N) or None
        Is written: the base-2 logarithm of each row's sum of exponentials of base 2, for `attend_backward`.
        0 where there is no key to look at.
    dropout : Dropout or None
    bias : (N, T, T) or None

    Returns
    -------
    keep_bits : (N, T, ceil(K / 8)) uint8, or None without dropout
        Which of the K keys survive the dropout, eight a byte, for `attend_backward`.
    """
    q, k_kept, v_kept = _heads(q), _heads(k[keys]), _heads(v[keys])
    heads, queries, _ = q.shape
    keep_bits = None
    if dropout is not None:
        keep_bits = np.empty((heads, queries, -(-k_kept.shape[1] // 8)), np.uint8)
    if k_kept.shape[1] == 0:
        context[...] = 0
        if lse is not None:
            lse[...] = 0
        return keep_bits
    scale = 1 / math.sqrt(q.shape[-1])
    k_transposed = _transposed("keys", k_kept, scale * LOG2_E)
    for some in _blocks(heads, queries, k_kept.shape[1], q.itemsize):
        some_bias = None if bias is None else bias[some][..., keys] * (scale * LOG2_E)
        exponentials, totals, maxima = _exponentials(q[some], k_transposed[some[0]], some_bias)
        if dropout is not None and keep_bits is not None:
            mask = dropout.kept(*some, keys)
            keep_bits[some] = np.packbits(mask, axis=-1)
            exponentials *= mask
        some_context = _heads(context)[some]
        multiply(exponentials, v_kept[some[0]], some_context)
        survivor_scale = 1.0 if dropout is None else dropout.survivor_scale
        some_context *= (survivor_scale / totals)[..., None]
        if lse is not None:
            lse.T[some] = np.log2(totals) + maxima
    return keep_bits


def attend_backward(
    dcontext: Array,
    q: Array,
    k: Array,
    v: Array,
    context: Array,
    lse: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    keys: Keys = slice(None),
    keep_bits: Array | None = None,
    survivor_scale: float = 1.0,
    bias: Array | None = None,
    dbias: Array | None = None,
) -> None:
    """Backward of `attend`. With D the row sums of ``context * dcontext``, and without dropout::

        probs = exp2(scores - lse)                             dv = probsᵀ dcontext
        dbias = probs * (dcontext vᵀ - D) / sqrt(H)            dq = dbias k
                                                               dk = dbiasᵀ q

    Parameters
    ----------
    dcontext : (T, N, H)
    q, k, v, context, lse, keys, bias
        As they were given to `attend`, and as it wrote them.
    dq, dk, dv : (T, N, H)
        Are written. Rows that are no keys get exactly zero ``dk`` and ``dv``.
    keep_bits : what `attend` returned
    survivor_scale : float
        Of the dropout.
    dbias : (N, T, T), or None where there is no bias
        Is written.
    """
    q, k_kept, v_kept, dcontext = _heads(q), _heads(k[keys]), _heads(v[keys]), _heads(dcontext)
    heads, queries, _ = q.shape
    key_count = k_kept.shape[1]
    if dbias is not None:
        dbias[...] = 0
    if key_count == 0:
        for gradient in (dq, dk, dv):
            gradient[...] = 0
        return
    scale = 1 / math.sqrt(q.shape[-1])
    k_one = _transposed("keys", k_kept, scale * LOG2_E, ones=True)
    v_one = _transposed("values", v_kept, scale, ones=True)
    q_lse = _widened("queries", q, 1, -lse.T)
    expected = np.einsum("nth,nth->nt", dcontext, _heads(context))  # D
    dcontext_d = _widened("dcontext", dcontext, survivor_scale, -scale * expected)
    dk_kept, dv_kept = scratch("dk", k_kept.shape, q.dtype), scratch("dv", v_kept.shape, q.dtype)

    for some in _blocks(heads, queries, key_count, q.itemsize):
        some_heads = some[0]
        probs = scratch("scores", (*q_lse[some].shape[:-1], key_count), q.dtype)
        dscores = scratch("dscores", probs.shape, q.dtype)
        multiply(q_lse[some], k_one[some_heads], probs)
        if bias is not None:
            probs += bias[some][..., keys] * (scale * LOG2_E)
        np.exp2(probs, out=probs)
        if keep_bits is None:
            multiply(dcontext_d[some], v_one[some_heads], dscores)
            dscores *= probs
        else:
            keep = np.unpackbits(keep_bits[some], axis=-1, count=key_count).view(bool)
            multiply(dcontext_d[some][..., :-1], v_one[some_heads, :-1], dscores)
            dscores *= keep
            dscores += dcontext_d[some][..., -1:]
            dscores *= probs
            probs *= keep
        if dbias is not None:
            dbias[some][..., keys] = dscores

        first = some[1].start == 0
        multiply(dscores, k_kept[some_heads], _heads(dq)[some])
        _add_product(dscores.swapaxes(1, 2), q_lse[some][..., :-1], dk_kept[some_heads], first)
        _add_product(probs.swapaxes(1, 2), dcontext_d[some][..., :-1], dv_kept[some_heads], first)
    for gradient, of_kept in ((_heads(dk), dk_kept), (_heads(dv), dv_kept)):
        if of_kept.shape != gradient.shape:
            gradient[...] = 0
        gradient[:, keys] = of_kept


def multiply(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` to ``out``, a few rows at a time: as many as make a small product."""
    rows, inner = a.shape[-2:]
    most = SMALL_PRODUCT // max(inner * b.shape[-1], 1) // 16 * 16
    if most < 32:  # too short to be worth it
        most = rows
    for some in row_blocks(rows, most):
        np.matmul(a[..., some, :], b, out=out[..., some, :])


def _exponentials(q: Array, k_transposed: Array, bias: Array | None) -> tuple[Array, Array, Array | float]:
    """Return exponentials of scores, (..., queries, keys) in scratch memory, and their sums and maxima.

    A row without any score but -inf has a sum of 1.
    """
    scores = scratch("scores", (*q.shape[:-1], k_transposed.shape[-1]), q.dtype)
    ones = np.ones(scores.shape[-1], q.dtype)
    multiply(q, k_transposed, scores)
    if bias is not None:
        scores += bias
    with np.errstate(over="ignore"):  # is noticed below
        np.exp2(scores, out=scores)
        totals = scores @ ones
    exact = (totals >= SMALLEST_SUM) & (totals <= LARGEST_SUM)
    if exact.all():
        return scores, totals, 0.0

    maxima = np.zeros_like(totals)
    for head in zip(*np.nonzero(~exact.all(axis=-1)), strict=True):
        multiply(q[head], k_transposed[head], scores[head])
        if bias is not None:
            scores[head] += bias[head]
        row_max = scores[head].max(axis=-1)
        row_max[row_max == -np.inf] = 0  # -inf - -inf would be NaN
        scores[head] -= row_max[:, None]
        np.exp2(scores[head], out=scores[head])
        totals[head] = scores[head] @ ones
        maxima[head] = row_max
    totals[totals == 0] = 1
    return scores, totals, maxima


def _blocks(heads: int, queries: int, keys: int, itemsize: int) -> Iterator[tuple[slice, slice]]:
    """Cut a text into heads and queries whose scores are worked on at once."""
    bytes_a_query = keys * itemsize
    queries_at_once = max(16, SCORE_BYTES // bytes_a_query)
    heads_at_once = max(1, SCORE_BYTES // (queries * bytes_a_query))
    for some_heads in row_blocks(heads, heads_at_once):
        for some_queries in row_blocks(queries, queries_at_once):
            yield some_heads, some_queries


def _heads(x: Array) -> Array:
    """(T, N, H) -> (N, T, H), a view."""
    return x.swapaxes(0, 1)


def _transposed(name: str, x: Array, factor: float, ones: bool = False) -> Array:
    """(N, T, H) -> (N, H, T), a multiple in scratch memory; with ``ones`` one more row, (N, H + 1, T)."""
    heads, rows, width = x.shape
    transposed = scratch(name, (heads, width + ones, rows), x.dtype)
    for some in row_blocks(rows, TRANSPOSED_ROWS):
        np.multiply(x[:, some].swapaxes(1, 2), factor, out=transposed[:, :width, some])
    transposed[:, width:] = 1
    return transposed


def _widened(name: str, x: Array, factor: float, column: Any) -> Array:
    """(N, T, H) -> (N, T, H + 1): a multiple, and one more column, in scratch memory."""
    heads, rows, width = x.shape
    widened = scratch(name, (heads, rows, width + 1), x.dtype)
    np.multiply(x, factor, out=widened[..., :-1])
    widened[..., -1] = column
    return widened


def _add_product(a: Array, b: Array, total: Array, first: bool) -> None:
    """Add ``a @ b`` to a sum that is not there before the first one."""
    if first:
        multiply(a, b, total)
    else:
        product = scratch("product", total.shape, total.dtype)
        multiply(a, b, product)
        total += product
