"""Texts without padding: which tokens of a batch are computed, as the rows of one matrix, and in what pieces.

A token is left out if attention may not look at it and nothing after the encoder does. The last layer
computes only what something after the encoder looks at: in pre-training one token of six, in classification
the first of each text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npbert.ops.array_module import Array

Places = slice | Array  # some of the elements of an axis: a slice where they lie in a row

# Rows of a chunk of texts: enough for a product to be fast, and few enough for a layer's matrices to stay
# near the core.
CHUNK_ROWS = 1024
LEAST_CHUNK_ROWS = 256
CHUNKS_TOGETHER = 4  # a multiple of it, where there is enough to do: so much for 2 or 4 workers, each


class Text(NamedTuple):
    """The rows of a text."""

    number: int  # which text of the batch this is
    rows: slice  # among those of the chunk
    tokens: Places  # which of the text's T tokens these are
    keys: Places  # which of these rows attention may look at
    queries: slice  # of which rows a layer's result is wanted, among those of the chunk of which it is
    query_tokens: Places  # which of the text's T tokens these are


class Chunk(NamedTuple):
    """Texts that are worked on together."""

    rows: slice  # among those of all chunks
    texts: list[Text]
    wanted: Places  # of which of its rows a layer's result is wanted
    wanted_rows: slice  # these, among those of all chunks


class Packing(NamedTuple):
    """Which tokens are the rows of a matrix."""

    places: Array  # (R,) int, each row's place among the B * T tokens
    chunks: list[Chunk]  # as all layers but the last have them: each row's result is wanted
    last_chunks: list[Chunk]  # of the last layer: wanted are the rows that are looked at afterwards


def pack(shape: tuple[int, int], key_mask: Array | None, read_mask: Array | None) -> Packing:
    """Lay texts one after the other, without the tokens that nobody looks at.

    Parameters
    ----------
    shape : (B, T)
    key_mask : (B, T) bool or None
        True where attention may look; None: everywhere.
    read_mask : (B, T) bool or None
        True where the result is looked at; None: everywhere.

    Returns
    -------
    Packing
        The masks alone decide what it is.
    """
    keys = np.ones(shape, bool) if key_mask is None else key_mask
    read = np.ones(shape, bool) if read_mask is None else read_mask
    kept = keys | read
    lengths = kept.sum(axis=1).tolist()
    places = []
    chunks = []
    start = 0  # of the chunk, among all rows
    for indices in chunks_of_texts(lengths):
        texts = []
        row = 0  # in the chunk
        for index in indices:
            tokens = np.flatnonzero(kept[index])
            places.append(index * shape[1] + tokens)
            rows = slice(row, row + len(tokens))
            there = _places(kept[index])
            texts.append(Text(index, rows, there, _places(keys[index, tokens]), rows, there))
            row = rows.stop
        rows = slice(start, start + row)
        chunks.append(Chunk(rows, texts, slice(0, row), rows))
        start += row
    all_places = np.concatenate(places) if places else np.empty(0, np.int64)
    return Packing(all_places, chunks, _last_chunks(chunks, all_places, read))


def _last_chunks(chunks: list[Chunk], places: Array, read: Array) -> list[Chunk]:
    """Return the chunks of a layer of which only the tokens in ``read`` are wanted."""
    last = []
    start = 0  # of the chunk's wanted rows, among all
    for chunk in chunks:
        texts = []
        row = 0  # in the chunk, among the wanted ones
        for text in chunk.texts:
            tokens = read[text.number]
            queries = slice(row, row + int(np.count_nonzero(tokens)))
            texts.append(text._replace(queries=queries, query_tokens=_places(tokens)))
            row = queries.stop
        wanted = _places(read.reshape(-1)[places[chunk.rows]])
        last.append(Chunk(chunk.rows, texts, wanted, slice(start, start + row)))
        start += row
    return last


def wanted_count(chunks: Sequence[Chunk]) -> int:
    """Return of how many rows a layer's result is wanted."""
    return chunks[-1].wanted_rows.stop if chunks else 0


def chunks_of_texts(lengths: Sequence[int]) -> list[list[int]]:
    """Share texts out to chunks with about as many rows each, by their lengths alone; not those without rows.

    Examples
    --------
    >>> chunks_of_texts([200, 100, 0, 190, 90])
    [[0, 4], [3, 1]]
    """
    total = sum(lengths)
    chunks: list[list[int]] = [[] for _ in range(chunk_count(total, CHUNK_ROWS, LEAST_CHUNK_ROWS))]
    filled = [0] * len(chunks)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if lengths[index] > 0:
            emptiest = filled.index(min(filled))
            chunks[emptiest].append(index)
            filled[emptiest] += lengths[index]
    return [chunk for chunk in chunks if chunk]


def chunk_count(tokens: int, most: int, least: int) -> int:
    """Return into how many chunks of ``most`` tokens on average, at most, to cut so many tokens.

    If that leaves ``least`` for each, a multiple of `CHUNKS_TOGETHER`, or else of 2.

    Examples
    --------
    >>> [chunk_count(tokens, most=1000, least=200) for tokens in (0, 300, 700, 900, 4100)]
    [1, 1, 2, 4, 8]
    """
    needed = max(1, -(-tokens // most))
    for together in (CHUNKS_TOGETHER, 2):
        count = -(-needed // together) * together
        if count * least <= tokens:
            return count
    return needed


def _places(mask: Array) -> Places:
    """Return where a mask is True: a slice where that is the first few."""
    count = int(np.count_nonzero(mask))
    return slice(count) if mask[:count].all() else np.flatnonzero(mask)
