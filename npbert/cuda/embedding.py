"""BERT's input embedding as two kernels: a gather-sum, and a scatter that adds in a fixed order.

The textbook's scatter, ``xp.add.at``, adds atomically on a GPU: in another order, to other last bits, in each
run. Here the places of a batch are sorted by their ids, so that all places of a table row are neighbours, and
each row is summed by one warp; ``kernels/embedding.cu`` says how long rows are split.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npbert.cuda.arguments import check_floating, check_one_place, check_shape
from npbert.cuda.runtime import Kernel, launch, storage_defines
from npbert.inputs import check_range
from npbert.ops.array_module import Array, array_module
from npbert.ops.embedding import EmbeddingCache

FILE = "embedding.cu"
WARP = 32
WARPS = 8  # of a block; each has a row of its own
SHORTEST_CHUNK = 32  # places; shorter ones would only make more partial sums
WIDEST_MOVE = 16  # bytes that a thread reads at once


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

    See :func:`npbert.ops.embedding_forward`. Ids in NumPy arrays are checked. Those in CuPy arrays are not,
    since the host would have to wait for the device (:mod:`npbert.inputs` has checked what a user passed): an
    id outside its table reads nothing there, its token's vector is NaN, and it gets no gradient.

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
    word_embeddings : (V, D) floating
        float64, float32 or float16, as are the other floating arrays, all of one dtype.
    position_embeddings : (P, D) floating or None
    token_type_embeddings : (S, D) floating
    padding_idx : int or None
        This row of ``word_embeddings`` is read like any other, but gets no gradient.

    Returns
    -------
    y : (B, T, D)
    cache : EmbeddingCache
        The textbook's; its ids are int64 and contiguous.

    Raises
    ------
    ValueError
        For a wrong dtype or shape, arrays in different places, or, in NumPy arrays, an id outside its table.
    """
    tables = {
        "word_embeddings": word_embeddings,
        "position_embeddings": position_embeddings,
        "token_type_embeddings": token_type_embeddings,
    }
    ids = {"input_ids": input_ids, "position_ids": position_ids, "token_type_ids": token_type_ids}
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise ValueError(f"embedding_forward: {given} of input_ids and inputs_embeds given; one is needed")
    _check_tables(tables, inputs_embeds, padding_idx)
    _check_ids(ids, tables)
    shape, width = token_type_ids.shape, word_embeddings.shape[1]
    if inputs_embeds is not None:
        check_shape("embedding_forward", "inputs_embeds", inputs_embeds, (*shape, width))

    input_ids, position_ids, token_type_ids = (_contiguous(array, np.int64) for array in ids.values())
    words, positions, types = (_contiguous(table) for table in tables.values())
    word_vectors = words if inputs_embeds is None else _contiguous(inputs_embeds)
    tokens = math.prod(shape)
    y = array_module(types).empty((*shape, width), dtype=types.dtype)
    launch(
        Kernel(FILE, "embedding_forward", storage_defines(y.dtype)),
        grid=_grid(tokens, y),
        block=(WARP, WARPS),
        args=[
            word_vectors,
            positions,
            types,
            input_ids,
            position_ids,
            token_type_ids,
            y,
            tokens,
            width,
            tokens if inputs_embeds is not None else len(words),
            0 if positions is None else len(positions),
            len(types),
        ],
    )
    cache = EmbeddingCache(
        input_ids,
        position_ids,
        token_type_ids,
        words.shape,
        None if positions is None else positions.shape,
        types.shape,
        padding_idx,
    )
    return y, cache


