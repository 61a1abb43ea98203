"""embedding of the CPU engine: the textbook's bits, its contract, runs that blocks cut, workers."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert import ops
from npbert.cpu import embedding as engine
from tests.comparisons import assert_identical
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.op_contract import assert_op_contract, multilinear_terms
from tests.ops.test_embedding import (
    GRADIENTS,
    PADDING,
    arguments,
    padding_indices,
    scatter_loop,
    single_precision_normals,
)
from tests.strategies import flags, integers, seeds, shapes

blocks = st.sampled_from((1, 40, 100, 32768))  # elements: rows alone, runs that are cut, all in one


def with_padding_row_held(args):
    """The forward with a padding row that no derivative can see: the op gives that row no gradient."""
    table = args[4]

    @functools.wraps(engine.embedding_forward)
    def forward(ids, embeds, position_ids, type_ids, words, position_table, type_table, padding_idx):
        if padding_idx is not None:
            words = words.copy()
            words[padding_idx] = table[padding_idx]
        return engine.embedding_forward(
            ids, embeds, position_ids, type_ids, words, position_table, type_table, padding_idx
        )

    return forward


@given(
    shape=shapes(3, most=500),
    seed=seeds,
    from_ids=flags,
    has_positions=flags,
    padding_idx=padding_indices,
    block=blocks,
)
def test_contract(shape, seed, from_ids, has_positions, padding_idx, block):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, single_precision_normals, from_ids, has_positions, padding_idx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", block)
        assert_op_contract(
            with_padding_row_held(args),
            engine.embedding_backward,
            args,
            rng,
            gradients=GRADIENTS,
            unused=() if from_ids else ("word_embeddings",),
            terms=multilinear_terms(ops.embedding_forward, ops.embedding_backward),
        )


@given(
    shape=shapes(3),
    seed=seeds,
    from_ids=flags,
    has_positions=flags,
    padding_idx=padding_indices,
    block=blocks,
)
def test_whole_numbers_are_the_textbooks(shape, seed, from_ids, has_positions, padding_idx, block):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, integers, from_ids, has_positions, padding_idx)
    dy = integers(rng, *shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", block)
        y, cache = engine.embedding_forward(*args)
        found = engine.embedding_backward(dy, cache)
    expected_y, expected_cache = ops.embedding_forward(*args)
    assert_identical(y, expected_y, "y")
    expected = ops.embedding_backward(dy, expected_cache)
    for name, actual, reference in zip(GRADIENTS, found, expected, strict=True):
        if reference is None:
            assert actual is None, name
        else:
            assert_identical(actual, reference, f"d{name}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_rounds_in_the_textbooks_order(dtype):
    rng = np.random.default_rng(1)
    args = arguments(rng, (3, 31, 33), single_precision_normals)
    args = [a.astype(dtype) if getattr(a, "dtype", None) == np.float64 else a for a in args]
    assert_identical(engine.embedding_forward(*args)[0], ops.embedding_forward(*args)[0], "y")


@given(
    runs=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    rows_of_a_block=st.integers(1, 5),
    seed=seeds,
)
def test_scatter_of_runs_that_blocks_cut(runs, rows_of_a_block, seed):
    """Runs that end with a block, go through several, begin in the middle of one."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(len(runs)) * 2, runs))
    rows = integers(rng, len(ids), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", 3 * rows_of_a_block)
        table = engine.scatter_add(rows, ids, (2 * len(runs) + 1, 3))
    assert_identical(table, scatter_loop(rows, ids, 2 * len(runs) + 1), "table")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scatter_adds_in_the_order_of_the_places(dtype):
    """In another order the last bits would be others: of a sort that is not stable, those of its release."""
    rng = np.random.default_rng(6)
    ids = rng.integers(0, 7, size=1000)
    rows = rng.normal(size=(1000, 5)).astype(dtype)
    table = engine.scatter_add(rows, ids, (7, 5))
    for i in range(7):
        assert_identical(table[i], np.add.reduce(rows[ids == i], axis=0), f"row {i}")


def test_positions_seen_by_all_texts_are_added_up():
    rng = np.random.default_rng(2)
    ids, _, _, types, *tables = arguments(rng, (3, 7, 2), integers)
    positions = ops.default_position_ids(3, 7, 0, np)
    dy = integers(rng, 3, 7, 2)
    _, cache = engine.embedding_forward(ids, None, positions, types, *tables)
    _, _, dpositions, _ = engine.embedding_backward(dy, cache)
    np.testing.assert_array_equal(dpositions[:7], dy.sum(axis=0))
    assert not dpositions[7:].any()


@pytest.mark.parametrize("from_ids", [True, False])
def test_any_number_of_workers(from_ids, monkeypatch):
    monkeypatch.setattr(engine, "BLOCK", 1 << 15)
    rng = np.random.default_rng(3)
    batch, tokens, hidden = 4, 90, 384
    ids = rng.zipf(1.3, size=(batch, tokens)) % 500
    args = (
        ids if from_ids else None,
        None if from_ids else rng.normal(size=(batch, tokens, hidden)),
        ops.default_position_ids(batch, tokens, 0, np),
        rng.integers(0, 2, size=(batch, tokens)),
        rng.normal(size=(500, hidden)),
        rng.normal(size=(100, hidden)),
        rng.normal(size=(2, hidden)),
        PADDING,
    )
    assert ids.size * hidden > 4 * engine.BLOCK
    assert_same_for_any_workers(engine.embedding_forward, engine.embedding_backward, args, rng)


def test_ids_outside_their_table_are_treated_as_the_textbook_does():
    rng = np.random.default_rng(4)
    args = list(arguments(rng, (2, 5, 3), integers, padding_idx=None))
    args[0][1, 2] = -1  # NumPy's last row
    y, cache = engine.embedding_forward(*args)
    assert_identical(y, ops.embedding_forward(*args)[0], "y")
    dy = integers(rng, 2, 5, 3)
    expected = ops.embedding_backward(dy, ops.embedding_forward(*args)[1])
    assert_identical(engine.embedding_backward(dy, cache)[1], expected[1], "dword_embeddings")
    args[0][1, 2] = len(args[4])
    with pytest.raises(IndexError, match="out of bounds"):
        engine.embedding_forward(*args)


def test_no_tokens():
    args = list(arguments(np.random.default_rng(5), (2, 3, 4)))
    args[0], args[2], args[3] = (np.zeros((2, 0), int) for _ in range(3))
    y, cache = engine.embedding_forward(*args)
    assert y.shape == (2, 0, 4)
    _, dwords, dpositions, dtypes = engine.embedding_backward(y, cache)
    for gradient, table in ((dwords, args[4]), (dpositions, args[5]), (dtypes, args[6])):
        assert_identical(gradient, np.zeros_like(table), "gradient")
