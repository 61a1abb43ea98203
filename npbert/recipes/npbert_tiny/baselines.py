"""What counting neighbours achieves at filling masks: the baselines of npbert-tiny.

Three models, each with everything that the one before has:

- *unigram*: how frequent each word piece is;
- *left neighbour*: a bigram, P(w | l), interpolated with the unigram;
- *both neighbours*: P(w | l, r), proportional to P(w | l) P(r | w).

They are asked at the same places as the network, and see what it sees: a neighbour that is masked itself
tells them nothing, and a place that is not masked, but holds a random piece or the right one, is taken for
what it is by Bayes' rule.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from npbert.data.masking import MaskingOptions
from npbert.labels import IGNORE_INDEX
from npbert.training.step import Tally

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

NAMES: Final = ("unigram", "left neighbour", "both neighbours")
# Candidates for the strength of smoothing.
STRENGTHS: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
TUNE_ONE_IN: Final = 20  # documents
PLACES_AT_ONCE: Final = 256


class Counts(NamedTuple):
    """How often word pieces occur, and follow each other.

    Attributes
    ----------
    pieces : (V,) int64
        How often each occurs.
    left, right : (pairs,) int64
        The pairs that occur, sorted by the left, then by the right piece.
    pairs : (pairs,) int64
        How often each of them does.
    """

    pieces: IntArray
    left: IntArray
    right: IntArray
    pairs: IntArray


class Table(NamedTuple):
    """The entries of a (V, V) matrix that are not 0, row by row.

    Attributes
    ----------
    starts : (V + 1,) int64
        Where each row begins in the next two.
    columns : (entries,) int64
    values : (entries,) float64
    """

    starts: IntArray
    columns: IntArray
    values: FloatArray

    def row(self, number: int) -> tuple[IntArray, FloatArray]:
        """Return the columns and values of a row."""
        entries = slice(self.starts[number], self.starts[number + 1])
        return self.columns[entries], self.values[entries]


class Bigrams(NamedTuple):
    """P(r | l), the probability that piece r follows piece l.

    It is a row's entry in `own`, where there is one, plus ``rest[l] * frequency[r]``.

    Attributes
    ----------
    frequency : (V,) float64
        P(w), each piece counted once more than it occurs.
    rest : (V,) float64
        The weight of `frequency` against a left piece's own counts. With c occurrences before t different
        pieces it is ``strength t / (c + strength t)``; 1 where the piece never had a neighbour.
    own : Table
        Left pieces in rows, right ones in columns.
    own_by_right : Table
        The same, transposed.
    """

    frequency: FloatArray
    rest: FloatArray
    own: Table
    own_by_right: Table


class Places(NamedTuple):
    """Masked places, M of them.

    Attributes
    ----------
    left, right : (M,) int64
        The pieces beside each, as the network sees them; -1 where that is a mask, or nothing.
    seen : (M,) int64
        The piece at the place itself; -1 where that is a mask.
    label : (M,) int64
        The right one.
    """

    left: IntArray
    right: IntArray
    seen: IntArray
    label: IntArray


def count_neighbours(documents: Iterable[Sequence[int]], vocab_size: int) -> Counts:
    """Count the pieces of a corpus, and the pairs of neighbours.

    Parameters
    ----------
    documents : iterable of sequence of int
        Ids; pairs do not cross from one to the next.
    vocab_size : int
        V.

    Returns
    -------
    Counts

    Examples
    --------
    >>> counts = count_neighbours([[0, 1, 0, 1], [2]], vocab_size=3)
    >>> [array.tolist() for array in counts]
    [[2, 2, 1], [0, 1], [1, 0], [2, 1]]
    """
    pieces = np.zeros(vocab_size, np.int64)
    keys = [np.empty(0, np.int64)]
    for document in documents:
        ids = np.asarray(document, np.int64)
        pieces += np.bincount(ids, minlength=vocab_size)
        keys.append(ids[:-1] * vocab_size + ids[1:])
    pairs, counts = np.unique(np.concatenate(keys), return_counts=True)
    return Counts(pieces, pairs // vocab_size, pairs % vocab_size, counts)


def smoothed(counts: Counts, strength: float) -> Bigrams:
    """Turn counts into probabilities.

    Parameters
    ----------
    counts : Counts
    strength : float
        Of smoothing: 1 is Witten and Bell's.

    Returns
    -------
    Bigrams

    References
    ----------
    Witten & Bell (1991), The zero-frequency problem. IEEE Transactions on Information Theory 37 (4);
    Chen & Goodman (1999), An empirical study of smoothing techniques for language modeling, section 2.4.
    """
    vocab_size = len(counts.pieces)
    frequency = (counts.pieces + 1) / (counts.pieces + 1).sum()
    occurrences = np.bincount(counts.left, counts.pairs, vocab_size)
    kinds = np.bincount(counts.left, minlength=vocab_size)
    denominator = occurrences + strength * kinds
    rest = np.where(kinds > 0, strength * kinds / np.maximum(denominator, 1), 1.0)
    values = counts.pairs / denominator[counts.left]
    order = np.lexsort([counts.left, counts.right])
    by_right = (counts.right[order], counts.left[order], values[order])
    return Bigrams(
        frequency,
        rest,
        _table(counts.left, counts.right, values, vocab_size),
        _table(*by_right, vocab_size),
    )


def _table(rows: IntArray, columns: IntArray, values: FloatArray, vocab_size: int) -> Table:
    return Table(np.searchsorted(rows, np.arange(vocab_size + 1)), columns, values)


def tuned_bigrams(documents: Sequence[Sequence[int]], vocab_size: int) -> tuple[Bigrams, float]:
    """Return the probabilities of a corpus, with the strength of smoothing that suits it.

    It is the one of `STRENGTHS` under which a slice of the documents, every `TUNE_ONE_IN`-th, is the most
    probable to the counts of the others.

    Parameters
    ----------
    documents : sequence of sequence of int
        Ids.
    vocab_size : int
        V.

    Returns
    -------
    bigrams : Bigrams
    strength : float

    Raises
    ------
    ValueError
        If there are not documents enough.
    """
    if len(documents) <= TUNE_ONE_IN:
        raise ValueError(f"there are {len(documents)} documents; more than {TUNE_ONE_IN} are needed")
    others = (document for number, document in enumerate(documents) if number % TUNE_ONE_IN)
    other_counts = count_neighbours(others, vocab_size)
    slice_counts = count_neighbours(documents[::TUNE_ONE_IN], vocab_size)

    def cost(strength: float) -> float:
        probs = pair_probs(smoothed(other_counts, strength), slice_counts.left, slice_counts.right)
        return float(-(slice_counts.pairs * np.log(probs)).sum())

    best = min(STRENGTHS, key=cost)
    return smoothed(count_neighbours(documents, vocab_size), best), best


def pair_probs(bigrams: Bigrams, left: IntArray, right: IntArray) -> FloatArray:
    """Return P(right | left) for some pairs.  (n,), (n,) -> (n,)"""
    own = bigrams.own
    vocab_size = len(bigrams.frequency)
    keys = np.repeat(np.arange(vocab_size), np.diff(own.starts)) * vocab_size + own.columns
    wanted = left * vocab_size + right
    entry = np.searchsorted(keys, wanted)  # may be one past the last
    is_own = np.append(keys, -1)[entry] == wanted
    own_part = np.where(is_own, np.append(own.values, 0.0)[entry], 0.0)
    probs: FloatArray = own_part + bigrams.rest[left] * bigrams.frequency[right]
    return probs


def find_places(batch: Mapping[str, Any], mask_id: int) -> Places:
    """Return the masked places of a batch, row by row.

    Parameters
    ----------
    batch : mapping of str to ndarray
        ``input_ids``, ``attention_mask`` and ``labels``, each (B, T).
    mask_id : int

    Returns
    -------
    Places
    """
    ids = np.where(np.asarray(batch["attention_mask"]) == 1, batch["input_ids"], mask_id)
    ids = np.where(ids == mask_id, -1, ids)
    beyond = np.full((len(ids), 1), -1)
    labels = np.asarray(batch["labels"])
    is_place = labels != IGNORE_INDEX
    left = np.hstack([beyond, ids[:, :-1]])
    right = np.hstack([ids[:, 1:], beyond])
    return Places(left[is_place], right[is_place], ids[is_place], labels[is_place])


def word_probs(name: str, bigrams: Bigrams, places: Places, masking: MaskingOptions) -> FloatArray:
    """Return what a baseline thinks of each piece at each place.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    bigrams : Bigrams
    places : Places
        M of them.
    masking : MaskingOptions
        How the places were chosen: what a piece that is not masked means.

    Returns
    -------
    (M, V) float64
        Rows that add up to 1.
    """
    probs = np.tile(bigrams.frequency, (len(places.label), 1))  # P(w)
    if name != "unigram":
        for row, left in enumerate(places.left.tolist()):
            if left >= 0:  # P(w | left)
                columns, values = bigrams.own.row(left)
                probs[row] *= bigrams.rest[left]
                probs[row, columns] += values
    if name == "both neighbours":
        for row, right in enumerate(places.right.tolist()):
            if right >= 0:  # times P(right | w)
                columns, values = bigrams.own_by_right.row(right)
                backward = bigrams.rest * bigrams.frequency[right]
                backward[columns] += values
                probs[row] *= backward
    for row, seen in enumerate(places.seen.tolist()):
        if seen >= 0:  # times P(seen | w): some places were left as they are, some got a random piece
            backward = np.full(len(bigrams.frequency), masking.random_share / len(bigrams.frequency))
            backward[seen] += 1 - masking.mask_share - masking.random_share
            probs[row] *= backward
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


def evaluate_baselines(
    batches: Iterable[Mapping[str, Any]], bigrams: Bigrams, mask_id: int, masking: MaskingOptions
) -> dict[str, Tally]:
    """Return what each baseline gets right at the masked places of some batches, and at what loss.

    Parameters
    ----------
    batches : iterable of mapping of str to ndarray
        As for `npbert.training.step.evaluate`.
    bigrams : Bigrams
    mask_id : int
    masking : MaskingOptions

    Returns
    -------
    dict of str to Tally
        By the names in `NAMES`. The perplexity is ``exp(tally.mean_loss)``.
    """
    tallies = dict.fromkeys(NAMES, Tally())
    for batch in batches:
        for places in _pieces(find_places(batch, mask_id)):
            rows = np.arange(len(places.label))
            for name in NAMES:
                probs = word_probs(name, bigrams, places, masking)
                loss = float(-np.log(probs[rows, places.label]).sum())
                correct = int((probs.argmax(axis=1) == places.label).sum())
                tallies[name] += Tally(len(rows), loss, correct)
    return tallies


def _pieces(places: Places) -> Iterator[Places]:
    """Divide places, so that their probabilities fit in memory."""
    for start in range(0, len(places.label), PLACES_AT_ONCE):
        yield Places(*(values[start : start + PLACES_AT_ONCE] for values in places))
