"""check() catches what is wrong: seeded mistakes of the kind that people make, each in one correct pair."""

import numpy as np
import pytest

from npbert.gradcheck import check
from tests.gradcheck.pairs import (
    PAIRS,
    cross_entropy,
    gather,
    layernorm,
    linear,
    linear_backward,
    network,
    network_backward,
    random_arguments,
    row_named,
    softmax,
    softmax_backward,
)


def wrong_sign(dy, cache):
    dx, dweight, dbias = linear_backward(dy, cache)
    return -dx, dweight, dbias


def wrong_scale(dy, cache):
    dx, dweight, dbias = linear_backward(dy, cache)
    return dx, 2 * dweight, dbias


def slightly_wrong_scale(dy, cache):
    dx, dweight, dbias = linear_backward(dy, cache)
    return dx, (1 + 1e-9) * dweight, dbias


def one_wrong_entry(dy, cache):
    dx, dweight, dbias = linear_backward(dy, cache)
    dweight = dweight.copy()
    dweight[3, 2] += 1e-9
    return dx, dweight, dbias


def mean_for_sum(dy, cache):
    dx, dweight, _ = linear_backward(dy, cache)
    return dx, dweight, dy.mean(axis=(0, 1))


def last_row_left_out(dy, cache):
    x, weight = cache
    return dy @ weight, np.einsum("bto,bti->oi", dy[:, :-1], x[:, :-1]), dy.sum(axis=(0, 1))


def last_tile_left_out(dy, cache):
    dx, dweight, dbias = linear_backward(dy, cache)
    dx = dx.copy()
    dx[..., -1:] = 0
    return dx, dweight, dbias


def gradient_of_another_argument(dy, cache):
    dx, _, dbias = linear_backward(dy, cache)
    return dx, cache[1], dbias


def layernorm_with(dy, cache, mean=1.0, projection=1.0, gamma=True, std=True):
    x_hat, inv_std, weight = cache
    dx_hat = dy * weight if gamma else dy
    dx_hat_mean = mean * dx_hat.mean(axis=-1, keepdims=True)
    dx_hat_projection = projection * (dx_hat * x_hat).mean(axis=-1, keepdims=True)
    dx = (dx_hat - dx_hat_mean - x_hat * dx_hat_projection) * (inv_std if std else 1)
    return dx, (dy * x_hat).sum(axis=(0, 1)), dy.sum(axis=(0, 1))


def no_mean_term(dy, cache):
    return layernorm_with(dy, cache, mean=0)


def no_variance_term(dy, cache):
    return layernorm_with(dy, cache, projection=0)


def no_gamma(dy, cache):
    return layernorm_with(dy, cache, gamma=False)


def no_inverse_std(dy, cache):
    return layernorm_with(dy, cache, std=False)


def unbiased_variance(dy, cache):
    width = cache[0].shape[-1]
    return layernorm_with(dy, cache, projection=width / (width - 1))


def layernorm_mean_over_the_wrong_axis(dy, cache):
    x_hat, inv_std, weight = cache
    dx_hat = dy * weight
    projection = (dx_hat * x_hat).mean(axis=-1, keepdims=True)
    dx = inv_std * (dx_hat - dx_hat.mean(axis=-2, keepdims=True) - x_hat * projection)
    return dx, (dy * x_hat).sum(axis=(0, 1)), dy.sum(axis=(0, 1))


def softmax_without_correction(dy, probs):
    return probs * dy


def softmax_summed_over_the_wrong_axis(dy, probs):
    return probs * (dy - (dy * probs).sum(axis=-2, keepdims=True))


def softmax_squared(dy, probs):
    return probs * softmax_backward(dy, probs)


def forgets_repeated_ids(dy, cache):
    ids, shape = cache
    dtable = np.zeros(shape, dtype=dy.dtype)
    dtable[ids] = dy
    return dtable


def adds_only_once(dy, cache):
    ids, shape = cache
    dtable = np.zeros(shape, dtype=dy.dtype)
    dtable[ids] += dy
    return dtable


def ids_off_by_one(dy, cache):
    ids, shape = cache
    dtable = np.zeros(shape, dtype=dy.dtype)
    np.add.at(dtable, (ids + 1) % shape[0], dy)
    return dtable


def residual_forgotten(douts, cache):
    return network_backward((np.zeros_like(douts[0]), None, douts[2]), cache)


def derivative_of_the_input(douts, cache):
    params, x, hidden = cache
    dhidden = douts[0] + douts[2] @ params["w2"].T
    dinner = dhidden * (1 - np.tanh(hidden) ** 2)
    return {"w1": x.T @ dinner, "w2": hidden.T @ douts[2]}, dinner @ params["w1"].T


def entries_swapped(douts, cache):
    grads, dx = network_backward(douts, cache)
    return {"w1": grads["w1"], "w2": grads["w2"][::-1]}, dx


def forgets_the_mean(dloss, cache):
    probs, labels = cache
    onehot = np.arange(probs.shape[1]) == labels[:, None]
    return dloss * (probs - onehot)


def ignores_the_cotangent(dloss, cache):
    probs, labels = cache
    onehot = np.arange(probs.shape[1]) == labels[:, None]
    return (probs - onehot) / len(labels)


def label_off_by_one(dloss, cache):
    probs, labels = cache
    onehot = np.arange(probs.shape[1]) == (labels[:, None] + 1) % probs.shape[1]
    return dloss * (probs - onehot) / len(labels)


