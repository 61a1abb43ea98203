"""GELU's kernels: values and slopes against mpmath, the contract, sums over rows, memory, bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert import ops
from npbert.cuda import emulator
from npbert.cuda import gelu as engine
from npbert.ops.activations import ACTIVATIONS
from npbert.ops.gelu import gelu_gate, gelu_slope
from tests.comparisons import assert_finite, assert_identical
from tests.cuda.kernel_contract import (
    DTYPES,
    assert_clean,
    assert_kernel_contract,
    misaligned,
    rounded_from_float32,
)
from tests.ops.test_gelu import both_forms, exact, forms
from tests.strategies import integers, scales, seeds, shapes
from tests.tolerances import U64

pytestmark = pytest.mark.usefixtures("compiler", "poisoned_memory")

# Rows of 8, 64 and 384 are read 16 bytes at a time; 384 are more than a block has at once.
widths = st.sampled_from((1, 2, 3, 8, 31, 33, 64, 384))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=["exact", "perturbed"])
def perturb(request):
    """Once as it is, once with mathematical functions that err by up to 2 ULP, as a device's may."""
    if request.param == "exact":
        yield False
    else:
        request.getfixturevalue("emulated")
        with emulator.options(perturb=True):
            yield True


def slope(x: np.ndarray, form: str) -> np.ndarray:
    _, cache = engine.gelu_forward(x, form)
    return engine.gelu_backward(np.ones_like(x), cache)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("shape", [(9, 33), (17, 136)])
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_clean(shape, sanitizer):
    """Before all other tests: outside of the sanitizer, an access out of bounds may end their process."""
    rng = np.random.default_rng(3)
    x, dy = rng.normal(size=(2, *shape)).astype(np.float32)
    bias = rng.normal(size=shape[-1]).astype(np.float32)
    assert_clean(engine.bias_gelu_forward, engine.bias_gelu_backward, (x, bias), dy, sanitizer)


# --- accuracy -------------------------------------------------------------------------------------------


def exponent_of_tanh_form(x):
    """2 u(x), whose rounding exp amplifies."""
    return 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def test_float32_values(perturb):
    x = np.linspace(-5, 12, 5001).astype(np.float32)
    x = x[x != 0]
    y, _ = engine.gelu_forward(x)
    np.testing.assert_allclose(y, exact(x, "erf"), rtol=1e-6)


def test_float32_values_of_the_tanh_form(perturb):
    x = np.linspace(-5, 12, 2001).astype(np.float32)
    x = x[x != 0]
    y, _ = engine.gelu_forward(x, "tanh")
    # A few roundings of the exponent, which is 17 at -5, and of the rest.
    relative = (2 * np.maximum(-exponent_of_tanh_form(x), 0) + 12) * 2.0**-24
    assert relative.max() < 3e-6
    np.testing.assert_array_less(abs(y - exact(x, "tanh")), relative * abs(exact(x, "tanh")))


@both_forms
def test_float64_values(form):
    x = np.linspace(-12, 12, 2001)
    y, _ = engine.gelu_forward(x, form)
    amplified = 0.0 if form == "erf" else 3 * abs(exponent_of_tanh_form(x))
    np.testing.assert_array_less(
        abs(y - exact(x, form)), (8 + amplified) * U64 * abs(exact(x, form)) + np.finfo(float).tiny
    )


