"""Masking: which tokens the model has to predict, and what it sees in their place.

A share of the tokens is chosen (15 %). Of these, 80 % are replaced by [MASK], 10 % by a random token, and
10 % stay as they are; the model does not know which, so it has to keep a good representation of every token.

What is chosen are single tokens, whole words (all pieces of a word or none), or n-grams: spans of up to n
consecutive tokens or words.

References
----------
Devlin et al. (2018), BERT, section 3.1 and appendix A.1; google-research/bert, create_pretraining_data.py
(create_masked_lm_predictions). N-grams: Lan et al. (2019), ALBERT, section 4.1: P(n) proportional to 1/n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from npbert.labels import IGNORE_INDEX

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class MaskingOptions:
    """How tokens are chosen and replaced.

    Parameters
    ----------
    rate : float
        The share of a sequence's tokens to choose.
    max_predictions : int or None
        Never more than this in a sequence; None for no limit.
    whole_word : bool
        Choose words, not tokens: all pieces of a word or none.
    max_ngram : int
        Choose spans of up to this many consecutive words (or tokens), a length of n with a probability
        proportional to 1/n.
    mask_share, random_share : float
        Of the chosen tokens, how many become [MASK], and how many a random token; the others stay.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    rate: float = 0.15
    max_predictions: int | None = None
    whole_word: bool = False
    max_ngram: int = 1
    mask_share: float = 0.8
    random_share: float = 0.1

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.rate < 1:
            raise ValueError(f"rate is {self.rate}; it must be between 0 and 1")
        if self.max_predictions is not None and self.max_predictions < 1:
            raise ValueError(f"max_predictions is {self.max_predictions}; it must be at least 1 or None")
        if self.max_ngram < 1:
            raise ValueError(f"max_ngram is {self.max_ngram}; it must be at least 1")
        for name in ("mask_share", "random_share"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; it must be between 0 and 1")
        if self.mask_share + self.random_share > 1 + 1e-12:  # 0.9 + 0.1 is more than 1 in other orders
            raise ValueError(
                f"mask_share and random_share are {self.mask_share} and {self.random_share}; "
                "together they must be at most 1"
            )

    def predictions(self, tokens: int) -> int:
        """Return how many tokens to choose from a sequence, as Google's script does.

        Parameters
        ----------
        tokens : int
            The length of the sequence, special tokens included.

        Returns
        -------
        int
            The share, rounded; at least 1, at most `max_predictions`.
        """
        count = max(1, round(tokens * self.rate))
        return count if self.max_predictions is None else min(count, self.max_predictions)


BERT_MASKING: Final = MaskingOptions()


def mask_tokens(
    input_ids: IntArray,
    special: BoolArray,
    continuation: BoolArray,
    options: MaskingOptions,
    *,
    mask_id: int,
    vocab_size: int,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray]:
    """Choose tokens of one sequence, and hide them.

    Parameters
    ----------
    input_ids : ndarray of int64, shape (T,)
        The sequence, special tokens included, without padding.
    special : ndarray of bool, shape (T,)
        Tokens that are never chosen: [CLS], [SEP], ...
    continuation : ndarray of bool, shape (T,)
        Tokens that continue the word of the token before: those that begin with "##".
    options : MaskingOptions
    mask_id : int
        The id of [MASK].
    vocab_size : int
        V: a random token is any of the vocabulary, special ones included, as in Google's script.
    rng : numpy.random.Generator

    Returns
    -------
    masked_ids : ndarray of int64, shape (T,)
        What the model sees.
    labels : ndarray of int64, shape (T,)
        The original token where one was chosen, elsewhere -100.

    Notes
    -----
    The number of chosen tokens is that of `MaskingOptions.predictions`. With whole words or n-grams it may be
    less, as in Google's script: a word that would exceed it is passed over. A sequence of only such words has
    none chosen.

    Examples
    --------
    >>> ids = np.array([2, 11, 12, 13, 14, 15, 3])
    >>> special = np.array([True, False, False, False, False, False, True])
    >>> masked_ids, labels = mask_tokens(
    ...     ids, special, np.zeros(7, dtype=bool), MaskingOptions(), mask_id=4, vocab_size=30,
    ...     rng=np.random.default_rng(0)
    ... )
    >>> masked_ids
    array([ 2, 11, 12,  4, 14, 15,  3])
    >>> labels
    array([-100, -100, -100,   13, -100, -100, -100])
    """
    starts, ends = _units(special, continuation if options.whole_word else np.zeros_like(special))
    chosen = np.array(
        _choose(starts, ends, options.predictions(len(input_ids)), options.max_ngram, rng), dtype=np.int64
    )
    labels = np.full_like(input_ids, IGNORE_INDEX)
    labels[chosen] = input_ids[chosen]

    share = rng.random(len(chosen))
    random_ids = rng.integers(vocab_size, size=len(chosen))
    masked_ids = input_ids.copy()
    masked_ids[chosen] = np.where(
        share < options.mask_share,
        mask_id,
        np.where(share < options.mask_share + options.random_share, random_ids, input_ids[chosen]),
    )
    return masked_ids, labels


def _units(special: BoolArray, continuation: BoolArray) -> tuple[list[int], list[int]]:
    """Return where the units begin and end that are chosen as a whole: words, or tokens.

    A continuation after a special token, left over where a long sentence was cut, begins a unit.
    """
    after_special = np.concatenate(([True], special[:-1]))
    begins = ~special & (~continuation | after_special)
    last_of_unit = ~special & np.concatenate((begins[1:] | special[1:], [True]))
    return np.flatnonzero(begins).tolist(), (np.flatnonzero(last_of_unit) + 1).tolist()


def _choose(
    starts: Sequence[int], ends: Sequence[int], count: int, max_ngram: int, rng: np.random.Generator
) -> list[int]:
    """Choose units, or spans of units, in random order until there are `count` tokens; return their places.

    A span ends early before a special token, and where the whole of it would be too much. One that overlaps
    an earlier one is passed over.
    """
    order = rng.permutation(len(starts)).tolist()
    lengths = _span_lengths(len(starts), max_ngram, rng)
    chosen: list[int] = []
    taken = [False] * len(starts)
    for first, length in zip(order, lengths, strict=True):
        if len(chosen) == count:
            break
        last = first
        while last + 1 < min(first + length, len(starts)) and starts[last + 1] == ends[last]:
            last += 1
        while last >= first and ends[last] - starts[first] > count - len(chosen):
            last -= 1
        if last < first or any(taken[first : last + 1]):
            continue
        taken[first : last + 1] = [True] * (last + 1 - first)
        chosen.extend(range(starts[first], ends[last]))
    return chosen


def _span_lengths(spans: int, max_ngram: int, rng: np.random.Generator) -> Sequence[int]:
    """Draw lengths of 1 to max_ngram, n with a probability proportional to 1/n."""
    if max_ngram == 1:
        return [1] * spans
    weights = 1 / np.arange(1, max_ngram + 1)
    lengths: list[int] = (1 + rng.choice(max_ngram, size=spans, p=weights / weights.sum())).tolist()
    return lengths
