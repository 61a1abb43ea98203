"""cross-entropy: a loop, the contract, ignored labels, and logits far from 0."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.cross_entropy import cross_entropy_backward, cross_entropy_forward, reduction_weight
from tests.comparisons import assert_identical, assert_rows_close
from tests.op_contract import assert_op_contract
from tests.oracles import cross_entropy_loop, softmax_row, torch_value_and_gradients
from tests.strategies import scales, seeds, shapes
from tests.tolerances import ROUND_OFF, U64, ZERO_ROW_SUM

GRADIENTS = ("logits",)
reductions = st.sampled_from(("mean", "sum"))
ignore_indices = st.sampled_from((-100, -1, 0, 2))
extreme_scales = st.sampled_from((0.0, 1.0, 100.0, 1e4))


def arguments(rng, shape, ignore_index=-100, reduction="mean", scale=1.0, ignored=0.4):
    labels = rng.integers(0, shape[-1], size=shape[:-1])
    labels = np.where(rng.random(shape[:-1]) < ignored, ignore_index, labels)
    return scale * rng.normal(size=shape), labels, ignore_index, reduction


def exact_dlogits(dloss, logits, labels, ignore_index, reduction):
    """p - [j = label], times what an example counts, row by row."""
    classes = logits.shape[-1]
    dlogits = np.zeros((labels.size, classes))
    count = np.count_nonzero(labels != ignore_index)
    for r, (row, label) in enumerate(zip(logits.reshape(-1, classes).tolist(), labels.ravel(), strict=True)):
        if label != ignore_index:
            dlogits[r] = softmax_row(row, [True] * classes)
            dlogits[r, label] -= 1
            dlogits[r] *= dloss / (count if reduction == "mean" else 1)
    return dlogits.reshape(logits.shape)


def terms(dloss, logits, labels, ignore_index, reduction):
    """As softmax's, plus 1 at the label; in the loss, every distance from the row's maximum counts."""
    counted = labels != ignore_index
    weight = 1 / max(np.count_nonzero(counted), 1) if reduction == "mean" else 1.0
    distance = np.abs(logits - logits.max(axis=-1, keepdims=True))
    probs = np.exp(-distance)
    probs /= probs.sum(axis=-1, keepdims=True)
    size = probs * (1 + distance + (probs * distance).sum(axis=-1, keepdims=True))
    safe_labels = np.where(counted, labels, 0)[..., None]
    at_label = np.take_along_axis(distance, safe_labels, axis=-1)[..., 0]
    dsize = (
        (size + (np.arange(logits.shape[-1]) == safe_labels)) * counted[..., None] * weight * np.abs(dloss)
    )
    return [np.sum((size.sum(axis=-1) + np.log(logits.shape[-1]) + at_label) * counted) * weight, dsize]


@given(shape=shapes(3), seed=seeds, scale=scales, ignore_index=ignore_indices, reduction=reductions)
def test_contract(shape, seed, scale, ignore_index, reduction):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, ignore_index, reduction, scale)
    assert_op_contract(
        cross_entropy_forward, cross_entropy_backward, args, rng, gradients=GRADIENTS, terms=terms
    )


@given(shape=shapes(2), seed=seeds, scale=extreme_scales, ignore_index=ignore_indices, reduction=reductions)
def test_value_and_gradient_are_the_loop(shape, seed, scale, ignore_index, reduction):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, ignore_index, reduction, scale)
    dloss = np.float64(rng.normal())
    loss, cache = cross_entropy_forward(*args)
    size = terms(dloss, *args)
    assert_rows_close(loss, cross_entropy_loop(*args), what="loss", round_off=ROUND_OFF * U64, terms=size[0])
    dlogits = cross_entropy_backward(dloss, cache)
    expected = exact_dlogits(dloss, *args)
    assert_rows_close(dlogits, expected, what="dlogits", round_off=ROUND_OFF * U64, terms=size[1])


@given(shape=shapes(3), seed=seeds, scale=scales, reduction=reductions)
def test_gradient_rows_sum_to_zero_and_ignored_ones_are_zero(shape, seed, scale, reduction):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, reduction=reduction, scale=scale)
    dloss = np.float64(1 + rng.random())
    dlogits = cross_entropy_backward(dloss, cross_entropy_forward(*args)[1])
    size = terms(dloss, *args)[1]
    assert (np.abs(dlogits.sum(axis=-1)) <= ZERO_ROW_SUM * U64 * size.sum(axis=-1)).all()
    counted = args[1] != -100
    assert not dlogits[~counted].any()
    if shape[-1] > 1:
        assert dlogits[counted].any(axis=-1).all()
        at_label = np.take_along_axis(dlogits[counted], args[1][counted][:, None], axis=-1)
        assert (at_label < 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
def test_nothing_labelled_costs_nothing(dtype, reduction, shape):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=shape).astype(dtype)
    labels = np.full(shape[:-1], -100)
    loss, cache = cross_entropy_forward(logits, labels, reduction=reduction)
    assert loss.dtype == dtype
    assert loss == 0
    dlogits = cross_entropy_backward(dtype(3.0), cache)
    assert_identical(dlogits, np.zeros(shape, dtype), "dlogits")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_ten_thousand(dtype):
    logits = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    labels = np.array([0, 1, 2, 0])
    loss, cache = cross_entropy_forward(logits, labels, reduction="sum")
    assert loss.dtype == dtype
    assert loss == pytest.approx(2e4 + math.log(3) + math.log(2), rel=float(np.finfo(dtype).eps))
    third = dtype(1) / 3
    expected = [[0, 0, 0], [1, -1, 0], [third, third, third - 1], [-0.5, 0.5, 0]]
    assert_identical(cross_entropy_backward(dtype(1), cache), np.array(expected, dtype), "dlogits")


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 0.1])
@pytest.mark.parametrize("classes", [1, 2, 7, 33])
def test_equal_logits_cost_the_logarithm_of_the_number_of_classes(value, classes):
    loss, cache = cross_entropy_forward(np.full((3, classes), value), np.array([0, classes - 1, -100]))
    assert loss == pytest.approx(math.log(classes), rel=ROUND_OFF * U64)
    dlogits = cross_entropy_backward(np.float64(1), cache)
    expected = np.full((3, classes), 0.5 / classes)
    expected[0, 0] -= 0.5
    expected[1, classes - 1] -= 0.5
    expected[2] = 0
    np.testing.assert_allclose(dlogits, expected, rtol=0, atol=ROUND_OFF * U64)


@given(shape=shapes(2), seed=seeds)
def test_the_mean_is_the_sum_over_those_that_count(shape, seed):
    rng = np.random.default_rng(seed)
    logits, labels, *_ = arguments(rng, shape)
    count = max(np.count_nonzero(labels != -100), 1)
    total, total_cache = cross_entropy_forward(logits, labels, reduction="sum")
    mean, mean_cache = cross_entropy_forward(logits, labels)  # the default
    assert mean * count == pytest.approx(total, rel=ROUND_OFF * U64)
    dmean, dtotal = (cross_entropy_backward(np.float64(1.5), c) for c in (mean_cache, total_cache))
    np.testing.assert_allclose(dmean * count, dtotal, rtol=ROUND_OFF * U64)


def test_logits_of_ignored_rows_do_not_matter():
    rng = np.random.default_rng(2)
    logits, labels, *_ = arguments(rng, (31, 5))
    other = np.where((labels == -100)[:, None], 1e4 * rng.normal(size=logits.shape), logits)
    assert cross_entropy_forward(other, labels)[0] == cross_entropy_forward(logits, labels)[0]


@pytest.mark.parametrize("reduction", ["none", "Mean", "", None])
def test_another_reduction_is_an_error_that_names_it(reduction):
    with pytest.raises(ValueError, match=f'reduction is {reduction!r}; it must be "mean" or "sum"'):
        cross_entropy_forward(np.zeros((2, 3)), np.array([0, 1]), reduction=reduction)


def test_reduction_weight():
    assert reduction_weight("mean", 4) == 0.25
    assert reduction_weight("mean", 0) == 1
    assert reduction_weight("sum", 4) == 1


@pytest.mark.oracle
@given(shape=shapes(2), seed=seeds, scale=extreme_scales, ignore_index=ignore_indices, reduction=reductions)
def test_torch_agrees(shape, seed, scale, ignore_index, reduction):
    rng = np.random.default_rng(seed)
    logits, labels, *rest = arguments(rng, shape, ignore_index, reduction, scale)
    if (labels == ignore_index).all():  # the mean over nothing: torch says NaN
        labels[0] = shape[-1] - 1
    args = (logits, labels, *rest)
    if (labels == ignore_index).all():
        return
    dloss = np.float64(rng.normal())

    def by_torch(logits, labels, ignore_index, reduction):
        import torch

        return torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=ignore_index, reduction=reduction
        )

    loss, cache = cross_entropy_forward(*args)
    value, (dlogits,) = torch_value_and_gradients(by_torch, args, dloss)
    size = terms(dloss, *args)
    assert_rows_close(loss, value, what="loss", round_off=ROUND_OFF * U64, terms=size[0])
    found = cross_entropy_backward(dloss, cache)
    assert_rows_close(found, dlogits, what="dlogits", round_off=ROUND_OFF * U64, terms=size[1])
