"""softmax of the CPU engine: the contract, the textbook, masks, large scores, blocks and workers."""

import numpy as np
import pytest
from hypothesis import given

from npbert import ops
from npbert.cpu import softmax as engine
from npbert.cpu.softmax import softmax_backward, softmax_forward
from tests.comparisons import assert_identical, assert_rows_close
from tests.cpu.accuracy import assert_as_accurate_as_the_textbook
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.op_contract import assert_op_contract
from tests.ops.test_softmax import GRADIENTS, terms
from tests.strategies import flags, scales, scattered_mask, seeds, shapes
from tests.tolerances import ROUND_OFF, U64

ENGINE = (softmax_forward, softmax_backward)
TEXTBOOK = (ops.softmax_forward, ops.softmax_backward)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(engine, "BLOCK_BYTES", 400)


def arguments(rng, shape, scale, masked, empty):
    return scale * rng.normal(size=shape), scattered_mask(rng, *shape[-2:], empty) if masked else None


@given(shape=shapes(3), seed=seeds, scale=scales, masked=flags, empty=flags)
def test_contract(shape, seed, scale, masked, empty):
    """The complex step goes through the textbook, which complex arrays are left to."""
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, scale, masked, empty)
    assert_op_contract(*ENGINE, args, rng, gradients=GRADIENTS, terms=terms)


@given(shape=shapes(3), seed=seeds, scale=scales, masked=flags, empty=flags)
def test_float32_is_as_accurate_as_the_textbook(shape, seed, scale, masked, empty):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, scale, masked, empty)
    assert_as_accurate_as_the_textbook(ENGINE, TEXTBOOK, args, rng, gradients=GRADIENTS, terms=terms)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_many_blocks_some_with_large_scores(masked, scale):
    rng = np.random.default_rng(1)
    x, mask = arguments(rng, (2, 37, 11), 1.0, masked, True)
    x[:, ::3] *= scale
    x[0, 5], x[1, 7] = -1e3, 1e3  # whole rows out of exp's range
    dprobs = rng.normal(size=x.shape)
    probs, cache = softmax_forward(x, mask)
    expected, expected_cache = ops.softmax_forward(x, mask)
    size, dsize = terms(dprobs, x, mask)
    dx, expected_dx = softmax_backward(dprobs, cache), ops.softmax_backward(dprobs, expected_cache)
    assert_rows_close(probs, expected, what="probs", round_off=ROUND_OFF * U64, terms=size)
    assert_rows_close(dx, expected_dx, what="dx", round_off=ROUND_OFF * U64, terms=dsize)
    if masked:
        everywhere = np.broadcast_to(mask, x.shape)
        assert not probs[~everywhere].any()
        assert not dx[~everywhere].any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extreme_and_equal_scores(dtype):
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4], [0.0, 0.0, 0.0]], dtype)
    third = 1 / 3
    expected = [[1, 0, 0], [third, third, third], [0.5, 0.5, 0], [third, third, third]]
    probs, cache = softmax_forward(x)
    np.testing.assert_array_equal(probs, np.array(expected, dtype), strict=True)
    dx = softmax_backward(np.array([1.0, 2.0, 4.0], dtype) * np.ones_like(x), cache)
    np.testing.assert_array_equal(dx[2], np.array([-0.25, 0.25, 0], dtype))


def test_rows_of_minus_infinity_are_zero():
    probs, _ = softmax_forward(np.array([[-np.inf, -np.inf], [-np.inf, 3.0]]))
    np.testing.assert_array_equal(probs, [[0, 0], [0, 1]])


def test_masked_nan_and_infinity_do_not_matter():
    x = np.array([[1.0, np.nan, 2.0], [np.inf, 1.0, 2.0]])
    mask = np.array([[True, False, True], [False, True, True]])
    probs, _ = softmax_forward(x, mask)
    expected, _ = ops.softmax_forward(np.where(mask, x, 0.0), mask)
    np.testing.assert_allclose(probs, expected, rtol=1e-15)


def test_no_rows():
    probs, cache = softmax_forward(np.zeros((0, 3)))
    assert probs.shape == softmax_backward(np.zeros((0, 3)), cache).shape == (0, 3)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("masked", [False, True])
def test_same_bits_for_any_number_of_workers(masked):
    rng = np.random.default_rng(2)
    assert_same_for_any_workers(*ENGINE, arguments(rng, (3, 37, 11), 20.0, masked, True), rng)


def test_a_mask_of_any_shape_that_broadcasts():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 3, 4, 5))
    for shape in ((5,), (4, 5), (2, 1, 1, 5), (1, 3, 4, 1)):
        mask = rng.random(shape) < 0.6
        expected, _ = ops.softmax_forward(x, mask)
        probs, _ = softmax_forward(x, mask)
        np.testing.assert_allclose(probs, expected, rtol=1e-14)
        assert_identical(probs == 0, expected == 0, "where it is 0")
