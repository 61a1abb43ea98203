"""Masks drawn a stretch at a time: the bits of the whole mask, whatever part of it is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert import ops
from npbert.attention_dropout import AttentionDropout
from npbert.cpu import keep_mask
from npbert.cpu.keep_mask import (
    DrawnDropout,
    TextDropout,
    draw_kept,
    draw_kept_rows,
    draw_kept_square,
    drawn_together,
)
from npbert.ops.philox import philox4x32
from tests.comparisons import assert_identical

DROPOUT = AttentionDropout(0.4, seed=2**63 + 2**33 + 5, layer=2**32 - 3, site=7)
RATES = (0.0, 0.1, 0.5, 1 - 2.0**-32)


@pytest.fixture(autouse=True)
def few_counters_at_once(monkeypatch):
    monkeypatch.setattr(keep_mask, "BLOCK", 5)


def whole(*shape):
    mask = ops.dropout_keep_mask(shape, *DROPOUT)
    assert mask.any()
    assert not mask.all()
    return mask


@given(first=st.integers(0, 60), count=st.integers(0, 60))
def test_a_stretch(first, count):
    assert_identical(draw_kept(first, count, *DROPOUT), whole(120)[first : first + count], "kept")


@pytest.mark.parametrize("rate", RATES)
def test_rates(rate):
    """Of the largest rate one word in 2^32 survives: none of these."""
    dropout = DROPOUT._replace(rate=rate)
    kept = draw_kept(3, 500, *dropout)
    assert_identical(kept, ops.dropout_keep_mask((503,), *dropout)[3:], "kept")
    assert abs(kept.mean() - (1 - rate)) < 0.1


def test_the_word_at_the_threshold_is_kept():
    seed, layer, site = DROPOUT[1:]
    word = philox4x32((0, 0, layer, site), (seed % 2**32, seed >> 32))[1]
    at, above = int(word) / 2**32, (int(word) + 1) / 2**32
    assert draw_kept(1, 1, at, seed, layer, site).all()
    assert not draw_kept(1, 1, above, seed, layer, site).any()


def test_counters_of_more_than_32_bits():
    """Elements around the one whose counter is 2^32: a whole mask of that size is not to be had."""
    first, count = 4 * 2**32 - 7, 30
    counters = first // 4 + np.arange(9, dtype=np.uint64)
    counter = (counters % 2**32, counters >> 32, np.uint64(DROPOUT.layer), np.uint64(DROPOUT.site))
    words = np.stack(philox4x32(counter, (DROPOUT.seed % 2**32, DROPOUT.seed >> 32), np), axis=-1)
    expected = (words >= DROPOUT.threshold).reshape(-1)[first % 4 :][:count]
    assert_identical(draw_kept(first, count, *DROPOUT), expected, "kept")


@given(firsts=st.lists(st.integers(0, 90), min_size=1, max_size=9), count=st.integers(1, 30))
def test_rows(firsts, count):
    """In any order, overlapping or not, and each beginning at any of a counter's four elements."""
    mask = whole(120)
    expected = np.stack([mask[first : first + count] for first in firsts])
    assert_identical(draw_kept_rows(np.array(firsts), count, *DROPOUT), expected, "kept")


def test_some_heads_queries_and_keys():
    mask = whole(6, 9, 11)
    heads, queries, keys = np.array([1, 4]), np.array([0, 3, 8]), np.array([2, 3, 7, 10])
    found = draw_kept_square(heads, queries, keys, (9, 11), *DROPOUT)
    assert_identical(found, mask[np.ix_(heads, queries, keys)], "kept")


@pytest.mark.parametrize("positions", [slice(None), slice(7), np.array([1, 4, 5, 8, 9])])
@pytest.mark.parametrize("keys", [slice(None), slice(3), np.array([0, 2, 4])])
def test_a_text_of_a_padded_batch(positions, keys):
    """Queries are counted among the text's own tokens, and so are keys."""
    dropout = TextDropout(*DROPOUT, text=2, heads=3, tokens=10, positions=positions)
    text = whole(4, 3, 10, 10)[2][:, positions][:, :, positions]
    found = dropout.kept(slice(1, 3), slice(2, 5), keys)
    assert_identical(found, text[1:3, 2:5][..., keys], "kept")
    assert dropout.survivor_scale == 1 / 0.6


def test_texts_drawn_together(monkeypatch):
    """Long ones and those with holes are left to be drawn later; what is drawn is the same."""
    mask = whole(5, 3, 10, 10)
    positions = [slice(7), slice(10), np.array([1, 4, 5, 8, 9]), slice(2, 8), slice(1)]
    texts = [TextDropout(*DROPOUT, n, 3, 10, some) for n, some in enumerate(positions)]
    monkeypatch.setattr(keep_mask, "MOST_DRAWN_TOGETHER", 3 * 7**2)
    together = drawn_together(texts)
    assert [isinstance(one, DrawnDropout) for one in together] == [True, False, False, True, True]
    for number, (one, some) in enumerate(zip(together, positions, strict=True)):
        tokens = np.arange(10)[some]
        expected = mask[number][1:, tokens][:, :, tokens]
        found = one.kept(slice(1, 3), slice(0, len(tokens)), slice(None))
        assert_identical(found, expected, "kept")
        assert_identical(one.kept(slice(1, 3), slice(0, 1), slice(0, 3)), expected[:, :1, :3], "kept")
        assert one.survivor_scale == 1 / 0.6


def test_no_short_texts():
    texts = [TextDropout(*DROPOUT, 0, 3, 10, np.array([1, 4]))]
    assert drawn_together(texts) == texts
    assert drawn_together([]) == []
