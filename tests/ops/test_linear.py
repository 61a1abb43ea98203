"""linear: values against a loop and torch, gradients by the contract, float32 products by their budget."""

import numpy as np
import pytest
from hypothesis import given

from npbert.ops.linear import linear_backward, linear_forward
from tests.comparisons import assert_rows_close
from tests.op_contract import assert_op_contract, multilinear_terms
from tests.oracles import linear_loop, torch_value_and_gradients
from tests.strategies import flags, integers, scales, seeds, shapes, weights
from tests.tolerances import MATMUL_FLOAT32, ROUND_OFF, U32, U64

GRADIENTS = ("x", "weight", "bias")
TERMS = multilinear_terms(linear_forward, linear_backward)


def arguments(rng, rows, inputs, outputs, has_bias, scale=1.0):
    x = scale * rng.normal(size=(*rows, inputs))
    return x, weights(rng, outputs, inputs), weights(rng, outputs) if has_bias else None


@given(shape=shapes(4), seed=seeds, scale=scales, has_bias=flags)
def test_contract(shape, seed, scale, has_bias):
    rng = np.random.default_rng(seed)
    *rows, inputs, outputs = shape
    args = arguments(rng, rows, inputs, outputs, has_bias, scale)
    assert_op_contract(linear_forward, linear_backward, args, rng, gradients=GRADIENTS, terms=TERMS)


@pytest.mark.parametrize("rows", [(), (3,), (2, 3), (2, 1, 3)])
def test_any_number_of_leading_axes(rows):
    rng = np.random.default_rng(1)
    args = arguments(rng, rows, 5, 7, has_bias=True)
    assert_op_contract(linear_forward, linear_backward, args, rng, gradients=GRADIENTS, terms=TERMS)


@given(shape=shapes(3), seed=seeds, has_bias=flags)
def test_value_is_the_loop(shape, seed, has_bias):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape[:1], *shape[1:], has_bias)
    terms = TERMS(np.zeros((shape[0], shape[2])), *args)[0]
    y, _ = linear_forward(*args)
    assert_rows_close(y, linear_loop(*args), what="y", round_off=ROUND_OFF * U64, terms=terms)


@given(shape=shapes(3), seed=seeds)
def test_whole_numbers_give_exact_results(shape, seed):
    rng = np.random.default_rng(seed)
    rows, inputs, outputs = shape
    x, weight, bias = integers(rng, rows, inputs), integers(rng, outputs, inputs), integers(rng, outputs)
    dy = integers(rng, rows, outputs)
    y, cache = linear_forward(x, weight, bias)
    dx, dweight, dbias = linear_backward(dy, cache)
    np.testing.assert_array_equal(y, np.einsum("ri,oi->ro", x, weight) + bias)
    np.testing.assert_array_equal(dx, np.einsum("ro,oi->ri", dy, weight))
    np.testing.assert_array_equal(dweight, np.einsum("ro,ri->oi", dy, x))
    np.testing.assert_array_equal(dbias, np.einsum("ro->o", dy))


@pytest.mark.parametrize("long", [64, 384, 768, 3072])
@pytest.mark.parametrize("axis", ["rows", "in", "out"])  # y sums over in, dx over out, dweight over rows
def test_float32_products_are_within_8_u(axis, long):
    rng = np.random.default_rng(long)
    sizes = {"rows": 31, "in": 33, "out": 35, axis: long}
    x = rng.normal(size=(sizes["rows"], sizes["in"])).astype(np.float32)
    weight = rng.normal(size=(sizes["out"], sizes["in"])).astype(np.float32)
    dy = rng.normal(size=(sizes["rows"], sizes["out"])).astype(np.float32)

    y, cache = linear_forward(x, weight, None)
    dx, dweight, _ = linear_backward(dy, cache)
    for name, product, a, b in (("y", y, x, weight.T), ("dx", dx, dy, weight), ("dweight", dweight, dy.T, x)):
        exact = a.astype(np.float64) @ b.astype(np.float64)
        errors = np.abs(product - exact) / (np.abs(a).astype(np.float64) @ np.abs(b))
        assert product.dtype == np.float32
        assert 0 < errors.max() <= MATMUL_FLOAT32, f"{name} is off by {errors.max() / U32:.1f} u"


@pytest.mark.oracle
@given(shape=shapes(4), seed=seeds, has_bias=flags)
def test_torch_agrees(shape, seed, has_bias):
    rng = np.random.default_rng(seed)
    *rows, inputs, outputs = shape
    args = arguments(rng, rows, inputs, outputs, has_bias)
    dy = rng.normal(size=(*rows, outputs))

    def by_torch(x, weight, bias):
        import torch

        return torch.nn.functional.linear(x, weight, bias)

    y, cache = linear_forward(*args)
    value, gradients = torch_value_and_gradients(by_torch, args, dy)
    terms = TERMS(dy, *args)
    for name, actual, expected, size in zip(
        ("y", *GRADIENTS), (y, *linear_backward(dy, cache)), (value, *gradients), terms, strict=False
    ):
        assert_rows_close(actual, expected, what=name, round_off=ROUND_OFF * U64, terms=size)
