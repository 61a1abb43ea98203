"""Masking: how many tokens are chosen, which, and what becomes of them."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.masking import BERT_MASKING, MaskingOptions, mask_tokens
from tests.strategies import seeds

MASK = 4
VOCAB = 1000

OPTIONS = st.builds(
    MaskingOptions,
    rate=st.floats(0.01, 0.99),
    max_predictions=st.none() | st.integers(1, 10),
    whole_word=st.booleans(),
    max_ngram=st.integers(1, 4),
    mask_share=st.floats(0, 0.5),
    random_share=st.floats(0, 0.5),
)


def sequence(rng: np.random.Generator, tokens: int) -> dict[str, Any]:
    """Draw a sequence: [CLS], words of one or more pieces with a [SEP] here and there, [SEP]."""
    special = rng.random(tokens) < 0.1
    special[[0, -1]] = True
    return {
        "input_ids": np.where(special, 3, rng.integers(5, VOCAB, tokens)),
        "special": special,
        "continuation": (rng.random(tokens) < 0.4) & ~special,
    }


def words(special: np.ndarray, continuation: np.ndarray) -> list[list[int]]:
    """Return the positions of each word, found the plain way."""
    found: list[list[int]] = []
    for position, is_special in enumerate(special):
        if is_special:
            continue
        if continuation[position] and not special[position - 1]:
            found[-1].append(position)
        else:
            found.append([position])
    return found


def mask(given_sequence: dict[str, Any], options: MaskingOptions, seed: int = 0):
    return mask_tokens(
        **given_sequence, options=options, mask_id=MASK, vocab_size=VOCAB, rng=np.random.default_rng(seed)
    )


@given(seed=seeds, tokens=st.integers(2, 60), options=OPTIONS)
def test_labels_are_the_original_tokens(seed, tokens, options):
    given_sequence = sequence(np.random.default_rng(seed), tokens)
    original = {name: array.copy() for name, array in given_sequence.items()}
    masked_ids, labels = mask(given_sequence, options, seed)
    chosen = labels != -100
    assert all(np.array_equal(given_sequence[name], original[name]) for name in original)
    assert np.array_equal(labels[chosen], original["input_ids"][chosen])
    assert np.array_equal(masked_ids[~chosen], original["input_ids"][~chosen])
    assert not (chosen & original["special"]).any()
    assert ((masked_ids >= 0) & (masked_ids < VOCAB)).all()
    assert masked_ids.dtype == labels.dtype == np.int64


@given(
    seed=seeds, tokens=st.integers(3, 200), rate=st.floats(0.01, 0.99), limit=st.none() | st.integers(1, 30)
)
def test_how_many_are_chosen(seed, tokens, rate, limit):
    given_sequence = sequence(np.random.default_rng(seed), tokens)
    options = MaskingOptions(rate=rate, max_predictions=limit)
    _, labels = mask(given_sequence, options, seed)
    there_are = int((~given_sequence["special"]).sum())
    wanted = min(max(1, round(tokens * rate)), tokens if limit is None else limit)
    assert (labels != -100).sum() == min(wanted, there_are)


@pytest.mark.parametrize(
    ("tokens", "limit", "count"),
    [
        (3, None, 1),
        (10, None, 2),
        (17, None, 3),
        (30, None, 4),
        (128, None, 19),
        (512, 76, 76),
        (512, 9, 9),
        (30, 20, 4),
    ],
)
def test_counts_of_googles_script(tokens, limit, count):
    # max(1, int(round(tokens * 0.15))), at most max_predictions_per_seq; 1.5 and 4.5 are rounded to even.
    assert MaskingOptions(max_predictions=limit).predictions(tokens) == count


@given(seed=seeds, tokens=st.integers(2, 60), rate=st.floats(0.05, 0.6), max_ngram=st.integers(1, 3))
def test_all_pieces_of_a_word_or_none(seed, tokens, rate, max_ngram):
    given_sequence = sequence(np.random.default_rng(seed), tokens)
    options = MaskingOptions(rate=rate, whole_word=True, max_ngram=max_ngram)
    _, labels = mask(given_sequence, options, seed)
    chosen = labels != -100
    count = options.predictions(tokens)
    assert chosen.sum() <= count
    passed_over = []
    for word in words(given_sequence["special"], given_sequence["continuation"]):
        assert len({bool(chosen[position]) for position in word}) == 1
        if not chosen[word[0]]:
            passed_over.append(len(word))
    if passed_over and max_ngram == 1:  # only what would have been too much
        assert chosen.sum() + min(passed_over) > count


def test_words_of_a_sequence():
    # [CLS] un ##aff ##able , [SEP] ##ing is [SEP]: the second part begins with the rest of a cut word.
    special = np.array([1, 0, 0, 0, 0, 1, 0, 0, 1], dtype=bool)
    continuation = np.array([0, 0, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    expected = {(1, 2, 3), (4,), (6,), (7,)}
    given_sequence = {"input_ids": np.arange(10, 19), "special": special, "continuation": continuation}
    found = set()
    for seed in range(50):
        for rate in (0.01, 0.34):  # 1 token, 3 tokens
            _, labels = mask(given_sequence, MaskingOptions(rate=rate, whole_word=True), seed)
            positions = tuple(np.flatnonzero(labels != -100).tolist())
            found |= {word for word in expected if word == positions}
            assert set(positions) <= {1, 2, 3, 4, 6, 7}
            assert positions  # there are words of one token
    assert found == expected


def test_a_word_that_is_too_long_is_passed_over():
    given_sequence = {
        "input_ids": np.arange(10, 18),
        "special": np.array([1, 0, 0, 0, 0, 0, 0, 1], dtype=bool),
        "continuation": np.array([0, 0, 1, 1, 0, 1, 1, 0], dtype=bool),
    }
    masked_ids, labels = mask(given_sequence, MaskingOptions(rate=0.25, whole_word=True))
    assert (labels == -100).all()  # 2 tokens of words of 3
    assert np.array_equal(masked_ids, given_sequence["input_ids"])


def test_a_sequence_of_special_tokens_only():
    ids = np.array([2, 3])
    masked_ids, labels = mask(
        {"input_ids": ids, "special": np.ones(2, dtype=bool), "continuation": np.zeros(2, dtype=bool)},
        BERT_MASKING,
    )
    assert masked_ids.tolist() == [2, 3]
    assert labels.tolist() == [-100, -100]


class TestNGrams:
    @given(seed=seeds, tokens=st.integers(3, 60), max_ngram=st.integers(2, 4))
    def test_a_span_is_no_longer_than_what_is_left_to_choose(self, seed, tokens, max_ngram):
        given_sequence = sequence(np.random.default_rng(seed), tokens)
        _, labels = mask(given_sequence, MaskingOptions(rate=0.01, max_ngram=max_ngram), seed)
        assert (labels != -100).sum() == min(1, (~given_sequence["special"]).sum())
        _, labels = mask(given_sequence, MaskingOptions(rate=0.5, max_ngram=max_ngram), seed)
        assert (labels != -100).sum() <= max(1, round(tokens * 0.5))

    @pytest.mark.parametrize("whole_word", [False, True])
    def test_lengths_of_spans(self, whole_word):
        """P(n) is proportional to 1/n: 6/11, 3/11, 2/11 for up to three."""
        tokens, draws = 3000, 0
        counts: Counter[int] = Counter()
        special = np.zeros(tokens, dtype=bool)
        special[[0, -1]] = True
        # Two pieces a word: a span of n words has 2 n tokens.
        continuation = (np.arange(tokens) % 2 == 0) & ~special
        ids = np.arange(10, 10 + tokens)
        options = MaskingOptions(rate=0.02, whole_word=whole_word, max_ngram=3)
        for seed in range(100):
            _, labels = mask(
                {"input_ids": ids, "special": special, "continuation": continuation}, options, seed
            )
            assert (labels != -100).sum() == 60  # 2 %: no token counts twice
            edges = np.flatnonzero(np.diff((labels != -100).astype(int)))
            lengths = edges[1::2] - edges[::2]
            counts.update((lengths // (2 if whole_word else 1)).tolist())
            draws += len(lengths)
        # Adjacent spans look like longer ones: rare at a rate of 2 %, at most some percent of all.
        for length, share in ((1, 6 / 11), (2, 3 / 11), (3, 2 / 11)):
            assert abs(counts[length] / draws - share) < 0.04

    def test_a_span_ends_before_a_special_token(self):
        special = np.array([1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1], dtype=bool)
        given_sequence = {
            "input_ids": np.arange(10, 23),
            "special": special,
            "continuation": np.zeros(13, dtype=bool),
        }
        for seed in range(100):
            _, labels = mask(given_sequence, MaskingOptions(rate=0.3, max_ngram=4), seed)
            chosen = labels != -100
            assert not (chosen & special).any()
            assert 0 < chosen.sum() <= 4


TOKENS = 128
SEQUENCES = 400


@pytest.fixture(scope="module")
def drawn():
    """The ids of a sequence, what it became in many draws, and the labels."""
    given_sequence = sequence(np.random.default_rng(1), TOKENS)
    given_sequence["special"] = np.arange(TOKENS) % (TOKENS - 1) == 0
    results = [mask(given_sequence, BERT_MASKING, seed) for seed in range(SEQUENCES)]
    masked, labels = (np.stack(arrays) for arrays in zip(*results, strict=True))
    return given_sequence["input_ids"], masked, labels


class TestShares:
    """Over many draws from a fixed seed, within five standard deviations of a binomial: 1 in 1.7 million."""

    def test_fifteen_percent(self, drawn):
        _, _, labels = drawn
        assert ((labels != -100).sum(axis=1) == 19).all()  # round(0.15 * 128)

    def test_eighty_ten_ten(self, drawn):
        original, masked, labels = drawn
        chosen = labels != -100
        seen, was = masked[chosen], labels[chosen]
        shares = {
            0.8: (seen == MASK).mean(),
            0.1: ((seen != MASK) & (seen != was)).mean(),
            0.1 + 1e-9: (seen == was).mean(),
        }
        assert np.array_equal(np.broadcast_to(original, masked.shape)[~chosen], masked[~chosen])
        for share, found in shares.items():
            assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / len(seen)), (share, found)

    def test_each_place_is_as_likely(self, drawn):
        _, _, labels = drawn
        share = 19 / (TOKENS - 2)
        found = (labels != -100).mean(axis=0)[1:-1]
        assert (abs(found - share) < 5 * np.sqrt(share * (1 - share) / SEQUENCES)).all()
        # And not more even than that.
        assert found.std() > 0.5 * np.sqrt(share * (1 - share) / SEQUENCES)

    def test_random_tokens_are_of_the_whole_vocabulary(self, drawn):
        _, masked, labels = drawn
        chosen = labels != -100
        random = masked[chosen & (masked != MASK) & (masked != labels)]
        assert len(random) > 500
        assert random.min() < 20  # special tokens included
        assert random.max() > VOCAB - 20
        # Uniform: the mean of n draws from 0 to V - 1.
        deviation = np.sqrt((VOCAB**2 - 1) / 12 / len(random))
        assert abs(random.mean() - (VOCAB - 1) / 2) < 5 * deviation

    def test_random_tokens_of_a_small_vocabulary(self):
        given_sequence = sequence(np.random.default_rng(2), 2000)
        masked, labels = mask_tokens(
            **given_sequence,
            options=MaskingOptions(mask_share=0, random_share=1),
            mask_id=4,
            vocab_size=7,
            rng=np.random.default_rng(0),
        )
        assert set(masked[labels != -100].tolist()) == set(range(7))

    @pytest.mark.parametrize(("mask_share", "random_share"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
    def test_other_shares(self, mask_share, random_share):
        given_sequence = sequence(np.random.default_rng(2), 2000)
        options = MaskingOptions(mask_share=mask_share, random_share=random_share)
        masked, labels = mask(given_sequence, options)
        chosen = labels != -100
        found = (masked[chosen] == MASK).mean()
        kept = (masked[chosen] == labels[chosen]).mean()
        assert abs(found - mask_share) < 5 * np.sqrt(0.25 / chosen.sum()) * (0 < mask_share < 1) + 0.01
        assert kept == 1 if mask_share == random_share == 0 else kept < 0.02


class TestOptions:
    def test_defaults_are_berts(self):
        options = MaskingOptions(
            rate=0.15, max_predictions=None, whole_word=False, max_ngram=1, mask_share=0.8, random_share=0.1
        )
        assert options == BERT_MASKING

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rate": 0}, "rate is 0; it must be between 0 and 1"),
            ({"rate": 1.0}, "rate is 1.0; it must be"),
            ({"rate": float("nan")}, "rate is nan; it must be"),
            ({"max_predictions": 0}, "max_predictions is 0; it must be at least 1 or None"),
            ({"max_ngram": 0}, "max_ngram is 0; it must be at least 1"),
            ({"mask_share": -0.1}, "mask_share is -0.1; it must be between 0 and 1"),
            ({"random_share": 1.1}, "random_share is 1.1; it must be between 0 and 1"),
            (
                {"mask_share": 0.8, "random_share": 0.3},
                "random_share are 0.8 and 0.3; together",
            ),
        ],
    )
    def test_what_is_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=message):
            MaskingOptions(**options)

    @pytest.mark.parametrize("options", [{"mask_share": 0.9}, {"mask_share": 0.7, "random_share": 0.3}])
    def test_shares_of_one(self, options):
        MaskingOptions(**options)
