"""A corpus as token ids, a block of documents at a time: what is in memory at once, however large it is."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from npbert.data.documents import BEGINNING, Place, read_documents
from npbert.tokenizer import WordPieceTokenizer
from npbert.tokenizer.wordpiece import CONTINUATION


class Block(NamedTuple):
    """Consecutive documents of a corpus. N tokens in S sentences."""

    number: int  # in the corpus, from 0
    start: Place  # of its first document
    next_start: Place | None  # of the next block; None: this is the last
    ids: npt.NDArray[np.int32]  # (N,), all sentences one after another
    bounds: npt.NDArray[np.int64]  # (S + 1,), sentence s is ids[bounds[s] : bounds[s + 1]]
    documents: list[range]  # the numbers of the sentences of each document


def read_blocks(
    paths: Sequence[Path],
    tokenizer: WordPieceTokenizer,
    *,
    block_tokens: int,
    sentence_tokens: int,
    start: Place = BEGINNING,
    number: int = 0,
) -> Iterator[Block]:
    """Read a corpus block by block.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    tokenizer : WordPieceTokenizer
    block_tokens : int
        A block is complete when it has as many tokens and two documents. A document of more than
        ``block_tokens // 4`` bytes counts as several. The last block takes in a single document that would be
        left over, so that none has one alone unless the corpus has.
    sentence_tokens : int
        A sentence of more tokens becomes several, cut between words where it can be.
    start, number
        The first block to read; by default that at the beginning.

    Yields
    ------
    Block
        None has an empty sentence or document.

    Raises
    ------
    ValueError
        As for `read_documents`.
    """
    documents = _encoded_documents(paths, tokenizer, start, block_tokens, sentence_tokens)
    ahead = deque(islice(documents, 2))  # two more documents are known, to see which is the last
    while ahead:
        first = ahead[0][0]
        block: list[list[list[int]]] = []
        tokens = 0
        while ahead and not (tokens >= block_tokens and len(block) > 1 and len(ahead) == 2):
            _, sentences = ahead.popleft()
            block.append(sentences)
            tokens += sum(map(len, sentences))
            ahead.extend(islice(documents, 1))
        yield _block(number, first, ahead[0][0] if ahead else None, block)
        number += 1


EncodedDocument = tuple[Place, list[list[int]]]


def _encoded_documents(
    paths: Sequence[Path],
    tokenizer: WordPieceTokenizer,
    start: Place,
    block_tokens: int,
    sentence_tokens: int,
) -> Iterator[EncodedDocument]:
    """Read documents as the ids of their sentences."""
    continuations = {index for token, index in tokenizer.vocab.items() if token.startswith(CONTINUATION)}
    for document in read_documents(paths, start, max_bytes=max(1 << 10, block_tokens // 4)):
        rows = tokenizer.encode_ids(document.sentences, add_special_tokens=False)
        sentences = [piece for row in rows for piece in _pieces(row, sentence_tokens, continuations)]
        if sentences:
            yield document.place, sentences


def _pieces(ids: list[int], limit: int, continuations: set[int]) -> Iterator[list[int]]:
    """Cut a long sentence, before a word where it can be."""
    start = 0
    while len(ids) - start > limit:
        end = start + limit
        while end > start and ids[end] in continuations:
            end -= 1
        if end == start:  # a word that is longer than the limit
            end = start + limit
        yield ids[start:end]
        start = end
    if start < len(ids):
        yield ids[start:]


def _block(number: int, start: Place, next_start: Place | None, documents: list[list[list[int]]]) -> Block:
    sentences = list(chain.from_iterable(documents))
    bounds = np.cumsum([0, *map(len, sentences)])
    ids = np.fromiter(chain.from_iterable(sentences), dtype=np.int32, count=int(bounds[-1]))
    ends = np.cumsum([0, *map(len, documents)]).tolist()
    ranges = [range(first, stop) for first, stop in pairwise(ends)]
    return Block(number, start, next_start, ids, bounds, ranges)
