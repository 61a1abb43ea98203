"""Where gradient and oracle could be wrong together, or a right gradient look wrong to the checker."""

import numpy as np
import pytest

from npbert.gradcheck import check


def shifted_cross_entropy_forward(x):
    """A wrong cross-entropy: the label's logit is not shifted with the others."""
    exponentials = np.exp(x - x.real.max(axis=-1, keepdims=True))
    total = exponentials.sum(axis=-1, keepdims=True)
    return (np.log(total[:, 0]) - x[:, 0]).sum(), exponentials / total


def shifted_cross_entropy_backward(dloss, probs):
    """The backward of the right one. The complex step, too, takes the maximum for a constant."""
    dx = probs.copy()
    dx[:, 0] -= 1
    return dx * dloss


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_a_maximum_that_is_no_constant_is_found_beside_a_kink(scale):
    """Row 1 has equal entries, a kink, which blurs differences along the whole of x."""
    x = np.random.default_rng(5).standard_normal((9, 7))
    x[0] *= scale
    x[1] = 0.5
    report = check(shifted_cross_entropy_forward, shifted_cross_entropy_backward, (x,))
    assert report.status == "failed"
    failed = next(row for row in report.checks if row.name == "Taylor remainder, slope 2")
    assert failed.status == "failed"
    assert "the gradient gives" in failed.detail and "real differences" in failed.detail


def relu_forward(x):
    return np.where(x.real > 0, x, 0.0), x > 0


def relu_backward(dy, positive):
    return dy * positive


def test_a_kink_alone_is_no_contradiction():
    x = np.random.default_rng(5).standard_normal((9, 7))
    x[::2, 0] = 0.0
    report = check(relu_forward, relu_backward, (x,))
    assert report.status != "failed", str(report)


def summed_softmax_forward(x):
    exponentials = np.exp(x - x.real.max(axis=-1, keepdims=True))
    probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probs.sum(), probs


def summed_softmax_backward(dloss, probs):
    dprobs = np.full(probs.shape, dloss)
    return probs * (dprobs - (dprobs * probs).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("seed", range(6))
def test_a_declared_zero_is_linear_to_round_off(seed):
    """Its gradient is nothing but round-off, which is not linear in anything."""
    x = np.random.default_rng([seed, 100]).standard_normal((4, 4))
    report = check(summed_softmax_forward, summed_softmax_backward, (x,), structural_zeros={"x": 1.0})
    assert report.ok, str(report)


def test_a_declared_zero_that_is_none_still_fails():
    def adds_the_cotangent(dloss, probs):
        return summed_softmax_backward(dloss, probs) + 1e-6 * dloss

    x = np.random.default_rng(100).standard_normal((4, 4))
    assert (
        check(summed_softmax_forward, adds_the_cotangent, (x,), structural_zeros={"x": 1.0}).status
        == "failed"
    )


def normalise_forward(x):
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / length, (x / length, length)


def normalise_backward(dy, cache):
    y, length = cache
    return (dy - y * (dy * y).sum(axis=-1, keepdims=True)) / length


@pytest.mark.parametrize("seed", range(3))
def test_the_cotangent_is_not_the_arguments_drawn_again(seed):
    """With dy = x the gradient of a normalisation is zero, and proves nothing."""
    x = np.random.default_rng(seed).standard_normal((4, 5))
    report = check(normalise_forward, normalise_backward, (x,), seed=seed)
    assert report.ok, str(report)
    assert np.abs(report.tensors[0].reference) > 1e-3
