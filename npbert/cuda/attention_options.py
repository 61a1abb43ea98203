"""What every attention kernel is told beside q, k and v: where the texts lie, and what the scores go through.

The kernels work on *rows*: ``(tokens, N, H)`` arrays in C order, all texts one after the other. A padded
batch ``(B, T, N, H)`` is such an array as it lies in memory, with ``B * T`` rows; a packed batch has no
padding at all, and a list of where each text begins. Both are the same to a kernel.

An attention variant is a module with a pair of functions of these signatures
(:mod:`npbert.cuda.softmax_attention_scalar`, :mod:`npbert.cuda.softmax_attention_mma`)::

    attention_forward(q, k, v, sequences, options) -> context, lse
    attention_backward(dcontext, q, k, v, context, lse, sequences, options) -> dq, dk, dv, dbias

======================= ====================================== =============================================
array                   shape                                  dtype
======================= ====================================== =============================================
q, dq, context          (query tokens, N, H)                   float64, float32 or float16
k, v, dk, dv            (key tokens, N, H)                     that of q
lse                     (N, query tokens)                      that of the sums: float32 for float16
bias, dbias             (B, N, max_queries, max_keys)          that of q; dbias is None where bias is
======================= ====================================== =============================================

``lse`` is the log-sum-exp of each row of scores; +inf says that the row had no key to look at.
"""

import math
from typing import Any, NamedTuple

from npbert.attention_dropout import AttentionDropout
from npbert.ops.array_module import Array


class Sequences(NamedTuple):
    """Where each text's rows are.

    Text ``b`` has the query rows ``query_starts[b] <= row < query_starts[b + 1]``, and its keys likewise.
    None in place of starts says that the texts are padded: each has exactly ``max_queries`` (``max_keys``)
    rows, and the first begins at row 0.
    """

    texts: int  # B
    max_queries: int  # at least the longest text's; the T of bias, keep_mask and dropout's index
    max_keys: int
    query_starts: Array | None = None  # (B + 1,) int32, not falling, the last one is the number of rows
    key_starts: Array | None = None  # (B + 1,) int32


class AttentionOptions(NamedTuple):
    """What the scores and the probabilities go through; at most one of keep_mask and dropout is given."""

    bias: Array | None = None  # (B, N, max_queries, max_keys), added to the scores before they are scaled
    key_mask: Array | None = None  # (key tokens,) bool, True = may be looked at
    keep_mask: Array | None = None  # (B, N, max_queries, max_keys) bool, True = survives dropout
    keep_rate: float = 0.0  # the rate that keep_mask was drawn with
    dropout: AttentionDropout | None = None

    @property
    def survivor_scale(self) -> float:
        """What a probability that survives is multiplied by, so that the expected value stays."""
        if self.dropout is not None:
            return 1.0 / (1.0 - self.dropout.rate)
        return 1.0 if self.keep_mask is None else 1.0 / (1.0 - self.keep_rate)


def score_scale(head_width: int) -> float:
    """1 / sqrt(H): what scores, bias included, are multiplied by."""
    return 1 / math.sqrt(head_width)


def blocks_of_tiles(texts: int, heads: int, longest: int, tile_rows: int) -> int:
    """Return how many blocks a grid has, with one for each tile of rows of each head of each text."""
    return texts * heads * -(-longest // tile_rows)


def layout_arguments(q: Array, sequences: Sequences) -> list[Any]:
    """Return the arguments of every attention kernel that say where rows are."""
    return [
        sequences.query_starts,
        sequences.key_starts,
        q.shape[1],
        sequences.max_queries,
        sequences.max_keys,
        q.shape[0],
    ]


def scoring_arguments(options: AttentionOptions) -> list[Any]:
    """Return the arguments of every attention kernel that say what is masked and dropped."""
    dropout = options.dropout
    drawn = (
        (0, 0, 0, 0) if dropout is None else (dropout.seed, dropout.layer, dropout.site, dropout.threshold)
    )
    return [options.key_mask, options.keep_mask, *drawn, options.survivor_scale]
