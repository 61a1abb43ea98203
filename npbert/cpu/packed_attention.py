"""Attention of one text, on the calling thread.

A few heads, or a few queries, are done at a time, so that their scores stay in the second-level cache:

- The keys are transposed, and scaled by ``log2(e) / sqrt(H)``, before they are multiplied by the queries:
  exponentials of base 2 are the fastest.
- No maximum is looked for. Where a row's sum shows that exponentials overflowed, or all but vanished, its
  head is done again with the maxima subtracted.
- Work on (T, H) arrays stands in for work on (T, T) arrays. The sum of exponentials divides the context. For
  the way back one number a row is kept, the logarithm of that sum, and the probabilities are computed again;
  a number to be subtracted from a row of ``A Bᵀ`` is one more column of A, beside a column of ones in B; and
  the sum of a row of ``probs * dprobs``, which the derivative of softmax asks for, is that of
  ``context * dcontext`` (Dao et al., "FlashAttention", arXiv:2205.14135, appendix B.2).

What is computed of a head depends on nothing but the head.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from npbert.cpu.head_products import add_product, gathered, multiply, transposed, widened
from npbert.cpu.workers import row_blocks, scratch
from npbert.ops.array_module import Array

# Bytes of (T, T) arrays that are worked on at once: half of a core's second-level cache.
BLOCK_BYTES = 1 << 20

# Sums of exponentials between which nothing was lost: what underflows is 2^-66 of the sum, and a value may be
# as large as 2^67 before a product with an exponential overflows.
SMALLEST_SUM, LARGEST_SUM = 2.0**-60, 2.0**60

LOG2_E = math.log2(math.e)

Keys = slice | Array  # what selects the rows that may be looked at: the first few, or any


class Dropout(Protocol):
    """The dropout of one text's probabilities, such as :class:`npbert.cpu.keep_mask.TextDropout`."""

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
        Contiguous along the last axis. The number of keys may differ from that of queries.
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
    heads, queries, width = q.shape
    key_count = k_kept.shape[1]
    keep_bits = None if dropout is None else np.empty((heads, queries, -(-key_count // 8)), np.uint8)
    if key_count == 0:
        context[...] = 0
        if lse is not None:
            lse[...] = 0
        return keep_bits
    scale = LOG2_E / math.sqrt(width)
    k_transposed = transposed("keys", k_kept, scale)
    v_kept = gathered("values", v_kept)
    for some in _blocks(heads, queries, key_count, q.itemsize):
        some_bias = None if bias is None else bias[some][..., keys] * scale
        exponentials, totals, maxima = _exponentials(q[some], k_transposed[some[0]], some_bias)
        if lse is not None:
            lse.T[some] = np.log2(totals) + maxima
        if dropout is not None and keep_bits is not None:
            mask = dropout.kept(*some, keys)
            keep_bits[some] = np.packbits(mask, axis=-1)
            exponentials *= mask
            totals /= dropout.survivor_scale
        _average(exponentials, totals, v_kept[some[0]], context[some[::-1]])
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
    q, k_kept, v_kept = _heads(q), _heads(k[keys]), _heads(v[keys])
    heads, queries, width = q.shape
    key_count = k_kept.shape[1]
    for gradient in (dk, dv):
        if key_count < len(gradient):
            gradient[...] = 0
    if dbias is not None:
        dbias[...] = 0
    if key_count == 0:
        dq[...] = 0
        return

    scale = 1 / math.sqrt(width)
    k_one = transposed("keys", k_kept, scale * LOG2_E, ones=True)
    v_one = transposed("values", v_kept, scale, ones=True)
    k_kept = gathered("gathered keys", k_kept)
    q_lse = widened("queries", q, -lse.T)
    expected = np.vecdot(dcontext, context)  # D
    dcontext_d = widened("dcontext", _heads(dcontext), -scale * expected.T)
    parts = list(_blocks(heads, queries, 2 * key_count, q.itemsize))
    # Sums of several products are added up where their rows lie close together.
    in_place = isinstance(keys, slice) and parts[0][1].stop == queries
    dk_kept = _heads(dk[keys]) if in_place else scratch("dk", k_kept.shape, q.dtype)
    dv_kept = _heads(dv[keys]) if in_place else scratch("dv", v_kept.shape, q.dtype)

    for some in parts:
        some_heads, some_queries = some
        some_bias = None if bias is None else bias[some][..., keys] * (scale * LOG2_E)
        probs = _probabilities(q_lse[some], k_one[some_heads], some_bias)
        dscores = scratch("dscores", probs.shape, q.dtype)
        if keep_bits is None:
            multiply(dcontext_d[some], v_one[some_heads], dscores)
            dscores *= probs
        else:
            keep = _factors(keep_bits[some], survivor_scale, probs)
            multiply(dcontext_d[some][..., :-1], v_one[some_heads, :-1], dscores)
            dscores *= keep
            dscores += dcontext_d[some][..., -1:]
            dscores *= probs
            probs *= keep
        if dbias is not None:
            dbias[some][..., keys] = dscores

        first = some_queries.start == 0
        multiply(dscores, k_kept[some_heads], _heads(dq)[some])
        add_product(dscores.swapaxes(1, 2), q_lse[some][..., :-1], dk_kept[some_heads], first)
        add_product(probs.swapaxes(1, 2), dcontext_d[some][..., :-1], dv_kept[some_heads], first)
    if not in_place:
        dk[keys], dv[keys] = _heads(dk_kept), _heads(dv_kept)


def write_probabilities(
    probs: Array,
    q: Array,
    k: Array,
    lse: Array,
    keys: Keys = slice(None),
    keep_bits: Array | None = None,
    survivor_scale: float = 1.0,
    bias: Array | None = None,
) -> None:
    """Write the probabilities of one text, after dropout; arguments are those of `attend_backward`.

    Parameters
    ----------
    probs : (N, T, T)
        Is written where there are keys, and only there.
    """
    k_kept = k[keys]
    if len(k_kept) == 0:
        return
    scale = LOG2_E / math.sqrt(q.shape[-1])
    k_one = transposed("keys", _heads(k_kept), scale, ones=True)
    q_lse = widened("queries", _heads(q), -lse.T)
    heads, queries, _ = q_lse.shape
    for some in _blocks(heads, queries, k_one.shape[-1], q.itemsize):
        some_bias = None if bias is None else bias[some][..., keys] * scale
        some_probs = _probabilities(q_lse[some], k_one[some[0]], some_bias)
        if keep_bits is not None:
            some_probs *= _factors(keep_bits[some], survivor_scale, some_probs)
        probs[some][..., keys] = some_probs


def _exponentials(q: Array, k_transposed: Array, bias: Array | None) -> tuple[Array, Array, Array | float]:
    """Return exponentials of scores, (heads, queries, keys) in scratch memory, and their sums and maxima.

    The maxima are 0 where none had to be subtracted. A row without any score but -inf has a sum of 1.
    """
    scores = scratch("scores", (*q.shape[:-1], k_transposed.shape[-1]), q.dtype)
    ones = np.ones(scores.shape[-1], q.dtype)
    _write_scores(q, k_transposed, bias, scores)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is noticed below
        np.exp2(scores, out=scores)
        totals = scores @ ones
    exact = (totals >= SMALLEST_SUM) & (totals <= LARGEST_SUM)
    if exact.all():
        return scores, totals, 0.0

    maxima = np.zeros_like(totals)
    for head in np.flatnonzero(~exact.all(axis=-1)):
        _write_scores(q[head], k_transposed[head], None if bias is None else bias[head], scores[head])
        row_max = scores[head].max(axis=-1)
        row_max[row_max == -np.inf] = 0  # -inf - -inf would be NaN
        scores[head] -= row_max[:, None]
        np.exp2(scores[head], out=scores[head])
        totals[head] = scores[head] @ ones
        maxima[head] = row_max
    totals[totals == 0] = 1
    return scores, totals, maxima


def _write_scores(q: Array, k_transposed: Array, bias: Array | None, scores: Array) -> None:
    multiply(q, k_transposed, scores)
    if bias is not None:
        scores += bias


def _average(exponentials: Array, totals: Array, v: Array, context: Array) -> None:
    """Write the average of the values, (T, N, H), with weights of which the totals are given."""
    multiply(exponentials, v, _heads(context))
    context *= (1 / totals).T[..., None]  # axes in the order of the memory: half the time


def _probabilities(q_lse: Array, k_one: Array, bias: Array | None) -> Array:
    """Return the probabilities before dropout, (heads, queries, keys), in scratch memory."""
    probs = scratch("scores", (*q_lse.shape[:-1], k_one.shape[-1]), q_lse.dtype)
    _write_scores(q_lse, k_one, bias, probs)
    np.exp2(probs, out=probs)
    return probs


def _factors(keep_bits: Array, survivor_scale: float, probs: Array) -> Array:
    """Return what dropout multiplies the probabilities by, (heads, queries, keys), in scratch memory."""
    factors = scratch("factors", probs.shape, probs.dtype)
    factors[...] = np.unpackbits(keep_bits, axis=-1, count=probs.shape[-1])
    factors *= survivor_scale
    return factors


def _blocks(heads: int, queries: int, elements_a_query: int, itemsize: int) -> Iterator[tuple[slice, slice]]:
    """Cut a text into heads and queries that are worked on at once."""
    bytes_a_query = elements_a_query * itemsize
    queries_at_once = max(16, BLOCK_BYTES // bytes_a_query)
    heads_at_once = max(1, BLOCK_BYTES // (queries * bytes_a_query))
    for some_heads in row_blocks(heads, heads_at_once):
        for some_queries in row_blocks(queries, queries_at_once):
            yield some_heads, some_queries


def _heads(x: Array) -> Array:
    """(T, N, H) -> (N, T, H), a view."""
    return x.swapaxes(0, 1)
