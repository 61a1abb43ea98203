"""embedding: whole numbers and exact equality, the contract, and the position helpers."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.embedding import (
    default_position_ids,
    embedding_backward,
    embedding_forward,
    scatter_add,
    sinusoidal_positions,
)
from tests.comparisons import assert_identical, assert_rows_close
from tests.op_contract import assert_op_contract, multilinear_terms
from tests.oracles import embedding_loop, torch_value_and_gradients
from tests.strategies import flags, integers, seeds, shapes
from tests.tolerances import ROUND_OFF, U64

GRADIENTS = ("inputs_embeds", "word_embeddings", "position_embeddings", "token_type_embeddings")
VOCABULARY, POSITIONS, SEGMENTS = 13, 37, 4
PADDING = 5
padding_indices = st.sampled_from((None, 0, PADDING))  # 0, BERT's own, must not pass for None


def arguments(rng, shape, draw=integers, from_ids=True, has_positions=True, padding_idx=PADDING):
    """Ids repeat, and most leave out a part of each table; the padding id is always among them."""
    batch, tokens, hidden = shape
    input_ids = rng.integers(0, VOCABULARY - 2, size=(batch, tokens))
    if padding_idx is not None:
        input_ids[rng.integers(0, batch), rng.integers(0, tokens)] = padding_idx
    return (
        input_ids if from_ids else None,
        None if from_ids else draw(rng, batch, tokens, hidden),
        rng.integers(0, POSITIONS - 3, size=(batch, tokens)),
        rng.integers(0, SEGMENTS - 1, size=(batch, tokens)),
        draw(rng, VOCABULARY, hidden),
        draw(rng, POSITIONS, hidden) if has_positions else None,
        draw(rng, SEGMENTS, hidden),
        padding_idx,
    )


def single_precision_normals(rng, *shape):
    """Float64 numbers that float32 can hold."""
    return rng.normal(size=shape).astype(np.float32).astype(np.float64)


def scatter_loop(rows, ids, table_rows):
    """Add each row to its place in the table, one number at a time."""
    table = np.zeros((table_rows, rows.shape[-1]))
    for place in np.ndindex(ids.shape):
        for d in range(rows.shape[-1]):
            table[ids[place], d] += rows[place][d]
    return table


def with_padding_row_held(args):
    """The forward with a padding row that no derivative can see: the op gives that row no gradient."""
    table, padding_idx = args[4], args[7]

    @functools.wraps(embedding_forward)
    def forward(ids, embeds, position_ids, type_ids, words, position_table, type_table, padding_idx):
        if padding_idx is not None:
            words = words.copy()
            words[padding_idx] = table[padding_idx]
        return embedding_forward(
            ids, embeds, position_ids, type_ids, words, position_table, type_table, padding_idx
        )

    assert padding_idx is None or table[padding_idx].any()
    return forward


@given(
    shape=shapes(3, most=500), seed=seeds, from_ids=flags, has_positions=flags, padding_idx=padding_indices
)
def test_contract(shape, seed, from_ids, has_positions, padding_idx):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, single_precision_normals, from_ids, has_positions, padding_idx)
    assert_op_contract(
        with_padding_row_held(args),
        embedding_backward,
        args,
        rng,
        gradients=GRADIENTS,
        unused=() if from_ids else ("word_embeddings",),
        terms=multilinear_terms(embedding_forward, embedding_backward),
    )


@given(shape=shapes(3), seed=seeds, from_ids=flags, has_positions=flags)
def test_value_is_the_loop(shape, seed, from_ids, has_positions):
    args = arguments(np.random.default_rng(seed), shape, integers, from_ids, has_positions)
    y, _ = embedding_forward(*args)
    assert_identical(y, embedding_loop(*args[:-1]), "y")


@given(shape=shapes(3), seed=seeds, from_ids=flags, has_positions=flags, padding_idx=padding_indices)
def test_gradients_are_the_loop(shape, seed, from_ids, has_positions, padding_idx):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, integers, from_ids, has_positions, padding_idx)
    input_ids, _, position_ids, token_type_ids, *_ = args
    dy = integers(rng, *shape)
    dembeds, dwords, dpositions, dtypes = embedding_backward(dy, embedding_forward(*args)[1])
    if from_ids:
        expected = scatter_loop(dy, input_ids, VOCABULARY)
        if padding_idx is not None:
            expected[padding_idx] = 0
        assert_identical(dwords, expected, "dword_embeddings")
        assert dembeds is None
    else:
        assert_identical(dembeds, dy, "dinputs_embeds")
        assert dwords is None
    if has_positions:
        assert_identical(dpositions, scatter_loop(dy, position_ids, POSITIONS), "dposition_embeddings")
    else:
        assert dpositions is None
    assert_identical(dtypes, scatter_loop(dy, token_type_ids, SEGMENTS), "dtoken_type_embeddings")


def test_repeated_absent_and_padding_ids():
    """Small enough to follow with a pencil."""
    words = np.arange(8.0).reshape(4, 2)
    positions, types = 10 * np.ones((3, 2)), 100 * np.ones((2, 2))
    ids = np.array([[1, 1, 3]])
    y, cache = embedding_forward(
        ids, None, np.array([[0, 1, 1]]), np.array([[0, 0, 1]]), words, positions, types, 3
    )
    np.testing.assert_array_equal(y, [[[112, 113], [112, 113], [116, 117]]])  # the padding row is read
    dy = np.array([[[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]]])
    _, dwords, dpositions, dtypes = embedding_backward(dy, cache)
    np.testing.assert_array_equal(dwords, [[0, 0], [4, 7], [0, 0], [0, 0]])
    np.testing.assert_array_equal(dpositions, [[1, 2], [10, 16], [0, 0]])
    np.testing.assert_array_equal(dtypes, [[4, 7], [7, 11]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scatter_add_takes_any_leading_shape(dtype):
    rows = np.arange(12, dtype=dtype).reshape(2, 3, 2)
    table = scatter_add(rows, np.array([[0, 2, 2], [2, 0, 0]]), (4, 2))
    np.testing.assert_array_equal(table, np.array([[18, 21], [0, 0], [12, 15], [0, 0]], dtype), strict=True)


def test_default_position_ids_count_on_from_the_past():
    ids = default_position_ids(2, 3, 0, np)
    np.testing.assert_array_equal(ids, np.array([[0, 1, 2], [0, 1, 2]], np.int64), strict=True)
    ids = default_position_ids(3, 2, 7, np)
    np.testing.assert_array_equal(ids, np.array([[7, 8]] * 3, np.int64), strict=True)


def test_default_position_ids_go_through_the_op():
    """They are one row seen B times; the gradients of all texts must still be added up."""
    rng = np.random.default_rng(5)
    ids, _, _, types, *tables = arguments(rng, (3, 7, 2))
    dy = integers(rng, 3, 7, 2)
    _, cache = embedding_forward(ids, None, default_position_ids(3, 7, 2, np), types, *tables)
    expected = np.zeros((POSITIONS, 2))
    expected[2:9] = dy.sum(axis=0)
    assert_identical(embedding_backward(dy, cache)[2], expected, "dposition_embeddings")


@pytest.mark.parametrize(("positions", "hidden"), [(1, 1), (5, 2), (33, 7), (512, 10)])
def test_sinusoidal_positions_are_the_formula(positions, hidden):
    table = sinusoidal_positions(positions, hidden, np)
    assert table.dtype == np.float64
    for p in range(positions):
        for column in range(hidden):
            angle = p / 10000 ** (2 * (column // 2) / hidden)
            expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            # Reducing an angle modulo 2 pi is exact, but the angle itself has an error of a few u.
            assert abs(table[p, column] - expected) <= ROUND_OFF * U64 * max(1, angle)


@pytest.mark.oracle
@given(shape=shapes(3), seed=seeds, from_ids=flags)
def test_torch_agrees(shape, seed, from_ids):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, single_precision_normals, from_ids)
    dy = rng.normal(size=shape)

    def by_torch(ids, embeds, position_ids, type_ids, words, position_table, type_table, padding_idx):
        import torch

        lookup = torch.nn.functional.embedding
        vectors = lookup(ids, words, padding_idx=padding_idx) if embeds is None else embeds
        return vectors + lookup(position_ids, position_table) + lookup(type_ids, type_table)

    y, cache = embedding_forward(*args)
    found = [g for g in embedding_backward(dy, cache) if g is not None]
    value, expected = torch_value_and_gradients(by_torch, args, dy)
    expected = [g for g in expected if g is not None]
    size = multilinear_terms(embedding_forward, embedding_backward)(dy, *args)
    size = [s for s in size if s is not None]
    assert len(found) == len(expected) == 3
    for actual, reference, t in zip((y, *found), (value, *expected), size, strict=True):
        assert_rows_close(actual, reference, what="embedding", round_off=ROUND_OFF * U64, terms=t)
