"""Relative positions: the textbook's products, and a scatter that adds in a fixed order."""

from npbert.cuda.embedding import scatter_add
from npbert.ops import relative_position as textbook
from npbert.ops.array_module import Array
from npbert.ops.relative_position import RelativePositionCache


def relative_position_forward(
    q: Array, k: Array, distance_embedding: Array, kind: str
) -> tuple[Array, RelativePositionCache]:
    """Compute the position bias of the attention scores; see :func:`npbert.ops.relative_position_forward`.

    Parameters
    ----------
    q, k : (B, N, T, H) floating
    distance_embedding : (2P-1, H) floating
    kind : "relative_key" or "relative_key_query"

    Returns
    -------
    bias : (B, N, T, T)
    cache : RelativePositionCache
    """
    return textbook.relative_position_forward(q, k, distance_embedding, kind)


def relative_position_backward(dbias: Array, cache: RelativePositionCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`relative_position_forward`: deterministic, two runs give the same bits.

    Parameters
    ----------
    dbias : (B, N, T, T) floating
        float64, float32 or float16.
    cache : RelativePositionCache

    Returns
    -------
    dq, dk : (B, N, T, H)
    ddistance_embedding : (2P-1, H)
    """
    dq, dk, ddistance_vectors = textbook.factor_gradients(dbias, cache)
    return dq, dk, scatter_add(ddistance_vectors, cache.rows, cache.table_shape)
