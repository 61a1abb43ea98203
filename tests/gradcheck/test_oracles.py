"""The oracles on functions whose derivatives are known, and what they say where there is none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert.gradcheck import check, complex_step, ridders
from npbert.gradcheck.oracles import contradiction
from tests.gradcheck.pairs import check_named, random_arguments, row_named

# Functions of t near 0, and their derivatives at 0.
SMOOTH = {
    "exp": (lambda t: np.exp(1 + t), math.e),
    "sine": (lambda t: np.sin(3 + t), math.cos(3)),
    "reciprocal": (lambda t: 1 / (1 + t), -1.0),
    "cubic": (lambda t: (t - 2) ** 3, 12.0),
    "steep": (lambda t: np.tanh(50 * t), 50.0),
    "log": (lambda t: np.log(0.5 + t), 2.0),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_complex_step_is_exact_to_round_off(name):
    function, derivative = SMOOTH[name]
    estimate = complex_step(function)
    assert estimate.value == pytest.approx(derivative, rel=1e-15)
    assert estimate.error == 0
    assert 0 < estimate.floor <= 1e-15 * abs(derivative)


@pytest.mark.parametrize("name", SMOOTH)
def test_ridders_knows_its_error(name):
    function, derivative = SMOOTH[name]
    estimate = ridders(function)
    assert abs(estimate.value - derivative) <= estimate.uncertainty
    assert estimate.uncertainty <= 1e-8 * abs(derivative)


@settings(max_examples=200)
@given(a=st.floats(0.1, 3), b=st.floats(-3, 3), c=st.floats(-3, 3), step=st.sampled_from((0.01, 0.1, 1.0)))
def test_ridders_uncertainty_covers_the_error(a, b, c, step):
    estimate = ridders(lambda t: np.array([np.sin(a * t + b), np.exp(c * t), t * t]), first_step=step)
    exact = a * math.cos(b) + c
    # Ten times the estimate is no proof, but it may only rarely be exceeded, and never by much.
    assert abs(estimate.value - exact) <= 10 * estimate.uncertainty + 1e-15
    assert estimate.uncertainty <= 1e-7 * (1 + abs(exact))


def test_terms_that_do_not_depend_on_t_add_no_noise():
    alone = ridders(lambda t: np.array([np.sin(1 + t)]))
    beside = ridders(lambda t: np.array([np.sin(1 + t), 1e12, -1e12]))
    assert beside == alone


def test_a_term_that_hardly_varies_adds_its_noise():
    # At the smaller steps exp(1e-13 t) is 1 and its derivative lost: that is round-off, not certainty.
    estimate = ridders(lambda t: np.array([np.sin(t), np.exp(2e-13 * t)]), first_step=0.01)
    assert abs(estimate.value - (1 + 2e-13)) <= estimate.uncertainty


def test_a_constant_has_derivative_zero_without_doubt():
    assert ridders(lambda t: np.array([3.0, 4.0])).uncertainty == 0
    assert ridders(lambda t: np.array([3.0, 4.0])).value == 0


@pytest.mark.parametrize(("left", "right"), [(-1, 1), (0, 1), (0.5, 0.51)])
def test_ridders_sees_a_kink_exactly_where_it_stands(left, right):
    def kinked(t):
        return np.asarray(np.where(t > 0, right * t, left * t) + np.sin(t))

    estimate = ridders(kinked)
    assert estimate.uncertainty >= (right - left) / 2
    assert left + 1 <= estimate.value <= right + 1


def test_ridders_is_not_disturbed_by_a_kink_it_can_step_under():
    estimate = ridders(lambda t: np.maximum(0.01 + t, 0))
    assert estimate.value == pytest.approx(1, abs=1e-11)
    assert estimate.uncertainty < 1e-9


def test_ridders_has_no_answer_where_the_function_is_not_finite():
    with np.errstate(invalid="ignore"):
        estimate = ridders(lambda t: np.sqrt(np.asarray(-1.0 + t)))
    assert math.isnan(estimate.value)
    assert estimate.uncertainty == math.inf


def test_contradiction_speaks_only_where_it_is_sure():
    assert contradiction(np.sin, 1.0, 1.0) is None
    assert contradiction(np.sin, 1.001, 1.0) == pytest.approx(1, rel=1e-6)
    assert contradiction(np.sin, 0.0, 1.0) == pytest.approx(1, rel=1e-6)
    # A kink has no derivative that could be contradicted.
    assert contradiction(np.abs, 1.0, 1.0) is None
    # Nor has noise.
    assert contradiction(lambda t: np.array([1e18, np.sin(t) * 1e-18]).sum(keepdims=True), 1.0, 1.0) is None


# Forwards that are not analytic --------------------------------------------------------------------------


def drops_imaginary_part(x):
    return x.real**2, x


def by_abs(x):
    return np.abs(x) ** 2, x


def by_norm(x):
    return np.linalg.norm(x, axis=-1) ** 2, x


def by_conjugate(x):
    return (x * np.conj(x)).real, x


def by_float_cast(x):
    return np.asarray(x, dtype=np.float64) ** 2, x


def by_python_floats(x):
    return np.array([math.pow(entry, 2) for entry in x.ravel()]).reshape(x.shape), x


def by_conjugate_left_complex(x):
    return x * np.conj(x), x


def by_sign(x):
    return x * x * np.sign(x) * np.sign(x.real), x


def by_buffer(x):
    y = np.empty(x.shape)
    y[...] = x * x
    return y, x


def square_backward(dy, x):
    return 2 * dy * x if dy.shape == x.shape else 2 * dy[..., None] * x


NOT_ANALYTIC = [
    drops_imaginary_part,
    by_abs,
    by_norm,
    by_conjugate,
    by_float_cast,
    by_python_floats,
    by_conjugate_left_complex,
    by_sign,
    by_buffer,
]


@pytest.mark.parametrize("fn", NOT_ANALYTIC, ids=lambda fn: fn.__name__)
def test_a_forward_that_is_not_analytic_is_noticed_and_checked_by_real_differences(fn):
    x = random_arguments(0)["softmax"][0]
    report = check(fn, square_backward, (x,))
    assert report.oracle == "ridders"
    assert report.rtol == 1e-7
    assert report.status == "passed", str(report)
    assert check_named(report, "forward analytic").detail.endswith("using real differences")

    wrong = check(fn, lambda dy, x: 1.001 * square_backward(dy, x), (x,))
    assert wrong.status == "failed"
    assert row_named(wrong, "x").fraction_wrong == 1


@pytest.mark.parametrize("fn", NOT_ANALYTIC, ids=lambda fn: fn.__name__)
def test_the_complex_step_alone_proves_nothing_there(fn):
    report = check(fn, square_backward, (random_arguments(0)["softmax"][0],), oracle="complex_step")
    assert report.status != "passed"
    assert check_named(report, "forward analytic").status == "inconclusive"


def variance(x):
    return x.var(axis=-1), x


def variance_backward(dy, x):
    return dy[..., None] * 2 * (x - x.mean(axis=-1, keepdims=True)) / x.shape[-1]


def test_np_var_is_noticed():
    """np.var squares magnitudes, so it is real for complex input, and its complex step is 0."""
    report = check(variance, variance_backward, (random_arguments(1)["softmax"][0],))
    assert report.oracle == "ridders"
    assert report.ok, str(report)
    assert "real for complex arguments" in check_named(report, "forward analytic").detail


def test_a_part_that_is_not_analytic_is_noticed():
    """Layernorm with np.var: complex, finite, plausible and wrong."""

    def forward(x):
        centred = x - x.mean(axis=-1, keepdims=True)
        inv_std = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return centred * inv_std, (centred * inv_std, inv_std)

    def backward(dy, cache):
        x_hat, inv_std = cache
        projection = (dy * x_hat).mean(axis=-1, keepdims=True)
        return inv_std * (dy - dy.mean(axis=-1, keepdims=True) - x_hat * projection)

    args = random_arguments(2)["softmax"]
    report = check(forward, backward, args)
    assert report.oracle == "ridders"
    assert "real differences" in check_named(report, "forward analytic").detail
    assert report.ok, str(report)
    # The backward that treats the variance as a constant agrees with the complex step, and is wrong.
    wrong = check(forward, lambda dy, cache: cache[1] * (dy - dy.mean(axis=-1, keepdims=True)), args)
    assert wrong.status == "failed"


def test_one_entry_that_is_not_analytic_is_settled_by_the_arbiter():
    """Too small a part for a random direction to show; the worst coordinate shows it."""

    def forward(x):
        y = x * x
        y[0] = 1e-9 * np.abs(x[0]) ** 2 + y[0] * 0
        return y, x

    def backward(dy, x):
        dx = 2 * dy * x
        dx[0] *= 1e-9
        return dx

    report = check(forward, backward, (random_arguments(3)["softmax"][0].ravel(),), rtol=1e-11)
    assert report.oracle == "ridders"
    assert report.status != "failed", str(report)


@pytest.mark.parametrize("seed", range(8))
def test_a_forward_in_lower_precision_is_inconclusive_not_failed(seed):
    def forward(x):
        return np.sin(np.asarray(x.real, dtype=np.float32)).astype(np.float64), x

    report = check(forward, lambda dy, x: dy * np.cos(x), (random_arguments(4)["softmax"][0],), seed=seed)
    assert report.oracle == "ridders"
    assert report.status == "inconclusive", str(report)
    assert "less certain than the tolerance" in row_named(report, "x").note
    # With a tolerance that float32 can be held to, there is an answer.
    assert check(forward, lambda dy, x: dy * np.cos(x), (random_arguments(4)["softmax"][0],), rtol=0.02).ok
    wrong = check(forward, lambda dy, x: -dy * np.cos(x), (random_arguments(4)["softmax"][0],))
    assert wrong.status == "failed"


# Kinks ------------------------------------------------------------------------------------------------


def relu(x):
    return np.maximum(x, 0), x


def relu_backward(dy, x):
    return dy * (x > 0)


@pytest.mark.parametrize("oracle", ["complex_step", "ridders"])
def test_relu_away_from_its_kink(oracle):
    x = np.random.default_rng(0).standard_normal((7, 33))
    report = check(relu, relu_backward, (x,), oracle=oracle)
    assert report.ok, str(report)
    leaky = check(relu, lambda dy, x: dy * np.where(x > 0, 1, 1e-6), (x,), oracle=oracle)
    assert leaky.status == "failed"


def test_relu_at_its_kink_is_inconclusive_by_real_differences():
    x = np.random.default_rng(0).standard_normal((7, 33))
    x[2, 3] = 0
    report = check(relu, relu_backward, (x,), oracle="ridders")
    assert report.status == "inconclusive", str(report)
    row = row_named(report, "x")
    assert row.status == "inconclusive"
    assert row.fraction_wrong == 0
    # Its derivative at 0 is a matter of convention, so the complex step takes the forward's own.
    assert check(relu, relu_backward, (x,)).oracle == "complex_step"


def test_abs_at_zero_is_inconclusive():
    x = np.array([1.0, 0.0, -2.0])
    report = check(lambda x: (np.abs(x), x), lambda dy, x: dy * np.sign(x), (x,))
    assert report.oracle == "ridders"
    assert report.status == "inconclusive", str(report)


def test_maximum_along_an_axis():
    def forward(x):
        return x.max(axis=-1), x

    def backward(dy, x):
        return dy[..., None] * (x == x.max(axis=-1, keepdims=True))

    x = np.random.default_rng(1).standard_normal((7, 5))
    for oracle in ("complex_step", "ridders"):
        report = check(forward, backward, (x,), oracle=oracle)
        assert report.ok, str(report)
