"""Both forms of GELU: values and slopes against mpmath, the backward against the complex step."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.gelu import gelu_backward, gelu_forward
from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.oracles import complex_step_gradient
from tests.strategies import scales, seeds, shapes
from tests.tolerances import COMPLEX_STEP, U64

forms = st.sampled_from(("erf", "tanh"))
both_forms = pytest.mark.parametrize("form", ["erf", "tanh"])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def gelu_mpmath(x, form):
    if form == "erf":
        return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2
    u = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x * (1 + mpmath.tanh(u)) / 2


def exact(x: np.ndarray, form: str, derivative: int = 0) -> np.ndarray:
    """GELU, or its derivative, in float64, rounded from 80 digits: 1 + tanh(u) loses 60 of them at -12."""
    with mpmath.workdps(80):
        results = [mpmath.diff(lambda z: gelu_mpmath(z, form), mpmath.mpf(v), derivative) for v in x.tolist()]
        return np.array([float(r) for r in results])


def slope(x: np.ndarray, form: str) -> np.ndarray:
    _, cache = gelu_forward(x, form)
    return gelu_backward(np.ones_like(x), cache)


@both_forms
def test_float32_values(form):
    x = np.linspace(-5, 12, 5001).astype(np.float32)
    x = x[x != 0]
    y, _ = gelu_forward(x, form)
    # The budget is 1e-6; torch's own float32 GELU is 57 % off at -5.5.
    np.testing.assert_allclose(y, exact(x, form), rtol=1e-6)


@both_forms
def test_float64_values(form):
    x = np.linspace(-12, 12, 2001)
    y, _ = gelu_forward(x, form)
    # The tanh form rounds its exponent 2 u(x), which is up to 143 here, before exp amplifies that.
    u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    amplified = 0.0 if form == "erf" else 6 * abs(u)
    np.testing.assert_array_less(
        abs(y - exact(x, form)), (8 + amplified) * U64 * abs(exact(x, form)) + np.finfo(float).tiny
    )


@both_forms
@both_dtypes
def test_left_tail_is_never_positive(form, dtype):
    x = np.linspace(-45, -1e-6, 20001).astype(dtype)
    y, _ = gelu_forward(x, form)
    assert (y <= 0).all()
    assert np.signbit(y).all()
    assert (y[x > -8] < 0).all()


@both_dtypes
def test_erf_slope_near_its_root(dtype):
    x = np.linspace(-0.8, -0.7, 501).astype(dtype)
    true = exact(x, "erf", derivative=1)
    assert true.min() < 0 < true.max()
    tolerance = {np.float32: 2.5e-7, np.float64: 4 * U64}[dtype]
    np.testing.assert_allclose(slope(x, "erf"), true, rtol=0, atol=tolerance)


@both_forms
def test_float32_slope_everywhere(form):
    x = np.linspace(-12, 12, 1001).astype(np.float32)
    # 2.5e-7: two terms, each at most 1.13 and rounded a few times.
    np.testing.assert_allclose(slope(x, form), exact(x, form, derivative=1), rtol=0, atol=2.5e-7)


@given(shape=shapes(2, most=100), form=forms, seed=seeds, scale=scales)
def test_backward_is_the_complex_step(shape, form, seed, scale):
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(shape) < 0.5, rng.uniform(-12, 12, shape), scale * rng.normal(size=shape))
    dy = rng.normal(size=shape)
    before = x.copy(), dy.copy()
    _, cache = gelu_forward(x, form)
    dx = gelu_backward(dy, cache)
    step = complex_step_gradient(lambda z: gelu_forward(z, form)[0], [x], 0, dy)
    assert_rows_close(dx, step, what="dx", relative=COMPLEX_STEP)
    assert_identical(x, before[0], "x")
    assert_identical(dy, before[1], "dy")


@both_forms
def test_backward_is_linear_in_dy(form):
    rng = np.random.default_rng(0)
    x, a, b = rng.normal(size=(3, 5, 7))
    _, cache = gelu_forward(x, form)
    left = gelu_backward(2 * a - 3 * b, cache)
    right = 2 * gelu_backward(a, cache) - 3 * gelu_backward(b, cache)
    np.testing.assert_allclose(left, right, atol=16 * U64)


@both_forms
@both_dtypes
def test_layout_shape_and_dtype(form, dtype):
    x = np.random.default_rng(1).normal(size=(4, 6, 5)).astype(dtype).transpose(2, 0, 1)[:, ::-1, ::2]
    y, cache = gelu_forward(x, form)
    dx = gelu_backward(x, cache)
    contiguous, contiguous_cache = gelu_forward(x.copy(), form)
    assert_identical(y, contiguous, "y")
    assert_identical(dx, gelu_backward(x.copy(), contiguous_cache), "dx")
    assert y.dtype == dx.dtype == dtype
    assert y.shape == dx.shape == x.shape


@both_forms
@both_dtypes
def test_large_numbers(form, dtype):
    x = np.array([-1e6, -1e3, 1e3, 1e6], dtype=dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, cache = gelu_forward(x, form)
        dx = gelu_backward(np.ones_like(x), cache)
    assert_finite(y, "y")
    np.testing.assert_array_equal(y, [0, 0, 1e3, 1e6])
    np.testing.assert_array_equal(dx, [0, 0, 1, 1])


def test_the_forms_differ():
    x = np.linspace(-5, 5, 10001)
    difference = abs(gelu_forward(x, "erf")[0] - gelu_forward(x, "tanh")[0])
    assert 4.6e-4 < difference.max() < 4.8e-4


@pytest.mark.parametrize("form", ["sigmoid", "Erf", "tanh_new", ""])
def test_unknown_form_is_named(form):
    with pytest.raises(ValueError, match=f'form is \'{form}\'; it must be "erf" or "tanh"'):
        gelu_forward(np.ones(2), form)
