"""Jacobian and directional mode: right pairs pass, wrong ones fail, and the report says where."""

import json

import numpy as np
import pytest

from npbert.gradcheck import check
from npbert.gradcheck.jacobian_mode import MAX_ENTRIES
from npbert.gradcheck.suite import draw_problem, model
from tests.gradcheck.pairs import (
    PAIRS,
    check_named,
    layernorm,
    layernorm_backward,
    linear,
    linear_backward,
    network,
    network_backward,
    random_arguments,
    row_named,
)

MODES = ("jacobian", "directional")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PAIRS)
def test_correct_pairs_pass(name, mode):
    report = check(*PAIRS[name], random_arguments(0)[name], mode=mode)
    assert report.ok, str(report)
    assert report.oracle == "complex_step"
    assert report.max_error <= 1e-11


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["layernorm (eps 0.3)", "gelu (erf)", "softmax attention (plain)"])
def test_ops_pass(name, mode):
    problem = draw_problem(name)
    report = check(*problem[:3], structural_zeros=problem.structural_zeros, mode=mode)
    assert report.ok, str(report)


def test_a_whole_layer_by_its_jacobian():
    """The benchmark has the time that it takes; here, that every one of its entries is compared."""
    rng = np.random.default_rng(0)
    problem = model.layer(rng, "encoder_layer", hidden_size=4, intermediate_size=5, num_attention_heads=2)
    report = check(*problem[:3], structural_zeros=problem.structural_zeros, mode="jacobian")
    assert report.ok, str(report)
    outputs = problem.args[1].size
    assert all(row.compared == row.size == outputs * np.prod(row.shape) for row in report.tensors)
    assert row_named(report, "attention.self.key.bias").structural_zero


