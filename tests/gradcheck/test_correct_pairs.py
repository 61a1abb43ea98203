"""check() passes what is right: each pair, in float32 and float64, and whatever hypothesis draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert.gradcheck import check
from npbert.gradcheck.compare import choose_coordinates
from tests.gradcheck.pairs import PAIRS, cast, check_named, random_arguments, row_named
from tests.strategies import SIZES, seeds


@pytest.mark.parametrize("oracle", ["auto", "ridders"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_correct_pair_passes(name, oracle):
    report = check(*PAIRS[name], random_arguments(1)[name], oracle=oracle)
    assert report.status == "passed", str(report)
    assert report.oracle == {"auto": "complex_step"}.get(oracle, oracle)
    assert report.max_error <= {"auto": 1e-13}.get(oracle, 1e-9)
    # Nothing was passed over: every coordinate has a reference, and the references are not zeros.
    for row in report.tensors:
        assert row.compared == row.size > 0
        assert abs(row.reference) > 1e-3
    for check_result in report.checks:
        assert check_result.status in ("passed", "skipped"), check_result


@pytest.mark.parametrize("name", PAIRS)
def test_a_correct_float32_pair_passes(name):
    args = cast(random_arguments(2)[name], np.float32)
    report = check(*PAIRS[name], args)
    assert report.ok, str(report)
    assert {row.dtype for row in report.tensors} == {"float32"}
    assert report.max_error <= 1e-13  # compared in float64 all the same


def test_the_figures_of_the_identities_are_those_of_a_right_gradient():
    report = check(*PAIRS["layernorm"], random_arguments(3)["layernorm"])
    assert check_named(report, "adjoint identity <Jv, dy> = <v, J'dy>").figure <= 1e-13
    assert check_named(report, "Taylor remainder, slope 2").figure == pytest.approx(2, abs=0.1)
    assert check_named(report, "Taylor remainder with Hessian term, slope 3").figure == pytest.approx(
        3, abs=0.1
    )


def test_dictionaries_and_absent_outputs():
    report = check(*PAIRS["network"], random_arguments(4)["network"])
    assert [row.name for row in report.tensors] == ["w1", "w2", "x"]
    assert report.ok, str(report)


def test_entries_of_two_dictionaries_with_the_same_keys_get_their_arguments_names():
    def forward(left, right):
        return left["w"] * right["w"], (left, right)

    def backward(dy, cache):
        left, right = cache
        return {"w": dy * right["w"]}, {"w": dy * left["w"]}

    one, two = np.random.default_rng(0).standard_normal((2, 3, 5))
    report = check(forward, backward, ({"w": one}, {"w": two}))
    assert [row.name for row in report.tensors] == ["left.w", "right.w"]
    assert report.ok, str(report)


def test_integer_entries_of_a_dictionary_get_no_gradient():
    def forward(params):
        return params["table"][params["ids"]], params

    def backward(dy, params):
        dtable = np.zeros_like(params["table"], dtype=dy.dtype)
        np.add.at(dtable, params["ids"], dy)
        return {"table": dtable}

    params = {"ids": np.array([1, 1, 0]), "table": np.random.default_rng(0).standard_normal((3, 2))}
    report = check(forward, backward, (params,))
    assert report.ok, str(report)


@pytest.mark.parametrize("returned", [("dx", None, "dw"), ("dx", "dw")])
def test_an_argument_that_is_none_may_get_none_or_nothing(returned):
    def forward(x, bias, weight, scale=None):
        return x * weight, (x, weight)

    def backward(dy, cache):
        x, weight = cache
        found = {"dx": dy * weight, "dw": dy * x, None: None}
        return tuple(found[name] for name in returned)

    x, weight = np.random.default_rng(0).standard_normal((2, 3))
    assert check(forward, backward, (x, None, weight)).ok


def test_a_none_for_a_default_that_was_not_passed():
    def backward(dy, cache):
        return (*PAIRS["linear"][1](dy, cache), None)

    assert check(PAIRS["linear"][0], backward, random_arguments(5)["linear"]).ok


def test_scalars_are_zero_dimensional_arrays():
    def forward(x):
        return np.sin(x), x

    def backward(dy, x):
        assert isinstance(dy, np.ndarray)
        return np.asarray(dy * np.cos(x))

    report = check(forward, backward, (np.array(0.3),))
    assert report.ok, str(report)
    assert report.tensors[0].shape == ()


def test_large_tensors_are_sampled_and_probed_along_directions():
    args = random_arguments(6, rows=7, width=33, out=31)["linear"]
    report = check(*PAIRS["linear"], args, max_coordinates=20)
    assert report.ok, str(report)
    weight = row_named(report, "weight")
    assert (weight.compared, weight.size) == (20, 31 * 33)
    assert weight.projection_error <= 1e-13


@pytest.mark.parametrize("seed", range(5))
def test_the_sample_has_nonzero_coordinates_where_they_are_rare(seed):
    rng = np.random.default_rng(seed)
    gradient = np.zeros((997, 3))
    gradient[[5, 801]] = rng.standard_normal((2, 3))
    chosen = choose_coordinates(gradient, 8, rng)
    assert len(chosen) == len(set(chosen)) == 8
    assert sum(gradient[index] != 0 for index in chosen) >= 4
    assert any(gradient[index] == 0 for index in chosen)
    assert np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape) in chosen


def test_a_sampled_gather():
    rng = np.random.default_rng(0)
    report = check(
        *PAIRS["gather"], (np.array([[5, 5, 801]]), rng.standard_normal((997, 3))), max_coordinates=4
    )
    assert report.ok, str(report)
    assert row_named(report, "table").compared == 4


def test_a_structural_zero_is_tested_against_a_scale():
    def attention_scores(x, key_bias):
        # A constant added to every score of a row: no probability changes.
        return PAIRS["softmax"][0](x * 1.7 + key_bias * x[:, :1])[0], (x, key_bias)

    def backward(dy, cache):
        x, key_bias = cache
        probs, _ = PAIRS["softmax"][0](x * 1.7 + key_bias * x[:, :1])
        dscores = PAIRS["softmax"][1](dy, probs)
        dx = 1.7 * dscores
        dx[:, 0] += (dscores * key_bias).sum(axis=1)
        return dx, np.asarray((dscores * x[:, :1]).sum()).reshape(1)

    args = (np.random.default_rng(0).standard_normal((3, 5)), np.array([0.4]))
    undeclared = check(attention_scores, backward, args)
    assert undeclared.status == "inconclusive"
    assert "structural zero" in row_named(undeclared, "key_bias").note
    assert check(attention_scores, backward, args, structural_zeros=["key_bias"]).ok
    assert check(attention_scores, backward, args, structural_zeros={"*_bias": 0.1}).ok

    def leaking(dy, cache):
        dx, dbias = backward(dy, cache)
        return dx, dbias + 1e-9

    report = check(attention_scores, leaking, args, structural_zeros=["key_bias"])
    assert report.status == "failed"
    assert row_named(report, "key_bias").note.startswith(
        "declared a structural zero, but the gradient is not"
    )


def test_a_declared_zero_that_is_none_is_found_out():
    report = check(*PAIRS["softmax"], random_arguments(7)["softmax"], structural_zeros=["x"])
    assert report.status == "failed"


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_a_gradient_that_cancels_is_judged_by_its_own_round_off(spread):
    """Over two features a layernorm is nearly constant: its dx is a millionth of the terms it is made of."""
    rng = np.random.default_rng(0)
    args = (spread * rng.standard_normal((31, 2)), rng.standard_normal(2), rng.standard_normal(2), 1e-9)
    report = check(*PAIRS["layernorm"], args)
    assert report.ok, str(report)
    row = row_named(report, "x")
    assert row.max_error > 1e-11, "not the hard case that this test is about"
    assert row.note == "apart by no more than the round-off of the backward itself"

    def slightly_wrong(dy, cache):
        dx, dweight, dbias = PAIRS["layernorm"][1](dy, cache)
        return 1.01 * dx, dweight, dbias

    assert row_named(check(PAIRS["layernorm"][0], slightly_wrong, args), "x").fraction_wrong > 0.9


def test_rows_of_very_different_sizes_are_judged_each_by_its_own():
    scales = np.array([[1e150], [1e-3], [1.0]])

    def forward(x):
        return scales * x * x, x

    def backward(dy, x):
        return 2 * scales * x * dy

    def wrong_in_the_large_row(dy, x):
        dx = backward(dy, x)
        dx[0] *= 1 + 1e-9
        return dx

    args = (np.random.default_rng(0).standard_normal((3, 5)),)
    assert check(forward, backward, args).ok
    report = check(forward, wrong_in_the_large_row, args)
    assert report.status == "failed"
    assert row_named(report, "x").fraction_wrong == pytest.approx(1 / 3)


def test_where_the_derivative_is_infinite_nothing_is_proven():
    def forward(x):
        return np.sqrt(x), x

    def backward(dy, x):
        with np.errstate(divide="ignore"):
            return dy * np.where(x > 0, 0.5 / np.sqrt(x), 0)

    assert check(forward, backward, (np.array([1.0, 4.0]),)).ok
    assert not check(forward, backward, (np.array([1.0, 0.0, 4.0]),)).ok


NAMES = st.sampled_from(sorted(PAIRS))
DRAWS = 400


@settings(max_examples=DRAWS)
@given(
    name=NAMES,
    seed=seeds,
    rows=st.sampled_from(SIZES[:5]),
    width=st.sampled_from(SIZES[1:6]),
    out=st.sampled_from(SIZES[1:6]),
    single=st.booleans(),
)
def test_no_false_alarm(name, seed, rows, width, out, single):
    args = random_arguments(seed, rows, width, out)[name]
    args = cast(args, np.float32) if single else args
    report = check(*PAIRS[name], args, seed=seed, max_coordinates=40)
    assert report.ok, str(report)


@settings(max_examples=60)
@given(name=NAMES, seed=seeds, rows=st.sampled_from(SIZES[:4]), width=st.sampled_from(SIZES[1:4]))
def test_no_false_alarm_by_real_differences(name, seed, rows, width):
    args = random_arguments(seed, rows, width)[name]
    report = check(*PAIRS[name], args, oracle="ridders", seed=seed, max_coordinates=10)
    assert report.status != "failed", str(report)
