"""layernorm: a loop, mpmath where rows are nearly constant, the contract, and the float32 budget of dx."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.layernorm import layernorm_backward, layernorm_forward
from tests.comparisons import assert_finite, assert_rows_close, row_norms
from tests.op_contract import assert_op_contract
from tests.oracles import layernorm_loop, layernorm_mpmath, torch_value_and_gradients
from tests.strategies import scales, seeds, shapes, weights
from tests.tolerances import LAYERNORM_DX_FLOAT32, ROUND_OFF, U32, U64, ZERO_ROW_SUM

GRADIENTS = ("x", "weight", "bias")
epsilons = st.sampled_from((1e-12, 0.3))


def arguments(rng, shape, eps, scale=1.0):
    offset = rng.normal(size=(*shape[:-1], 1))
    return offset + scale * rng.normal(size=shape), weights(rng, shape[-1]), weights(rng, shape[-1]), eps


def terms(dy, x, weight, bias, eps):
    """Subtracting the mean costs u |x|: that much of a standard deviation is lost in x̂ and in 1 / std."""
    centred = x - x.mean(axis=-1, keepdims=True)
    inv_std = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    loss = 1 + np.abs(x).max(axis=-1, keepdims=True) * inv_std
    x_hat, dx_hat = np.abs(centred) * inv_std, np.abs(dy * weight)
    rows = tuple(range(x.ndim - 1))
    through_variance = (dx_hat * (x_hat + loss)).mean(axis=-1, keepdims=True)
    return [
        (x_hat + loss) * np.abs(weight) + np.abs(bias),
        loss * inv_std * (dx_hat + dx_hat.mean(axis=-1, keepdims=True) + (1 + x_hat) * through_variance),
        (np.abs(dy) * (x_hat + loss)).sum(axis=rows),
        np.abs(dy).sum(axis=rows),
    ]


@given(shape=shapes(3), seed=seeds, scale=scales, eps=epsilons)
def test_contract(shape, seed, scale, eps):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, eps, scale)
    assert_op_contract(layernorm_forward, layernorm_backward, args, rng, gradients=GRADIENTS, terms=terms)


@pytest.mark.parametrize("rows", [(), (3,), (2, 3, 1)])
def test_any_number_of_leading_axes(rows):
    rng = np.random.default_rng(2)
    args = arguments(rng, (*rows, 7), 1e-12)
    assert_op_contract(layernorm_forward, layernorm_backward, args, rng, gradients=GRADIENTS, terms=terms)


@given(shape=shapes(2), seed=seeds, scale=scales, eps=epsilons)
def test_value_is_the_loop(shape, seed, scale, eps):
    args = arguments(np.random.default_rng(seed), shape, eps, scale)
    y, _ = layernorm_forward(*args)
    size = terms(np.zeros(shape), *args)[0]
    assert_rows_close(y, layernorm_loop(*args), what="y", round_off=ROUND_OFF * U64, terms=size)


@pytest.mark.parametrize(("dtype", "u"), [(np.float64, U64), (np.float32, U32)])
@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("eps", [1e-12, 0.3])
def test_nearly_constant_rows_as_mpmath_has_them(dtype, u, spread, eps):
    """The variance is far below the squared mean, and for the last spread as small as eps."""
    rng = np.random.default_rng(3)
    x = (1 + spread * rng.normal(size=(3, 7))).astype(dtype)
    weight, bias, dy = (rng.normal(size=s).astype(dtype) for s in (7, 7, (3, 7)))
    y, cache = layernorm_forward(x, weight, bias, eps)
    found = (y, *layernorm_backward(dy, cache))
    expected = layernorm_mpmath(x, weight, bias, eps, dy)
    size = terms(*(a.astype(np.float64) for a in (dy, x, weight, bias)), eps)
    for name, actual, reference, t in zip(("y", *GRADIENTS), found, expected, size, strict=True):
        assert actual.dtype == dtype
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * u, terms=t)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
def test_constant_rows_stay_finite(dtype, value):
    """There is nothing to normalise, and eps = 1e-12 all that is divided by."""
    rng = np.random.default_rng(4)
    x = np.full((3, 31), value, dtype)
    weight, bias = rng.normal(size=(2, 31)).astype(dtype)
    y, cache = layernorm_forward(x, weight, bias, 1e-12)
    for name, array in zip(("y", "dx", "dweight", "dbias"), (y, *layernorm_backward(y, cache)), strict=True):
        assert_finite(array, name)
    if value == 0:
        np.testing.assert_array_equal(y, np.broadcast_to(bias, y.shape))


@given(shape=shapes(2), seed=seeds, eps=epsilons)
def test_dx_rows_sum_to_zero_with_weight_one(shape, seed, eps):
    """Adding a constant to a row changes nothing."""
    rng = np.random.default_rng(seed)
    x, _, bias, _ = arguments(rng, shape, eps)
    dy, weight = rng.normal(size=shape), np.ones(shape[-1])
    dx, _, _ = layernorm_backward(dy, layernorm_forward(x, weight, bias, eps)[1])
    size = terms(dy, x, weight, bias, eps)[1]
    assert (np.abs(dx.sum(axis=-1)) <= ZERO_ROW_SUM * U64 * size.sum(axis=-1)).all()
    if shape[-1] > 2:  # of one element dx is 0; of two it is nearly so, when eps is small
        assert (row_norms(dx) > 0).all()


@given(shape=shapes(2), seed=seeds, scale=scales)
def test_y_rows_have_mean_zero_and_variance_one(shape, seed, scale):
    rng = np.random.default_rng(seed)
    width = shape[-1]
    x, *_ = arguments(rng, shape, 0.0, scale)
    y, _ = layernorm_forward(x, np.ones(width), np.zeros(width), 1e-30)
    size = terms(np.zeros(shape), x, np.ones(width), np.zeros(width), 1e-30)[0]
    assert (np.abs(y.sum(axis=-1)) <= ROUND_OFF * U64 * size.sum(axis=-1)).all()
    if width > 1:
        variance_error = np.abs((y * y).mean(axis=-1) - 1)
        assert (variance_error <= 4 * ROUND_OFF * U64 * size.max(axis=-1)).all()


@pytest.mark.parametrize("width", [31, 384, 768])
@pytest.mark.parametrize("seed", range(3))
def test_float32_dx_is_within_8_u_of_its_row(width, seed):
    rng = np.random.default_rng(seed)
    single = [a.astype(np.float32) for a in (*rng.normal(size=(2, 33, width)), *rng.normal(size=(2, width)))]
    dx = {}
    for dtype in (np.float32, np.float64):
        dy, x, weight, bias = (a.astype(dtype) for a in single)
        dx[dtype], _, _ = layernorm_backward(dy, layernorm_forward(x, weight, bias, 1e-12)[1])
    assert dx[np.float32].dtype == np.float32
    errors = row_norms(dx[np.float32] - dx[np.float64]) / row_norms(dx[np.float64])
    assert 0 < errors.max() <= LAYERNORM_DX_FLOAT32, f"off by {errors.max() / U32:.1f} u"


@pytest.mark.oracle
@given(shape=shapes(3), seed=seeds, scale=scales, eps=epsilons)
def test_torch_agrees(shape, seed, scale, eps):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, eps, scale)
    dy = rng.normal(size=shape)

    def by_torch(x, weight, bias, eps):
        import torch

        return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)

    y, cache = layernorm_forward(*args)
    value, gradients = torch_value_and_gradients(by_torch, args, dy)
    for name, actual, expected, size in zip(
        ("y", *GRADIENTS),
        (y, *layernorm_backward(dy, cache)),
        (value, *gradients),
        terms(dy, *args),
        strict=True,
    ):
        assert_rows_close(actual, expected, what=name, round_off=ROUND_OFF * U64, terms=size)
