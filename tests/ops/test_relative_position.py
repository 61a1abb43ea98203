"""relative positions: both kinds against a loop, the contract, and which row belongs to which distance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.relative_position import relative_position_backward, relative_position_forward
from tests.comparisons import assert_identical, assert_rows_close
from tests.op_contract import assert_op_contract, multilinear_terms
from tests.oracles import relative_position_loop, torch_value_and_gradients
from tests.strategies import integers, seeds, shapes, weights
from tests.tolerances import ROUND_OFF, U64

GRADIENTS = ("q", "k", "distance_embedding")
TERMS = multilinear_terms(relative_position_forward, relative_position_backward)
kinds = st.sampled_from(("relative_key", "relative_key_query"))
spare_positions = st.sampled_from((0, 1, 4))  # how many more than the text needs: P - T
relative_shapes = shapes(4, most=400).filter(lambda s: s[0] * s[1] * s[2] ** 2 <= 2000)


def arguments(rng, shape, spare, kind):
    q, k = rng.normal(size=(2, *shape))
    return q, k, weights(rng, 2 * (shape[2] + spare) - 1, shape[3]), kind


@given(shape=relative_shapes, seed=seeds, spare=spare_positions, kind=kinds)
def test_contract(shape, seed, spare, kind):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, spare, kind)
    assert_op_contract(
        relative_position_forward, relative_position_backward, args, rng, gradients=GRADIENTS, terms=TERMS
    )


@given(shape=relative_shapes, seed=seeds, spare=spare_positions, kind=kinds)
def test_value_is_the_loop(shape, seed, spare, kind):
    args = arguments(np.random.default_rng(seed), shape, spare, kind)
    bias, _ = relative_position_forward(*args)
    expected = relative_position_loop(*args)
    size = TERMS(np.zeros(bias.shape), *args)[0]
    assert_rows_close(bias, expected, what="bias", round_off=ROUND_OFF * U64, terms=size)


def test_row_of_a_distance():
    """Row i - j + P - 1: with P = 4 the middle row, 3, is distance 0; a key to the left is a positive one."""
    table = np.array([[-3.0], [-2.0], [-1.0], [0.0], [1.0], [2.0], [3.0]])
    q = np.array([10.0, 100.0]).reshape(1, 1, 2, 1)
    k = np.array([1000.0, 5000.0]).reshape(1, 1, 2, 1)
    bias, _ = relative_position_forward(q, k, table, "relative_key")
    np.testing.assert_array_equal(bias[0, 0], [[0, -10], [100, 0]])
    bias, _ = relative_position_forward(q, k, table, "relative_key_query")
    np.testing.assert_array_equal(bias[0, 0], [[0, -10 - 5000], [100 + 1000, 0]])


@given(shape=relative_shapes, seed=seeds, spare=spare_positions, kind=kinds)
def test_gradients_in_whole_numbers_are_the_loop(shape, seed, spare, kind):
    rng = np.random.default_rng(seed)
    batch, heads, tokens, width = shape
    q, k = integers(rng, *shape), integers(rng, *shape)
    table = integers(rng, 2 * (tokens + spare) - 1, width)
    dbias = integers(rng, batch, heads, tokens, tokens)
    dq, dk, dtable = relative_position_backward(dbias, relative_position_forward(q, k, table, kind)[1])
    expected_dq, expected_dk, expected_dtable = (np.zeros(a.shape) for a in (q, k, table))
    for b, n, i, j in np.ndindex(dbias.shape):
        row = i - j + tokens + spare - 1
        expected_dq[b, n, i] += dbias[b, n, i, j] * table[row]
        expected_dtable[row] += dbias[b, n, i, j] * q[b, n, i]
        if kind == "relative_key_query":
            expected_dk[b, n, j] += dbias[b, n, i, j] * table[row]
            expected_dtable[row] += dbias[b, n, i, j] * k[b, n, j]
    assert_identical(dq, expected_dq, "dq")
    assert_identical(dk, expected_dk, "dk")
    assert_identical(dtable, expected_dtable, "ddistance_embedding")
    unused = np.r_[:spare, len(table) - spare : len(table)]
    assert not dtable[unused].any()


@pytest.mark.parametrize("kind", ["absolute", "relative", "", None])
def test_another_kind_is_an_error_that_names_it(kind):
    q = np.zeros((1, 1, 2, 3))
    with pytest.raises(
        ValueError, match=f'kind is {kind!r}; it must be "relative_key" or "relative_key_query"'
    ):
        relative_position_forward(q, q, np.zeros((3, 3)), kind)


@pytest.mark.oracle
@given(shape=relative_shapes, seed=seeds, spare=spare_positions, kind=kinds)
def test_torch_agrees(shape, seed, spare, kind):
    """As Hugging Face's BertSelfAttention spells it."""
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, spare, kind)
    dbias = rng.normal(size=(*shape[:2], shape[2], shape[2]))

    def by_torch(q, k, table, kind):
        import torch

        tokens = torch.arange(q.shape[2])
        distance = tokens.view(-1, 1) - tokens.view(1, -1)
        vectors = torch.nn.functional.embedding(distance + (table.shape[0] + 1) // 2 - 1, table)
        bias = torch.einsum("bhld,lrd->bhlr", q, vectors)
        return bias + torch.einsum("bhrd,lrd->bhlr", k, vectors) if kind == "relative_key_query" else bias

    bias, cache = relative_position_forward(*args)
    value, expected = torch_value_and_gradients(by_torch, args, dbias)
    if kind == "relative_key":
        assert expected[1] is None
        expected[1] = np.zeros(shape)
    found = (bias, *relative_position_backward(dbias, cache))
    for name, actual, reference, t in zip(
        ("bias", *GRADIENTS), found, (value, *expected), TERMS(dbias, *args), strict=True
    ):
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64, terms=t)
