"""Encoding without padding: the textbook's vectors, whatever the texts are packed with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npbert
from npbert.config import BertConfig
from npbert.cpu.packed import CHUNK_TOKENS, chunk_size, chunks_by_tokens, encode_packed, is_packable
from npbert.cpu.workers import single_threaded_blas, workers
from npbert.pooling import PoolingSettings
from tests.comparisons import assert_finite, assert_identical
from tests.models import random_params
from tests.tolerances import FLOAT32_MODEL, REORDERED

SETTINGS = [
    PoolingSettings(mode, normalize=normalize) for mode in ("mean", "cls") for normalize in (True, False)
]


def model(**fields):
    """A configuration and parameters of its body."""
    sizes = {
        "vocab_size": 37,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 17,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-3,
    }
    config = BertConfig(**(sizes | fields))
    return config, random_params(np.random.default_rng(0), config, "encoder", spread=0.3)


def texts(rng, count, longest=30):
    """Ids of texts: some lengths occur again, one is 1."""
    lengths = rng.integers(1, longest + 1, count)
    lengths[: count // 2] = lengths[0]
    return [rng.integers(0, 37, length).tolist() for length in [*lengths, 1]]


def textbook(config, params, rows, settings):
    """Each text alone, through the reference."""
    bert = npbert.Bert(
        config, params, task="encoder", dtype=np.float64, backend="reference", pooling=settings
    )
    return np.concatenate([bert._encoder().encode_padded([row]) for row in rows])


def encode(config, params, rows, settings, batch_tokens=4096, dtype=np.float64, advance=lambda n: None):
    arrays = {name: value.astype(dtype) for name, value in params.items()}
    return encode_packed(arrays, config, rows, settings, batch_tokens, advance)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(
    "fields",
    [{}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"position_embedding_type": "sinusoidal"}],
    ids=str,
)
def test_vectors_are_the_textbooks(fields, settings):
    config, params = model(**fields)
    rows = texts(np.random.default_rng(1), 9)
    expected = textbook(config, params, rows, settings)
    found = encode(config, params, rows, settings)
    assert_finite(found, "vectors")
    assert np.abs(found - expected).max() <= 100 * REORDERED * np.abs(expected).max()
    single = encode(config, params, rows, settings, dtype=np.float32)
    assert single.dtype == np.float32
    assert np.abs(single - expected).max() <= FLOAT32_MODEL * np.abs(expected).max()


@pytest.mark.parametrize("batch_tokens", [1, 17, 64, 10_000])
def test_batch_tokens_changes_round_off_only(batch_tokens):
    config, params = model()
    rows = texts(np.random.default_rng(2), 12)
    settings = PoolingSettings("mean")
    expected = textbook(config, params, rows, settings)
    found = encode(config, params, rows, settings, batch_tokens)
    assert np.abs(found - expected).max() <= 100 * REORDERED * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_workers_changes_no_bit(dtype):
    config, params = model()
    rows = texts(np.random.default_rng(3), 20)
    found = []
    for count in (1, 2, 3):
        with workers(count):
            found.append(encode(config, params, rows, PoolingSettings("mean"), 40, dtype))
    assert_identical(found[1], found[0], "two workers")
    assert_identical(found[2], found[0], "three workers")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_text_has_the_same_bits_in_any_company(dtype):
    """Alone, among others, in chunks of any size, on any number of threads."""
    config, params = model(max_position_embeddings=140)
    rng = np.random.default_rng(6)
    rows = texts(rng, 24, longest=130)
    settings = PoolingSettings("mean")

    def vectors(rows, batch_tokens=4096):
        arrays = {name: value.astype(dtype) for name, value in params.items()}
        return encode_packed(arrays, config, rows, settings, batch_tokens, lambda n: None, True)

    together = vectors(rows)
    assert len(np.unique(together[:, 0])) == len(rows)
    assert_identical(np.concatenate([vectors([row]) for row in rows]), together, "alone")
    assert_identical(vectors(rows[::-1])[::-1], together, "in another order")
    assert_identical(vectors(rows[3:7]), together[3:7], "some of them")
    for batch_tokens in (1, 50, 333):
        assert_identical(vectors(rows, batch_tokens), together, f"batch_tokens={batch_tokens}")
    for count in (1, 2, 5):
        with workers(count):
            assert_identical(vectors(rows), together, f"{count} workers")
    with single_threaded_blas():
        assert_identical(vectors(rows[:1]), together[:1], "one BLAS thread")


def test_scores_beyond_the_range_of_exp():
    config, params = model()
    for name in params:
        if ".query.weight" in name or ".key.weight" in name:
            params[name] = params[name] * 200
    rows = texts(np.random.default_rng(4), 5)
    settings = PoolingSettings("cls")
    expected = textbook(config, params, rows, settings)
    for dtype in (np.float32, np.float64):
        assert_finite(encode(config, params, rows, settings, dtype=dtype), "vectors")
    # Differences of scores in the thousands: their round-off is that of the scores.
    found = encode(config, params, rows, settings)
    assert np.abs(found - expected).max() <= 1e-8 * np.abs(expected).max()


def test_every_text_is_counted():
    config, params = model()
    rows = texts(np.random.default_rng(5), 20)
    done = []
    encode(config, params, rows, PoolingSettings("mean"), 32, advance=done.append)
    assert sum(done) == len(rows)
    assert len(done) > 1


def test_no_texts():
    config, params = model()
    assert encode(config, params, [], PoolingSettings("mean")).shape == (0, 12)


def test_relative_positions_are_not_packed_but_encoded():
    config, params = model(position_embedding_type="relative_key")
    assert not is_packable(config)
    assert is_packable(model()[0])
    rows = [[2, 5, 3], [2, 3]]
    found, expected = (
        npbert.Bert(config, params, task="encoder", backend=backend)._encoder().encode_padded(rows)
        for backend in ("cpu", "reference")
    )
    assert np.abs(found - expected).max() <= 100 * REORDERED * np.abs(expected).max()


@given(lengths=st.lists(st.integers(1, 50), max_size=30), most=st.integers(1, 60))
def test_chunks(lengths, most):
    chunks = chunks_by_tokens(lengths, most)
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        assert len(chunk) == 1 or sum(lengths[index] for index in chunk) <= most
    in_order = [lengths[index] for chunk in chunks for index in chunk]
    assert in_order == sorted(in_order, reverse=True)


@given(tokens=st.integers(0, 100_000), most=st.integers(1, CHUNK_TOKENS))
def test_chunk_size(tokens, most):
    size = chunk_size(tokens, most)
    assert 1 <= size <= most
    assert -(-tokens // size) <= -(-tokens // most) + 3


@pytest.mark.parametrize(("texts", "chunks"), [(1, 1), (2, 1), (4, 2), (8, 4), (16, 4), (32, 8)])
def test_workers_have_as_much_to_do_each(texts, chunks):
    """Texts of 128 tokens, on two or four workers."""
    size = chunk_size(128 * texts, CHUNK_TOKENS)
    cut = chunks_by_tokens([128] * texts, size)
    assert [len(chunk) for chunk in cut] == [texts // chunks] * chunks
