"""mean squared error: a loop, the contract, torch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.mean_squared_error import mse_backward, mse_forward
from tests.comparisons import assert_identical, assert_rows_close
from tests.op_contract import assert_op_contract
from tests.oracles import mse_loop, torch_value_and_gradients
from tests.strategies import scales, seeds, shapes
from tests.tolerances import ROUND_OFF, U64

GRADIENTS = ("prediction", "target")
reductions = st.sampled_from(("mean", "sum"))


def arguments(rng, shape, reduction="mean", scale=1.0):
    return scale * rng.normal(size=shape), rng.normal(size=shape), reduction


def terms(dloss, prediction, target, reduction):
    """The difference of two inputs is rounded once: relative to itself, however much of them cancels."""
    weight = 1 / prediction.size if reduction == "mean" else 1
    difference = np.abs(prediction - target)
    slope = 2 * difference * weight * abs(dloss)
    return [(difference**2).sum() * weight, slope, slope]


@given(shape=shapes(2), seed=seeds, scale=scales, reduction=reductions)
def test_contract(shape, seed, scale, reduction):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, reduction, scale)
    assert_op_contract(mse_forward, mse_backward, args, rng, gradients=GRADIENTS, terms=terms)


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3, 5)])
def test_any_shape(shape):
    rng = np.random.default_rng(1)
    args = arguments(rng, shape)
    assert_op_contract(mse_forward, mse_backward, args, rng, gradients=GRADIENTS, terms=terms)


@given(shape=shapes(2), seed=seeds, scale=scales, reduction=reductions)
def test_value_is_the_loop(shape, seed, scale, reduction):
    args = arguments(np.random.default_rng(seed), shape, reduction, scale)
    loss, _ = mse_forward(*args)
    assert_rows_close(loss, mse_loop(*args), what="loss", round_off=ROUND_OFF * U64)


def test_small_numbers_by_hand():
    loss, cache = mse_forward(
        np.array([1.0, 2.0, 4.0, 0.0]), np.array([3.0, 2.0, 1.0, -1.0])
    )  # mean, by default
    assert loss == (4 + 0 + 9 + 1) / 4
    dprediction, dtarget = mse_backward(np.float64(10), cache)
    assert_identical(dprediction, np.array([-10.0, 0.0, 15.0, 5.0]), "dprediction")
    assert_identical(dtarget, np.array([10.0, 0.0, -15.0, -5.0]), "dtarget")


def test_another_reduction_is_an_error_that_names_it():
    with pytest.raises(ValueError, match='reduction is \'none\'; it must be "mean" or "sum"'):
        mse_forward(np.zeros(3), np.zeros(3), "none")


@pytest.mark.oracle
@given(shape=shapes(2), seed=seeds, scale=scales, reduction=reductions)
def test_torch_agrees(shape, seed, scale, reduction):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, reduction, scale)
    dloss = np.float64(rng.normal())

    def by_torch(prediction, target, reduction):
        import torch

        return torch.nn.functional.mse_loss(prediction, target, reduction=reduction)

    loss, cache = mse_forward(*args)
    value, expected = torch_value_and_gradients(by_torch, args, dloss)
    found = (loss, *mse_backward(dloss, cache))
    for name, actual, reference in zip(("loss", *GRADIENTS), found, (value, *expected), strict=True):
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64)
