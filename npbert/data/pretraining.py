"""PretrainingData: an endless stream of batches for pre-training, from text files, in bounded memory.

The corpus is read a block at a time: some megabytes of consecutive documents. The block's examples are made
and shuffled, then the next block follows. After the last comes the first again: a new epoch, with other
pairs, other masks (dynamic masking, as in RoBERTa) and another order.

Blocks follow the order of the text: where a corpus has documents of several kinds, shuffle them when it is
written, or let the buffer hold all of them.

There is no random state that goes from one example to the next. Each draw is made by a Philox generator whose
key and counter say what it is for: the seed, the epoch, the block, the example. So the position in the stream
is all there is to save, and to go on from a position, one block is read again.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from npbert.data.blocks import Block, read_blocks
from npbert.data.documents import BEGINNING, Place, read_documents
from npbert.data.labelled import EncodedExample, pad_batch
from npbert.data.masking import BERT_MASKING, MaskingOptions, mask_tokens
from npbert.data.sentence_pairs import SentencePair, full_sentences, sentence_pairs
from npbert.tokenizer import WordPieceTokenizer
from npbert.tokenizer.wordpiece import CONTINUATION

IntArray = npt.NDArray[np.int64]
Batch = dict[str, IntArray]
Position = dict[str, int]

# What a generator is for: a word of its counter.
PAIRS: Final = 0
MASKS: Final = 1
ORDER: Final = 2


class PretrainingData:
    """Batches for masked-language-model and next-sentence pre-training.

    Parameters
    ----------
    paths : path or sequence of paths
        Text files; see `npbert.data.documents` for their formats.
    tokenizer : WordPieceTokenizer
    batch_size : int
        B, the examples of a batch. A batch may end one block, or epoch, and begin the next.
    max_length : int
        The largest number of tokens of an example, special ones included. Longer sentences are cut, and go on
        in another part or example: nothing is lost.
    masking : MaskingOptions
    next_sentence : bool
        Make pairs for next-sentence prediction. Otherwise an example is one segment of consecutive sentences.
    short_seq_prob : float
        The share of examples that are to be shorter than they could be.
    static_copies : int or None
        None: each epoch has its own pairs and masks. Otherwise epoch e has those of epoch
        ``e % static_copies``, in another order (the `dupe_factor` of Google's script).
    buffer_tokens : int
        The size of a block: pairs are made of its documents, and its examples shuffled. Memory is
        proportional to it, and does not depend on the size of the corpus.
    seed : int
        What all draws depend on, 0 to 2**64 - 1.

    Raises
    ------
    ValueError
        If an argument is out of range, a file cannot be read, or the corpus does not have what is needed: one
        token; with `next_sentence` two documents, and one with two sentences.

    Examples
    --------
    >>> from npbert.tokenizer import WordPieceTokenizer
    >>> path = getfixture("tmp_path") / "corpus.txt"
    >>> _ = path.write_text("a b c.\\nc b.\\n\\nb a.\\na.\\n")
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "."])
    >>> data = PretrainingData(path, tokenizer, batch_size=2, max_length=16)
    >>> for batch, position in islice(data.batches(), 2):
    ...     print(batch["input_ids"].shape, position["epoch"], position["example"])
    (2, 13) 0 2
    (2, 10) 1 1
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        tokenizer: WordPieceTokenizer,
        *,
        batch_size: int = 32,
        max_length: int = 128,
        masking: MaskingOptions = BERT_MASKING,
        next_sentence: bool = True,
        short_seq_prob: float = 0.1,
        static_copies: int | None = None,
        buffer_tokens: int = 1 << 20,
        seed: int = 0,
    ) -> None:
        shortest = 5 if next_sentence else 4  # the special tokens and two others
        if max_length < shortest:
            raise ValueError(f"max_length is {max_length}; it must be at least {shortest}")
        if not 0 <= short_seq_prob <= 1:
            raise ValueError(f"short_seq_prob is {short_seq_prob}; it must be between 0 and 1")
        for name, value in (
            ("batch_size", batch_size),
            ("static_copies", 1 if static_copies is None else static_copies),
            ("buffer_tokens", buffer_tokens),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed is {seed}; it must be 0 to 2**64 - 1")
        self._paths = [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._masking = masking
        self._next_sentence = next_sentence
        self._max_tokens = max_length - (3 if next_sentence else 2)  # besides [CLS] and [SEP]
        self._short_seq_prob = short_seq_prob
        self._static_copies = static_copies
        self._buffer_tokens = buffer_tokens
        self._seed = seed

        never_masked = (tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token, tokenizer.mask_token)
        tokens = list(tokenizer.vocab)
        self._is_special = np.array([token in never_masked for token in tokens])
        self._is_continuation = np.array([token.startswith(CONTINUATION) for token in tokens])
        self._check_corpus()

    def batches(self, position: Mapping[str, int] | None = None) -> Iterator[tuple[Batch, Position]]:
        """Return the batches of one epoch after another, without end.

        Parameters
        ----------
        position : dict of str to int, optional
            A position that came with a batch: go on with the batch after it. By default from the beginning.

        Yields
        ------
        batch : dict of str to ndarray of int64
            `input_ids`, `attention_mask`, `token_type_ids`, `labels`, each (B, T), T being the longest
            example's length; and `next_sentence_label` (B,), 0 = the second part follows the first.
        position : dict of str to int
            The position after the batch, for JSON: "epoch" is how many are finished.

        Raises
        ------
        ValueError
            If the position is not one of this corpus.
        """
        examples = self._examples({} if position is None else self._checked_position(position))
        while True:
            batch = list(islice(examples, self._batch_size))
            yield pad_batch([example for example, _ in batch], self._tokenizer.pad_id), batch[-1][1]

    def one_pass(self) -> Iterator[Batch]:
        """Return each example once, in the order of the text: held-out data, the same at each call.

        Yields
        ------
        dict of str to ndarray of int64
            As for `batches`; the last may have fewer examples.
        """
        examples = (
            self._example(block, pair, copy=0, number=number)
            for block in self._blocks(0, BEGINNING)
            for number, pair in enumerate(self._pairs(block, copy=0))
        )
        while batch := list(islice(examples, self._batch_size)):
            yield pad_batch(batch, self._tokenizer.pad_id)

    def _examples(self, position: Position) -> Iterator[tuple[EncodedExample, Position]]:
        """Return examples without end, each with the position after it."""
        epoch, number, used = (position.get(name, 0) for name in ("epoch", "block", "example"))
        start = Place(*(position.get(name, 0) for name in Place._fields))
        while True:
            copy = epoch if self._static_copies is None else epoch % self._static_copies
            for block in self._blocks(number, start):
                pairs = self._pairs(block, copy)
                if used >= len(pairs):
                    raise ValueError(f"position: example is {used}; its block has {len(pairs)} examples")
                order = self._generator(ORDER, epoch, block.number).permutation(len(pairs)).tolist()
                for place in range(used, len(order)):
                    after = self._position(epoch, block, place + 1, len(order))
                    yield self._example(block, pairs[order[place]], copy, order[place]), after
                used = 0
            epoch, number, start = epoch + 1, 0, BEGINNING

    def _position(self, epoch: int, block: Block, used: int, examples: int) -> Position:
        """Return the position after some of a block's examples; after the last, that of the next block."""
        if used < examples:
            number, place = block.number, block.start
        elif block.next_start is not None:
            number, place, used = block.number + 1, block.next_start, 0
        else:
            epoch, number, place, used = epoch + 1, 0, BEGINNING, 0
        return {
            "epoch": epoch,
            "block": number,
            **place._asdict(),
            "example": used,
            "corpus_bytes": self._corpus_bytes,
        }

    def _blocks(self, number: int, start: Place) -> Iterator[Block]:
        return read_blocks(
            self._paths,
            self._tokenizer,
            block_tokens=self._buffer_tokens,
            # Half of a pair each: see sentence_pairs.
            sentence_tokens=self._max_tokens // 2 if self._next_sentence else self._max_tokens,
            start=start,
            number=number,
        )

    def _pairs(self, block: Block, copy: int) -> list[SentencePair]:
        """Make the examples of a block, as numbers of sentences."""
        make = sentence_pairs if self._next_sentence else full_sentences
        lengths = np.diff(block.bounds).tolist()
        rng = self._generator(PAIRS, copy, block.number)
        return list(make(lengths, block.documents, self._max_tokens, self._short_seq_prob, rng))

    def _example(self, block: Block, pair: SentencePair, copy: int, number: int) -> EncodedExample:
        """Make an example of its sentences: [CLS] first [SEP] second [SEP], masked."""
        tokenizer = self._tokenizer
        parts = [_tokens(block, part) for part in (pair.first, pair.second) if part]
        separator = [tokenizer.sep_id]
        pieces = [[tokenizer.cls_id], *(piece for part in parts for piece in (part, separator))]
        input_ids = np.concatenate(pieces, dtype=np.int64)  # (T,)
        token_type_ids = np.zeros_like(input_ids)
        token_type_ids[len(parts[0]) + 2 :] = 1
        masked_ids, labels = mask_tokens(
            input_ids,
            self._is_special[input_ids],
            self._is_continuation[input_ids],
            self._masking,
            mask_id=tokenizer.mask_id,
            vocab_size=tokenizer.vocab_size,
            rng=self._generator(MASKS, copy, block.number, number),
        )
        whole = {"next_sentence_label": np.array(pair.label, dtype=np.int64)} if self._next_sentence else {}
        return EncodedExample(masked_ids, token_type_ids, whole, labels)

    def _generator(self, purpose: int, copy: int, block: int, example: int = 0) -> np.random.Generator:
        """Return the generator of one purpose. The first word of the counter counts what it draws."""
        key = np.array([self._seed, copy], dtype=np.uint64)
        counter = np.array([0, example, block, purpose], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def _check_corpus(self) -> None:
        """Check that every file can be read, and that there are examples in them.

        All is read once, some seconds for a gigabyte: a broken line is to be found now, and not after hours.
        """
        if not self._paths:
            raise ValueError("paths is empty; give at least one text file")
        try:
            self._corpus_bytes = sum(path.stat().st_size for path in self._paths)
        except OSError as error:
            raise ValueError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
        for _ in read_documents(self._paths, BEGINNING):
            pass
        names = ", ".join(map(str, self._paths))
        documents = 0
        for block in self._blocks(0, BEGINNING):
            documents += len(block.documents)
            if not self._next_sentence:
                return
            if len(block.documents) > 1 and any(len(document) > 1 for document in block.documents):
                return
        if documents == 0:
            raise ValueError(f"{names}: no text; there must be a sentence at least")
        if documents == 1:
            raise ValueError(
                f"{names}: one document, and next-sentence prediction needs a second one; "
                "put empty lines between documents, or do without (next_sentence=False)"
            )
        raise ValueError(
            f"{names}: {documents} documents, all of one sentence, and next-sentence prediction needs two "
            "that follow each other; write one sentence a line, or do without (next_sentence=False)"
        )

    def _checked_position(self, position: Mapping[str, int]) -> Position:
        """Check a position that was saved."""
        names = ("epoch", "block", *Place._fields, "example", "corpus_bytes")
        for name in names:
            value = position.get(name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"position: {name} is {value!r}; it must be an integer, at least 0")
        if position["file"] >= len(self._paths):
            raise ValueError(f"position: file is {position['file']}; there are {len(self._paths)} files")
        if position["corpus_bytes"] != self._corpus_bytes:
            raise ValueError(
                f"the position is one of a corpus of {position['corpus_bytes']} bytes; "
                f"this one has {self._corpus_bytes}"
            )
        return {name: position[name] for name in names}


def _tokens(block: Block, sentences: range) -> npt.NDArray[np.int32]:
    """Return the ids of consecutive sentences."""
    return block.ids[block.bounds[sentences.start] : block.bounds[sentences.stop]]