def embedding_backward(
    dy: Array, cache: EmbeddingCache
) -> tuple[Array | None, Array | None, Array | None, Array]:
    """Backward of :func:`embedding_forward`: deterministic, two runs give the same bits.

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

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    op = "embedding_backward"
    check_floating(op, dy=dy)
    check_one_place(op, dy=dy, token_type_ids=cache.token_type_ids)
    check_shape(op, "dy", dy, (*cache.token_type_ids.shape, cache.token_type_shape[1]))
    dy = array_module(dy).ascontiguousarray(dy)

    dinputs_embeds = dword_embeddings = dposition_embeddings = None
    if cache.input_ids is None:
        dinputs_embeds = dy.copy()
    else:
        dword_embeddings = scatter_add(dy, cache.input_ids, cache.word_shape, cache.padding_idx)
    if cache.position_shape is not None:
        dposition_embeddings = scatter_add(dy, cache.position_ids, cache.position_shape)
    dtoken_type_embeddings = scatter_add(dy, cache.token_type_ids, cache.token_type_shape)
    return dinputs_embeds, dword_embeddings, dposition_embeddings, dtoken_type_embeddings


def scatter_add(rows: Array, ids: Array, shape: tuple[int, int], padding_idx: int | None = None) -> Array:
    """Return a zero table of ``shape`` to which each row of ``rows`` was added at its id, in order.

    Parameters
    ----------
    rows : (..., D) floating
        float64, float32 or float16 (added up in float32).
    ids : (...) integer
        What is outside the table is left out.
    shape : (table rows, D)
    padding_idx : int or None
        This row of the table stays zero.

    Returns
    -------
    table : array of ``shape``, in the dtype of ``rows``
    """
    xp = array_module(rows)
    rows = xp.ascontiguousarray(rows)
    ids = xp.ascontiguousarray(ids, dtype=np.int64).reshape(-1)
    places, width = ids.size, shape[1]

    order = xp.argsort(ids, kind="stable").astype(np.int64, copy=False)
    starts = xp.searchsorted(ids[order], xp.arange(shape[0] + 1)).astype(np.int64, copy=False)
    # As many chunks as places in a chunk: then no warp has more than about sqrt(places) rows to add.
    chunk = max(math.isqrt(places), SHORTEST_CHUNK)
    chunks = -(-places // chunk)

    defines = storage_defines(rows.dtype)
    partial = xp.empty((chunks, width), dtype=np.float64 if rows.dtype == np.float64 else np.float32)
    table = xp.empty(shape, dtype=rows.dtype)
    padding = -1 if padding_idx is None else padding_idx
    launch(
        Kernel(FILE, "embedding_chunk_sums", defines),
        grid=_grid(chunks, rows),
        block=(WARP, WARPS),
        args=[rows, ids, order, starts, partial, places, width, shape[0], chunk, padding],
    )
    launch(
        Kernel(FILE, "embedding_table_gradient", defines),
        grid=_grid(shape[0], rows),
        block=(WARP, WARPS),
        args=[rows, order, starts, partial, table, width, shape[0], chunk, padding],
    )
    return table


def _grid(rows: int, array: Array) -> tuple[int, int]:
    """A warp a row and a pack of columns a thread; at least one block, which may find nothing to do."""
    columns_of_a_warp = WARP * WIDEST_MOVE // array.dtype.itemsize
    return max(-(-rows // WARPS), 1), max(-(-array.shape[-1] // columns_of_a_warp), 1)


def _contiguous(array: Array | None, dtype: DTypeLike | None = None) -> Any:
    return None if array is None else array_module(array).ascontiguousarray(array, dtype=dtype)


def _check_tables(tables: dict[str, Any], inputs_embeds: Array | None, padding_idx: int | None) -> None:
    op = "embedding_forward"
    check_floating(op, **tables, inputs_embeds=inputs_embeds)
    rows, width = (*tables["word_embeddings"].shape, 0, 0)[:2]
    for name, table in tables.items():
        if table is not None and (table.ndim != 2 or table.shape[1] != width):
            raise ValueError(
                f"{op}: {name} has shape {table.shape}; expected (rows, D), D of word_embeddings"
            )
    if padding_idx is not None and not 0 <= padding_idx < rows:
        raise ValueError(
            f"{op}: padding_idx is {padding_idx}; it must be in [0, {rows}), a row of word_embeddings"
        )


def _check_ids(ids: dict[str, Any], tables: dict[str, Any]) -> None:
    """Check that ids are integers, one a token, and that the tables have those rows: in NumPy arrays only."""
    op = "embedding_forward"
    given = {name: array for name, array in ids.items() if array is not None}
    for name, array in given.items():
        if not hasattr(array, "dtype") or array.dtype.kind not in "iu":
            what = getattr(array, "dtype", type(array).__name__)
            raise ValueError(f"{op}: {name} is {what}; it must be an array of integers")
    check_one_place(op, **given, **tables)
    for (name, array), (table_name, table) in zip(ids.items(), tables.items(), strict=True):
        if array is not None:
            check_shape(op, name, array, ids["token_type_ids"].shape)
            if table is not None and array_module(array) is np:
                check_range(f"{op}: {name}", array, len(table), f"the number of rows of {table_name}")
