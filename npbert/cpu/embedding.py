"""BERT's input embedding: gathered and summed in blocks of tokens; a scatter that sums runs of rows.

The textbook's scatter, ``np.add.at``, adds one number at a time. Here the places of a batch are sorted by
their ids, so that all places of a table row are neighbours, and each run is one sum over rows. The sort is
stable and the runs are cut where the batch alone says: the same bits for any number of workers.
"""

import numpy as np

from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.cpu.workspace import recycled
from npbert.ops import embedding as textbook
from npbert.ops.array_module import Array
from npbert.ops.embedding import EmbeddingCache

# Elements: few calls count for more than the cache, because after each a thread waits for Python's lock.
BLOCK = 1 << 18


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
    """Sum the word, position and token-type vectors of every token; see :func:`npbert.ops.embedding_forward`.

    Parameters
    ----------
    input_ids : (B, T) integer or None
        Rows of ``word_embeddings``. Exactly one of this and ``inputs_embeds`` is given.
    inputs_embeds : (B, T, D) floating or None
        Word vectors that come from elsewhere and are used as they are.
    position_ids : (B, T) integer
        Rows of ``position_embeddings``.
    token_type_ids : (B, T) integer
        Rows of ``token_type_embeddings``.
    word_embeddings : (V, D) float32 or float64, as are the other floating arrays
        Anything else, and ids outside their tables, are left to the textbook.
    position_embeddings : (P, D) floating or None
    token_type_embeddings : (S, D) floating
    padding_idx : int or None
        This row of ``word_embeddings`` is read like any other, but gets no gradient.

    Returns
    -------
    y : (B, T, D)
    cache : EmbeddingCache
    """
    # The word vectors, then what is added to them, in the textbook's order; ids None: a row a token.
    lookups = [
        (input_ids, word_embeddings) if inputs_embeds is None else (None, inputs_embeds),
        (token_type_ids, token_type_embeddings),
    ]
    if position_embeddings is not None:
        lookups.append((position_ids, position_embeddings))
    if not all(_is_fast(ids, table, word_embeddings.dtype) for ids, table in lookups):
        return textbook.embedding_forward(
            input_ids,
            inputs_embeds,
            position_ids,
            token_type_ids,
            word_embeddings,
            position_embeddings,
            token_type_embeddings,
            padding_idx,
        )
    width = word_embeddings.shape[1]
    y = np.empty((token_type_ids.size, width), word_embeddings.dtype)
    flat = [(None if ids is None else ids.reshape(-1), table.reshape(-1, width)) for ids, table in lookups]

    def work(part: slice) -> None:
        y_part = y[part]
        _gather(*flat[0], part, out=y_part)
        gathered = scratch("embedding rows", y_part.shape, y.dtype)
        for ids, table in flat[1:]:
            y_part += _gather(ids, table, part, out=gathered)

    share_out(work, row_blocks(len(y), _block_rows(width)))
    cache = EmbeddingCache(
        input_ids,
        position_ids,
        token_type_ids,
        word_embeddings.shape,
        None if position_embeddings is None else position_embeddings.shape,
        token_type_embeddings.shape,
        padding_idx,
    )
    return y.reshape(*token_type_ids.shape, width), cache


def embedding_backward(
    dy: Array, cache: EmbeddingCache
) -> tuple[Array | None, Array | None, Array | None, Array]:
    """Backward of :func:`embedding_forward`; see :func:`npbert.ops.embedding_backward`.

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
        dinputs_embeds = dy.copy()
    else:
        dword_embeddings = scatter_add(dy, cache.input_ids, cache.word_shape)
        if cache.padding_idx is not None:
            dword_embeddings[cache.padding_idx] = 0
    if cache.position_shape is not None:
        dposition_embeddings = scatter_add(dy, cache.position_ids, cache.position_shape)
    dtoken_type_embeddings = scatter_add(dy, cache.token_type_ids, cache.token_type_shape)
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
    table = recycled(shape, rows.dtype)
    if not _is_fast(ids, table, rows.dtype):
        return textbook.scatter_add(rows, ids, shape)
    share_out(lambda part: table[part].fill(0), row_blocks(len(table), _block_rows(shape[1])))
    rows = rows.reshape(-1, shape[1])
    order = np.argsort(ids, axis=None, kind="stable")
    ids = ids.reshape(-1)[order]
    parts = row_blocks(len(order), _block_rows(shape[1]))
    # What a block finds of a run that began in an earlier one. Whoever has the beginning writes to the table.
    carried = np.zeros((len(parts), shape[1]), rows.dtype)

    def work(piece: int) -> None:
        part = parts[piece]
        sorted_rows = np.take(
            rows,
            order[part],
            axis=0,
            out=scratch("embedding rows", (part.stop - part.start, shape[1]), rows.dtype),
            mode="clip",
        )
        part_ids = ids[part]
        bounds = np.flatnonzero(part_ids[1:] != part_ids[:-1]) + 1
        starts, ends = np.append(0, bounds), np.append(bounds, len(part_ids))
        if part.start > 0 and ids[part.start - 1] == part_ids[0]:
            np.add.reduce(sorted_rows[: ends[0]], axis=0, out=carried[piece])
            starts, ends = starts[1:], ends[1:]
        alone = starts + 1 == ends
        table[part_ids[starts[alone]]] = sorted_rows[starts[alone]]
        for start, end in zip(starts[~alone].tolist(), ends[~alone].tolist(), strict=True):
            np.add.reduce(sorted_rows[start:end], axis=0, out=table[part_ids[start]])

    share_out(work, range(len(parts)))
    for part, row in zip(parts, carried, strict=True):
        table[ids[part.start]] += row
    return table


def _gather(ids: Array | None, table: Array, part: slice, out: Array) -> Array:
    """Write the rows of ``table`` that these tokens read to ``out``, and return it."""
    if ids is None:
        out[:] = table[part]
        return out
    return table.take(ids[part], axis=0, out=out, mode="clip")  # nothing is out of range; faster than "raise"


def _block_rows(width: int) -> int:
    return max(BLOCK // max(width, 1), 1)


def _is_fast(ids: Array | None, table: Array, dtype: np.dtype) -> bool:
    """Return whether a table is of this dtype, one that the blocks are for, and has rows of all these ids."""
    if table.dtype != dtype or dtype not in (np.float32, np.float64):
        return False
    return ids is None or (ids.size > 0 and ids.min() >= 0 and ids.max() < len(table))
