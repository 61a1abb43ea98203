"""Attention by fused kernels: no (T, T) matrix in memory, padded texts or packed ones.

:func:`softmax_attention_forward` and its backward have the textbook's signatures.
:func:`packed_attention_forward` and its backward take texts of any lengths, one after the other, without
padding. All are thin: they check what they are given, see to it that it lies in rows, and call
:func:`attention_forward` and :func:`attention_backward`, which choose the kernels, and which a fused layer
may call itself.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from npbert.attention_dropout import AttentionDropout
from npbert.cuda import softmax_attention_mma as tensor_cores
from npbert.cuda import softmax_attention_scalar as scalar
from npbert.cuda.arguments import check_floating, check_mask, check_one_place, check_shape
from npbert.cuda.attention_options import AttentionOptions, Sequences, score_scale
from npbert.ops.array_module import Array, array_module
from npbert.ops.dropout import dropout_forward, dropout_keep_mask

ALIGNMENT = 16  # bytes: kernels move that many at a time
Forward = Callable[..., tuple[Array, Array]]
Backward = Callable[..., tuple[Array, Array, Array, Array | None]]
MOST_ROWS = 2**31 - 1  # kernels count them in 32 bits


class CudaAttentionCache(NamedTuple):
    """What the backward pass needs from the forward pass: rows, and one number for each row of scores."""

    q: Array  # (query tokens, N, H)
    k: Array  # (key tokens, N, H)
    v: Array  # (key tokens, N, H)
    context: Array  # (query tokens, N, H)
    lse: Array  # (N, query tokens) float64 or float32
    sequences: Sequences
    options: AttentionOptions

    @property
    def probs(self) -> Array:
        """(B, N, T, T) attention probabilities of padded texts, after dropout; made when asked for."""
        if self.sequences.query_starts is not None:
            raise ValueError("attention probabilities of packed texts have no (B, N, T, T) array")
        return _probabilities(self)


# Padded texts -----------------------------------------------------------------------------------------


def softmax_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    key_mask: Array | None = None,
    keep_mask: Array | None = None,
    dropout_rate: float = 0.0,
) -> tuple[Array, CudaAttentionCache]:
    """Compute attention as :func:`npbert.ops.softmax_attention_forward` does, by one kernel.

    Parameters
    ----------
    q, k, v : (B, N, T, H) float64, float32 or float16
        Queries, keys and values; the number of keys may differ from that of queries. What
        :func:`npbert.ops.split_heads` returns is read where it is, anything else is copied. H is a multiple
        of 8 up to 256 (float64: up to 184).
    bias : (B, N, T, T) of the dtype of `q`, or None
        Added to the scores before they are scaled.
    key_mask : (B, T) bool or None
        True where a key may be looked at. Where all keys of a text are masked, its context is 0.
    keep_mask : (B, N, T, T) bool or None
        Which probabilities survive dropout; None keeps all, unscaled.
    dropout_rate : float
        The rate that ``keep_mask`` was drawn with.

    Returns
    -------
    context : (B, N, T, H)
        A view, of which :func:`npbert.ops.merge_heads` makes (B, T, N*H) without a copy.
    cache : CudaAttentionCache
        ``cache.probs`` are the attention probabilities, computed when asked for.

    Raises
    ------
    ValueError
        For a wrong dtype, shape, rate or head width, or arrays in different places; names it.
    """
    op = "softmax_attention_forward"
    _check_padded(op, q, k, v, bias, key_mask, keep_mask, dropout_rate)
    options = AttentionOptions(
        bias=_contiguous(bias),
        key_mask=None if key_mask is None else _contiguous(key_mask).reshape(-1),
        keep_mask=_contiguous(keep_mask),
        keep_rate=dropout_rate,
    )
    return _padded_forward(q, k, v, options)


def softmax_attention_backward(
    dcontext: Array, cache: CudaAttentionCache
) -> tuple[Array, Array, Array, Array | None]:
    """Backward of :func:`softmax_attention_forward`, by three kernels; two runs give the same bits.

    Parameters
    ----------
    dcontext : (B, N, T, H) of the dtype of q
    cache : CudaAttentionCache

    Returns
    -------
    dq, dk, dv : (B, N, T, H)
        Views like the context. Masked keys get exactly zero ``dk`` and ``dv``.
    dbias : (B, N, T, T), or None where the forward had no bias

    Raises
    ------
    ValueError
        For a wrong dtype, shape or place.
    """
    op = "softmax_attention_backward"
    texts, queries, keys = cache.sequences[:3]
    _, heads, width = cache.q.shape
    check_floating(op, dcontext=dcontext, q=cache.q)
    check_shape(op, "dcontext", dcontext, (texts, heads, queries, width))
    dq, dk, dv, dbias = attention_backward(_rows(dcontext), *cache)
    return _heads(dq, texts, queries), _heads(dk, texts, keys), _heads(dv, texts, keys), dbias


def dropout_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    key_mask: Array | None = None,
    dropout: AttentionDropout | None = None,
) -> tuple[Array, CudaAttentionCache]:
    """Compute attention with dropout that is drawn inside the kernels, without a mask in memory.

    The backward is :func:`softmax_attention_backward`.

    Parameters
    ----------
    q, k, v : (B, N, T, H) float64, float32 or float16
    key_mask : (B, T) bool or None
    dropout : AttentionDropout or None

    Returns
    -------
    context : (B, N, T, H)
    cache : CudaAttentionCache

    Raises
    ------
    ValueError
        As :func:`softmax_attention_forward`.
    """
    op = "dropout_attention_forward"
    _check_padded(op, q, k, v, None, key_mask, None, 0.0)
    options = AttentionOptions(
        key_mask=None if key_mask is None else _contiguous(key_mask).reshape(-1),
        dropout=None if dropout is None else check_dropout(op, dropout),
    )
    return _padded_forward(q, k, v, options)


# Packed texts -----------------------------------------------------------------------------------------


def packed_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    cumulative_lengths: Array,
    max_tokens: int,
    dropout: AttentionDropout | None = None,
) -> tuple[Array, CudaAttentionCache]:
    """Let the tokens of each text look at each other, where texts lie one after the other without padding.

    The result for a text does not depend on its neighbours, and is, bit for bit, that of the padded text
    with its padding masked.

    Parameters
    ----------
    q, k, v : (tokens, N, H) float64, float32 or float16
        The tokens of all texts. H is a multiple of 8 up to 256 (float64: up to 184).
    cumulative_lengths : (B + 1,) integer
        Text b has the tokens from ``cumulative_lengths[b]`` on, up to and without
        ``cumulative_lengths[b + 1]``. It may be empty.
    max_tokens : int
        At least the length of the longest text; dropout's mask is that of texts padded to this length.
    dropout : AttentionDropout or None
        Drawn inside the kernels, bit for bit as :func:`npbert.ops.dropout_keep_mask` of the shape
        (B, N, max_tokens, max_tokens).

    Returns
    -------
    context : (tokens, N, H)
    cache : CudaAttentionCache

    Raises
    ------
    ValueError
        For a wrong dtype, shape or head width, lengths that do not fit the tokens, or arrays in different
        places; names it.

    Examples
    --------
    Texts of two tokens and of one::

        context, cache = packed_attention_forward(q, k, v, np.array([0, 2, 3]), max_tokens=2)
    """
    op = "packed_attention_forward"
    check_floating(op, q=q, k=k, v=v)
    if q.ndim != 3:
        raise ValueError(f"{op}: q has shape {q.shape}; expected (tokens, N, H)")
    check_shape(op, "k", k, q.shape)
    check_shape(op, "v", v, q.shape)
    sequences = packed_sequences(cumulative_lengths, max_tokens, q)
    options = AttentionOptions(dropout=None if dropout is None else check_dropout(op, dropout))
    q, k, v = (_aligned(_contiguous(x)) for x in (q, k, v))
    context, lse = attention_forward(q, k, v, sequences, options)
    return context, CudaAttentionCache(q, k, v, context, lse, sequences, options)


def packed_attention_backward(dcontext: Array, cache: CudaAttentionCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`packed_attention_forward`.

    Parameters
    ----------
    dcontext : (tokens, N, H) of the dtype of q
    cache : CudaAttentionCache

    Returns
    -------
    dq, dk, dv : (tokens, N, H)

    Raises
    ------
    ValueError
        For a wrong dtype, shape or place.
    """
    op = "packed_attention_backward"
    check_floating(op, dcontext=dcontext, q=cache.q)
    check_shape(op, "dcontext", dcontext, cache.q.shape)
    dq, dk, dv, _ = attention_backward(_aligned(_contiguous(dcontext)), *cache)
    return dq, dk, dv