@both_forms
@every_dtype
def test_left_tail_is_never_positive(form, dtype):
    x = np.linspace(-45, -1e-6, 20001).astype(dtype)
    y, _ = engine.gelu_forward(x, form)
    assert (y <= 0).all()
    assert np.signbit(y).all()
    assert (y[x > -4] < 0).all()  # float16's smallest number is 6e-8
    if dtype != np.float16:
        assert (y[x > -8] < 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_erf_slope_near_its_root(dtype, perturb):
    x = np.linspace(-0.8, -0.7, 501).astype(dtype)
    true = exact(x, "erf", derivative=1)
    assert true.min() < 0 < true.max()
    tolerance = {np.float32: 2.5e-7, np.float64: 8 * U64}[dtype]
    np.testing.assert_allclose(slope(x, "erf"), true, rtol=0, atol=tolerance)


@both_forms
def test_float32_slope_everywhere(form, perturb):
    x = np.linspace(-12, 12, 1001).astype(np.float32)
    # Two terms, each at most 1.13 and rounded a few times; 2 ULP of erfc more where it is near 2.
    tolerance = 4e-7 if perturb else 2.5e-7
    np.testing.assert_allclose(slope(x, form), exact(x, form, derivative=1), rtol=0, atol=tolerance)


@both_forms
@every_dtype
def test_large_numbers(form, dtype):
    large = 6e4 if dtype == np.float16 else 1e30
    x = np.array([-np.inf, -large, -1e3, 1e3, large, np.inf], dtype)
    y, cache = engine.gelu_forward(x[1:], form)
    assert_finite(y[:-1], "y")
    np.testing.assert_array_equal(y, np.array([0, 0, 1e3, large, np.inf], dtype))
    np.testing.assert_array_equal(engine.gelu_backward(np.ones_like(y), cache)[:-1], [0, 0, 1, 1])
    assert np.isnan(engine.gelu_forward(np.array([np.nan], dtype), form)[0]).all()


# --- the contract ---------------------------------------------------------------------------------------


def bias_then_gelu(x, bias, form):
    """What the kernel fuses, in two steps."""
    return ops.gelu_forward(x + bias, form)


def bias_then_gelu_backward(dy, cache):
    dx = ops.gelu_backward(dy, cache)
    return dx, dx.sum(axis=tuple(range(dx.ndim - 1)))


def rounding_of_gate(x, form):
    """How many times its own rounding error the gate may have: its exponent, -x²/2 or 2 u, is rounded too."""
    exponent = x * x / 2 if form == "erf" else abs(exponent_of_tanh_form(x))
    return 1 + np.minimum(exponent, 100)  # the gate itself is 0 beyond


def terms(dy, x, form):
    gate = gelu_gate(x, form)
    slope_of_gate = gelu_slope(x, gate, form) - gate
    rounding = rounding_of_gate(x, form)
    return [rounding * abs(x * gate), abs(dy) * rounding * (abs(gate) + abs(slope_of_gate))]


def terms_with_bias(dy, x, bias, form):
    value, dx = terms(dy, x + bias, form)
    lost = (abs(x) + abs(bias)) * rounding_of_gate(
        x + bias, form
    )  # by rounding the sum; slopes are below 1.2
    return [value + lost, dx + lost, (dx + lost).sum(axis=tuple(range(dx.ndim - 1)))]


def rich(rng, shape, scale):
    return np.where(rng.random(shape) < 0.5, rng.uniform(-12, 12, shape), scale * rng.normal(size=shape))


@given(shape=shapes(2, most=70), width=widths, form=forms, seed=seeds, scale=scales)
def test_contract(shape, width, form, seed, scale):
    rng = np.random.default_rng(seed)
    assert_kernel_contract(
        engine.gelu_forward,
        engine.gelu_backward,
        ops.gelu_forward,
        ops.gelu_backward,
        (rich(rng, (*shape, width), scale), form),
        rng,
        gradients=("x",),
        terms=terms,
        textbook_float16=rounded_from_float32(ops.gelu_forward, ops.gelu_backward),
    )


@given(shape=shapes(2, most=70), width=widths, form=forms, seed=seeds, scale=scales)
def test_contract_with_bias(shape, width, form, seed, scale):
    rng = np.random.default_rng(seed)
    assert_kernel_contract(
        engine.bias_gelu_forward,
        engine.bias_gelu_backward,
        bias_then_gelu,
        bias_then_gelu_backward,
        (rich(rng, (*shape, width), scale), scale * rng.normal(size=width), form),
        rng,
        gradients=("x", "bias"),
        terms=terms_with_bias,
        textbook_float16=rounded_from_float32(bias_then_gelu, bias_then_gelu_backward),
    )


# --- the sum over rows ----------------------------------------------------------------------------------

# A block has 8 rows at once; up to 2048 rows make up to 256 chunks of 8, more rows longer chunks.
ROWS = (1, 2, 7, 8, 9, 63, 65, 2047, 2049, 2100)


@every_dtype
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("width", [1, 3, 33, 130, 136])
def test_the_gradient_of_the_bias_is_the_sum_over_rows(dtype, rows, width):
    """Where gates are 0 or 1, to the last bit, gradients of whole numbers are whole numbers."""
    rng = np.random.default_rng(rows)
    is_on = rng.random((rows, width)) < 0.5
    bias = integers(rng, width).astype(dtype)
    x = (np.where(is_on, 60, -60) - bias).astype(dtype)
    dy = integers(rng, rows, width).astype(dtype)
    y, cache = engine.bias_gelu_forward(x, bias)
    dx, dbias = engine.bias_gelu_backward(dy, cache)
    assert_identical(y, np.where(is_on, 60, 0).astype(dtype), "y")
    assert_identical(dx, np.where(is_on, dy, 0).astype(dtype), "dx")
    assert_identical(dbias, np.where(is_on, dy, 0).sum(axis=0, dtype=np.float64).astype(dtype), "dbias")


@pytest.mark.usefixtures("emulated")
def test_long_sums_give_the_same_bits_in_all_schedules():
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=(2, 2100, 5)).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    sums = []
    for schedule in ("ascending", "descending", "random"):
        with emulator.options(schedule=schedule, seed=2):
            sums.append(engine.bias_gelu_backward(dy, engine.bias_gelu_forward(x, bias)[1])[1])
    assert_identical(sums[1], sums[0], "dbias")
    assert_identical(sums[2], sums[0], "dbias")


