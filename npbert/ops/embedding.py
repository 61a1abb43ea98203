"""BERT's input embedding: word + position + token type, gathered from three tables and summed."""

from typing import Any, NamedTuple

from npbert.ops.array_module import Array, array_module


class EmbeddingCache(NamedTuple):
    """What the backward pass needs from the forward pass: where each row went, never the rows."""

    input_ids: Array | None  # (B, T) int, None when the word vectors were given as inputs_embeds
    position_ids: Array  # (B, T) int
    token_type_ids: Array  # (B, T) int
    word_shape: tuple[int, int]  # (V, D)
    position_shape: tuple[int, int] | None  # (P, D), None without a position table
    token_type_shape: tuple[int, int]  # (S, D)
    padding_idx: int | None


def embedding_forward(
    input_ids: Array | None,
    inputs_embeds: Array | None,
    position_ids: Array,
    token_type_ids: Array,
    word_embeddings: Array,
    position_embeddings: Array | None,
    token_type_embeddings: Array,
    padding_idx: int | None,
) -> tuple[Array, EmbeddingCache]:
    """Sum the word, position and token-type vectors of every token.

    Exactly one of ``input_ids`` and ``inputs_embeds`` is given; the other is None. Position and
    token-type vectors are added on both paths.

    Parameters
    ----------
    input_ids : (B, T) integer or None
        Rows of ``word_embeddings``.
    inputs_embeds : (B, T, D) floating or None
        Word vectors that come from elsewhere and are used as they are.
    position_ids : (B, T) integer
        Rows of ``position_embeddings``; see :func:`default_position_ids`.
    token_type_ids : (B, T) integer
        Rows of ``token_type_embeddings``: which sentence a token belongs to.
    word_embeddings : (V, D) floating
    position_embeddings : (P, D) floating or None
        None where positions enter in the attention scores instead (relative positions).
    token_type_embeddings : (S, D) floating
    padding_idx : int or None
        This row of ``word_embeddings`` is read like any other, but gets no gradient.

    Returns
    -------
    y : (B, T, D)
    cache : EmbeddingCache

    References
    ----------
    Devlin et al., "BERT", arXiv:1810.04805, 2018, figure 2.

    Examples
    --------
    >>> import numpy as np
    >>> words, positions, types = np.eye(3), 10 * np.eye(3), np.array([[0.0, 0.5, 0.0]])
    >>> ids, position_ids, type_ids = np.array([[2, 0]]), np.array([[0, 1]]), np.array([[0, 0]])
    >>> y, cache = embedding_forward(ids, None, position_ids, type_ids, words, positions, types, None)
    >>> y
    array([[[10. ,  0.5,  1. ],
            [ 1. , 10.5,  0. ]]])
    """
    word_vectors = word_embeddings[input_ids] if inputs_embeds is None else inputs_embeds  # (B, T, D)
    y = word_vectors + token_type_embeddings[token_type_ids]  # (B, T, D)
    if position_embeddings is not None:
        y = y + position_embeddings[position_ids]  # (B, T, D)
    cache = EmbeddingCache(
        input_ids,
        position_ids,
        token_type_ids,
        word_embeddings.shape,
        None if position_embeddings is None else position_embeddings.shape,
        token_type_embeddings.shape,
        padding_idx,
    )
    return y, cache


def embedding_backward(
    dy: Array, cache: EmbeddingCache
) -> tuple[Array | None, Array | None, Array | None, Array]:
    """Backward of :func:`embedding_forward`.

    A lookup is a product with a one-hot matrix, ``y = onehot(ids) E``, so ``dE = onehot(ids)ᵀ dy``:
    every row of the table gets the sum of ``dy`` over the places where it was read. Ids repeat, so the
    rows must be *added*; ``dE[ids] = dy`` would keep only the last one.

    Parameters
    ----------
    dy : (B, T, D) floating
    cache : EmbeddingCache

    Returns
    -------
    dinputs_embeds : (B, T, D), or None where the forward took input_ids
    dword_embeddings : (V, D), or None where the forward took inputs_embeds
    dposition_embeddings : (P, D), or None without a position table
    dtoken_type_embeddings : (S, D)
    """
    dinputs_embeds = dword_embeddings = dposition_embeddings = None
    if cache.input_ids is None:
        dinputs_embeds = dy.copy()  # (B, T, D)
    else:
        dword_embeddings = scatter_add(dy, cache.input_ids, cache.word_shape)  # (V, D)
        if cache.padding_idx is not None:
            dword_embeddings[cache.padding_idx] = 0
    if cache.position_shape is not None:
        dposition_embeddings = scatter_add(dy, cache.position_ids, cache.position_shape)  # (P, D)
    dtoken_type_embeddings = scatter_add(dy, cache.token_type_ids, cache.token_type_shape)  # (S, D)
    return dinputs_embeds, dword_embeddings, dposition_embeddings, dtoken_type_embeddings


def scatter_add(rows: Array, ids: Array, shape: tuple[int, int]) -> Array:
    """Return a zero table of ``shape`` to which each row of ``rows`` was added at its id.

    Parameters
    ----------
    rows : (..., D) floating
    ids : (...) integer
    shape : (table rows, D)

    Returns
    -------
    table : array of ``shape``, in the dtype of ``rows``
    """
    xp = array_module(rows)
    table = xp.zeros(shape, dtype=rows.dtype)
    xp.add.at(table, ids, rows)
    return table


def default_position_ids(batch: int, tokens: int, past_key_values_length: int, xp: Any) -> Array:
    """Position ids for text without explicit ones: ``past, past + 1, ...`` in every row.

    Parameters
    ----------
    batch, tokens : int
    past_key_values_length : int
        How many tokens came before this piece of the text.
    xp : module
        numpy or cupy.

    Returns
    -------
    position_ids : (B, T) int64
    """
    positions = xp.arange(past_key_values_length, past_key_values_length + tokens, dtype=xp.int64)
    return xp.broadcast_to(positions, (batch, tokens))


def sinusoidal_positions(positions: int, hidden_size: int, xp: Any) -> Array:
    """The fixed position table of the original Transformer: sines in even columns, cosines in odd ones.

    ``table[p, 2i] = sin(p / 10000^(2i/D))`` and ``table[p, 2i+1] = cos(p / 10000^(2i/D))``.

    Parameters
    ----------
    positions, hidden_size : int
        P and D.
    xp : module
        numpy or cupy.

    Returns
    -------
    table : (P, D) float64

    References
    ----------
    Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, 2017, section 3.5.
    """
    columns = xp.arange(hidden_size)  # (D,)
    wavelengths = 10000.0 ** (2 * (columns // 2) / hidden_size)  # (D,)
    angles = xp.arange(positions)[:, None] / wavelengths  # (P, D)
    return xp.where(columns % 2 == 0, xp.sin(angles), xp.cos(angles))
