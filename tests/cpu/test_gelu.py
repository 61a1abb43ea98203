"""GELU of the CPU engine: mpmath, the textbook, the complex step of the textbook, blocks and workers."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert import ops
from npbert.cpu import activations as engine_activations
from npbert.cpu import gelu as engine
from npbert.cpu.workers import scratch
from npbert.ops.activations import ACTIVATIONS
from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.golden import make_gelu_coefficients
from tests.op_contract import as_dtype, other_layouts, read_only
from tests.ops.test_gelu import both_dtypes, both_forms, exact, forms
from tests.oracles import complex_step_gradient
from tests.strategies import scales, seeds, shapes, weights
from tests.tolerances import COMPLEX_STEP, ROUND_OFF, U32, U64


def slope(x: np.ndarray, form: str) -> np.ndarray:
    _, cache = engine.gelu_forward(x, form)
    return engine.gelu_backward(np.ones_like(x), cache)


def mixed(rng, shape, scale):
    """Both tails, and the range where most of a model's numbers are."""
    return np.where(rng.random(shape) < 0.5, rng.uniform(-12, 12, shape), scale * rng.normal(size=shape))


def bias_gelu_textbook(x, bias, form):
    return ops.gelu_forward(x + bias, form)


# --- accuracy -------------------------------------------------------------------------------------------


def test_coefficients_are_those_of_the_script():
    assert make_gelu_coefficients.source() in inspect.getsource(engine)
    assert float(make_gelu_coefficients.TAIL) == engine.TAIL


@both_forms
def test_float32_values(form):
    x = np.linspace(-5, 12, 4001).astype(np.float32)
    x = x[x != 0]
    y, _ = engine.gelu_forward(x, form)
    np.testing.assert_allclose(y, exact(x, form), rtol=1e-6)


@both_forms
def test_float32_values_are_within_the_budget_at_every_hundredth_number(form):
    """The textbook in float64 is exact beside 1e-6, and quick: this many places have the worst among them."""
    numbers = np.arange(np.float32(5.0).view(np.int32), np.float32(0.25).view(np.int32), -100, dtype=np.int32)
    x = np.concatenate([-numbers.view(np.float32), np.linspace(0.01, 12, 100_000, dtype=np.float32)])
    y, cache = engine.gelu_forward(x, form)
    expected, expected_cache = ops.gelu_forward(x.astype(np.float64), form)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    expected_slope = ops.gelu_backward(np.ones(x.shape), expected_cache)
    np.testing.assert_allclose(cache.slope, expected_slope, rtol=0, atol=2.5e-7)


@both_forms
def test_without_the_exact_tail_only_digits_beside_1_are_lost(form):
    far = np.geomspace(40, 1e30, 99)
    x = np.concatenate([-far, np.linspace(-40, 40, 400_001), far]).astype(np.float32)
    y, slopes = np.empty_like(x), np.empty_like(x)
    engine.write_gelu(x, y, slopes, form, exact_tail=False)
    expected, cache = ops.gelu_forward(x.astype(np.float64), form)
    assert_finite(y, "y")
    assert_finite(slopes, "slope")
    np.testing.assert_allclose(y, expected, rtol=6 * U32, atol=5e-7)  # as its docstring says
    expected_slope = ops.gelu_backward(np.ones(x.shape), cache)
    np.testing.assert_allclose(slopes, expected_slope, rtol=0, atol=5 * U32)


def test_the_second_look_at_the_tail_is_left_out():
    x = np.linspace(-5, -3, 1001).astype(np.float32)
    y = np.empty_like(x)
    engine.write_gelu(x, y, np.empty_like(x), "erf", exact_tail=False)
    exactly, _ = engine.gelu_forward(x)
    assert np.any(y != exactly)


@both_forms
def test_tail_is_as_good_as_float32_can_be(form):
    x = np.linspace(-11, -2.5001, 1001).astype(np.float32)
    y, _ = engine.gelu_forward(x, form)
    expected = exact(x, form)
    normal = np.abs(expected) > np.finfo(np.float32).tiny
    assert normal.sum() > 500
    np.testing.assert_allclose(y[normal], expected[normal], rtol=2.5e-7)  # 7e-8 of q, and a rounding or two


@both_forms
@both_dtypes
def test_left_tail_is_never_positive(form, dtype):
    x = np.linspace(-45, -1e-6, 20001).astype(dtype)
    y, _ = engine.gelu_forward(x, form)
    assert (y <= 0).all()
    assert np.signbit(y).all()
    assert (y[x > -8] < 0).all()


