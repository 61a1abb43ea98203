"""Which tokens are rows: every one that is looked at, once, in chunks of about one size."""

import numpy as np
import pytest

from npbert.cpu.rows import CHUNK_ROWS, CHUNKS_TOGETHER, LEAST_CHUNK_ROWS, chunks_of_texts, pack
from tests.comparisons import assert_identical


def masks(seed: int, batch: int = 7, tokens: int = 9):
    rng = np.random.default_rng(seed)
    keys = np.arange(tokens) < rng.integers(0, tokens + 1, batch)[:, None]
    keys[1] = rng.random(tokens) < 0.5  # scattered
    keys[2] = False
    read = rng.random((batch, tokens)) < 0.2
    return keys, read


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("given", ["both", "keys", "read", "none"])
def test_the_rows_are_the_tokens_that_are_looked_at(seed, given):
    keys, read = masks(seed)
    key_mask = keys if given in ("both", "keys") else None
    read_mask = read if given in ("both", "read") else None
    packing = pack(keys.shape, key_mask, read_mask)
    expected = keys | read if given == "both" else np.ones(keys.shape, bool)
    assert_identical(np.sort(packing.places), np.flatnonzero(expected), "places")
    seen = np.zeros(keys.shape, int)
    for chunk in packing.chunks:
        places = packing.places[chunk.rows]
        for text in chunk.texts:
            tokens = np.arange(keys.shape[1])[text.tokens]
            assert_identical(places[text.rows], text.number * keys.shape[1] + tokens, "rows of a text")
            seen[text.number, tokens[text.keys]] += 1
    assert_identical(seen, np.where(expected, 1 if key_mask is None else keys, 0).astype(int), "keys")


def test_a_text_that_begins_with_its_keys_is_cut_without_copies():
    keys = np.array([[True, True, False, False], [False, True, True, False]])
    packing = pack(keys.shape, keys, np.array([[False, False, True, False], [False] * 4]))
    texts = {text.number: text for chunk in packing.chunks for text in chunk.texts}
    assert texts[0].tokens == slice(3)
    assert texts[0].keys == slice(2)
    assert_identical(texts[1].tokens, np.array([1, 2]), "tokens")
    assert texts[1].keys == slice(2)


def test_nothing_to_look_at_is_no_row():
    packing = pack((2, 3), np.zeros((2, 3), bool), np.zeros((2, 3), bool))
    assert packing.chunks == []
    assert packing.places.shape == (0,)


@pytest.mark.parametrize("seed", range(5))
def test_chunks_have_about_as_many_rows_each(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 129, 200).tolist()
    chunks = chunks_of_texts(lengths)
    indices = [index for chunk in chunks for index in chunk]
    assert sorted(indices) == [index for index, length in enumerate(lengths) if length]
    sizes = [sum(lengths[index] for index in chunk) for chunk in chunks]
    assert len(chunks) % CHUNKS_TOGETHER == 0
    assert np.mean(sizes) <= CHUNK_ROWS
    assert max(sizes) - min(sizes) <= 32  # the short texts come last, and level the chunks


def test_little_work_is_not_cut_small():
    assert len(chunks_of_texts([20] * ((LEAST_CHUNK_ROWS - 1) // 20))) == 1
    assert len(chunks_of_texts([20] * (3 * LEAST_CHUNK_ROWS // 20))) == 2
    assert len(chunks_of_texts([32] * (4 * LEAST_CHUNK_ROWS // 32))) == 4
    assert chunks_of_texts([5, 3, 4]) == [[0, 2, 1]]
