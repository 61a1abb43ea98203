"""pooling: the first token, the mean of the real ones, and unit length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.pooling import (
    cls_pooling_backward,
    cls_pooling_forward,
    l2_normalize_backward,
    l2_normalize_forward,
    mean_pooling_backward,
    mean_pooling_forward,
)
from tests.comparisons import assert_identical, assert_rows_close, row_norms
from tests.op_contract import assert_op_contract, multilinear_terms
from tests.oracles import l2_normalize_loop, mean_pooling_loop, torch_value_and_gradients
from tests.strategies import flags, padding_mask, scales, scattered_mask, seeds, shapes
from tests.tolerances import ROUND_OFF, U64

MEAN_TERMS = multilinear_terms(mean_pooling_forward, mean_pooling_backward)
masks = st.sampled_from((padding_mask, scattered_mask))
epsilons = st.sampled_from((1e-12, 0.3))


def l2_terms(dy, x, eps):
    """``dx = (dy - y (dy · y)) / r``, the second term only where the length is at least eps."""
    length = row_norms(x)
    divisor = np.maximum(length, eps)
    y = np.abs(x) / divisor
    through_length = y * (np.abs(dy) * y).sum(axis=-1, keepdims=True) * (length >= eps)
    return [y, (np.abs(dy) + through_length) / divisor]


# --- the first token ------------------------------------------------------------------------------------


@given(shape=shapes(3), seed=seeds)
def test_cls_contract(shape, seed):
    rng = np.random.default_rng(seed)
    assert_op_contract(
        cls_pooling_forward,
        cls_pooling_backward,
        (rng.normal(size=shape),),
        rng,
        gradients=("x",),
        terms=multilinear_terms(cls_pooling_forward, cls_pooling_backward),
    )


@given(shape=shapes(3), seed=seeds)
def test_cls_takes_the_first_token_and_gives_to_it_alone(shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    y, cache = cls_pooling_forward(x)
    assert_identical(y, np.stack([text[0] for text in x]), "y")
    dy = rng.normal(size=y.shape)
    expected = np.zeros(shape)
    for b in range(shape[0]):
        expected[b, 0] = dy[b]
    assert_identical(cls_pooling_backward(dy, cache), expected, "dx")


# --- the mean -------------------------------------------------------------------------------------------


@given(shape=shapes(3), seed=seeds, draw=masks, empty=flags)
def test_mean_contract(shape, seed, draw, empty):
    rng = np.random.default_rng(seed)
    args = (rng.normal(size=shape), draw(rng, *shape[:2], empty))
    assert_op_contract(
        mean_pooling_forward, mean_pooling_backward, args, rng, gradients=("x",), terms=MEAN_TERMS
    )


@given(shape=shapes(3), seed=seeds, draw=masks, empty=flags)
def test_mean_is_the_loop(shape, seed, draw, empty):
    rng = np.random.default_rng(seed)
    args = (rng.normal(size=shape), draw(rng, *shape[:2], empty))
    y, _ = mean_pooling_forward(*args)
    size = MEAN_TERMS(np.zeros(y.shape), *args)[0]
    assert_rows_close(y, mean_pooling_loop(*args), what="y", round_off=ROUND_OFF * U64, terms=size)


def test_mean_of_whole_numbers_by_hand():
    x = np.array([[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]], [[5.0, 7.0], [99.0, 99.0], [99.0, 99.0]]])
    y, cache = mean_pooling_forward(x, np.array([[True, True, False], [True, False, False]]))
    assert_identical(y, np.array([[2.0, 4.0], [5.0, 7.0]]), "y")
    dx = mean_pooling_backward(np.array([[2.0, 4.0], [8.0, 16.0]]), cache)
    expected = [[[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], [[8.0, 16.0], [0.0, 0.0], [0.0, 0.0]]]
    assert_identical(dx, np.array(expected), "dx")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_text_without_a_token_has_mean_zero_and_no_gradient(dtype):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 5, 7)).astype(dtype)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    y, cache = mean_pooling_forward(x, mask)
    dx = mean_pooling_backward(rng.normal(size=(3, 7)).astype(dtype), cache)
    for array in (y, dx):
        assert_identical(array[1], np.zeros(array[1].shape, dtype), "the empty text")
        assert array[[0, 2]].all()


# --- unit length ----------------------------------------------------------------------------------------


@given(shape=shapes(2), seed=seeds, scale=scales, eps=epsilons)
def test_l2_contract(shape, seed, scale, eps):
    rng = np.random.default_rng(seed)
    args = (scale * rng.normal(size=shape), eps)
    assert_op_contract(
        l2_normalize_forward, l2_normalize_backward, args, rng, gradients=("x",), terms=l2_terms
    )


@pytest.mark.parametrize("shape", [(7,), (2, 3, 5)])
def test_l2_takes_any_number_of_leading_axes(shape):
    rng = np.random.default_rng(2)
    args = (rng.normal(size=shape), 1e-12)
    assert_op_contract(
        l2_normalize_forward, l2_normalize_backward, args, rng, gradients=("x",), terms=l2_terms
    )


@given(shape=shapes(2), seed=seeds, scale=scales, eps=epsilons)
def test_l2_is_the_loop(shape, seed, scale, eps):
    x = scale * np.random.default_rng(seed).normal(size=shape)
    y, _ = l2_normalize_forward(x, eps)
    assert_rows_close(y, l2_normalize_loop(x, eps), what="y", round_off=ROUND_OFF * U64)


@given(shape=shapes(2), seed=seeds, scale=scales)
def test_unit_vectors_have_length_one_and_dx_is_orthogonal_to_them(shape, seed, scale):
    rng = np.random.default_rng(seed)
    x, dy = scale * rng.normal(size=shape), rng.normal(size=shape)
    y, cache = l2_normalize_forward(x)
    np.testing.assert_allclose(row_norms(y), 1, rtol=ROUND_OFF * U64)
    dx = l2_normalize_backward(dy, cache)
    size = (l2_terms(dy, x, 1e-12)[1] * np.abs(y)).sum(axis=-1)
    assert (np.abs((dx * y).sum(axis=-1)) <= ROUND_OFF * U64 * size).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_l2_of_a_zero_vector_and_of_one_shorter_than_eps(dtype):
    """The divisor is then eps, a constant: y = x / eps and dx = dy / eps."""
    x = np.array([[0, 0, 0], [3, 4, 0], [0.03, 0.04, 0]], dtype)
    dy = np.array([[1, -2, 3], [1, -2, 3], [1, -2, 3]], dtype)
    y, cache = l2_normalize_forward(x, 0.25)
    assert_identical(y[0], np.zeros(3, dtype), "y of a zero vector")
    np.testing.assert_allclose(y[2], [0.12, 0.16, 0], rtol=4 * np.finfo(dtype).eps)
    dx = l2_normalize_backward(dy, cache)
    assert dx.dtype == dtype
    assert_identical(dx[0], 4 * dy[0], "dx of a zero vector")
    assert_identical(dx[2], 4 * dy[2], "dx of a short vector")
    # y = (0.6, 0.8, 0), dy . y = -1, dx = ((1, -2, 3) + (0.6, 0.8, 0)) / 5
    np.testing.assert_allclose(dx[1], [0.32, -0.24, 0.6], rtol=8 * np.finfo(dtype).eps)


def test_l2_of_a_vector_exactly_as_long_as_eps():
    """It counts as long enough, as in torch."""
    y, cache = l2_normalize_forward(np.array([3.0, 4.0, 0.0]), 5.0)
    np.testing.assert_allclose(y, [0.6, 0.8, 0], rtol=4 * U64)
    dx = l2_normalize_backward(np.array([1.0, -2.0, 3.0]), cache)
    np.testing.assert_allclose(dx, [0.32, -0.24, 0.6], rtol=ROUND_OFF * U64)


def test_l2_of_a_zero_vector_with_the_default_eps():
    y, cache = l2_normalize_forward(np.zeros((2, 3)))
    assert_identical(y, np.zeros((2, 3)), "y")
    np.testing.assert_allclose(l2_normalize_backward(np.ones((2, 3)), cache), 1e12, rtol=ROUND_OFF * U64)


# --- torch ----------------------------------------------------------------------------------------------


@pytest.mark.oracle
@given(shape=shapes(3), seed=seeds, draw=masks)
def test_torch_agrees_on_the_mean(shape, seed, draw):
    rng = np.random.default_rng(seed)
    args = (rng.normal(size=shape), draw(rng, *shape[:2], True))
    dy = rng.normal(size=(shape[0], shape[2]))

    def by_torch(x, mask):
        """As sentence-transformers' Pooling spells it."""
        expanded = mask.unsqueeze(-1).expand(x.size()).double()
        return (x * expanded).sum(1) / expanded.sum(1).clamp(min=1e-9)

    y, cache = mean_pooling_forward(*args)
    value, (dx,) = torch_value_and_gradients(by_torch, args, dy)
    size = MEAN_TERMS(dy, *args)
    assert_rows_close(y, value, what="y", round_off=ROUND_OFF * U64, terms=size[0])
    found = mean_pooling_backward(dy, cache)
    assert_rows_close(found, dx, what="dx", round_off=ROUND_OFF * U64, terms=size[1])


@pytest.mark.oracle
@given(shape=shapes(2), seed=seeds, scale=scales, eps=epsilons)
def test_torch_agrees_on_unit_length(shape, seed, scale, eps):
    rng = np.random.default_rng(seed)
    args = (scale * rng.normal(size=shape), eps)
    dy = rng.normal(size=shape)

    def by_torch(x, eps):
        import torch

        return torch.nn.functional.normalize(x, dim=-1, eps=eps)

    y, cache = l2_normalize_forward(*args)
    value, (dx,) = torch_value_and_gradients(by_torch, args, dy)
    size = l2_terms(dy, *args)
    assert_rows_close(y, value, what="y", round_off=ROUND_OFF * U64, terms=size[0])
    found = l2_normalize_backward(dy, cache)
    assert_rows_close(found, dx, what="dx", round_off=ROUND_OFF * U64, terms=size[1])