# The forward, the wrong backward, and the tensors that are wrong.
BUGS = [
    (linear, wrong_sign, {"x"}),
    (linear, wrong_scale, {"weight"}),
    (linear, slightly_wrong_scale, {"weight"}),
    (linear, one_wrong_entry, {"weight"}),
    (linear, mean_for_sum, {"bias"}),
    (linear, last_row_left_out, {"weight"}),
    (linear, last_tile_left_out, {"x"}),
    (linear, gradient_of_another_argument, {"weight"}),
    (layernorm, no_mean_term, {"x"}),
    (layernorm, no_variance_term, {"x"}),
    (layernorm, no_gamma, {"x"}),
    (layernorm, no_inverse_std, {"x"}),
    (layernorm, unbiased_variance, {"x"}),
    (layernorm, layernorm_mean_over_the_wrong_axis, {"x"}),
    (softmax, softmax_without_correction, {"x"}),
    (softmax, softmax_summed_over_the_wrong_axis, {"x"}),
    (softmax, softmax_squared, {"x"}),
    (gather, forgets_repeated_ids, {"table"}),
    (gather, adds_only_once, {"table"}),
    (gather, ids_off_by_one, {"table"}),
    (network, residual_forgotten, {"w1", "x"}),
    (network, derivative_of_the_input, {"w1", "x"}),
    (network, entries_swapped, {"w2"}),
    (cross_entropy, forgets_the_mean, {"logits"}),
    (cross_entropy, ignores_the_cotangent, {"logits"}),
    (cross_entropy, label_off_by_one, {"logits"}),
]
# Real differences do not resolve an error of 1e-9.
TOO_SMALL_FOR_RIDDERS = (slightly_wrong_scale, one_wrong_entry)
CASES = [
    pytest.param(oracle, *bug, id=f"{oracle}-{bug[1].__name__}")
    for oracle in ("auto", "ridders")
    for bug in BUGS
    if oracle == "auto" or bug[1] not in TOO_SMALL_FOR_RIDDERS
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("oracle", "fn", "backward", "wrong"), CASES)
def test_a_seeded_bug_is_found_in_the_right_tensor(oracle, fn, backward, wrong, seed):
    args = random_arguments(seed, rows=5, width=4, out=3 if fn is gather else 7)[fn.__name__]
    report = check(fn, backward, args, seed=seed, oracle=oracle)
    assert report.status == "failed"
    assert {row.name for row in report.tensors if row.status == "failed"} == wrong
    # The correct pair passes on the same arguments, so it is the bug that was found.
    assert check(*PAIRS[fn.__name__], args, seed=seed, oracle=oracle).ok


def test_the_report_points_at_the_entry_that_is_wrong():
    args = random_arguments(0)["linear"]
    report = check(linear, one_wrong_entry, args)
    row = row_named(report, "weight")
    assert row.worst_index == (3, 2)
    assert row.gradient - row.reference == pytest.approx(1e-9, rel=1e-5)
    assert row.fraction_wrong == pytest.approx(1 / 35)
    assert row_named(report, "x").fraction_wrong == 0
    assert not report


@pytest.mark.parametrize("seed", range(5))
def test_a_bug_outside_the_sample_is_found_along_a_direction(seed):
    args = random_arguments(seed, rows=7, width=31, out=33)["linear"]

    def wrong_somewhere(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        # The smallest entry: the sample, which prefers nonzero ones, has no reason to look here.
        flat = np.argmin(np.abs(dweight))
        dweight.flat[flat] += 1e-3
        return dx, dweight, dbias

    report = check(linear, wrong_somewhere, args, max_coordinates=10, seed=seed)
    row = row_named(report, "weight")
    assert row.status == "failed"
    assert row.projection_error > 1e-8
    assert row.fraction_wrong > 0 or row.note.startswith("wrong along a random direction")


def test_a_huge_wrong_entry_outside_the_sample_does_not_hide_behind_its_own_size():
    args = random_arguments(0, rows=7, width=31, out=33)["linear"]

    def explodes(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        dweight[0, 1] = 1e200
        return dx, dweight, dbias

    assert row_named(check(linear, explodes, args, max_coordinates=10), "weight").status == "failed"


def test_the_identities_see_a_wrong_gradient_too():
    report = check(layernorm, no_mean_term, random_arguments(0)["layernorm"])
    failed = {result.name for result in report.checks if result.status == "failed"}
    assert failed == {
        "adjoint identity <Jv, dy> = <v, J'dy>",
        "Taylor remainder, slope 2",
        "Taylor remainder with Hessian term, slope 3",
    }


def test_a_zero_gradient_is_not_excused():
    def zeros(dy, probs):
        return np.zeros_like(probs)

    report = check(softmax, zeros, random_arguments(0)["softmax"])
    assert report.status == "failed"
    assert report.tensors[0].fraction_wrong == 1


def test_a_gradient_where_the_forward_has_none_is_not_excused():
    def forward(x, unused):
        return x * 2, None

    def backward(dy, cache):
        return 2 * dy, 1e-3 * dy

    args = (np.ones((2, 3)), np.ones((2, 3)))
    report = check(forward, backward, args)
    assert row_named(report, "unused").status == "failed"
    assert row_named(report, "x").status == "passed"


def test_agreeing_on_zeros_proves_nothing():
    def forward(x, unused):
        return x * 2, None

    def backward(dy, cache):
        return 2 * dy, np.zeros_like(dy)

    args = (np.ones((2, 3)), np.ones((2, 3)))
    report = check(forward, backward, args)
    assert report.status == "inconclusive"
    assert report.failures == ("unused",)
    assert row_named(report, "unused").note == "the reference is zero everywhere, so agreement proves nothing"
    assert check(forward, backward, args, structural_zeros=["unused"]).ok
