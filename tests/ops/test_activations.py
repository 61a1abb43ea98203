"""Every activation against its definition in mpmath, the complex step, and Hugging Face."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.activations import ACTIVATIONS, activation_backward, activation_forward
from npbert.ops.sigmoid import sigmoid
from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.oracles import complex_step_gradient
from tests.strategies import scales, seeds, shapes
from tests.tolerances import COMPLEX_STEP, ROUND_OFF, U64

every_activation = pytest.mark.parametrize("name", ACTIVATIONS)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Names that Hugging Face knows and that have learned parameters, which no BERT checkpoint stores.
LEARNED = ("prelu", "xielu")

# Where an activation bends it has no derivative, and any slope between the two sides would do.
# These are PyTorch's choices: name -> {x: slope}.
CORNERS = {
    "relu": {0: 0},
    "relu2": {0: 0},
    "relu6": {0: 0, 6: 0},
    "leaky_relu": {0: 0.01},
    "hardswish": {-3: 0, 3: 1},
    "gelu_10": {10: 1},
}


def gelu_tanh(x, scale):
    return x * (1 + mpmath.tanh(scale * (x + mpmath.mpf("0.044715") * x**3))) / 2


def gelu_erf(x):
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def logistic(x):
    return 1 / (1 + mpmath.exp(-x))


def softplus(x):
    return x if x > 20 else mpmath.log1p(mpmath.exp(x))


def laplace(x):
    return mpmath.erfc(-(x - mpmath.mpf("0.707107")) / (mpmath.mpf("0.282095") * mpmath.sqrt(2))) / 2


def gelu_new(x):
    return gelu_tanh(x, mpmath.sqrt(2 / mpmath.pi))


DEFINITIONS = {
    "gelu": gelu_erf,
    "gelu_python": gelu_erf,
    "gelu_10": lambda x: min(gelu_erf(x), 10),
    "gelu_new": gelu_new,
    "gelu_accurate": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_python_tanh": gelu_new,
    "gelu_fast": lambda x: gelu_tanh(x, mpmath.mpf("0.7978845608")),
    "quick_gelu": lambda x: x * logistic(mpmath.mpf("1.702") * x),
    "silu": lambda x: x * logistic(x),
    "swish": lambda x: x * logistic(x),
    "mish": lambda x: x * mpmath.tanh(softplus(x)),
    "relu": lambda x: max(x, 0),
    "relu2": lambda x: max(x, 0) ** 2,
    "relu6": lambda x: min(max(x, 0), 6),
    "leaky_relu": lambda x: x if x > 0 else x * mpmath.mpf("0.01"),
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "sigmoid": logistic,
    "tanh": mpmath.tanh,
    "laplace": laplace,
    "sqrtsoftplus": lambda x: mpmath.sqrt(softplus(x)),
    "linear": lambda x: x,
}


def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([np.linspace(-25, 25, 300), rng.uniform(-4, 4, 300), [0.1, -1e-5, 1e-5]])


def value_and_slope(x: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    y, cache = activation_forward(x, name)
    return y, activation_backward(np.ones_like(x), cache)


@every_activation
def test_values_and_slopes_against_the_definition(name):
    x = points()
    y, dx = value_and_slope(x, name)
    with mpmath.workdps(60):
        definition = DEFINITIONS[name]
        expected = np.array([float(definition(mpmath.mpf(v))) for v in x.tolist()])
        slopes = np.array([float(mpmath.diff(definition, mpmath.mpf(v))) for v in x.tolist()])
    # A few roundings of numbers no larger than 1 + |x|; x times a gate keeps its relative error.
    allowed = 8 * U64 * (1 + abs(x))
    np.testing.assert_array_less(abs(y - expected), allowed)
    np.testing.assert_array_less(abs(dx - slopes), 8 * allowed)


@given(shape=shapes(2, most=100), name=st.sampled_from(tuple(ACTIVATIONS)), seed=seeds, scale=scales)
def test_backward_is_the_complex_step(shape, name, seed, scale):
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(shape) < 0.5, rng.uniform(-12, 12, shape), scale * rng.normal(size=shape))
    dy = rng.normal(size=shape)
    before = x.copy(), dy.copy()
    _, cache = activation_forward(x, name)
    dx = activation_backward(dy, cache)
    step = complex_step_gradient(lambda z: activation_forward(z, name)[0], [x], 0, dy)
    # The slope of a saturated activation, as in 1 - tanh(x)^2, is a difference of numbers of size 1 + |x|.
    terms = abs(dy) * (1 + abs(x))
    assert_rows_close(
        dx, step, what=f"dx of {name}", relative=COMPLEX_STEP, round_off=ROUND_OFF * U64, terms=terms
    )
    assert_identical(x, before[0], "x")
    assert_identical(dy, before[1], "dy")


@pytest.mark.parametrize("name", CORNERS)
def test_slopes_at_the_corners(name):
    corners = CORNERS[name]
    _, dx = value_and_slope(np.array(list(corners), dtype=np.float64), name)
    np.testing.assert_array_equal(dx, list(corners.values()))


@every_activation
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_complex_step_at_zero(name, zero):
    # The seam of every formula that treats the two signs apart; the step goes to either side.
    x, dy = np.full(2, zero), np.array([1.0, -2.0])
    _, cache = activation_forward(x, name)
    step = complex_step_gradient(lambda z: activation_forward(z, name)[0], [x], 0, dy)
    backwards = complex_step_gradient(lambda z: activation_forward(z.conj(), name)[0], [x], 0, -dy)
    np.testing.assert_allclose(activation_backward(dy, cache), step, atol=4 * U64)
    np.testing.assert_allclose(backwards, step, atol=4 * U64)


@every_activation
def test_backward_is_linear_in_dy(name):
    rng = np.random.default_rng(1)
    x, a, b = rng.normal(size=(3, 5, 7))
    _, cache = activation_forward(x, name)
    left = activation_backward(2 * a - 3 * b, cache)
    right = 2 * activation_backward(a, cache) - 3 * activation_backward(b, cache)
    np.testing.assert_allclose(left, right, atol=64 * U64)


@every_activation
@both_dtypes
def test_layout_shape_and_dtype(name, dtype):
    x = np.random.default_rng(2).normal(size=(4, 6, 5)).astype(dtype).transpose(2, 0, 1)[:, ::-1, ::2]
    y, cache = activation_forward(x, name)
    dx = activation_backward(x, cache)
    contiguous, contiguous_cache = activation_forward(x.copy(), name)
    assert_identical(y, contiguous, "y")
    assert_identical(dx, activation_backward(x.copy(), contiguous_cache), "dx")
    assert y.dtype == dx.dtype == dtype
    assert y.shape == dx.shape == x.shape


@every_activation
@both_dtypes
def test_large_numbers(name, dtype):
    x = np.array([-1e5, -1e3, -100, 100, 1e3, 1e5], dtype=dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y, dx = value_and_slope(x, name)
    assert_finite(y, "y")
    assert_finite(dx, "dx")


@every_activation
def test_nan_stays_nan(name):
    y, _ = activation_forward(np.array([np.nan, 1.0]), name)
    assert np.isnan(y).tolist() == [True, False]


def test_sigmoid_keeps_its_digits_in_the_tail():
    x = np.array([-700.0, -40.0, -1.0, 0.0, 1.0, 40.0])
    with mpmath.workdps(60):
        expected = [float(logistic(mpmath.mpf(v))) for v in x.tolist()]
    np.testing.assert_allclose(sigmoid(x), expected, rtol=4 * U64)


def test_softplus_is_its_argument_behind_20():
    # At 20 itself PyTorch takes the logarithm still: 2e-9 more.
    at, behind = 20.0, np.nextafter(20.0, 21.0)
    y, dx = value_and_slope(np.array([at, behind]), "sqrtsoftplus")
    root = np.sqrt(np.log1p(np.exp(at)))
    np.testing.assert_allclose(y, [root, np.sqrt(behind)], rtol=4 * U64)
    slopes = [1 / (1 + np.exp(-at)) / (2 * root), 1 / (2 * np.sqrt(behind))]
    np.testing.assert_allclose(dx, slopes, rtol=4 * U64)


@pytest.mark.parametrize("name", [*LEARNED, "GELU", "", "gelu_erf"])
def test_unknown_names_are_named(name):
    with pytest.raises(ValueError, match=f"hidden_act is '{name}'; it must be one of gelu, gelu_python"):
        activation_forward(np.ones(2), name)


def test_every_name_has_a_definition():
    assert set(DEFINITIONS) == set(ACTIVATIONS)


@pytest.mark.oracle
def test_the_names_are_those_of_hugging_face():
    activations = pytest.importorskip("transformers.activations")
    assert set(activations.ACT2CLS) - set(LEARNED) == set(ACTIVATIONS)


@pytest.mark.oracle
@every_activation
def test_hugging_face_in_float64(name):
    torch = pytest.importorskip("torch")
    activations = pytest.importorskip("transformers.activations")
    x = np.concatenate([points(), [0.0], list(CORNERS.get(name, {}))])
    dy = np.random.default_rng(3).normal(size=x.shape)
    tensor = torch.tensor(x, requires_grad=True)
    expected = activations.ACT2FN[name](tensor)
    expected.backward(torch.tensor(dy))
    y, cache = activation_forward(x, name)
    # 32: torch computes 1 + erf and 1 + tanh as written, with an absolute error of a few u.
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=32 * U64, atol=32 * U64)
    dx = activation_backward(dy, cache)
    np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=64 * U64, atol=256 * U64)