def test_the_sum_is_made_before_rounding():
    """In float16, where the slope at -1 cancels with itself rounded; the difference of the two remains."""
    slope = exact(np.array([-1.0]), "erf", derivative=1)[0]
    x = np.tile(np.array([[-1], [50]], np.float16), (2000, 1))
    dy = np.tile(np.array([[1], [-slope]], np.float16), (2000, 1))
    _, cache = engine.bias_gelu_forward(x, np.zeros(1, np.float16))
    dx, dbias = engine.bias_gelu_backward(dy, cache)
    assert dx.sum(dtype=np.float64) == 0
    assert abs(slope + float(dy[1, 0])) > 1e-6
    np.testing.assert_allclose(dbias, 2000 * (slope + float(dy[1, 0])), rtol=0.02)  # float32 sums up to 167


# --- memory ---------------------------------------------------------------------------------------------


@every_dtype
def test_rows_that_do_not_begin_at_16_bytes(dtype):
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(2, 5, 144)).astype(dtype)
    bias = rng.normal(size=144).astype(dtype)
    y, cache = engine.bias_gelu_forward(x, bias)
    gradients = engine.bias_gelu_backward(dy, cache)
    for moved in ("x", "bias", "dy", "all"):
        a, b, c = (
            misaligned(array) if moved in (name, "all") else array
            for name, array in (("x", x), ("bias", bias), ("dy", dy))
        )
        found, found_cache = engine.bias_gelu_forward(a, b)
        assert_identical(found, y, "y")
        for actual, expected in zip(engine.bias_gelu_backward(c, found_cache), gradients, strict=True):
            assert_identical(actual, expected, "gradient")


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_no_numbers(shape):
    x = np.zeros(shape)
    y, cache = engine.bias_gelu_forward(x, np.ones(shape[-1]))
    dx, dbias = engine.bias_gelu_backward(x, cache)
    assert y.shape == dx.shape == shape
    assert_identical(dbias, np.zeros(shape[-1]), "dbias")


