"""Attention a few heads of one text at a time: their (T, T) scores are made, used and left in the cache.

What is kept for the way back is one number a row, the logarithm of the sum of exponentials; the probabilities
are computed again from it, for less than it costs to write them to memory and to read them. Work on (T, H)
arrays stands in for work on (T, T) arrays wherever the two amount to the same:

- ``1 / sqrt(H)`` multiplies k, not the scores; the sum of exponentials divides the context, not the
  probabilities;
- masked keys are taken out of k and v before anything is multiplied; what is left has no mask;
- a number to be subtracted from a row of ``A Bᵀ`` is one more column of A, beside a column of ones in B;
- the sum of a row of ``probs * dprobs``, which the derivative of softmax asks for, is that of
  ``context * dcontext`` (Dao et al., "FlashAttention", arXiv:2205.14135, appendix B.2).

All arrays that are read and written are taken to lie in memory as (B, T, N, H), which is how `split_heads`
and `merge_heads` see them. Others are as good, only slower.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from npbert.attention_dropout import AttentionDropout
from npbert.cpu.keep_mask import draw_kept
from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.ops import softmax_attention as textbook
from npbert.ops.array_module import Array
from npbert.ops.dropout import dropout_keep_mask

# Bytes of scores, and of each (T, N, H) array, that are worked on at once: a core's second-level cache holds
# a few of them.
BLOCK_BYTES = 1 << 19

# Fewest pieces of work, so that a few long texts keep all workers busy, too.
FEWEST_PIECES = 4

# Scores nearer to 0 than this need no maximum subtracted: exp(60) is 1e26, and nothing of that size times
# a number of rows and a value leaves float32, upwards or downwards.
SAFE_SCORE = 60.0

Place = tuple[int, slice]  # a text, and some of its heads: what a worker does at a time
Keys = slice | Array  # what selects the keys of a text that may be looked at: the first few, or any


class AttentionCache(NamedTuple):
    """What the backward pass needs from the forward pass; of size (T, T) nothing but one bit a dropout."""

    q: Array  # (B, N, T, H)
    k: Array  # (B, N, T, H)
    v: Array  # (B, N, T, H)
    bias: Array | None  # (B, N, T, T)
    key_mask: Array | None  # (B, T) bool
    keep_bits: Array | None  # (B, N, T, ceil(T / 8)) uint8: the mask of the dropout, eight keys a byte
    survivor_scale: float  # what dropout multiplies the others by
    context: Array  # (B, N, T, H)
    lse: Array  # (B, N, T) log-sum-exp of each row of scores; 0 where there is no key to look at

    @property
    def probs(self) -> Array:
        """The (B, N, T, T) attention probabilities, after dropout: computed when they are asked for."""
        return _all_probabilities(self)


def softmax_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    key_mask: Array | None = None,
    keep_mask: Array | None = None,
    dropout_rate: float = 0.0,
) -> tuple[Array, AttentionCache | textbook.SoftmaxAttentionCache]:
    """Let every token look at every token, in N heads side by side.

    See :func:`npbert.ops.softmax_attention_forward`.

    Parameters
    ----------
    q, k, v : (B, N, T, H) floating
    bias : (B, N, T, T) floating or None
    key_mask : (B, T) bool or None
    keep_mask : (B, N, T, T) bool or None
    dropout_rate : float

    Returns
    -------
    context : (B, N, T, H)
        A view of a (B, T, N, H) array: `merge_heads` copies nothing.
    cache : AttentionCache
        ``cache.probs`` are computed when they are asked for. For complex arrays, the textbook's cache.
    """
    if not _is_supported(q, k, v, bias):
        return textbook.softmax_attention_forward(q, k, v, bias, key_mask, keep_mask, dropout_rate)
    survivor_scale = 1.0 if keep_mask is None else 1.0 / (1.0 - dropout_rate)
    return _forward(q, k, v, bias, key_mask, keep_mask, survivor_scale)


def dropout_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    key_mask: Array | None = None,
    dropout: AttentionDropout | None = None,
) -> tuple[Array, AttentionCache]:
    """Let every token look at every token, and draw the dropout's mask a few heads at a time.

    The mask is that of `npbert.ops.dropout_keep_mask`, bit for bit, and never there as a whole; one bit of
    each element is kept. The backward is `softmax_attention_backward`.

    Parameters
    ----------
    q, k, v : (B, N, T, H) float32 or float64
    key_mask : (B, T) bool or None
    dropout : AttentionDropout or None

    Returns
    -------
    context : (B, N, T, H)
    cache : AttentionCache

    Raises
    ------
    ValueError
        For arrays of another dtype, or of several, and for a dropout outside its range.
    """
    if not _is_supported(q, k, v, None):
        raise ValueError(f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; all must be float32 or float64")
    if dropout is not None:
        dropout_keep_mask((0,), *dropout)  # checks the arguments
    survivor_scale = 1.0 if dropout is None else 1.0 / (1.0 - dropout.rate)
    return _forward(q, k, v, None, key_mask, dropout, survivor_scale)


def softmax_attention_backward(
    dcontext: Array, cache: AttentionCache | textbook.SoftmaxAttentionCache
) -> tuple[Array, Array, Array, Array | None]:
    """Backward of :func:`softmax_attention_forward` and of :func:`dropout_attention_forward`.

    See :func:`npbert.ops.softmax_attention_backward`. With D the row sums of ``context * dcontext``, and
    without dropout::

        probs = exp(scores - lse)                              dv = probsᵀ dcontext
        dbias = probs * (dcontext vᵀ - D) / sqrt(H)            dq = dbias k
                                                               dk = dbiasᵀ q

    Parameters
    ----------
    dcontext : (B, N, T, H) floating
    cache : AttentionCache

    Returns
    -------
    dq, dk, dv : (B, N, T, H)
        Views of (B, T, N, H) arrays. Masked keys get exactly zero ``dk`` and ``dv``.
    dbias : (B, N, T, T), or None where the forward had no bias
    """
    if not isinstance(cache, AttentionCache):
        return textbook.softmax_attention_backward(dcontext, cache)
    q, k, v, bias = cache.q, cache.k, cache.v, cache.bias
    dcontext = _readable(np.asarray(dcontext, q.dtype))
    dq, dk, dv = (_heads_last(x.shape, x.dtype) for x in (q, k, v))
    dbias = None if bias is None else np.zeros(bias.shape, bias.dtype)
    scale = _scale(q)

    def differentiate(place: Place) -> None:
        keys = _keys_of(cache.key_mask, place)
        k_kept, v_kept = k[place][:, keys], v[place][:, keys]
        if k_kept.shape[1] == 0:
            for gradient in (dq, dk, dv):
                gradient[place] = 0
            return
        k_one = _widened("keys", k_kept, scale, 1)
        v_one = _widened("values", v_kept, scale, 1)
        q_lse = _widened("queries", q[place], 1, -cache.lse[place])
        expected = np.einsum("nth,nth->nt", dcontext[place], cache.context[place])  # D
        dcontext_d = _widened("dcontext", dcontext[place], cache.survivor_scale, -scale * expected)
        # Summed up where rows lie close together: those of a (B, T, N, H) array are pages apart.
        dq_part = scratch("dq", q[place].shape, q.dtype)
        dk_kept, dv_kept = scratch("dk", k_kept.shape, q.dtype), scratch("dv", v_kept.shape, q.dtype)

        for heads, queries in _blocks(q_lse, k_one):
            some = (heads, queries)
            probs = _probabilities(q_lse[some], k_one[heads], _at(bias, place, some, keys), scale)
            keep = _kept(cache, place, some, keys)
            dscores = scratch("dscores", probs.shape, q.dtype)
            if keep is None:
                np.matmul(dcontext_d[some], v_one[heads].swapaxes(-1, -2), out=dscores)
            else:
                np.matmul(dcontext_d[some][..., :-1], v_one[heads][..., :-1].swapaxes(-1, -2), out=dscores)
                dscores *= keep
                dscores += dcontext_d[some][..., -1:]
            dscores *= probs
            if dbias is not None:
                dbias[place][some][..., keys] = dscores
            if keep is not None:
                probs *= keep

            first = queries.start == 0
            np.matmul(dscores, k_kept[heads], out=dq_part[some])
            _add_product(dscores.swapaxes(-1, -2), q_lse[some][..., :-1], dk_kept[heads], first)
            _add_product(probs.swapaxes(-1, -2), dcontext_d[some][..., :-1], dv_kept[heads], first)
        dq[place] = dq_part
        for gradient, of_kept in ((dk[place], dk_kept), (dv[place], dv_kept)):
            if of_kept.shape != gradient.shape:
                gradient[...] = 0
            gradient[:, keys] = of_kept

    share_out(differentiate, _places(q, k, v))
    return dq, dk, dv, dbias


# The forward ------------------------------------------------------------------------------------------


def _forward(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    key_mask: Array | None,
    keep: Array | AttentionDropout | None,
    survivor_scale: float,
) -> tuple[Array, AttentionCache]:
    q, k, v = _readable(q), _readable(k), _readable(v)
    square = (*q.shape[:-1], k.shape[2])  # (B, N, T, T)
    context = _heads_last((*q.shape[:-1], v.shape[-1]), q.dtype)
    lse = np.zeros(q.shape[:-1], q.dtype)
    keep_bits = None if keep is None else np.zeros((*q.shape[:-1], (k.shape[2] + 7) // 8), np.uint8)
    scale = _scale(q)

    def attend(place: Place) -> None:
        keys = _keys_of(key_mask, place)
        k_kept, v_kept = _copied("keys", k[place][:, keys], scale), v[place][:, keys]
        if k_kept.shape[1] == 0:
            context[place] = 0
            return
        ones = np.ones(k_kept.shape[1], q.dtype)
        totals = scratch("totals", q[place].shape[:-1], q.dtype)
        for heads, queries in _blocks(q[place], k_kept):
            some = (heads, queries)
            scores = _scores(q[place][some], k_kept[heads], _at(bias, place, some, keys), scale)
            _subtract_large_maxima(scores, lse[place][some])
            np.exp(scores, out=scores)
            totals[some] = scores @ ones
            if keep is not None and keep_bits is not None:
                mask = _mask_of(keep, place, some, square)
                keep_bits[place][some] = np.packbits(mask, axis=-1)
                scores *= mask[..., keys]
            np.matmul(scores, v_kept[heads], out=context[place][some])
        totals[totals == 0] = 1  # rows with no score but -inf
        lse[place] += np.log(totals)
        context[place] *= (survivor_scale / totals)[..., None]

    share_out(attend, _places(q, k, v))
    return context, AttentionCache(q, k, v, bias, key_mask, keep_bits, survivor_scale, context, lse)


def _scores(q: Array, k: Array, bias: Array | None, scale: float) -> Array:
    """Return the scores that softmax takes, (heads, queries, keys), in scratch memory; k is scaled."""
    scores = scratch("scores", (*q.shape[:-1], k.shape[1]), q.dtype)
    np.matmul(q, k.swapaxes(-1, -2), out=scores)
    if bias is not None:
        scores += bias * scale
    return scores


def _subtract_large_maxima(scores: Array, maxima: Array) -> None:
    """Where an exponential may overflow or vanish, subtract each row's maximum, and note it."""
    low, high = scores.min(axis=(-2, -1)), scores.max(axis=(-2, -1))  # of each head: cheaper than of each row
    for head in np.flatnonzero(~((low >= -SAFE_SCORE) & (high <= SAFE_SCORE))):
        row_max = scores[head].max(axis=-1)
        row_max[row_max == -np.inf] = 0  # -inf - -inf would be NaN
        scores[head] -= row_max[:, None]
        maxima[head] = row_max


