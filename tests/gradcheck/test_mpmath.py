"""mpmath as the oracle, and as the one who has the last word."""

import sys

import mpmath
import numpy as np
import pytest

from npbert.gradcheck import check
from npbert.gradcheck import mpmath_oracle as oracle
from npbert.ops import layernorm_backward, layernorm_forward, softmax_backward, softmax_forward
from tests.gradcheck.pairs import check_named, network, network_backward, random_arguments, row_named

elementwise = {name: np.frompyfunc(getattr(mpmath, name), 1, 1) for name in ("sin", "tanh", "fabs")}


def sine(x):
    return np.sin(x), x


def sine_backward(dy, x):
    return dy * np.cos(x)


def exact_sine(x):
    return elementwise["sin"](x)


X = np.random.default_rng(0).standard_normal((2, 3))


def test_mpmath_is_an_oracle():
    report = check(sine, sine_backward, (X,), oracle="mpmath", fn_mpmath=exact_sine)
    assert report.ok, str(report)
    assert report.oracle == "mpmath"
    row = row_named(report, "x")
    assert 0 < row.max_error < 1e-15
    assert check_named(report, "forward agrees with mpmath").figure < 1e-15
    wrong = check(sine, lambda dy, x: -dy * np.cos(x), (X,), oracle="mpmath", fn_mpmath=exact_sine)
    assert row_named(wrong, "x").status == "failed"
    assert check_named(wrong, "adjoint identity <Jv, dy> = <v, J'dy>").status == "failed"


def test_derivatives_have_more_than_30_digits():
    found = []

    def forward(x):
        found.append(x)
        return exact_sine(x)

    report = check(sine, sine_backward, (X,), oracle="mpmath", fn_mpmath=forward)
    assert all(type(entry) is mpmath.mpf for entry in found[0].ravel())
    assert row_named(report, "x").uncertainty < 1e-15


def test_several_outputs_and_a_dictionary():
    args = random_arguments(0, rows=2, width=2, out=3)["network"]

    def exact_network(params, x):
        hidden = elementwise["tanh"](x @ params["w1"])
        return hidden, None, hidden @ params["w2"]

    report = check(network, network_backward, args, oracle="mpmath", fn_mpmath=exact_network)
    assert report.ok, str(report)


def test_the_ops_that_npbert_knows():
    rng = np.random.default_rng(0)
    args = (1 + 1e-6 * rng.standard_normal((2, 4)), rng.standard_normal(4), rng.standard_normal(4), 1e-12)
    report = check(layernorm_forward, layernorm_backward, args, oracle="mpmath")
    assert report.ok, str(report)
    mask = np.array([[True, True, False], [False, False, False]])
    report = check(softmax_forward, softmax_backward, (X, mask), oracle="mpmath")
    assert report.ok, str(report)


def test_mpmath_takes_the_side_of_the_gradient():
    """A forward that the complex step cannot differentiate, and real differences not well enough."""

    def forward(x):
        return np.where(x.real > 0, np.sin(1e7 * x.real), 0) + x, x

    def backward(dy, x):
        return dy * (1 + np.where(x > 0, 1e7 * np.cos(1e7 * x), 0))

    def exact(x):
        return np.where(x > 0, elementwise["sin"](10**7 * x), mpmath.mpf(0)) + x

    args = (np.array([0.3, -0.2, 1.1]),)
    alone = check(forward, backward, args)
    assert alone.status != "passed"
    report = check(forward, backward, args, fn_mpmath=exact, rtol=1e-7)
    row = row_named(report, "x")
    assert row.status == "passed", str(report)
    assert row.oracle == "mpmath"
    assert row.note.endswith("mpmath, with 50 digits: the gradient is right")


def test_mpmath_takes_the_side_of_the_oracle():
    report = check(sine, lambda dy, x: dy * np.cos(x) * (1 + 1e-9), (X,), fn_mpmath=exact_sine)
    row = row_named(report, "x")
    assert row.status == "failed"
    assert row.oracle == "mpmath"
    assert row.note == "failed by the complex step; mpmath, with 50 digits: the gradient is wrong"


def test_npbert_s_own_ops_are_arbitrated_without_being_asked():
    def nearly(dy, cache):
        dx, dweight, dbias = layernorm_backward(dy, cache)
        return dx, dweight * (1 + 1e-6), dbias

    rng = np.random.default_rng(0)
    args = (rng.standard_normal((2, 4)), rng.standard_normal(4), rng.standard_normal(4), 1e-12)
    row = row_named(check(layernorm_forward, nearly, args), "weight")
    assert row.oracle == "mpmath"
    assert row.status == "failed"


def test_another_function_is_refused():
    report = check(sine, sine_backward, (X,), fn_mpmath=lambda x: x)
    result = check_named(report, "forward agrees with mpmath")
    assert result.status == "failed"
    assert result.detail == "the two forwards do not compute the same"
    assert row_named(report, "x").status == "passed"


@pytest.mark.parametrize(
    ("forward", "detail"),
    [
        (lambda x: 1 / 0, "<lambda> raised ZeroDivisionError"),
        (lambda x: x[0], "<lambda> returned the shapes [(3,)], the forward [(2, 3)]"),
        (lambda x: (x, x), "<lambda> returned the shapes [(2, 3), (2, 3)], the forward [(2, 3)]"),
    ],
)
def test_a_broken_forward_is_named(forward, detail):
    report = check(sine, sine_backward, (X,), fn_mpmath=forward)
    assert check_named(report, "mpmath forward runs").status == "failed"
    assert check_named(report, "mpmath forward runs").detail.startswith(detail)


def test_without_mpmath(monkeypatch):
    monkeypatch.setattr(oracle, "is_installed", lambda: False)
    with pytest.raises(ValueError, match="mpmath is not installed: pip install mpmath"):
        check(sine, sine_backward, (X,), fn_mpmath=exact_sine)
    assert check(softmax_forward, softmax_backward, (X,)).ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oracle": "mpmath"}, "oracle='mpmath' needs fn_mpmath, the forward on mpmath's numbers"),
        ({"fn_mpmath": 3}, "fn_mpmath must be callable, got int"),
        ({"fn_mpmath": exact_sine, "mode": "jacobian"}, "mpmath is used in mode='gradient' only"),
    ],
)
def test_misuse(options, message):
    with pytest.raises(ValueError) as caught:
        check(sine, sine_backward, (X,), **options)
    assert str(caught.value).startswith(message)


def test_mpmath_is_only_imported_where_it_is_used():
    import subprocess

    code = (
        "import sys, numpy as np; from npbert.gradcheck import check; "
        "assert check(lambda x: (2 * x, None), lambda dy, _: 2 * dy, (np.ones(3),)); "
        "print('mpmath' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
