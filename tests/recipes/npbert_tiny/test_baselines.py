"""The baselines of npbert-tiny against sums written out, and their places against a batch read by hand."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.masking import BERT_MASKING, MaskingOptions
from npbert.recipes.npbert_tiny import baselines
from npbert.recipes.npbert_tiny.baselines import (
    NAMES,
    Places,
    count_neighbours,
    evaluate_baselines,
    find_places,
    pair_probs,
    smoothed,
    tuned_bigrams,
    word_probs,
)

V = 6
MASK = 5
IDS = st.integers(0, V - 1)
DOCUMENTS = st.lists(st.lists(IDS, min_size=1, max_size=9), min_size=1, max_size=6)
STRENGTHS = st.sampled_from(baselines.STRENGTHS)


def textbook_probs(documents, strength):
    """Return P(w), (V,), and P(r | l), (V, V), from Witten and Bell's formula."""
    words = Counter(word for document in documents for word in document)
    total = sum(words.values()) + V
    frequency = [(words[word] + 1) / total for word in range(V)]
    pairs = Counter(pair for document in documents for pair in pairwise(document))
    following = []
    for left in range(V):
        own = [pairs[left, right] for right in range(V)]
        kinds = sum(count > 0 for count in own)
        denominator = sum(own) + strength * kinds
        following.append(
            [
                (own[right] + strength * kinds * frequency[right]) / denominator
                if kinds
                else frequency[right]
                for right in range(V)
            ]
        )
    return np.array(frequency), np.array(following)


@given(documents=DOCUMENTS, strength=STRENGTHS)
def test_probabilities_of_pairs(documents, strength):
    bigrams = smoothed(count_neighbours(documents, V), strength)
    _, following = textbook_probs(documents, strength)
    left, right = np.divmod(np.arange(V * V), V)
    found = pair_probs(bigrams, left, right).reshape(V, V)
    np.testing.assert_allclose(found, following, rtol=1e-13)  # a handful of roundings
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-13)


@given(
    documents=DOCUMENTS,
    strength=STRENGTHS,
    places=st.lists(st.tuples(*[st.integers(-1, V - 1)] * 3), min_size=1, max_size=8),
)
def test_words_at_places(documents, strength, places):
    bigrams = smoothed(count_neighbours(documents, V), strength)
    frequency, following = textbook_probs(documents, strength)
    left, right, seen = np.array(places).T
    masking = MaskingOptions(mask_share=0.7, random_share=0.2)
    for name in NAMES:
        expected = []
        for l_, r, s in places:
            row = frequency if name == "unigram" or l_ < 0 else following[l_]
            if name == "both neighbours" and r >= 0:
                row = row * following[:, r]
            if s >= 0:
                row = row * (0.2 / V + 0.1 * (np.arange(V) == s))
            expected.append(row / row.sum())
        found = word_probs(name, bigrams, Places(left, right, seen, np.zeros_like(left)), masking)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_places_of_a_batch():
    batch = {
        "input_ids": np.array([[2, MASK, 4, 1, 3], [MASK, MASK, 3, 0, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "labels": np.array([[-100, 4, -100, 1, 2], [3, 1, 0, -100, -100]]),
    }
    places = find_places(batch, MASK)
    assert places.left.tolist() == [2, 4, 1, -1, -1, -1]
    assert places.right.tolist() == [4, 3, -1, -1, 3, -1]
    assert places.seen.tolist() == [-1, 1, 3, -1, -1, 3]
    assert places.label.tolist() == [4, 1, 2, 3, 1, 0]


def test_the_tallies(monkeypatch):
    monkeypatch.setattr(baselines, "PLACES_AT_ONCE", 2)
    rng = np.random.default_rng(0)
    bigrams = smoothed(count_neighbours([rng.integers(0, V, 200)], V), 1.0)
    labels = rng.integers(0, V, (3, 7))
    batches = [
        {
            "input_ids": np.where(rng.random((3, 7)) < 0.5, MASK, labels),
            "attention_mask": np.ones((3, 7), int),
            "labels": np.where(rng.random((3, 7)) < 0.6, labels, -100),
        }
        for _ in range(2)
    ]
    tallies = evaluate_baselines(batches, bigrams, MASK, BERT_MASKING)
    assert list(tallies) == list(NAMES)
    for name, tally in tallies.items():
        loss, correct, count = 0.0, 0, 0
        for batch in batches:
            places = find_places(batch, MASK)
            for probs, label in zip(
                word_probs(name, bigrams, places, BERT_MASKING), places.label, strict=True
            ):
                loss -= math.log(probs[label])
                correct += probs.argmax() == label
                count += 1
        assert (tally.count, tally.correct) == (count, correct)
        assert tally.loss == pytest.approx(loss, rel=1e-12)
        assert 0 < correct < count


def test_more_neighbours_know_more():
    """In a chain where each word has one successor, except that masks hide some of it."""
    documents = [[0, 1, 2, 3, 4] * 20] * 21
    bigrams, strength = tuned_bigrams(documents, V)
    assert strength == min(baselines.STRENGTHS)  # nothing that was not seen ever comes
    batch = {
        "input_ids": np.array([[0, MASK, 2, MASK, MASK, 0, MASK, MASK, 3]]),
        "attention_mask": np.ones((1, 9), int),
        "labels": np.array([[-100, 1, -100, 3, 4, -100, 1, 2, -100]]),
    }
    correct = [tally.correct for tally in evaluate_baselines([batch], bigrams, MASK, BERT_MASKING).values()]
    assert correct == [0, 3, 5]


def test_the_strength_follows_the_corpus():
    """Pairs by chance, which never come again, call for the strongest smoothing."""
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 500, 20).tolist() for _ in range(60)]
    bigrams, strength = tuned_bigrams(documents, 500)
    assert strength == max(baselines.STRENGTHS)
    expected = smoothed(count_neighbours(documents, 500), strength)
    np.testing.assert_array_equal(bigrams.rest, expected.rest)


def test_too_few_documents():
    with pytest.raises(ValueError, match="there are 20 documents; more than 20 are needed"):
        tuned_bigrams([[0, 1]] * 20, V)
