"""softmax: a loop, the contract, masks, and scores far from 0."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.softmax import softmax_backward, softmax_forward
from tests.comparisons import assert_finite, assert_rows_close
from tests.op_contract import assert_op_contract
from tests.oracles import softmax_loop, torch_value_and_gradients
from tests.strategies import flags, scales, scattered_mask, seeds, shapes
from tests.tolerances import ROUND_OFF, U64, ZERO_ROW_SUM

GRADIENTS = ("x",)


def terms(dprobs, x, mask=None):
    """A score far below the row's maximum is subtracted with an error of u times the distance."""
    allowed = np.broadcast_to(True if mask is None else mask, x.shape)
    probs = softmax_loop(x.reshape(-1, x.shape[-1]), allowed.reshape(-1, x.shape[-1])).reshape(x.shape)
    distance = np.where(allowed, np.abs(x - x.max(axis=-1, keepdims=True, where=allowed, initial=-1e300)), 0)
    size = probs * (1 + distance + (probs * distance).sum(axis=-1, keepdims=True))
    expected_dprobs = (np.abs(dprobs) * size).sum(axis=-1, keepdims=True)
    return [size, size * np.abs(dprobs) + (size + probs) * expected_dprobs]


@given(shape=shapes(3), seed=seeds, scale=scales, masked=flags, empty=flags)
def test_contract(shape, seed, scale, masked, empty):
    rng = np.random.default_rng(seed)
    mask = scattered_mask(rng, shape[1], shape[2], empty) if masked else None
    args = (scale * rng.normal(size=shape), mask)
    assert_op_contract(softmax_forward, softmax_backward, args, rng, gradients=GRADIENTS, terms=terms)


@given(shape=shapes(2), seed=seeds, scale=st.sampled_from((1.0, 100.0, 1e4)), empty=flags)
def test_value_is_the_loop(shape, seed, scale, empty):
    rng = np.random.default_rng(seed)
    x, mask = scale * rng.normal(size=shape), scattered_mask(rng, *shape, empty)
    for used, everywhere in ((None, np.ones(shape, bool)), (mask, mask)):
        probs, cache = softmax_forward(x, used)
        size = terms(np.zeros(shape), x, everywhere)[0]
        assert_rows_close(
            probs, softmax_loop(x, everywhere), what="probs", round_off=ROUND_OFF * U64, terms=size
        )
        np.testing.assert_array_equal(cache.probs, probs)


@given(shape=shapes(2), seed=seeds, scale=scales, empty=flags)
def test_masked_places_get_exactly_zero_and_do_not_matter(shape, seed, scale, empty):
    rng = np.random.default_rng(seed)
    x, mask = scale * rng.normal(size=shape), scattered_mask(rng, *shape, empty)
    dprobs = rng.normal(size=shape)
    probs, cache = softmax_forward(x, mask)
    dx = softmax_backward(dprobs, cache)
    assert (probs[~mask] == 0).all()
    assert (dx[~mask] == 0).all()
    assert (probs[mask] > 0).all()
    rows = mask.any(axis=-1)
    np.testing.assert_allclose(probs[rows].sum(axis=-1), 1, rtol=ROUND_OFF * U64)
    other, _ = softmax_forward(np.where(mask, x, 1e4 * rng.normal(size=shape)), mask)
    np.testing.assert_array_equal(other, probs)


@given(shape=shapes(2), seed=seeds, scale=scales)
def test_dx_rows_sum_to_zero(shape, seed, scale):
    rng = np.random.default_rng(seed)
    x, dprobs = scale * rng.normal(size=shape), rng.normal(size=shape)
    dx = softmax_backward(dprobs, softmax_forward(x)[1])
    size = terms(dprobs, x)[1]
    assert (np.abs(dx.sum(axis=-1)) <= ZERO_ROW_SUM * U64 * size.sum(axis=-1)).all()
    if shape[-1] > 1:
        assert (np.abs(dx).max(axis=-1) > 0).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extreme_and_equal_scores(dtype):
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4], [0.0, 0.0, 0.0]], dtype)
    third = 1 / 3
    probs, cache = softmax_forward(x)
    expected = [[1, 0, 0], [third, third, third], [0.5, 0.5, 0], [third, third, third]]
    np.testing.assert_array_equal(probs, np.array(expected, dtype), strict=True)
    dx = softmax_backward(np.array([1.0, 2.0, 4.0], dtype) * np.ones_like(x), cache)
    assert_finite(dx, "dx")
    np.testing.assert_array_equal(dx[2], np.array([-0.25, 0.25, 0], dtype))


def test_rows_of_minus_infinity_scores_only():
    """As good as masked; no NaN."""
    probs, _ = softmax_forward(np.array([[-np.inf, -np.inf], [-np.inf, 3.0]]))
    np.testing.assert_array_equal(probs, [[0, 0], [0, 1]])


@pytest.mark.oracle
@given(shape=shapes(3), seed=seeds, scale=scales)
def test_torch_agrees(shape, seed, scale):
    rng = np.random.default_rng(seed)
    x, dprobs = scale * rng.normal(size=shape), rng.normal(size=shape)
    probs, cache = softmax_forward(x)
    value, (dx,) = torch_value_and_gradients(lambda t: t.softmax(-1), (x,), dprobs)
    size = terms(dprobs, x)
    assert_rows_close(probs, value, what="probs", round_off=ROUND_OFF * U64, terms=size[0])
    assert_rows_close(
        softmax_backward(dprobs, cache), dx, what="dx", round_off=ROUND_OFF * U64, terms=size[1]
    )
