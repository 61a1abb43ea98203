"""Sentence pairs: nothing lost, nothing twice, and label 0 only where the second part follows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.sentence_pairs import IS_NEXT, NOT_NEXT, SentencePair, full_sentences, sentence_pairs
from tests.strategies import seeds


def draw(rng: np.random.Generator, documents: int, max_sentences: int, max_length: int):
    """Draw the lengths of the sentences of some documents."""
    ends = np.cumsum([0, *rng.integers(1, max_sentences + 1, documents)]).tolist()
    lengths = rng.integers(1, max_length + 1, ends[-1]).tolist()
    return lengths, [range(start, end) for start, end in pairwise(ends)]


def tokens(lengths, sentences) -> int:
    return sum(lengths[sentence] for sentence in sentences)


CORPORA = st.tuples(seeds, st.integers(2, 8), st.integers(1, 12), st.integers(2, 40))
PROBABILITIES = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@given(CORPORA, PROBABILITIES)
def test_each_pair(corpus, short_seq_prob):
    seed, documents, max_sentences, max_tokens = corpus
    rng = np.random.default_rng(seed)
    lengths, ranges = draw(rng, documents, max_sentences, max_tokens // 2)
    document_of = {sentence: number for number, document in enumerate(ranges) for sentence in document}
    own = []
    for first, second, label in sentence_pairs(lengths, ranges, max_tokens, short_seq_prob, rng):
        assert first
        assert second
        assert tokens(lengths, first) + tokens(lengths, second) <= max_tokens
        assert len({document_of[sentence] for sentence in first}) == 1
        assert len({document_of[sentence] for sentence in second}) == 1
        if label == IS_NEXT:
            assert second.start == first.stop
            assert document_of[second.start] == document_of[first.start]
            own += [*first, *second]
        else:
            assert label == NOT_NEXT
            assert document_of[second.start] != document_of[first.start]
            own += first
    assert own == list(range(len(lengths)))


@given(CORPORA, PROBABILITIES)
def test_each_sequence_of_full_sentences(corpus, short_seq_prob):
    seed, documents, max_sentences, max_tokens = corpus
    rng = np.random.default_rng(seed)
    lengths, ranges = draw(rng, documents, max_sentences, max_tokens)
    document_of = {sentence: number for number, document in enumerate(ranges) for sentence in document}
    own = []
    for first, second, label in full_sentences(lengths, ranges, max_tokens, short_seq_prob, rng):
        assert first
        assert not second
        assert label == IS_NEXT
        assert tokens(lengths, first) <= max_tokens
        assert len({document_of[sentence] for sentence in first}) == 1
        own += first
    assert own == list(range(len(lengths)))


def test_full_sentences_are_full():
    """No sentence is left to the next sequence that would have fitted."""
    rng = np.random.default_rng(1)
    lengths, ranges = draw(rng, 5, 30, 12)
    found = [first for first, _, _ in full_sentences(lengths, ranges, 40, 0.0, rng)]
    ends = {document.stop for document in ranges}
    assert len(found) > 2 * len(ranges)
    for sentences in found:
        assert sentences.stop in ends or tokens(lengths, sentences) + lengths[sentences.stop] > 40
    assert full_sentences([3, 4], [range(2)], 7, 0.0, rng).__next__().first == range(2)


def test_short_full_sentences():
    rng = np.random.default_rng(1)
    found = list(full_sentences([10] * 4000, [range(4000)], 40, 0.5, rng))
    counts = np.bincount([len(first) for first, _, _ in found], minlength=5)
    # Targets from 2 to 40 tokens: 9 of 39 end with one sentence, 10 with two, with three, with four.
    for sentences, share in ((1, 9 / 78), (2, 10 / 78), (3, 10 / 78), (4, 1 / 2 + 10 / 78)):
        assert abs(counts[sentences] / len(found) - share) < 5 * np.sqrt(share * (1 - share) / len(found))


def test_no_sentence_is_added_to_a_target_that_is_reached():
    found = full_sentences([1] * 300, [range(300)], 3, 1.0, np.random.default_rng(0))
    counts = np.bincount([len(first) for first, _, _ in found])
    assert (counts[2:] > 40).all()  # the targets 2 and 3
    assert counts.sum() <= counts[2:].sum() + 1


class TestManyPairs:
    """Long documents of sentences of equal length, so that shares can be told."""

    LENGTH = 10
    MAX_TOKENS = 40

    def pairs(self, short_seq_prob: float) -> list[SentencePair]:
        sentences = 3000
        ranges = [range(start, start + sentences) for start in range(0, 5 * sentences, sentences)]
        lengths = [self.LENGTH] * (5 * sentences)
        return list(
            sentence_pairs(lengths, ranges, self.MAX_TOKENS, short_seq_prob, np.random.default_rng(3))
        )

    def test_half_of_them_follow(self):
        labels = np.array([pair.label for pair in self.pairs(0.0)])
        assert abs(labels.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(labels))

    def test_pairs_are_full(self):
        for pair in self.pairs(0.0):
            if pair.label == IS_NEXT:
                # Four sentences, but at the end of a document.
                assert len(pair.first) + len(pair.second) == 4 or pair.second.stop % 3000 == 0

    def test_splits_are_at_any_place(self):
        splits = np.array([len(pair.first) for pair in self.pairs(0.0) if pair.label == IS_NEXT])
        counts = np.bincount(splits, minlength=4)
        assert counts[0] == 0
        assert len(counts) == 4
        shares = counts[1:] / len(splits)
        assert (
            abs(shares - 1 / 3) < 5 * np.sqrt(2 / 9 / len(splits)) + 0.01
        ).all()  # 0.01: ends of documents

    def test_first_parts_of_random_pairs_are_of_any_length(self):
        firsts = np.array([len(pair.first) for pair in self.pairs(0.0) if pair.label == NOT_NEXT])
        shares = np.bincount(firsts, minlength=4)[1:] / len(firsts)
        assert (abs(shares - 1 / 3) < 5 * np.sqrt(2 / 9 / len(firsts)) + 0.01).all()

    def test_random_parts_begin_anywhere_in_any_other_document(self):
        pairs = [pair for pair in self.pairs(0.0) if pair.label == NOT_NEXT]
        starts = np.array([pair.second.start for pair in pairs])
        documents = np.array([[pair.first.start // 3000, pair.second.start // 3000] for pair in pairs])
        counts = np.zeros((5, 5), dtype=int)
        np.add.at(counts, tuple(documents.T), 1)
        assert (counts[np.eye(5, dtype=bool)] == 0).all()
        expected = counts.sum(axis=1, keepdims=True) / 4
        assert (abs(counts - expected) < 5 * np.sqrt(expected))[~np.eye(5, dtype=bool)].all()
        deviation = 3000 / np.sqrt(12 * len(starts))
        assert abs((starts % 3000).mean() - 1499.5) < 5 * deviation
        assert (starts % 3000).min() < 50
        assert (starts % 3000).max() > 2950

    def test_random_parts_fill_the_pair(self):
        for pair in self.pairs(0.0):
            if pair.label == NOT_NEXT:
                assert len(pair.first) + len(pair.second) == 4 or pair.second.stop % 3000 == 0

    @pytest.mark.parametrize("short_seq_prob", [0.0, 0.3, 1.0])
    def test_short_sequences(self, short_seq_prob):
        pairs = [pair for pair in self.pairs(short_seq_prob) if pair.second.stop % 3000]
        short = np.array([len(pair.first) + len(pair.second) < 4 for pair in pairs])
        # Of the 39 targets from 2 to 40 tokens, those up to 20 end with two sentences, as a pair has two at
        # least; those up to 30 with three.
        share = short_seq_prob * 29 / 39
        assert abs(short.mean() - share) <= 5 * np.sqrt(share * (1 - share) / len(short))
        lengths = np.bincount([len(pair.first) + len(pair.second) for pair in pairs], minlength=5)
        if short_seq_prob:
            assert abs(lengths[2] / len(pairs) - short_seq_prob * 19 / 39) < 0.03
            assert abs(lengths[3] / len(pairs) - short_seq_prob * 10 / 39) < 0.03


def test_documents_of_one_sentence_have_random_pairs_only():
    pairs = list(
        sentence_pairs([3, 4, 5], [range(1), range(1, 2), range(2, 3)], 20, 0.1, np.random.default_rng(0))
    )
    assert [pair.first for pair in pairs] == [range(1), range(1, 2), range(2, 3)]
    assert {pair.label for pair in pairs} == {NOT_NEXT}


def test_where_a_random_part_does_not_fit_the_first_gives_way():
    # A has 4 + 4 tokens when the split is in the middle or later; B's only sentence has 5 of 10.
    lengths = [4, 4, 2, 5]
    seen = set()
    for seed in range(200):
        pairs = list(sentence_pairs(lengths, [range(3), range(3, 4)], 10, 0.0, np.random.default_rng(seed)))
        seen |= {pair.first for pair in pairs if pair.label == NOT_NEXT and pair.second == range(3, 4)}
        assert all(tokens(lengths, pair.first) + tokens(lengths, pair.second) <= 10 for pair in pairs)
    assert range(2) not in seen  # 8 + 5 > 10: the second sentence goes back
    assert range(1) in seen
    assert range(1, 2) in seen


def test_a_random_part_begins_with_any_sentence():
    starts = set()
    for seed in range(100):
        pairs = sentence_pairs([3] * 5, [range(2), range(2, 5)], 20, 0.0, np.random.default_rng(seed))
        starts |= {pair.second.start for pair in pairs if pair.label == NOT_NEXT}
    assert starts == set(range(5))
