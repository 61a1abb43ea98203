"""Attention of a padded batch on all workers, a few heads of one text at a time.

What they do is in :mod:`npbert.cpu.packed_attention`. No array of scores is ever there as a whole: what is
kept of them for the way back is one number a row, and one bit an element where there is dropout.

All arrays that are read and written are taken to lie in memory as (B, T, N, H), which is how `split_heads`
and `merge_heads` see them. Others are as good, only slower.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from npbert.attention_dropout import AttentionDropout
from npbert.cpu.keep_mask import draw_kept_square
from npbert.cpu.packed_attention import Dropout, Keys, attend, attend_backward, write_probabilities
from npbert.cpu.workers import row_blocks, share_out
from npbert.ops import softmax_attention as textbook
from npbert.ops.array_module import Array
from npbert.ops.dropout import dropout_keep_mask

# Bytes of each (T, N, H) array that are worked on at once: a core's second-level cache holds a few of them.
BLOCK_BYTES = 1 << 19

# Fewest pieces of work, so that a few long texts keep all workers busy, too.
FEWEST_PIECES = 4

Place = tuple[int, slice]  # a text, and some of its heads: what a worker does at a time


class AttentionCache(NamedTuple):
    """What the backward pass needs from the forward pass; of size (T, T) nothing but one bit a dropout."""

    q: Array  # (B, N, T, H)
    k: Array  # (B, N, T, H)
    v: Array  # (B, N, T, H)
    bias: Array | None  # (B, N, T, T)
    key_mask: Array | None  # (B, T) bool
    keep_bits: Array | None  # (B, N, T, ceil(T / 8)) uint8: which of the keys looked at survive, eight a byte
    survivor_scale: float  # what dropout multiplies the others by
    context: Array  # (B, N, T, H)
    lse: Array  # (B, N, T), see `attend`

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
    if keep_mask is None:
        return _forward(q, k, v, bias, key_mask, None, 1.0)
    survivor_scale = 1.0 / (1.0 - dropout_rate)

    def given(place: Place) -> Dropout:
        return _GivenMask(keep_mask[place], survivor_scale)

    return _forward(q, k, v, bias, key_mask, given, survivor_scale)


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
    if dropout is None:
        return _forward(q, k, v, None, key_mask, None, 1.0)
    dropout_keep_mask((0,), *dropout)  # checks the arguments
    survivor_scale = 1.0 / (1.0 - dropout.rate)
    square = (q.shape[2], k.shape[2])

    def drawn(place: Place) -> Dropout:
        text, heads = place
        return _DrawnMask(dropout, text * q.shape[1] + heads.start, square, survivor_scale)

    return _forward(q, k, v, None, key_mask, drawn, survivor_scale)


def softmax_attention_backward(
    dcontext: Array, cache: AttentionCache | textbook.SoftmaxAttentionCache
) -> tuple[Array, Array, Array, Array | None]:
    """Backward of :func:`softmax_attention_forward` and of :func:`dropout_attention_forward`.

    See :func:`npbert.ops.softmax_attention_backward`.

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
    q, bias = cache.q, cache.bias
    dcontext = _readable(np.asarray(dcontext, q.dtype))
    dq, dk, dv = (_heads_last(x.shape, x.dtype) for x in (q, cache.k, cache.v))
    dbias = None if bias is None else np.empty_like(bias)

    def differentiate(place: Place) -> None:
        attend_backward(
            _text(dcontext, place),
            _text(q, place),
            _text(cache.k, place),
            _text(cache.v, place),
            _text(cache.context, place),
            _text(cache.lse, place),
            _text(dq, place),
            _text(dk, place),
            _text(dv, place),
            *_masks(cache, place),
            bias=None if bias is None else bias[place],
            dbias=None if dbias is None else dbias[place],
        )

    share_out(differentiate, _places(q, cache.k, cache.v))
    return dq, dk, dv, dbias


