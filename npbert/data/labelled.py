"""Labelled examples as arrays, and the batches that a model is trained on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.labels import IGNORE_INDEX
from npbert.tokenizer import WordPieceTokenizer

Array = NDArray[Any]
Batch = dict[str, Array]
Position = dict[str, int]

TOKENIZED_TOGETHER: Final = 256  # texts; their arrays are padded to the longest for a moment


class EncodedExample(NamedTuple):
    """One text, or one pair, as a model takes it, without padding.

    Attributes
    ----------
    input_ids : (T,) int32
    token_type_ids : (T,) int8
    labels : mapping of str to array
        Labels of the text as a whole, by argument of `npbert.Bert.loss_and_grads`: () int64, or (C,) float64.
    token_labels : (T,) int32, or None
        The ``labels`` of a task that has one for each token.
    """

    input_ids: Array
    token_type_ids: Array
    labels: Mapping[str, Array] = {}
    token_labels: Array | None = None


def encode_texts(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    tokenizer: WordPieceTokenizer,
    max_length: int,
    advance: Callable[[int], None] = lambda done: None,
) -> list[EncodedExample]:
    """Turn texts into ids.

    Parameters
    ----------
    texts : sequence of str
    pairs : sequence of str or None
        The second texts, as many.
    tokenizer : WordPieceTokenizer
    max_length : int
        The most tokens, special ones included; longer texts are cut.
    advance : callable
        Called with a number of texts when these are done.

    Returns
    -------
    list of EncodedExample
        Without labels.
    """
    examples = []
    for start in range(0, len(texts), TOKENIZED_TOGETHER):
        part = slice(start, start + TOKENIZED_TOGETHER)
        arrays = tokenizer.batch(texts[part], None if pairs is None else pairs[part], max_length=max_length)
        lengths = arrays["attention_mask"].sum(axis=1)
        for row, length in enumerate(lengths):
            input_ids = arrays["input_ids"][row, :length].astype(np.int32)
            token_type_ids = arrays["token_type_ids"][row, :length].astype(np.int8)
            examples.append(EncodedExample(input_ids, token_type_ids))
        advance(len(lengths))
    return examples


def pad_batch(examples: Sequence[EncodedExample], pad_id: int) -> Batch:
    """Put examples side by side, padded to the longest.

    Parameters
    ----------
    examples : sequence of EncodedExample
        B of them, all with the same kinds of labels.
    pad_id : int
        What stands in ``input_ids`` where a text has ended.

    Returns
    -------
    dict of str to array
        ``input_ids``, ``attention_mask`` and ``token_type_ids``, (B, T) int64, and the labels: (B, ...), or
        for token labels (B, T) with -100 where a text has ended.
    """
    shape = (len(examples), max(len(example.input_ids) for example in examples))
    batch: Batch = {
        "input_ids": np.full(shape, pad_id, dtype=np.int64),
        "attention_mask": np.zeros(shape, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
    }
    for name in examples[0].labels:
        batch[name] = np.stack([example.labels[name] for example in examples])
    if examples[0].token_labels is not None:
        batch["labels"] = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        batch["input_ids"][row, :length] = example.input_ids
        batch["attention_mask"][row, :length] = 1
        batch["token_type_ids"][row, :length] = example.token_type_ids
        if example.token_labels is not None:
            batch["labels"][row, :length] = example.token_labels
    return batch


def epoch_order(count: int, seed: int, epoch: int) -> Array:
    """Return the order of so many examples in an epoch, which depends on nothing but the arguments."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return generator.permutation(count)


class LabelledData:
    """Labelled examples, shuffled anew in each epoch; a source of batches for `npbert.training`.

    Which examples a batch has depends on the seed and its position alone, so that a run that goes on from a
    position sees what it would have seen.

    Parameters
    ----------
    examples : sequence of EncodedExample
        At least one.
    pad_id : int
    batch_size : int
        Examples in a batch; the last one of an epoch has what is left.
    seed : int
        At least 0.

    Raises
    ------
    ValueError
        If there are no examples, or a number is out of range.

    Examples
    --------
    >>> examples = [EncodedExample(np.array([word]), np.array([0])) for word in range(5)]
    >>> data = LabelledData(examples, pad_id=0, batch_size=2)
    >>> stream = data.batches()
    >>> [next(stream)[1] for _ in range(4)][2:]
    [{'epoch': 1, 'batch': 0}, {'epoch': 1, 'batch': 1}]
    """

    def __init__(
        self, examples: Sequence[EncodedExample], *, pad_id: int, batch_size: int = 32, seed: int = 0
    ) -> None:
        if not examples:
            raise ValueError("there are no examples")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be at least 0")
        self.examples = examples
        self.pad_id = pad_id
        self.batch_size = batch_size
        self.seed = seed

    @property
    def batches_per_epoch(self) -> int:
        """How many batches have each example once."""
        return -(-len(self.examples) // self.batch_size)

    def batches(self, position: Mapping[str, Any] | None = None) -> Iterator[tuple[Batch, Position]]:
        """Yield batches without end, epoch after epoch.

        Parameters
        ----------
        position : mapping, optional
            Where to go on: what came with the last batch of an earlier iterator. None: at the start.

        Yields
        ------
        batch : dict of str to array
            From `pad_batch`.
        position : dict of str to int
            The place after this batch: "epoch", how many have been finished, and "batch", of the next one.

        Raises
        ------
        ValueError
            For a position that these data do not have.
        """
        epoch, first = self._checked_position({"epoch": 0, "batch": 0} if position is None else position)
        while True:
            order = epoch_order(len(self.examples), self.seed, epoch)
            for number in range(first, self.batches_per_epoch):
                rows = order[number * self.batch_size : (number + 1) * self.batch_size]
                batch = pad_batch([self.examples[row] for row in rows], self.pad_id)
                is_last = number + 1 == self.batches_per_epoch
                yield batch, {"epoch": epoch + is_last, "batch": 0 if is_last else number + 1}
            epoch, first = epoch + 1, 0

    def one_pass(self) -> Iterator[Batch]:
        """Yield each example once, in the order given."""
        for start in range(0, len(self.examples), self.batch_size):
            yield pad_batch(self.examples[start : start + self.batch_size], self.pad_id)

    def _checked_position(self, position: Mapping[str, Any]) -> tuple[int, int]:
        epoch, batch = position.get("epoch"), position.get("batch")
        if not (
            isinstance(epoch, int)
            and isinstance(batch, int)
            and epoch >= 0
            and 0 <= batch < self.batches_per_epoch
        ):
            raise ValueError(
                f"the position is {dict(position)}; it must have an epoch of at least 0, and a batch in "
                f"[0, {self.batches_per_epoch})"
            )
        return epoch, batch