def packed_sequences(cumulative_lengths: Array, max_tokens: int, rows: Array) -> Sequences:
    """Check where packed texts lie, and put it where the rows are.

    Parameters
    ----------
    cumulative_lengths : (B + 1,) integer, NumPy or CuPy
        CuPy's have to be waited for; where the lengths are known to the host, NumPy's are better.
    max_tokens : int
    rows : (tokens, ...) array
        What the lengths are about.

    Returns
    -------
    sequences : Sequences
        Of queries and keys of one kind, for any number of layers.

    Raises
    ------
    ValueError
        If the lengths do not start at 0, fall, do not end at the number of rows, or one exceeds `max_tokens`.
    """
    if getattr(cumulative_lengths, "ndim", None) != 1 or cumulative_lengths.dtype.kind not in "iu":
        found = f"{getattr(cumulative_lengths, 'dtype', type(cumulative_lengths).__name__)}"
        raise ValueError(f"cumulative_lengths is {found}; expected a one-dimensional integer array")
    if not isinstance(max_tokens, int | np.integer) or not 0 <= max_tokens <= MOST_ROWS:
        raise ValueError(f"max_tokens is {max_tokens!r}; it must be an integer from 0 up to {MOST_ROWS}")
    on_device = array_module(cumulative_lengths) is not np
    lengths = cumulative_lengths.get() if on_device else cumulative_lengths
    if len(lengths) == 0 or lengths[0] != 0:
        raise ValueError(f"cumulative_lengths is {lengths[:3]}...; it must start with 0")
    tokens = np.diff(lengths.astype(np.int64))
    falling = np.flatnonzero(tokens < 0)
    if falling.size:
        raise ValueError(f"cumulative_lengths falls at index {falling[0] + 1}, to {lengths[falling[0] + 1]}")
    if lengths[-1] != len(rows) or len(rows) > MOST_ROWS:
        raise ValueError(
            f"cumulative_lengths ends with {lengths[-1]}; there are {len(rows)} tokens, {MOST_ROWS} at most"
        )
    too_long = np.flatnonzero(tokens > max_tokens)
    if too_long.size:
        raise ValueError(f"text {too_long[0]} has {tokens[too_long[0]]} tokens; max_tokens is {max_tokens}")
    starts = array_module(rows).asarray(cumulative_lengths, dtype=np.int32)
    return Sequences(len(lengths) - 1, int(max_tokens), int(max_tokens), starts, starts)


