"""Inference without padding: texts lie one after the other, and no row is computed that nobody reads.

What :mod:`npbert.model` does with padded batches, arranged for a processor: the tokens of a few texts are
the rows of one matrix, small enough to stay in the cache; each product is followed at once by what belongs to
its rows, in place; only the scores of attention know where a text ends. Each worker has texts of its own and
one BLAS thread. Nothing is kept for a way back.
"""

import math
import threading
from collections.abc import Callable, Sequence

import numpy as np

from npbert import ops
from npbert.config import BertConfig
from npbert.cpu.gelu import gelu_in_place
from npbert.cpu.layernorm import layernorm_in_place
from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.ops.activations import GELU_FORMS
from npbert.ops.array_module import Array
from npbert.params import Params, subset
from npbert.pooling import PoolingSettings

# Rows of a chunk of texts: its six (rows, D) matrices are to stay in the second-level cache.
CHUNK_TOKENS = 1024
# Rows that go through the feed-forward part together: (rows, F) is its widest matrix.
FEED_FORWARD_ROWS = 256
# Scores that are computed together.
SCORES = 1 << 18


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

    Returns
    -------
    vectors : (n, D) floating, in the dtype of the parameters
    """
    dtype = params["embeddings.word_embeddings.weight"].dtype
    vectors = np.empty((len(rows), config.hidden_size), dtype)
    tables = _EmbeddingTables(params, config)
    layers = [subset(params, f"encoder.layer.{layer}.") for layer in range(config.num_hidden_layers)]

    one_at_a_time = threading.Lock()

    def encode(chunk: list[int]) -> None:
        texts = [np.asarray(rows[index], dtype=np.int64) for index in chunk]
        lengths = [len(text) for text in texts]
        hidden = tables.look_up(texts)
        for layer in layers:
            _encoder_layer(layer, config, hidden, lengths)
        vectors[chunk] = _pool(hidden, lengths, settings)
        with one_at_a_time:
            advance(len(chunk))

    share_out(encode, chunks_by_tokens([len(row) for row in rows], min(batch_tokens, CHUNK_TOKENS)))
    return vectors


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


class _EmbeddingTables:
    """The embedding of tokens of the first segment, at positions that begin with 0 in each text."""

    def __init__(self, params: Params, config: BertConfig) -> None:
        self.words = params["embeddings.word_embeddings.weight"]
        if config.position_embedding_type == "absolute":
            positions = params["embeddings.position_embeddings.weight"]
        else:
            table = ops.sinusoidal_positions(config.max_position_embeddings, config.hidden_size, np)
            positions = table.astype(self.words.dtype)
        self.positions = positions + params["embeddings.token_type_embeddings.weight"][0]  # (P, D)
        self.weight = params["embeddings.LayerNorm.weight"]
        self.bias = params["embeddings.LayerNorm.bias"]
        self.eps = config.layer_norm_eps

    def look_up(self, texts: Sequence[Array]) -> Array:
        """Return the (tokens, D) vectors of the texts, one after the other, in scratch memory."""
        ids = np.concatenate(texts)
        hidden = scratch("hidden", (len(ids), self.words.shape[1]), self.words.dtype)
        np.take(self.words, ids, axis=0, out=hidden, mode="clip")  # "raise" would go through a copy
        start = 0
        for text in texts:
            hidden[start : start + len(text)] += self.positions[: len(text)]
            start += len(text)
        layernorm_in_place(hidden, self.weight, self.bias, self.eps)
        return hidden


def _encoder_layer(params: Params, config: BertConfig, hidden: Array, lengths: Sequence[int]) -> None:
    """Apply one layer to ``hidden``, (tokens, D), in place."""
    tokens, width = hidden.shape
    q, k, v, context = (scratch(name, hidden.shape, hidden.dtype) for name in ("q", "k", "v", "context"))
    _linear(params, "attention.self.query", hidden, q)
    q *= 1 / math.sqrt(width // config.num_attention_heads)  # here, where it is cheaper than on the scores
    _linear(params, "attention.self.key", hidden, k)
    _linear(params, "attention.self.value", hidden, v)
    start = 0
    for count, length in _runs(lengths):
        rows = slice(start, start + count * length)
        shape = (count, length, config.num_attention_heads, -1)
        _attention(*(x[rows].reshape(shape).swapaxes(1, 2) for x in (q, k, v, context)))
        start = rows.stop
    for rows in row_blocks(tokens, FEED_FORWARD_ROWS):
        _rest_of_the_layer(params, config, hidden[rows], context[rows])


def _rest_of_the_layer(params: Params, config: BertConfig, hidden: Array, context: Array) -> None:
    """Do what a token does alone, from the projection of the attention's result on; ``hidden`` in place."""
    rows = len(hidden)
    out = scratch("out", hidden.shape, hidden.dtype)
    wide = scratch("wide", (rows, config.intermediate_size), hidden.dtype)
    _linear(params, "attention.output.dense", context, out)
    hidden += out
    _layernorm(params, "attention.output.LayerNorm", hidden, config)
    _linear(params, "intermediate.dense", hidden, wide)
    _activate(wide, config.hidden_act)
    _linear(params, "output.dense", wide, out)
    hidden += out
    _layernorm(params, "output.LayerNorm", hidden, config)


def _attention(q: Array, k: Array, v: Array, context: Array) -> None:
    """Write softmax(q kᵀ) v of texts of one length to ``context``; all are (n, N, T, H) views.

    The sums of the softmax divide the context, not the probabilities: T x H numbers, not T x T.
    """
    count, heads, length, _ = q.shape
    together = max(1, SCORES // (heads * length * length))
    for part in row_blocks(count, together):
        texts = part.stop - part.start
        scores = scratch("scores", (texts, heads, length, length), q.dtype)
        np.matmul(q[part], k[part].swapaxes(-1, -2), out=scores)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        totals = scores.sum(axis=-1, keepdims=True)
        np.matmul(scores, v[part], out=context[part])
        context[part] /= totals


def _pool(hidden: Array, lengths: Sequence[int], settings: PoolingSettings) -> Array:
    """Make one vector of each text's rows."""
    starts = np.cumsum([0, *lengths[:-1]])
    if settings.mode == "cls":
        pooled = hidden[starts]
    else:
        pooled = np.add.reduceat(hidden, starts, axis=0)
        pooled /= np.array(lengths, dtype=hidden.dtype)[:, None]
    if settings.normalize:
        pooled, _ = ops.l2_normalize_forward(pooled)
    return pooled


def _runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many texts in a row have the same length, and that length.

    Examples
    --------
    >>> _runs([7, 7, 4])
    [(2, 7), (1, 4)]
    """
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + 1, length)
        else:
            runs.append((1, length))
    return runs


def _linear(params: Params, name: str, x: Array, out: Array) -> None:
    np.matmul(x, params[f"{name}.weight"].T, out=out)
    out += params[f"{name}.bias"]


def _layernorm(params: Params, name: str, x: Array, config: BertConfig) -> None:
    layernorm_in_place(x, params[f"{name}.weight"], params[f"{name}.bias"], config.layer_norm_eps)


def _activate(x: Array, name: str) -> None:
    if name in GELU_FORMS and x.dtype == np.float32:
        gelu_in_place(x, GELU_FORMS[name])
    else:
        x[...] = ops.activation_forward(x, name)[0]
