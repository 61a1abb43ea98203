"""From texts to vectors: how the texts are grouped, and what runs meanwhile.

Texts are taken some thousand at a time: while one such window is computed, a thread turns the next one into
ids. So memory does not grow with the number of texts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from npbert.backends import Backend
from npbert.config import BertConfig
from npbert.inputs import prepare_inputs
from npbert.model import model_forward
from npbert.ops.array_module import to_numpy
from npbert.params import Params
from npbert.pooling import PoolingSettings, pool

if TYPE_CHECKING:
    from npbert.tokenizer import WordPieceTokenizer

Array = NDArray[Any]
Rows = Sequence[Sequence[int]]
Item = TypeVar("Item")
Result = TypeVar("Result")

# Texts that are sorted by length together; about a minute's work, which ids of a few megabytes wait for.
WINDOW_TEXTS = 4096


class TextEncoder(NamedTuple):
    """What turns ids into vectors.

    Attributes
    ----------
    params : dict of str to array
        The body's, without ``"bert."``.
    config : BertConfig
    dtype : dtype
        What is computed in.
    backend : Backend
    settings : PoolingSettings
    batch_tokens : int
        The most tokens of a batch; a longer text runs alone.
    batch_invariant : bool or None
        Whether a text's vector has the same bits whatever other texts there are; None: if that is cheap.
    """

    params: Params
    config: BertConfig
    dtype: np.dtype[Any]
    backend: Backend
    settings: PoolingSettings
    batch_tokens: int
    batch_invariant: bool | None

    def encode(self, rows: Rows, advance: Callable[[int], None]) -> Array:
        """Return one vector a row, (n, D); tell ``advance`` how many are done, whenever some are."""
        engine = self.backend.ops
        if hasattr(engine, "encode_packed") and engine.is_packable(self.config) and all(rows):
            packed: Array = engine.encode_packed(
                self.params,
                self.config,
                rows,
                self.settings,
                self.batch_tokens,
                advance,
                self.batch_invariant,
            )
            return packed
        vectors = np.empty((len(rows), self.config.hidden_size), np.result_type(self.dtype, np.float32))
        # Products of other texts may be other products, to the last bit: each text alone, if that matters.
        most = 1 if self.batch_invariant else self.batch_tokens
        for batch in batches_by_length([len(row) for row in rows], most):
            vectors[batch] = self.encode_padded([rows[index] for index in batch])
            advance(len(batch))
        return vectors

    def encode_padded(self, rows: Rows) -> Array:
        """Return the vectors of one batch of texts, padded to the longest."""
        longest = max(len(row) for row in rows)
        padding = self.config.pad_token_id or 0
        input_ids = np.full((len(rows), longest), padding, dtype=np.int64)  # (B, T)
        attention_mask = np.zeros((len(rows), longest), dtype=bool)  # (B, T)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = True
        # The body takes texts one by one, whatever the task on top of it does with them.
        inputs = self.backend.to_device(
            prepare_inputs(self.config, "encoder", self.dtype, input_ids, attention_mask)
        )
        output, _ = model_forward(self.params, self.config, inputs, self.backend.ops, keep_cache=False)
        # Half precision would lose digits in the mean.
        hidden = output.last_hidden_state.astype(np.result_type(self.dtype, np.float32), copy=False)
        vectors: Array = to_numpy(pool(hidden, inputs.key_mask, self.settings, self.backend.ops))
        return vectors


def encode_texts(
    texts: Sequence[str],
    tokenizer: "WordPieceTokenizer",
    max_tokens: int,
    encoder: TextEncoder,
    advance: Callable[[int], None],
) -> Array:
    """Turn texts into vectors, (n, D), a window at a time.

    Parameters
    ----------
    texts : sequence of str
    tokenizer : WordPieceTokenizer
    max_tokens : int
        Longer texts are cut.
    encoder : TextEncoder
    advance : callable
        Called with a number of texts when these are done.
    """
    vectors = np.empty((len(texts), encoder.config.hidden_size), np.result_type(encoder.dtype, np.float32))
    windows = [slice(start, start + WINDOW_TEXTS) for start in range(0, len(texts), WINDOW_TEXTS)]

    def tokenize(window: slice) -> list[list[int]]:
        return tokenizer.encode_ids(texts[window], max_length=max_tokens)

    for window, rows in zip(windows, computed_ahead(tokenize, windows), strict=True):
        vectors[window] = encoder.encode(rows, advance)
    return vectors


def computed_ahead(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` of each item; the next one is computed while the caller uses the last.

    Examples
    --------
    >>> list(computed_ahead(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    if len(items) <= 1:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="npbert-ahead") as thread:
        coming = thread.submit(function, items[0])
        for item in items[1:]:
            ready, coming = coming, thread.submit(function, item)
            yield ready.result()
        yield coming.result()


def batches_by_length(lengths: Iterable[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield indices of rows, longest first, in batches of at most ``batch_tokens`` padded tokens.

    Examples
    --------
    >>> list(batches_by_length([2, 5, 4, 1], 8))
    [[1], [2, 0], [3]]
    """
    lengths = list(lengths)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