def _mask_of(
    keep: Array | AttentionDropout, place: Place, some: tuple[slice, slice], square: tuple[int, ...]
) -> Array:
    """Return the dropout's mask, (heads, queries, all keys) bool."""
    if not isinstance(keep, AttentionDropout):
        return _at(keep, place, some)
    (text, place_heads), (some_heads, queries) = place, some
    _, heads, tokens, keys = square
    mask = np.empty((some_heads.stop - some_heads.start, (queries.stop - queries.start) * keys), bool)
    for row, mask_of_head in enumerate(mask):
        head = place_heads.start + some_heads.start + row
        first = ((text * heads + head) * tokens + queries.start) * keys
        mask_of_head[:] = draw_kept(first, mask_of_head.size, *keep)
    return mask.reshape(len(mask), -1, keys)


# What the backward computes again ---------------------------------------------------------------------


def _probabilities(q_lse: Array, k_one: Array, bias: Array | None, scale: float) -> Array:
    """Return the probabilities before dropout, (heads, queries, keys), in scratch memory."""
    probs = _scores(q_lse, k_one, bias, scale)
    np.exp(probs, out=probs)
    return probs


def _kept(cache: AttentionCache, place: Place, some: tuple[slice, slice], keys: Keys) -> Array | None:
    """Return the dropout's mask of the keys that may be looked at, bool."""
    if cache.keep_bits is None:
        return None
    mask = np.unpackbits(cache.keep_bits[place][some], axis=-1, count=cache.k.shape[2])
    return mask.view(bool)[..., keys]


