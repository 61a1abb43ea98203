"""binary cross-entropy on logits: mpmath, the contract, soft labels, and logits far from 0."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.binary_cross_entropy import bce_with_logits_backward, bce_with_logits_forward
from tests.comparisons import assert_identical, assert_rows_close
from tests.op_contract import assert_op_contract
from tests.oracles import bce_with_logits_mpmath, torch_value_and_gradients
from tests.strategies import flags, scales, seeds, shapes
from tests.tolerances import ROUND_OFF, U64

GRADIENTS = ("logits", "targets")
reductions = st.sampled_from(("mean", "sum"))


def arguments(rng, shape, reduction="mean", scale=1.0, soft=False):
    """Some logits are exactly 0, where the op's two branches meet."""
    logits = scale * rng.normal(size=shape) * (rng.random(shape) > 1 / 6)
    targets = rng.random(shape) if soft else rng.integers(0, 2, size=shape).astype(np.float64)
    return logits, targets, reduction


def terms(dloss, logits, targets, reduction):
    weight = 1 / logits.size if reduction == "mean" else 1
    sigmoid = np.exp(-np.logaddexp(0, -logits))
    loss = np.abs(logits * (1 - targets)) + np.logaddexp(0, -logits)
    slopes = sigmoid + targets, np.abs(logits)
    return [loss.sum() * weight, *(slope * weight * abs(dloss) for slope in slopes)]


@given(shape=shapes(2), seed=seeds, scale=scales, reduction=reductions, soft=flags)
def test_contract(shape, seed, scale, reduction, soft):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, reduction, scale, soft)
    assert_op_contract(
        bce_with_logits_forward, bce_with_logits_backward, args, rng, gradients=GRADIENTS, terms=terms
    )


@given(shape=shapes(2, most=35), seed=seeds, scale=scales, reduction=reductions, soft=flags)
def test_value_is_the_definition(shape, seed, scale, reduction, soft):
    args = arguments(np.random.default_rng(seed), shape, reduction, scale, soft)
    loss, _ = bce_with_logits_forward(*args)
    expected, size = bce_with_logits_mpmath(*args), terms(0, *args)[0]
    assert_rows_close(loss, expected, what="loss", round_off=ROUND_OFF * U64, terms=size)


@pytest.mark.parametrize("logit", [0.0, -0.0, 1e-20, -1e-20, 37.0, -37.0, 750.0, -750.0, 1e4, -1e4])
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_each_logit_as_mpmath_has_it(logit, target):
    """One at a time, so that a small loss is not lost beside a large one."""
    args = np.array([logit]), np.array([target]), "sum"
    loss, cache = bce_with_logits_forward(*args)
    size = terms(1.0, *args)
    assert_rows_close(
        loss, bce_with_logits_mpmath(*args), what="loss", round_off=ROUND_OFF * U64, terms=size[0]
    )
    dlogits, dtargets = bce_with_logits_backward(np.float64(2), cache)
    sigmoid = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    assert_rows_close(
        dlogits, [2 * (sigmoid - target)], what="dlogits", round_off=ROUND_OFF * U64, terms=size[1]
    )
    assert_identical(dtargets, np.array([-2 * logit]), "dtargets")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_ten_thousand(dtype):
    logits = np.array([1e4, 1e4, -1e4, -1e4], dtype)
    targets = np.array([1, 0, 1, 0], dtype)
    loss, cache = bce_with_logits_forward(logits, targets)  # the mean, by default
    assert loss.dtype == dtype
    assert loss == 5000
    dlogits, dtargets = bce_with_logits_backward(dtype(4), cache)
    assert_identical(dlogits, np.array([0, 1, -1, 0], dtype), "dlogits")
    assert_identical(dtargets, -logits, "dtargets")


def test_another_reduction_is_an_error_that_names_it():
    with pytest.raises(ValueError, match='reduction is \'none\'; it must be "mean" or "sum"'):
        bce_with_logits_forward(np.zeros(3), np.zeros(3), "none")


@pytest.mark.oracle
@given(
    shape=shapes(2), seed=seeds, scale=st.sampled_from((1.0, 100.0, 1e4)), reduction=reductions, soft=flags
)
def test_torch_agrees(shape, seed, scale, reduction, soft):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, reduction, scale, soft)
    dloss = np.float64(rng.normal())

    def by_torch(logits, targets, reduction):
        import torch

        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)

    loss, cache = bce_with_logits_forward(*args)
    value, expected = torch_value_and_gradients(by_torch, args, dloss)
    found = (loss, *bce_with_logits_backward(dloss, cache))
    for name, actual, reference, t in zip(
        ("loss", *GRADIENTS), found, (value, *expected), terms(dloss, *args), strict=True
    ):
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64, terms=t)
