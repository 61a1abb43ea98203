"""Scaled dot-product attention:  context = dropout(softmax((q kᵀ + bias) / sqrt(H))) v."""

import math
from typing import NamedTuple

from npbert.ops.array_module import Array
from npbert.ops.dropout import DropoutCache, dropout_backward, dropout_forward
from npbert.ops.softmax import SoftmaxCache, softmax_backward, softmax_forward


class SoftmaxAttentionCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    q: Array  # (B, N, T, H)
    k: Array  # (B, N, T, H)
    v: Array  # (B, N, T, H)
    has_bias: bool
    probs: Array  # (B, N, T, T), after dropout: dv is a product with them
    softmax: SoftmaxCache  # the probabilities before dropout
    dropout: DropoutCache


def softmax_attention_forward(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    key_mask: Array | None = None,
    keep_mask: Array | None = None,
    dropout_rate: float = 0.0,
) -> tuple[Array, SoftmaxAttentionCache]:
    """Let every token look at every token, in N heads side by side.

    Token i asks with ``q_i``, token j answers to ``k_j``, and the answers ``v_j`` are averaged with
    weights that say how well question and answer match.

    Parameters
    ----------
    q, k, v : (B, N, T, H) floating
        Queries, keys and values. The number of keys may differ from that of queries.
    bias : (B, N, T, T) floating or None
        Added to the scores before they are scaled; see :mod:`npbert.ops.relative_position`.
    key_mask : (B, T) bool or None
        True where a key may be looked at. Where all keys of a text are masked, its context is 0.
    keep_mask : (B, N, T, T) bool or None
        Which probabilities survive dropout; None keeps all, unscaled.
    dropout_rate : float
        The rate that ``keep_mask`` was drawn with.

    Returns
    -------
    context : (B, N, T, H)
    cache : SoftmaxAttentionCache
        ``cache.probs`` are the attention probabilities (after dropout, as Hugging Face reports them).

    References
    ----------
    Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, 2017, equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> q = k = np.zeros((1, 1, 2, 4))
    >>> v = np.array([[[[1.0], [3.0]]]])
    >>> softmax_attention_forward(q, k, v)[0].ravel()
    array([2., 2.])
    """
    scores = q @ k.swapaxes(-1, -2)  # (B, N, T, H) @ (B, N, H, T) -> (B, N, T, T)
    if bias is not None:
        scores = scores + bias
    scaled_scores = scores * _scale(q)
    mask = None if key_mask is None else key_mask[:, None, None, :]  # (B, 1, 1, T): same for head and query
    clean_probs, softmax_cache = softmax_forward(scaled_scores, mask)
    probs, dropout_cache = dropout_forward(clean_probs, keep_mask, dropout_rate)
    context = probs @ v  # (B, N, T, T) @ (B, N, T, H) -> (B, N, T, H)
    return context, SoftmaxAttentionCache(q, k, v, bias is not None, probs, softmax_cache, dropout_cache)


def softmax_attention_backward(
    dcontext: Array, cache: SoftmaxAttentionCache
) -> tuple[Array, Array, Array, Array | None]:
    """Backward of :func:`softmax_attention_forward`: its statements in reverse.

    ::

        context = probs v            dprobs = dcontext vᵀ      dv = probsᵀ dcontext
        probs = dropout(softmax(S))  dS by dropout_backward, then softmax_backward
        S = (q kᵀ + bias) / sqrt(H)  dbias = dS / sqrt(H)      dq = dbias k      dk = dbiasᵀ q

    Parameters
    ----------
    dcontext : (B, N, T, H) floating
    cache : SoftmaxAttentionCache

    Returns
    -------
    dq, dk, dv : (B, N, T, H)
        Masked keys get exactly zero ``dk`` and ``dv``.
    dbias : (B, N, T, T), or None where the forward had no bias
    """
    dv = cache.probs.swapaxes(-1, -2) @ dcontext  # (B, N, T, T) @ (B, N, T, H) -> (B, N, T, H)
    dprobs = dcontext @ cache.v.swapaxes(-1, -2)  # (B, N, T, H) @ (B, N, H, T) -> (B, N, T, T)
    dclean_probs = dropout_backward(dprobs, cache.dropout)
    dscaled_scores = softmax_backward(dclean_probs, cache.softmax)
    dscores = dscaled_scores * _scale(cache.q)
    dk = dscores.swapaxes(-1, -2) @ cache.q  # (B, N, T, T) @ (B, N, T, H) -> (B, N, T, H)
    dq = dscores @ cache.k  # (B, N, T, T) @ (B, N, T, H) -> (B, N, T, H)
    dbias = dscores if cache.has_bias else None
    return dq, dk, dv, dbias


def _scale(q: Array) -> float:
    """1 / sqrt(H): scores of unit-variance vectors have variance H, and softmax saturates."""
    return 1 / math.sqrt(q.shape[-1])


def split_heads(x: Array, heads: int) -> Array:
    """Cut the last axis into heads:  (B, T, N*H) -> (B, N, T, H)."""
    batch, tokens, hidden = x.shape
    return x.reshape(batch, tokens, heads, hidden // heads).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """Undo :func:`split_heads`:  (B, N, T, H) -> (B, T, N*H)."""
    batch, heads, tokens, head_width = x.shape
    return x.swapaxes(1, 2).reshape(batch, tokens, heads * head_width)
