"""Inference without padding: texts lie one after the other, and no token is computed that nobody reads.

What :mod:`npbert.model` does with padded batches, arranged for a processor: the tokens of a few texts are
the columns of one matrix; each product is followed at once by what belongs to it, in place; only the scores
of attention know where a text ends. Each worker has texts of its own and one BLAS thread; of a single text,
BLAS shares out the products. Nothing is kept for a way back.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np

from npbert import ops
from npbert.config import BertConfig
from npbert.cpu.column_layer import encoder_layer, layer_norm
from npbert.cpu.invariance import choose_packing
from npbert.cpu.rows import chunk_count
from npbert.cpu.workers import scratch, share_out, single_threaded_blas
from npbert.ops.array_module import Array
from npbert.params import Params, subset
from npbert.pooling import PoolingSettings

# Columns of a chunk of texts: enough for BLAS to be at its best; a multiple of 16.
CHUNK_TOKENS = 1008
# Fewer tokens are not worth a chunk of their own.
LEAST_CHUNK_TOKENS = 200


def is_packable(config: BertConfig) -> bool:
    """Return whether texts of such a model can be packed: not with relative positions."""
    return config.position_embedding_type in ("absolute", "sinusoidal")


def encode_packed(
    params: Params,
    config: BertConfig,
    rows: Sequence[Sequence[int]],
    settings: PoolingSettings,
    batch_tokens: int,
    advance: Callable[[int], None],
    batch_invariant: bool | None = None,
) -> Array:
    """Turn texts into vectors.

    Parameters
    ----------
    params : dict of str to array
        The body's, without ``"bert."``.
    config : BertConfig
        One that `is_packable`.
    rows : sequence of sequence of int
        The ids of each text, of which none is empty.
    settings : PoolingSettings
    batch_tokens : int
        The most tokens that a worker has at once; a longer text runs alone.
    advance : callable
        Called with a number of texts when these are done.
    batch_invariant : bool or None
        Whether a text's vector has the same bits whatever the other texts are, and however many threads
        there are. None: if it costs little; see `npbert.cpu.invariance.choose_packing`.

    Returns
    -------
    vectors : (n, D) floating, in the dtype of the parameters
    """
    embeddings = _Embeddings(params, config)
    dtype = embeddings.words.dtype
    layers = [subset(params, f"encoder.layer.{layer}.") for layer in range(config.num_hidden_layers)]
    vectors = np.empty((len(rows), config.hidden_size), dtype)
    packing = choose_packing(dtype, batch_invariant)
    smallest_weight = config.hidden_size * min(config.hidden_size, config.intermediate_size)
    one_at_a_time = threading.Lock()

    def encode(chunk: list[int]) -> None:
        texts = [np.asarray(rows[index], dtype=np.int64) for index in chunk]
        tokens = [len(text) for text in texts]
        hidden = embeddings.look_up(texts, packing.columns(sum(tokens), smallest_weight))
        for layer in layers:
            encoder_layer(layer, config, hidden, tokens)
        vectors[chunk] = _pool(hidden, tokens, settings)
        with one_at_a_time:
            advance(len(chunk))

    lengths = [len(row) for row in rows]
    most = 1 if packing.one_text else chunk_size(sum(lengths), min(batch_tokens, CHUNK_TOKENS))
    with single_threaded_blas() if packing.one_thread else nullcontext():
        share_out(encode, chunks_by_tokens(lengths, most))
    return vectors


def chunk_size(tokens: int, most: int) -> int:
    """Return how many tokens to put in a chunk, at most ``most``, so that a few chunks are of about one size.

    Examples
    --------
    >>> chunk_size(128, 1008), chunk_size(1024, 1008), chunk_size(100_000, 1008)
    (128, 256, 1000)
    """
    return max(1, -(-tokens // chunk_count(tokens, most, LEAST_CHUNK_TOKENS)))


def chunks_by_tokens(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return indices of texts, longest first, in chunks of at most ``most`` tokens; a longer text is alone.

    Examples
    --------
    >>> chunks_by_tokens([3, 9, 1, 3], 6)
    [[1], [0, 3], [2]]
    """
    chunks: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not chunks or lengths[index] > room:
            chunks.append([])
            room = most
        chunks[-1].append(index)
        room -= lengths[index]
    return chunks


class _Embeddings:
    """The embedding of tokens of the first segment, at positions that begin with 0 in each text."""

    def __init__(self, params: Params, config: BertConfig) -> None:
        self.params = subset(params, "embeddings.")
        self.words = self.params["word_embeddings.weight"]
        if config.position_embedding_type == "absolute":
            self.positions = self.params["position_embeddings.weight"]
        else:
            table = ops.sinusoidal_positions(config.max_position_embeddings, config.hidden_size, np)
            self.positions = table.astype(self.words.dtype)
        self.eps = config.layer_norm_eps

    def look_up(self, texts: Sequence[Array], columns: int) -> Array:
        """Return the vectors of the texts' tokens, (D, columns), then zeros, in scratch memory."""
        ids = np.concatenate(texts)
        rows = scratch("embedded", (len(ids), self.words.shape[1]), self.words.dtype)
        np.take(self.words, ids, axis=0, out=rows, mode="clip")  # "raise" would copy; ids were checked
        start = 0
        for text in texts:
            rows[start : start + len(text)] += self.positions[: len(text)]
            start += len(text)
        rows += self.params["token_type_embeddings.weight"][0]
        hidden = scratch("hidden", (rows.shape[1], columns), rows.dtype)
        hidden[:, : len(ids)] = rows.T
        hidden[:, len(ids) :] = 0
        layer_norm(hidden, self.params, "LayerNorm", self.eps)
        return hidden


def _pool(hidden: Array, lengths: Sequence[int], settings: PoolingSettings) -> Array:
    """Make one vector of each text's columns."""
    starts = np.cumsum([0, *lengths[:-1]])
    if settings.mode == "cls":
        pooled = hidden[:, starts].T
    else:
        pooled = np.add.reduceat(hidden[:, : sum(lengths)], starts, axis=1).T
        pooled /= np.array(lengths, dtype=hidden.dtype)[:, None]
    if settings.normalize:
        pooled, _ = ops.l2_normalize_forward(pooled)
    return pooled
