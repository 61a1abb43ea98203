"""layernorm of the CPU engine: the ops' contract, mpmath, the textbook's error, blocks and workers."""

import numpy as np
import pytest
from hypothesis import given

from npbert import ops
from npbert.cpu import layernorm as engine
from tests.comparisons import assert_finite, assert_identical, assert_rows_close, row_norms
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.cuda.kernel_contract import assert_within_budget
from tests.op_contract import assert_op_contract
from tests.ops.test_layernorm import GRADIENTS, arguments, epsilons, terms
from tests.oracles import layernorm_mpmath
from tests.strategies import scales, seeds, shapes
from tests.tolerances import LAYERNORM_DX_FLOAT32, ROUND_OFF, U32, U64

# The gradient of the sum is that of x; residual's, the same array, is left out.
RESIDUAL_PAIR = (engine.residual_layernorm_forward, engine.residual_layernorm_backward)


def residual_terms(dy, x, residual, weight, bias, eps):
    """Those of the sum, with |x| + |residual| for its size: the sum is rounded before it is normalised."""
    exact = terms(dy, x + residual, weight, bias, eps)
    inv_std = 1 / np.sqrt((x + residual).var(axis=-1, keepdims=True) + eps)
    lost = 1 + (np.abs(x) + np.abs(residual)).max(axis=-1, keepdims=True) * inv_std
    rows = tuple(range(x.ndim - 1))
    return [
        exact[0] + lost * np.abs(weight),
        lost * exact[1],
        exact[2] + (np.abs(dy) * lost).sum(axis=rows),
        exact[3],
    ]


@given(shape=shapes(3), seed=seeds, scale=scales, eps=epsilons)
def test_contract(shape, seed, scale, eps):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, eps, scale)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", int(rng.choice((1, 40, 100_000))))
        assert_op_contract(
            engine.layernorm_forward,
            engine.layernorm_backward,
            args,
            rng,
            gradients=GRADIENTS,
            terms=terms,
        )


@given(shape=shapes(2), seed=seeds, scale=scales, eps=epsilons)
def test_contract_with_a_residual(shape, seed, scale, eps):
    rng = np.random.default_rng(seed)
    x, *rest = arguments(rng, shape, eps, scale)
    args = (x, rng.normal(size=shape), *rest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", int(rng.choice((1, 40, 100_000))))
        assert_op_contract(*RESIDUAL_PAIR, args, rng, gradients=GRADIENTS, terms=residual_terms)


@pytest.mark.parametrize("rows", [(), (3,), (2, 3, 1)])
def test_any_number_of_leading_axes(rows):
    rng = np.random.default_rng(2)
    args = arguments(rng, (*rows, 7), 1e-12)
    assert_op_contract(
        engine.layernorm_forward, engine.layernorm_backward, args, rng, gradients=GRADIENTS, terms=terms
    )


@given(shape=shapes(2), seed=seeds, scale=scales, eps=epsilons)
def test_float32_errs_no_more_than_twice_as_much_as_the_textbook(shape, seed, scale, eps):
    rng = np.random.default_rng(seed)
    single = [a.astype(np.float32) for a in arguments(rng, shape, eps, scale)[:-1]]
    dy = rng.normal(size=shape).astype(np.float32)

    def run(module, dy, args):
        y, cache = module.layernorm_forward(*args, eps)
        return y, *module.layernorm_backward(dy, cache)

    wide = [a.astype(np.float64) for a in single]
    exact = run(ops, dy.astype(np.float64), wide)
    sizes = terms(dy.astype(np.float64), *wide, eps)
    results = zip(("y", *GRADIENTS), run(engine, dy, single), exact, run(ops, dy, single), sizes, strict=True)
    for name, actual, expected, unfused, size in results:
        assert_within_budget(actual, expected, unfused, size, name)


@pytest.mark.parametrize(("dtype", "u"), [(np.float64, U64), (np.float32, U32)])
@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("eps", [1e-12, 0.3])
def test_nearly_constant_rows_as_mpmath_has_them(dtype, u, spread, eps):
    rng = np.random.default_rng(3)
    x = (1 + spread * rng.normal(size=(3, 7))).astype(dtype)
    weight, bias, dy = (rng.normal(size=s).astype(dtype) for s in (7, 7, (3, 7)))
    y, cache = engine.layernorm_forward(x, weight, bias, eps)
    found = (y, *engine.layernorm_backward(dy, cache))
    expected = layernorm_mpmath(x, weight, bias, eps, dy)
    size = terms(*(a.astype(np.float64) for a in (dy, x, weight, bias)), eps)
    for name, actual, reference, t in zip(("y", *GRADIENTS), found, expected, size, strict=True):
        assert actual.dtype == dtype
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * u, terms=t)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
def test_constant_rows_stay_finite(dtype, value):
    rng = np.random.default_rng(4)
    x = np.full((3, 31), value, dtype)
    weight, bias = rng.normal(size=(2, 31)).astype(dtype)
    y, cache = engine.layernorm_forward(x, weight, bias, 1e-12)
    for name, array in zip(("y", *GRADIENTS), (y, *engine.layernorm_backward(y, cache)), strict=True):
        assert_finite(array, name)
    if value == 0:
        assert_identical(y, np.broadcast_to(bias, y.shape), "y")


@pytest.mark.parametrize("width", [31, 384, 768])
def test_float32_dx_is_within_8_u_of_its_row(width):
    rng = np.random.default_rng(5)
    single = [a.astype(np.float32) for a in (*rng.normal(size=(2, 133, width)), *rng.normal(size=(2, width)))]
    dy, x, weight, bias = single
    dx, _, _ = engine.layernorm_backward(dy, engine.layernorm_forward(x, weight, bias, 1e-12)[1])
    dy, x, weight, bias = (a.astype(np.float64) for a in single)
    exact, _, _ = ops.layernorm_backward(dy, ops.layernorm_forward(x, weight, bias, 1e-12)[1])
    errors = row_norms(dx - exact) / row_norms(exact)
    assert 0 < errors.max() <= LAYERNORM_DX_FLOAT32, f"off by {errors.max() / U32:.1f} u"


def test_any_number_of_workers(monkeypatch):
    monkeypatch.setattr(engine, "BLOCK", 32768)
    rng = np.random.default_rng(6)
    x, weight, bias, eps = arguments(rng, (5, 41, 384), 1e-12)
    assert x.size > 2 * engine.BLOCK
    assert_same_for_any_workers(
        engine.layernorm_forward, engine.layernorm_backward, (x, weight, bias, eps), rng
    )
    args = (x, rng.normal(size=x.shape), weight, bias, eps)
    assert_same_for_any_workers(*RESIDUAL_PAIR, args, rng)


def test_no_rows_and_other_dtypes_are_the_textbooks():
    weight, bias = np.random.default_rng(8).normal(size=(2, 5))
    x = np.zeros((0, 3, 5))
    y, cache = engine.layernorm_forward(x, weight, bias, 1e-12)
    dx, dweight, dbias = engine.layernorm_backward(x, cache)
    assert y.shape == dx.shape == x.shape
    assert_identical(dweight, np.zeros(5), "dweight")
    assert_identical(dbias, np.zeros(5), "dbias")
    mixed = np.ones((2, 5), np.float32) * np.arange(5, dtype=np.float32)
    y, _ = engine.layernorm_forward(mixed, weight, bias, 1e-12)
    assert_identical(y, ops.layernorm_forward(mixed, weight, bias, 1e-12)[0], "y")