def test_erf_slope_near_its_root():
    x = np.linspace(-0.8, -0.7, 501).astype(np.float32)
    true = exact(x, "erf", derivative=1)
    assert true.min() < 0 < true.max()
    np.testing.assert_allclose(slope(x, "erf"), true, rtol=0, atol=2.5e-7)


@both_forms
def test_float32_slope_everywhere(form):
    x = np.linspace(-12, 12, 1001).astype(np.float32)
    np.testing.assert_allclose(slope(x, form), exact(x, form, derivative=1), rtol=0, atol=2.5e-7)


@both_forms
@both_dtypes
def test_large_numbers(form, dtype):
    x = np.array([-3e38, -1e20, -1e6, -1e3, 1e3, 1e6, 1e20, 3e38], dtype)
    y, cache = engine.gelu_forward(x, form)
    dx = engine.gelu_backward(np.ones_like(x), cache)
    np.testing.assert_array_equal(y, np.where(x < 0, 0, x))
    np.testing.assert_array_equal(dx, x > 0)


@both_forms
def test_not_a_number_stays_one(form):
    with np.errstate(invalid="ignore"):
        y, cache = engine.gelu_forward(np.array([np.nan, 1.0], np.float32), form)
    assert np.isnan(y[0]) and np.isnan(cache.slope[0])
    assert np.isfinite(y[1]) and np.isfinite(cache.slope[1])


# --- the contract ---------------------------------------------------------------------------------------


