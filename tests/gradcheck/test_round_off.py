"""Gradients that cancel: a right one is no false alarm, and a wrong one beside it is still found."""

import numpy as np
import pytest

from npbert.gradcheck import check, ridders
from npbert.gradcheck.oracles import contradiction
from npbert.ops import layernorm_backward, layernorm_forward, softmax_backward, softmax_forward


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [10, 30, 40, 50, 100, 300, 1e3, 1e4])
def test_softmax_near_saturation(spread, seed):
    """1 - p is far below the last digit of p, and the gradient a difference of numbers of size 1."""
    x = spread * np.random.default_rng(seed).standard_normal((3, 5))
    report = check(softmax_forward, softmax_backward, (x,), seed=seed)
    assert report.status != "failed", str(report)
    if report.status == "inconclusive":  # then there is nothing but round-off
        row = report.tensors[0]
        assert max(abs(row.gradient), abs(row.reference)) < 1e-14


@pytest.mark.parametrize("spread", [1, 10, 30])
def test_a_wrong_softmax_near_saturation_is_found(spread):
    x = spread * np.random.default_rng(0).standard_normal((3, 5))

    def no_correction(dy, cache):
        return cache.probs * dy

    assert check(softmax_forward, no_correction, (x,)).status == "failed"


@pytest.mark.parametrize("eps", [1e-12, 0.3])
@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13])
@pytest.mark.parametrize("seed", range(3))
def test_layernorm_of_nearly_constant_rows(seed, spread, eps):
    rng = np.random.default_rng(seed)
    args = (1 + spread * rng.standard_normal((3, 7)), rng.standard_normal(7), rng.standard_normal(7), eps)
    report = check(layernorm_forward, layernorm_backward, args)
    assert report.ok, str(report)
    assert report.oracle == "complex_step"


@pytest.mark.parametrize("spread", [1e-2, 1e-5, 1e-7, 1e-9])
def test_a_wrong_layernorm_of_nearly_constant_rows_is_found(spread):
    rng = np.random.default_rng(0)
    args = (1 + spread * rng.standard_normal((3, 7)), rng.standard_normal(7), rng.standard_normal(7), 1e-12)

    def no_mean_term(dy, cache):
        dx, dweight, dbias = layernorm_backward(dy, cache)
        return dx + cache.inv_std * (dy * cache.weight).mean(axis=-1, keepdims=True), dweight, dbias

    report = check(layernorm_forward, no_mean_term, args)
    assert [row.status for row in report.tensors] == ["failed", "passed", "passed"], str(report)


def test_shaking_leaves_the_caller_s_arrays_alone():
    cached = []

    def forward(x):
        cached.append({"x": x, "list": [x * 2], "mask": x > 0, "name": "relu"})
        return np.where(x.real > 0, x, 0), cached[-1]

    def backward(dy, cache):
        assert cache["mask"].dtype == bool
        assert cache["name"] == "relu"
        assert isinstance(cache["list"], list)
        return dy * cache["mask"]

    x = np.array([1.0, -2.0, 0.5])
    before = x.copy()
    assert check(forward, backward, (x,)).ok
    assert np.array_equal(x, before)
    assert all(np.array_equal(2 * cache["x"], cache["list"][0]) for cache in cached)


def test_real_differences_do_not_trust_themselves_where_no_step_is_small_enough():
    # The derivative is 1e9; at the smallest step the differences have come to 2e4, and are still rising.
    estimate = ridders(lambda t: np.array([np.tanh(1e9 * t)]))
    assert estimate.error > 100 * abs(estimate.value)


def test_a_function_that_bends_within_the_steps_contradicts_nothing():
    assert contradiction(lambda t: np.array([np.tanh(1e11 * t)]), 1e11, 1.0) is None
    assert contradiction(lambda t: np.array([np.tanh(t)]), 1.5, 1.0) == pytest.approx(1)
    assert contradiction(lambda t: np.array([0 * t + 3]), 1e-3, 1.0) == 0