def _all_probabilities(cache: AttentionCache) -> Array:
    q, k, scale = cache.q, cache.k, _scale(cache.q)
    all_probs = np.zeros((*q.shape[:-1], k.shape[2]), q.dtype)

    def fill(place: Place) -> None:
        keys = _keys_of(cache.key_mask, place)
        k_one = _widened("keys", k[place][:, keys], scale, 1)
        q_lse = _widened("queries", q[place], 1, -cache.lse[place])
        for heads, queries in _blocks(q_lse, k_one):
            some = (heads, queries)
            probs = _probabilities(q_lse[some], k_one[heads], _at(cache.bias, place, some, keys), scale)
            keep = _kept(cache, place, some, keys)
            if keep is not None:
                probs *= keep
                probs *= cache.survivor_scale
            all_probs[place][some][..., keys] = probs

    share_out(fill, _places(q, k, cache.v))
    return all_probs


# Pieces of work ---------------------------------------------------------------------------------------


def _places(q: Array, k: Array, v: Array) -> list[Place]:
    """Cut the work into texts and heads; no result depends on the cuts."""
    batch, heads, tokens, _ = q.shape
    bytes_a_head = max(tokens, k.shape[2]) * max(q.shape[-1], v.shape[-1]) * q.itemsize
    pieces_a_text = max(-(-heads * bytes_a_head // BLOCK_BYTES), -(-FEWEST_PIECES // max(batch, 1)))
    heads_at_once = -(-heads // min(pieces_a_text, heads))
    return [(text, some_heads) for text in range(batch) for some_heads in row_blocks(heads, heads_at_once)]


def _blocks(q: Array, k: Array) -> Iterator[tuple[slice, slice]]:
    """Cut a place into heads and queries whose scores are worked on at once."""
    heads, tokens, _ = q.shape
    bytes_a_query = max(k.shape[1], 1) * q.itemsize
    queries_at_once = max(16, BLOCK_BYTES // bytes_a_query)
    heads_at_once = max(1, BLOCK_BYTES // (tokens * bytes_a_query))
    for some_heads in row_blocks(heads, heads_at_once):
        for queries in row_blocks(tokens, queries_at_once):
            yield some_heads, queries


def _at(array: Any, place: Place, some: tuple[slice, slice], keys: Keys = slice(None)) -> Any:
    """Return the part of a (B, N, T, T) array that belongs to a block; None for None."""
    return None if array is None else array[place][some][..., keys]


def _keys_of(key_mask: Array | None, place: Place) -> Keys:
    """Return what selects a text's keys: a slice where they come first, as they do before padding."""
    if key_mask is None:
        return slice(None)
    mask = key_mask[place[0]]
    count = int(np.count_nonzero(mask))
    return slice(count) if mask[:count].all() else np.flatnonzero(mask)


# Small helpers ----------------------------------------------------------------------------------------


def _is_supported(q: Array, k: Array, v: Array, bias: Array | None) -> bool:
    dtypes = {x.dtype for x in (q, k, v, bias) if x is not None}
    return dtypes in ({np.dtype(np.float32)}, {np.dtype(np.float64)})


def _scale(q: Array) -> float:
    return 1 / math.sqrt(q.shape[-1])


def _readable(x: Array) -> Array:
    """Copy what BLAS cannot read where it lies: rows have to be contiguous, and to ascend."""
    return x if x.strides[-1] == x.itemsize and x.strides[-2] > 0 else np.ascontiguousarray(x)


def _heads_last(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an empty (B, N, T, H) array that lies in memory as (B, T, N, H)."""
    batch, heads, tokens, width = shape
    return np.empty((batch, tokens, heads, width), dtype).swapaxes(1, 2)


def _copied(name: str, x: Array, factor: float) -> Array:
    """(heads, tokens, H): a multiple of ``x``, in scratch memory that lies as (tokens, heads, H)."""
    heads, tokens, width = x.shape
    copy = scratch(name, (tokens, heads, width), x.dtype).swapaxes(0, 1)
    np.multiply(x, factor, out=copy)
    return copy


def _widened(name: str, x: Array, factor: float, column: Any) -> Array:
    """(heads, tokens, H + 1): a multiple of ``x``, and one more column, lying as (tokens, heads, H + 1)."""
    heads, tokens, width = x.shape
    widened = scratch(name, (tokens, heads, width + 1), x.dtype).swapaxes(0, 1)
    if factor == 1:
        widened[..., :-1] = x
    else:
        np.multiply(x, factor, out=widened[..., :-1])
    widened[..., -1] = column
    return widened


def _add_product(a: Array, b: Array, total: Array, first: bool) -> None:
    """Add ``a @ b`` to a sum that is not there before the first one."""
    if first:
        np.matmul(a, b, out=total)
    else:
        total += np.matmul(a, b, out=scratch("product", total.shape, total.dtype))