@given(shape=shapes(2, most=100), form=forms, seed=seeds, scale=scales, has_bias=st.booleans())
def test_contract(shape, form, seed, scale, has_bias):
    """Blocks of 8 elements: those of small arrays are many, too."""
    rng = np.random.default_rng(seed)
    x, bias, dy = mixed(rng, shape, scale), weights(rng, shape[-1]), rng.normal(size=shape)
    arrays, names = ((x, bias), ("x", "bias")) if has_bias else ((x,), ("x",))
    forward, backward = engine.gelu_forward, engine.gelu_backward
    textbook = ops.gelu_forward
    if has_bias:
        forward, backward, textbook = (
            engine.bias_gelu_forward,
            engine.bias_gelu_backward,
            bias_gelu_textbook,
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", 8)
        for dtype, u in ((np.float64, U64), (np.float32, U32)):
            rounded = [read_only(as_dtype(dtype, array)) for array in (*arrays, dy)]
            *given, dy_given = rounded
            y, cache = forward(*given, form)
            found = backward(dy_given, cache)
            found = found if has_bias else (found,)
            wide = [array.astype(np.float64) for array in given]
            expected, _ = textbook(*wide, form)
            budget = 1e-14 if dtype == np.float64 else 1e-6
            # Far to the left a rounding of x + bias = z counts z² times: y falls as exp(-z² / 2) does.
            allowed = np.abs(expected) * (budget + 2 * u * (sum(wide) ** 2 if has_bias else 0.0))
            assert y.dtype == dtype
            assert_finite(y, "y")
            assert (np.abs(y - expected) <= allowed + np.finfo(dtype).smallest_subnormal).all()
            for position, (name, gradient) in enumerate(zip(names, found, strict=True)):
                step = complex_step_gradient(
                    lambda *a: textbook(*a, form)[0], wide, position, dy_given.astype(np.float64)
                )
                size = np.abs(dy_given) * 1.2  # the slope is at most 1.13
                size = size.sum(axis=0) if name == "bias" else size
                assert gradient.dtype == dtype
                assert gradient.shape == given[position].shape
                assert_rows_close(
                    gradient,
                    step,
                    what=f"d{name}",
                    relative=COMPLEX_STEP,
                    round_off=ROUND_OFF * u,
                    terms=size,
                )


@both_forms
@both_dtypes
def test_other_layouts_blocks_and_runs_give_the_same_bits(monkeypatch, form, dtype):
    rng = np.random.default_rng(1)
    x, dy = mixed(rng, (2, 7, 9, 5), 1.0).astype(dtype)
    bias = rng.normal(size=5).astype(dtype)

    def run(x, bias, dy):
        y, cache = engine.gelu_forward(x, form)
        biased, biased_cache = engine.bias_gelu_forward(x, bias, form)
        return y, engine.gelu_backward(dy, cache), biased, engine.bias_gelu_backward(dy, biased_cache)[0]

    expected = run(x, bias, dy)
    variants = list(zip(*(other_layouts(array) for array in (x, bias, dy)), strict=True))
    for block in (engine.BLOCK, 16):
        monkeypatch.setattr(engine, "BLOCK", block)
        for variant in [(x, bias, dy), *variants]:
            for name, actual, reference in zip(
                ("y", "dx", "y'", "dx'"), run(*variant), expected, strict=True
            ):
                assert_identical(actual, reference, name)


@both_forms
def test_in_place_gives_the_bits_of_the_forward_but_in_the_tail(form):
    rng = np.random.default_rng(2)
    x, bias = mixed(rng, (300, 1001), 1.0).astype(np.float32), rng.normal(size=(300, 1)).astype(np.float32)
    assert x.size > 2 * engine.IN_PLACE_BLOCK
    y, _ = engine.gelu_forward(x + bias, form)
    in_place = x.copy()
    assert engine.bias_gelu_in_place(in_place, bias, form) is None
    tail = x + bias < engine.TAIL
    assert tail.mean() > 0.1
    assert_identical(in_place[~tail], y[~tail], "to the right of the tail")
    assert_finite(in_place[tail], "tail")
    assert (in_place[tail] <= 0).all()
    np.testing.assert_allclose(in_place[tail], y[tail], rtol=0, atol=5e-7)  # as documented


@both_forms
def test_in_place_at_large_numbers(form):
    x = np.array([[-3e38, -1e20, -1e6, -1e3, 1e3, 1e6, 1e20, 3e38]], np.float32)
    y = x.copy()
    engine.bias_gelu_in_place(y, np.zeros((1, 1), np.float32), form)
    np.testing.assert_array_equal(y, np.where(x < 0, 0, x))


@both_forms
def test_any_number_of_workers(form, monkeypatch):
    monkeypatch.setattr(engine, "BLOCK", 65536)
    rng = np.random.default_rng(3)
    x, bias = mixed(rng, (200, 700), 1.0), rng.normal(size=700)
    assert x.size > 2 * engine.BLOCK
    assert_same_for_any_workers(engine.gelu_forward, engine.gelu_backward, (x, form), rng)
    assert_same_for_any_workers(engine.bias_gelu_forward, engine.bias_gelu_backward, (x, bias, form), rng)


@given(size=st.integers(0, 70), share=st.sampled_from((0.0, 0.05, 0.5, 1.0)), seed=seeds)
def test_places_of_the_tail(size, share, seed):
    x = (np.random.default_rng(seed).random(size) >= share).astype(np.float32)
    scratch("gelu mask", (80,), bool)[:] = True  # what an earlier block left
    assert_identical(engine._places_below(x, 0.5), np.flatnonzero(x < 0.5), "places")


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
def test_no_elements_and_no_axes(shape):
    x = np.full(shape, 0.5, np.float32)
    y, cache = engine.gelu_forward(x)
    dx = engine.gelu_backward(x, cache)
    assert y.shape == dx.shape == shape
    if x.ndim == 2:
        dx, dbias = engine.bias_gelu_backward(x, engine.bias_gelu_forward(x, x.sum(axis=0))[1])
        assert dx.shape == shape
        assert_identical(dbias, np.zeros(shape[1], np.float32), "dbias")


def test_complex_numbers_are_the_textbooks():
    x = np.array([0.5 + 1e-30j, -3.0 + 1e-30j])
    y, cache = engine.gelu_forward(x)
    assert_identical(y, ops.gelu_forward(x)[0], "y")
    assert_identical(engine.gelu_backward(x, cache), ops.gelu_backward(x, ops.gelu_forward(x)[1]), "dx")


@pytest.mark.parametrize("form", ["sigmoid", "Erf", ""])
@pytest.mark.parametrize("forward", [engine.gelu_forward, lambda x, f: engine.bias_gelu_forward(x, x[0], f)])
def test_unknown_form_is_named(form, forward):
    with pytest.raises(ValueError, match=f'form is \'{form}\'; it must be "erf" or "tanh"'):
        forward(np.ones((2, 2)), form)


# --- the other activations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
@both_dtypes
def test_activations_are_the_textbooks(monkeypatch, name, dtype):
    monkeypatch.setattr(engine_activations, "BLOCK", 16)
    rng = np.random.default_rng(4)
    x, dy = rng.uniform(-12, 12, size=(2, 9, 31)).astype(dtype)
    x[0, :4] = (0.0, -3.0, 3.0, 6.0)  # the corners
    x, dy = read_only(x), read_only(dy)
    y, cache = engine_activations.activation_forward(x, name)
    dx = engine_activations.activation_backward(dy, cache)
    expected, expected_cache = ops.activation_forward(x, name)
    expected_dx = ops.activation_backward(dy, expected_cache)
    assert y.dtype == dx.dtype == dtype
    assert_finite(y, "y")
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * 1e-3)
    np.testing.assert_allclose(dx, expected_dx, rtol=0, atol=tolerance * np.abs(dy).max())


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="hidden_act is 'gelu_newer'; it must be one of gelu, "):
        engine_activations.activation_forward(np.ones(2), "gelu_newer")
