"""Sentence pairs for next-sentence prediction: half really follow each other, half do not.

A document's sentences are gathered until they fill a sequence. Such a chunk is split at a random place. Its
two halves are a pair that follows (label 0); or, with a probability of one half, the second half goes back to
the document, and sentences of another document take its place (label 1).

Differences from Google's script:

- No token is thrown away. Google's takes one sentence too many and cuts the pair to size at random ends; here
  a sentence that does not fit begins the next chunk, and where a random second part does not fit, the first
  part gives its last sentences back. For this no sentence may have more than half of the tokens of a pair.
- The other document is always another one, where one that is longer than `npbert.data.blocks` holds counts as
  several. Google's takes the same one if ten draws hit it.
- Whether a sequence is short is drawn for each, not for each document.

As in Google's, a chunk of a single sentence has nothing to split and always gets a random second part: more
than half of all pairs are random, and many more where documents are short.

References
----------
Devlin et al. (2018), BERT, appendix A.2; google-research/bert, create_pretraining_data.py
(create_instances_from_document).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

IS_NEXT = 0
NOT_NEXT = 1


class SentencePair(NamedTuple):
    """The sentences of one example, by their numbers."""

    first: range
    second: range  # empty: the example has one part only
    label: int  # 0: the second part follows the first, 1: it is from another document


def sentence_pairs(
    lengths: Sequence[int],
    documents: Sequence[range],
    max_tokens: int,
    short_seq_prob: float,
    rng: np.random.Generator,
) -> Iterator[SentencePair]:
    """Make the pairs of some documents, in the order of the text.

    Parameters
    ----------
    lengths : sequence of int
        The number of tokens of each sentence: at least 1, at most ``max_tokens // 2``.
    documents : sequence of range
        The numbers of the sentences of each document; at least two documents, none empty.
    max_tokens : int
        The largest number of tokens of a pair, without special tokens.
    short_seq_prob : float
        The probability that a pair is to be shorter: as soon as it has a random number of tokens, 2 to
        `max_tokens`, no further sentence is added.
    rng : numpy.random.Generator

    Yields
    ------
    SentencePair
        Each sentence is in exactly one pair, either as a part of the first half or as a part of a second half
        that follows; besides, any number of times as random second half.
    """
    for number, document in enumerate(documents):
        start = document.start
        while start < document.stop:
            target = _target(max_tokens, short_seq_prob, rng)
            end = _fill(lengths, start, document.stop, target, max_tokens)
            can_follow = end - start > 1
            middle = int(rng.integers(start + 1, end)) if can_follow else end
            if can_follow and rng.random() < 0.5:
                yield SentencePair(range(start, middle), range(middle, end), IS_NEXT)
                start = end
            else:
                other = documents[(number + int(rng.integers(1, len(documents)))) % len(documents)]
                other_start = int(rng.integers(other.start, other.stop))
                while sum(lengths[start:middle]) + lengths[other_start] > max_tokens:
                    middle -= 1
                used = sum(lengths[start:middle])
                other_end = _fill(lengths, other_start, other.stop, target - used, max_tokens - used)
                yield SentencePair(range(start, middle), range(other_start, other_end), NOT_NEXT)
                start = middle  # what this pair does not use is for the next


def full_sentences(
    lengths: Sequence[int],
    documents: Sequence[range],
    max_tokens: int,
    short_seq_prob: float,
    rng: np.random.Generator,
) -> Iterator[SentencePair]:
    """Fill sequences with consecutive sentences of a document, without pairs.

    This is the DOC-SENTENCES of Liu et al. (2019), RoBERTa, section 4.2.

    Parameters
    ----------
    lengths : sequence of int
        The number of tokens of each sentence: at least 1, at most `max_tokens`.
    documents, max_tokens, short_seq_prob, rng
        As for `sentence_pairs`; one document is enough.

    Yields
    ------
    SentencePair
        Its second part is empty. Each sentence is in exactly one.
    """
    for document in documents:
        start = document.start
        while start < document.stop:
            end = _fill(lengths, start, document.stop, _target(max_tokens, short_seq_prob, rng), max_tokens)
            yield SentencePair(range(start, end), range(end, end), IS_NEXT)
            start = end


def _target(max_tokens: int, short_seq_prob: float, rng: np.random.Generator) -> int:
    """Draw how many tokens a sequence should have: as many as fit, or now and then fewer."""
    if rng.random() < short_seq_prob:
        return int(rng.integers(2, max_tokens + 1))
    return max_tokens


def _fill(lengths: Sequence[int], start: int, stop: int, target: int, max_tokens: int) -> int:
    """Return the end of the sentences from `start` that reach the target; at least one, and what fits."""
    end = start + 1
    total = lengths[start]
    while end < stop and total < target and total + lengths[end] <= max_tokens:
        total += lengths[end]
        end += 1
    return end