def check_dropout(op: str, dropout: AttentionDropout) -> AttentionDropout:
    """Return `dropout`, or raise a ValueError that names the number that is out of range."""
    if not 0.0 <= dropout.rate < 1.0:
        raise ValueError(f"{op}: the dropout's rate is {dropout.rate}; it must be at least 0 and less than 1")
    for name, value, bits in (
        ("seed", dropout.seed, 64),
        ("layer", dropout.layer, 32),
        ("site", dropout.site, 32),
    ):
        if not 0 <= value < 2**bits:
            raise ValueError(f"{op}: the dropout's {name} is {value}; it must be in [0, 2^{bits})")
    return dropout


# On rows ----------------------------------------------------------------------------------------------


def attention_forward(
    q: Array, k: Array, v: Array, sequences: Sequences, options: AttentionOptions
) -> tuple[Array, Array]:
    """Compute attention on rows, by the kernels that suit them; arguments are not checked.

    Parameters
    ----------
    q : (query tokens, N, H) floating
        As `k` and `v`: C-contiguous, from a multiple of 16 bytes on. A (B, T, N*H) projection is such an
        array when it is reshaped to (B * T, N, H).
    k, v : (key tokens, N, H)
    sequences : Sequences
    options : AttentionOptions
        With contiguous arrays.

    Returns
    -------
    context : (query tokens, N, H)
    lse : (N, query tokens) float64 or float32
        What :func:`attention_backward` needs.

    Raises
    ------
    ValueError
        For a head width that there is no kernel for.
    """
    forward: Forward = kernels_for(q, options).attention_forward
    return forward(q, k, v, sequences, options)


def attention_backward(
    dcontext: Array,
    q: Array,
    k: Array,
    v: Array,
    context: Array,
    lse: Array,
    sequences: Sequences,
    options: AttentionOptions,
) -> tuple[Array, Array, Array, Array | None]:
    """Backward of :func:`attention_forward`.

    Parameters
    ----------
    dcontext : (query tokens, N, H)
        C-contiguous, from a multiple of 16 bytes on.
    q, k, v, context, lse, sequences, options
        What :func:`attention_forward` took and returned.

    Returns
    -------
    dq : (query tokens, N, H)
    dk, dv : (key tokens, N, H)
    dbias : (B, N, max_queries, max_keys), or None where there was no bias
    """
    backward: Backward = kernels_for(q, options).attention_backward
    return backward(dcontext, q, k, v, context, lse, sequences, options)