def _forward(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    key_mask: Array | None,
    dropout_of: Callable[[Place], Dropout] | None,
    survivor_scale: float,
) -> tuple[Array, AttentionCache]:
    q, k, v = _readable(q), _readable(k), _readable(v)
    batch, heads, queries, _ = q.shape
    context = _heads_last((batch, heads, queries, v.shape[-1]), q.dtype)
    lse = np.empty((batch, heads, queries), q.dtype)
    keep_bits = None
    if dropout_of is not None:
        keep_bits = np.empty((batch, heads, queries, -(-k.shape[2] // 8)), np.uint8)
    cache = AttentionCache(q, k, v, bias, key_mask, keep_bits, survivor_scale, context, lse)

    def work(place: Place) -> None:
        some_bits = attend(
            _text(q, place),
            _text(k, place),
            _text(v, place),
            _text(context, place),
            _keys_of(key_mask, place),
            lse=_text(lse, place),
            dropout=None if dropout_of is None else dropout_of(place),
            bias=None if bias is None else bias[place],
        )
        if keep_bits is not None and some_bits is not None:
            keep_bits[place][..., : some_bits.shape[-1]] = some_bits

    share_out(work, _places(q, k, v))
    return context, cache


def _all_probabilities(cache: AttentionCache) -> Array:
    q, k, bias = cache.q, cache.k, cache.bias
    probs = np.zeros((*q.shape[:-1], k.shape[2]), q.dtype)

    def fill(place: Place) -> None:
        write_probabilities(
            probs[place],
            _text(q, place),
            _text(k, place),
            _text(cache.lse, place),
            *_masks(cache, place),
            bias=None if bias is None else bias[place],
        )

    share_out(fill, _places(q, k, cache.v))
    return probs


# Masks ------------------------------------------------------------------------------------------------


class _GivenMask(NamedTuple):
    """The dropout of a place, from its mask."""

    keep_mask: Array  # (heads, T, T) bool
    survivor_scale: float

    def kept(self, heads: slice, queries: slice, keys: Keys) -> Array:
        return self.keep_mask[heads, queries][..., keys]


class _DrawnMask(NamedTuple):
    """The dropout of a place, drawn where it is needed."""

    dropout: AttentionDropout
    first_head: int  # of the place, among those of all texts
    square: tuple[int, int]  # (T, T)
    survivor_scale: float

    def kept(self, heads: slice, queries: slice, keys: Keys) -> Array:
        all_heads = self.first_head + np.arange(heads.start, heads.stop)
        rows, columns = (np.arange(length) for length in self.square)
        return draw_kept_square(all_heads, rows[queries], columns[keys], self.square, *self.dropout)


def _masks(cache: AttentionCache, place: Place) -> tuple[Keys, Array | None, float]:
    """Return a place's keys, its dropout in bits, and what that multiplies the others by."""
    keys = _keys_of(cache.key_mask, place)
    if cache.keep_bits is None:
        return keys, None, 1.0
    count = len(range(cache.k.shape[2])[keys]) if isinstance(keys, slice) else len(keys)
    return keys, cache.keep_bits[place][..., : -(-count // 8)], cache.survivor_scale


def _keys_of(key_mask: Array | None, place: Place) -> Keys:
    """Return what selects a text's keys: a slice where they come first, as they do before padding."""
    if key_mask is None:
        return slice(None)
    mask = key_mask[place[0]]
    count = int(np.count_nonzero(mask))
    return slice(count) if mask[:count].all() else np.flatnonzero(mask)


# Pieces of work ---------------------------------------------------------------------------------------


def _places(q: Array, k: Array, v: Array) -> list[Place]:
    """Cut the work into texts and heads; no result depends on the cuts."""
    batch, heads, tokens, _ = q.shape
    bytes_a_head = max(tokens, k.shape[2]) * max(q.shape[-1], v.shape[-1]) * q.itemsize
    pieces_a_text = max(-(-heads * bytes_a_head // BLOCK_BYTES), -(-FEWEST_PIECES // max(batch, 1)))
    heads_at_once = -(-heads // min(pieces_a_text, heads))
    return [(text, some_heads) for text in range(batch) for some_heads in row_blocks(heads, heads_at_once)]


def _text(x: Array, place: Place) -> Array:
    """Return a text's heads of a (B, N, T, ...) array, as a (T, N, ...) view."""
    return x[place].swapaxes(0, 1)


# Small helpers ----------------------------------------------------------------------------------------


def _is_supported(q: Array, k: Array, v: Array, bias: Array | None) -> bool:
    dtypes = {x.dtype for x in (q, k, v, bias) if x is not None}
    return dtypes in ({np.dtype(np.float32)}, {np.dtype(np.float64)})


def _readable(x: Array) -> Array:
    """Copy what BLAS cannot read where it lies: rows have to be contiguous, and to ascend."""
    return x if x.strides[-1] == x.itemsize and x.strides[-2] > 0 else np.ascontiguousarray(x)


def _heads_last(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an empty (B, N, T, H) array that lies in memory as (B, T, N, H)."""
    batch, heads, tokens, width = shape
    return np.empty((batch, tokens, heads, width), dtype).swapaxes(1, 2)