def test_jacobian_names_the_output_and_the_entry():
    def backward(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        dx[1, 2, 3] += dy[1, 2, 6]  # the one derivative that is wrong
        return dx, dweight, dbias

    args = random_arguments(0)["linear"]
    report = check(linear, backward, args, mode="jacobian")
    row = row_named(report, "x")
    assert report.status == row.status == "failed"
    assert row.worst_index == (1, 2, 3)
    assert row.worst_output == (0, 1, 2, 6)
    assert row.gradient - row.reference == pytest.approx(1)
    assert row.reference == pytest.approx(args[1][6, 3])
    assert row.fraction_wrong == 1 / row.size
    assert {other.status for other in report.tensors if other is not row} == {"passed"}
    assert "[1, 2, 3] of output [0, 1, 2, 6]" in str(report)
    assert np.flatnonzero(row.entries.wrong).tolist() == [np.ravel_multi_index((1, 2, 3), row.shape)]
    assert json.loads(json.dumps(report.to_dict()))["tensors"][0]["worst_output"] == [0, 1, 2, 6]


def test_jacobian_of_several_outputs():
    def backward(douts, cache):
        dhidden, absent, dy = douts
        _, dx = network_backward((dhidden, absent, 0 * dy), cache)
        return network_backward(douts, cache)[0], dx

    report = check(network, backward, random_arguments(0)["network"], mode="jacobian")
    row = row_named(report, "x")
    assert row.status == "failed"
    assert row.worst_output[0] == 2  # the other output's derivatives are right
    assert row_named(report, "w1").status == "passed"


def test_jacobian_by_real_differences():
    args = random_arguments(0, rows=2, width=3, out=2)["layernorm"]
    report = check(layernorm, layernorm_backward, args, mode="jacobian", oracle="ridders")
    assert report.ok, str(report)

    def no_mean_term(dy, cache):
        _, inv_std, weight = cache
        dx, dweight, dbias = layernorm_backward(dy, cache)
        return dx + inv_std * (dy * weight).mean(axis=-1, keepdims=True), dweight, dbias

    report = check(layernorm, no_mean_term, args, mode="jacobian", oracle="ridders")
    assert [row.status for row in report.tensors] == ["failed", "passed", "passed"]


@pytest.mark.parametrize("mode", MODES)
def test_a_forward_that_is_not_analytic_falls_back(mode):
    def relu(x):
        return np.maximum(x.real, 0), x > 0

    args = (np.array([[1.0, -2.0, 3.0], [-0.5, 0.25, 2.0]]),)
    report = check(relu, lambda dy, mask: dy * mask, args, mode=mode)
    assert report.ok, str(report)
    assert report.oracle == "ridders"
    report = check(relu, lambda dy, mask: dy * ~mask, args, mode=mode)
    assert report.status == "failed"


@pytest.mark.parametrize("mode", MODES)
def test_a_hidden_abs_is_arbitrated(mode):
    """What the complex step gets wrong in one entry only, is not held against the backward."""

    def forward(x):
        y = np.array(x)
        y[0] = np.sqrt(np.abs(x[0]) ** 2) * np.sign(x[0].real)  # right values, no imaginary part
        return 1e3 * y, None

    report = check(forward, lambda dy, cache: 1e3 * dy, (np.array([2.0, 1.0, -3.0]),), mode=mode)
    assert report.ok, str(report)
    assert report.oracle == "ridders"


def test_directional_finds_the_wrong_tensors_among_many():
    params = {f"w{number}": np.random.default_rng(number).standard_normal(5) for number in range(30)}

    def forward(params):
        return sum(np.sin((number + 1) * value) for number, value in enumerate(params.values())), params

    def backward(dy, params):
        grads = {
            name: (number + 1) * np.cos((number + 1) * value) * dy
            for number, (name, value) in enumerate(params.items())
        }
        grads["w4"] = grads["w4"] * (1 + 1e-9)
        grads["w17"] = grads["w17"][::-1].copy()
        return grads

    report = check(forward, backward, (params,), mode="directional")
    assert {row.name for row in report.tensors if row.status == "failed"} == {"w4", "w17"}
    assert {row.status for row in report.tensors} == {"passed", "failed"}
    row = row_named(report, "w17")
    assert row.gradient != row.reference
    assert row.directions == 3
    assert "3 directions" in str(report)


def test_directional_sees_a_small_gradient_beside_a_large_one():
    def forward(large, small):
        return 1e3 * large + 1e-3 * small, None

    def backward(dy, cache):
        return 1e3 * dy, 1e-3 * dy * (1 + 1e-6)

    args = (np.ones(4), np.ones(4))
    report = check(forward, backward, args, mode="directional")
    assert [row.status for row in report.tensors] == ["passed", "failed"]
    assert check(forward, lambda dy, _: (1e3 * dy, 1e-3 * dy), args, mode="directional").ok


def test_directional_sees_a_gradient_that_is_zero():
    def backward(dy, cache):
        return *linear_backward(dy, cache)[:2], np.zeros(7)

    report = check(linear, backward, random_arguments(0)["linear"], mode="directional")
    assert [row.status for row in report.tensors] == ["passed", "passed", "failed"]


@pytest.mark.parametrize("mode", MODES)
def test_zeros_prove_nothing(mode):
    report = check(lambda x: (0 * x, None), lambda dy, cache: 0 * dy, (np.ones(3),), mode=mode)
    assert report.status == "inconclusive"
    assert "the reference is zero everywhere" in report.tensors[0].note


@pytest.mark.parametrize("mode", MODES)
def test_structural_zeros(mode):
    def forward(x, shift):
        scores = x + shift
        exponentials = np.exp(scores - scores.real.max(axis=-1, keepdims=True))
        probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return probs, probs

    def backward(dy, probs):
        dx = probs * (dy - (dy * probs).sum(axis=-1, keepdims=True))
        return dx, dx.sum(axis=-1, keepdims=True)

    args = (random_arguments(0)["softmax"][0], np.ones((2, 3, 1)))
    assert check(forward, backward, args, structural_zeros=["shift"], mode=mode).ok
    wrong = check(forward, backward, args, structural_zeros=["x"], mode=mode)
    if mode == "jacobian":
        assert row_named(wrong, "x").status == "failed"


@pytest.mark.parametrize("mode", MODES)
def test_broken_pairs_are_named(mode):
    args = random_arguments(0)["linear"]
    report = check(linear, lambda dy, cache: (*linear_backward(dy, cache)[:2], None), args, mode=mode)
    assert check_named(report, "gradient present").status == "failed"
    assert [row.status for row in report.tensors] == ["passed", "passed", "failed"]
    assert row_named(report, "bias").note == "not compared: bias: None"


def test_a_backward_that_breaks_for_a_unit_cotangent():
    def backward(dy, cache):
        return dy / np.max(np.abs(dy[1])) * np.max(np.abs(dy[1]))

    with np.errstate(all="ignore"):
        report = check(lambda x: (1 * x, None), backward, (np.ones((2, 2)),), mode="jacobian")
    assert check_named(report, "gradient finite").status == "failed"
    found = [result.detail for result in report.checks if result.status == "failed"]
    assert any("for the cotangent that is 1 at output [0, 0, 0] only" in detail for detail in found)


def test_a_jacobian_that_is_too_large():
    size = int(np.sqrt(MAX_ENTRIES)) + 1
    with pytest.raises(ValueError) as caught:
        check(lambda x: (1 * x, None), lambda dy, cache: 1 * dy, (np.ones(size),), mode="jacobian")
    assert str(caught.value).startswith(f"the Jacobian has {size**2:,} entries, and mode='jacobian' compares")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "full"}, "mode must be one of gradient, jacobian, directional, got 'full'"),
        ({"directions": 0}, "directions must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        check(linear, linear_backward, random_arguments(0)["linear"], **options)