def kernels_for(q: Array, options: AttentionOptions) -> ModuleType:
    """Return the variant that runs: tensor cores for all that they can do, the scalar kernels for the rest.

    Forward and backward ask the same question, and so get the same answer.
    """
    return tensor_cores if tensor_cores.supports(q, options) else scalar


# Small helpers ----------------------------------------------------------------------------------------


def _padded_forward(
    q: Array, k: Array, v: Array, options: AttentionOptions
) -> tuple[Array, CudaAttentionCache]:
    batch, _, queries, _ = q.shape
    sequences = Sequences(batch, queries, k.shape[2])
    q_rows, k_rows, v_rows = (_rows(x) for x in (q, k, v))
    context, lse = attention_forward(q_rows, k_rows, v_rows, sequences, options)
    cache = CudaAttentionCache(q_rows, k_rows, v_rows, context, lse, sequences, options)
    return _heads(context, batch, queries), cache


def _contiguous(x: Array | None) -> Any:
    return None if x is None else array_module(x).ascontiguousarray(x)


def _aligned(x: Array) -> Array:
    """Copy an array that begins where 16 bytes cannot be read at once."""
    address = x.ctypes.data if array_module(x) is np else x.data.ptr
    return x if address % ALIGNMENT == 0 else x.copy()


def _rows(x: Array) -> Array:
    """(B, N, T, H) -> (B * T, N, H), without a copy where it came from (B, T, N, H)."""
    batch, heads, tokens, width = x.shape
    return _aligned(_contiguous(x.swapaxes(1, 2)).reshape(batch * tokens, heads, width))


def _heads(rows: Array, batch: int, tokens: int) -> Array:
    """(B * T, N, H) -> (B, N, T, H), a view."""
    _, heads, width = rows.shape
    return rows.reshape(batch, tokens, heads, width).swapaxes(1, 2)


def _check_padded(
    op: str,
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    key_mask: Array | None,
    keep_mask: Array | None,
    dropout_rate: float,
) -> None:
    check_floating(op, q=q, k=k, v=v, bias=bias)
    for name, x in (("q", q), ("k", k)):
        if x.ndim != 4:
            raise ValueError(f"{op}: {name} has shape {x.shape}; expected (B, N, T, H)")
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    check_shape(op, "k", k, (batch, heads, keys, width))
    check_shape(op, "v", v, k.shape)
    if batch * max(queries, keys) > MOST_ROWS:
        raise ValueError(f"{op}: {batch} texts of {max(queries, keys)} tokens; at most {MOST_ROWS} in all")
    check_one_place(op, q=q, key_mask=key_mask, keep_mask=keep_mask)
    if bias is not None:
        check_shape(op, "bias", bias, (batch, heads, queries, keys))
    if key_mask is not None:
        check_mask(op, "key_mask", key_mask, (batch, keys))
    if keep_mask is not None:
        check_mask(op, "keep_mask", keep_mask, (batch, heads, queries, keys))
    if not 0.0 <= dropout_rate < 1.0:
        raise ValueError(f"{op}: dropout_rate is {dropout_rate}; it must be at least 0 and less than 1")


def _probabilities(cache: CudaAttentionCache) -> Array:
    """The matrix that the kernels never made, from what they saved."""
    xp = array_module(cache.q)
    texts, queries, keys = cache.sequences[:3]
    options = cache.options
    _, heads, width = cache.q.shape
    q, k = (
        _heads(x, texts, tokens).astype(cache.lse.dtype)
        for x, tokens in ((cache.q, queries), (cache.k, keys))
    )
    scores = q @ k.swapaxes(-1, -2)  # (B, N, T, H) @ (B, N, H, T) -> (B, N, T, T)
    if options.bias is not None:
        scores = scores + options.bias
    scores = scores * score_scale(width)
    if options.key_mask is not None:
        mask = options.key_mask.reshape(texts, 1, 1, keys)
        scores = xp.where(mask, scores, xp.asarray(-xp.inf, dtype=scores.dtype))
    lse = cache.lse.reshape(heads, texts, queries).swapaxes(0, 1)  # (N, B * T) -> (B, N, T)
    probs = xp.exp(scores - lse[..., None]).astype(cache.q.dtype)
    keep_mask, rate = options.keep_mask, options.keep_rate
    if options.dropout is not None:
        rate, seed, layer, site = options.dropout
        keep_mask = dropout_keep_mask(probs.shape, rate, seed, layer, site, xp)
    return dropout_forward(probs, keep_mask, rate)[0]