# --- activations by name --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_the_textbooks(name):
    x, dy = np.random.default_rng(4).normal(size=(2, 5, 7)) * 4
    y, cache = engine.activation_forward(x, name)
    expected, expected_cache = ops.activation_forward(x, name)
    dx, expected_dx = engine.activation_backward(dy, cache), ops.activation_backward(dy, expected_cache)
    is_kernel = isinstance(cache, engine.GeluKernelCache)
    assert is_kernel == (name in engine.GELU_FORMS)
    if is_kernel:
        np.testing.assert_allclose(y, expected, rtol=1e-13)
        np.testing.assert_allclose(dx, expected_dx, atol=64 * U64)
    else:
        assert_identical(y, expected, "y")
        assert_identical(dx, expected_dx, "dx")


def test_the_names_of_the_two_forms_are_those_of_the_textbook():
    """Activations that share their formulas with "gelu" or "gelu_new", and no others."""
    same = {"erf": ACTIVATIONS["gelu"], "tanh": ACTIVATIONS["gelu_new"]}
    expected = {name: form for name, a in ACTIVATIONS.items() for form, b in same.items() if a == b}
    assert expected == engine.GELU_FORMS


# --- bad input ------------------------------------------------------------------------------------------

X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: engine.gelu_forward(X, "sigmoid"), "gelu_forward: form is 'sigmoid'; it must be \"erf\" or"),
        (lambda: engine.bias_gelu_forward(X, X[0], ""), "bias_gelu_forward: form is ''; it must be"),
        (lambda: engine.gelu_forward(X.astype(int)), "gelu_forward: x is int64; it must be one of float64"),
        (lambda: engine.gelu_forward(X.astype(complex)), "gelu_forward: x is complex128"),
        (lambda: engine.gelu_forward(X.astype(np.longdouble)), "gelu_forward: x is "),
        (lambda: engine.gelu_forward([1.0]), "gelu_forward: x is a list, not an array"),
        (lambda: engine.gelu_forward(X[0, 0]), "gelu_forward: x is a single number"),
        (lambda: engine.bias_gelu_forward(X, X[0, :2]), r"bias has shape \(2,\); expected \(3,\)"),
        (lambda: engine.bias_gelu_forward(X, X), r"bias has shape \(2, 3\); expected \(3,\)"),
        (lambda: engine.bias_gelu_forward(X, np.ones(3, np.float32)), "x is float64, bias float32; .*dtype"),
        (
            lambda: engine.gelu_backward(X[:1], engine.gelu_forward(X)[1]),
            r"gelu_backward: dy has shape \(1, 3\); expected \(2, 3\)",
        ),
        (
            lambda: engine.gelu_backward(X.astype(np.float16), engine.gelu_forward(X)[1]),
            "gelu_backward: dy is float16, x float64; they must have the same dtype",
        ),
        (
            lambda: engine.bias_gelu_backward(X[0], engine.bias_gelu_forward(X, X[0])[1]),
            r"bias_gelu_backward: dy has shape \(3,\)",
        ),
        (lambda: engine.activation_forward(X, "gelu_9"), "hidden_act is 'gelu_9'; it must be one of gelu, "),
        (lambda: engine.activation_forward(X > 0, "gelu"), "activation_forward: x is bool"),
        (
            lambda: engine.activation_backward(X.T, engine.activation_forward(X, "gelu")[1]),
            r"activation_backward: dy has shape \(3, 2\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - set(engine.GELU_FORMS)))
def test_other_activations_compute_half_precision_in_single(name):
    rng = np.random.default_rng(12)
    x, dy = (rng.normal(scale=3, size=(5, 7)).astype(np.float16) for _ in range(2))
    y, cache = engine.activation_forward(x, name)
    dx = engine.activation_backward(dy, cache)
    expected, expected_cache = ops.activation_forward(x.astype(np.float32), name)
    expected_dx = ops.activation_backward(dy.astype(np.float32), expected_cache)
    assert_identical(y, expected.astype(np.float16), "y")
    assert_identical(dx, expected_dx.astype(np.float16), "dx")
