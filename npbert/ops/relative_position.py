"""Relative positions: attention scores that depend on how far apart two tokens are.

``relative_key``:        bias_ij = q_i · e_(i-j)
``relative_key_query``:  bias_ij = q_i · e_(i-j) + k_j · e_(i-j)

where ``e`` is a learned table with one vector for every distance from -(P-1) to P-1.
"""

from typing import NamedTuple

from npbert.ops.array_module import Array, array_module
from npbert.ops.embedding import scatter_add


class RelativePositionCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    q: Array  # (B, N, T, H)
    k: Array | None  # (B, N, T, H), None for relative_key, which does not look at the keys
    rows: Array  # (T, T) int: which row of the table stands between query i and key j
    distance_vectors: Array  # (T, T, H): those rows
    table_shape: tuple[int, int]  # (2P-1, H)


def relative_position_forward(
    q: Array, k: Array, distance_embedding: Array, kind: str
) -> tuple[Array, RelativePositionCache]:
    """Compute the position bias of the attention scores.

    Parameters
    ----------
    q, k : (B, N, T, H) floating
        Queries and keys; T at most P.
    distance_embedding : (2P-1, H) floating
        Row ``i - j + P - 1`` belongs to distance ``i - j``. Shared by all heads of a layer.
    kind : "relative_key" or "relative_key_query"

    Returns
    -------
    bias : (B, N, T, T)
        To be added to ``q kᵀ`` before the scaling.
    cache : RelativePositionCache

    Raises
    ------
    ValueError
        Where ``kind`` is neither of the two.

    References
    ----------
    Shaw, Uszkoreit and Vaswani, arXiv:1803.02155, 2018 (relative_key);
    Huang et al., arXiv:2009.13658, 2020, method 4 (relative_key_query).
    """
    if kind not in ("relative_key", "relative_key_query"):
        raise ValueError(f'kind is {kind!r}; it must be "relative_key" or "relative_key_query"')
    xp = array_module(q)
    tokens = q.shape[-2]
    max_distance = (distance_embedding.shape[0] - 1) // 2  # P - 1
    positions = xp.arange(tokens)
    rows = positions[:, None] - positions[None, :] + max_distance  # (T, T)
    distance_vectors = distance_embedding[rows]  # (T, T, H)

    bias = xp.einsum("bnih,ijh->bnij", q, distance_vectors)  # (B, N, T, T)
    if kind == "relative_key_query":
        bias = bias + xp.einsum("bnjh,ijh->bnij", k, distance_vectors)
    kept_k = k if kind == "relative_key_query" else None
    return bias, RelativePositionCache(q, kept_k, rows, distance_vectors, distance_embedding.shape)


def relative_position_backward(dbias: Array, cache: RelativePositionCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`relative_position_forward`.

    Each term is a product of two factors; a factor's gradient is ``dbias`` times the other one,
    summed over the indices it lacks. The table's rows are shared by all pairs of one distance, so
    their gradients are added up as in an embedding.

    Parameters
    ----------
    dbias : (B, N, T, T) floating
    cache : RelativePositionCache

    Returns
    -------
    dq, dk : (B, N, T, H)
        ``dk`` is zero for relative_key.
    ddistance_embedding : (2P-1, H)
    """
    dq, dk, ddistance_vectors = factor_gradients(dbias, cache)
    ddistance_embedding = scatter_add(ddistance_vectors, cache.rows, cache.table_shape)  # (2P-1, H)
    return dq, dk, ddistance_embedding


def factor_gradients(dbias: Array, cache: RelativePositionCache) -> tuple[Array, Array, Array]:
    """Return the gradients of what is multiplied: dq, dk (B, N, T, H) and ddistance_vectors (T, T, H)."""
    xp = array_module(dbias)
    dq = xp.einsum("bnij,ijh->bnih", dbias, cache.distance_vectors)  # (B, N, T, H)
    ddistance_vectors = xp.einsum("bnij,bnih->ijh", dbias, cache.q)  # (T, T, H)
    if cache.k is None:
        dk = xp.zeros_like(dq)
    else:
        dk = xp.einsum("bnij,ijh->bnjh", dbias, cache.distance_vectors)  # (B, N, T, H)
        ddistance_vectors = ddistance_vectors + xp.einsum("bnij,bnjh->ijh", dbias, cache.k)
    return dq, dk, ddistance_vectors
