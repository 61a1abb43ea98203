"""Linear layers of the CPU engine: the contract, integers that must come out exactly, blocks and workers."""

import numpy as np
import pytest
from hypothesis import given
from threadpoolctl import ThreadpoolController

from npbert import ops
from npbert.cpu import linear as engine
from npbert.cpu.linear import linear_backward, linear_forward
from tests.comparisons import assert_identical
from tests.cpu.accuracy import assert_as_accurate_as_the_textbook
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.op_contract import assert_op_contract, multilinear_terms
from tests.strategies import flags, seeds, shapes

ENGINE = (linear_forward, linear_backward)
TEXTBOOK = (ops.linear_forward, ops.linear_backward)
GRADIENTS = ("x", "weight", "bias")
terms = multilinear_terms(*TEXTBOOK)


@pytest.fixture(
    params=[(512, 192, 1 << 21), (4, 192, 10), (512, 2, 10)], ids=["one piece", "rows", "features"]
)
def pieces(request, monkeypatch):
    for name, value in zip(("ROWS", "FEATURES", "WORTH_SHARING"), request.param, strict=True):
        monkeypatch.setattr(engine, name, value)


def arguments(rng, shape, has_bias, draw):
    *rows, width, features = shape
    return draw((*rows, width)), draw((features, width)), draw((features,)) if has_bias else None


@given(shape=shapes(4, most=300), seed=seeds, has_bias=flags)
def test_contract(shape, seed, has_bias):
    """The complex step goes through the textbook, which complex arrays are left to."""
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, lambda size: rng.normal(size=size))
    assert_op_contract(*ENGINE, args, rng, gradients=GRADIENTS, terms=terms)


@given(shape=shapes(3), seed=seeds, has_bias=flags)
def test_float32_is_as_accurate_as_the_textbook(shape, seed, has_bias):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, lambda size: rng.normal(size=size))
    assert_as_accurate_as_the_textbook(ENGINE, TEXTBOOK, args, rng, gradients=GRADIENTS, terms=terms)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 3), (1, 7, 3), (33, 5, 31), (3, 7, 11, 13), (2, 0, 5, 3)])
def test_integers_come_out_exactly(dtype, has_bias, shape):
    rng = np.random.default_rng(1)
    args = arguments(rng, shape, has_bias, lambda size: rng.integers(-9, 10, size).astype(dtype))
    dy = rng.integers(-9, 10, (*shape[:-2], shape[-1])).astype(dtype)
    y, cache = linear_forward(*args)
    expected, expected_cache = ops.linear_forward(*args)
    assert_identical(y, expected, "y")
    for name, found, reference in zip(
        GRADIENTS, linear_backward(dy, cache), ops.linear_backward(dy, expected_cache), strict=True
    ):
        if reference is None:
            assert found is None
        else:
            assert_identical(found, reference, f"d{name}")


@pytest.mark.parametrize("rows_at_once", [16, 512])
@pytest.mark.parametrize("has_bias", [False, True])
def test_same_bits_for_any_number_of_workers(has_bias, rows_at_once, monkeypatch):
    monkeypatch.setattr(engine, "ROWS", rows_at_once)
    monkeypatch.setattr(engine, "FEATURES", 7)
    monkeypatch.setattr(engine, "WORTH_SHARING", 1000)
    rng = np.random.default_rng(2)
    args = arguments(rng, (3, 37, 24, 45), has_bias, lambda size: rng.normal(size=size))
    assert_same_for_any_workers(*ENGINE, args, rng)


def test_pieces_of_equal_size():
    whole = slice(0, 384)
    assert engine._pieces(np.empty((1100, 384)), 384) == [
        (slice(0, 367), whole),
        (slice(367, 734), whole),
        (slice(734, 1100), whole),
    ]


def test_few_rows_are_cut_by_features():
    whole = slice(0, 400)
    assert engine._pieces(np.empty((400, 384)), 384) == [(whole, slice(0, 192)), (whole, slice(192, 384))]


def test_small_products_are_not_shared_out():
    assert engine._pieces(np.empty((1100, 1)), 8) == [(slice(0, 1100), slice(0, 1))]


def test_blas_has_one_thread(monkeypatch):
    """Its threads would go on waiting for work when the product is done."""
    counts = []
    controllers = [c for c in ThreadpoolController().lib_controllers if c.user_api == "blas"]

    def matmul(*args, **options):
        counts.extend(library.num_threads for library in controllers)
        return original(*args, **options)

    original = np.matmul
    monkeypatch.setattr(engine.np, "matmul", matmul)
    for rows in (3, 2000):
        x, weight = np.ones((rows, 64), np.float32), np.ones((300, 64), np.float32)
        y, cache = linear_forward(x, weight, None)
        linear_backward(y, cache)
    assert counts
    assert set(counts) == {1}


def test_several_dtypes_are_left_to_the_textbook():
    x, weight = np.ones((2, 3), np.float32), np.ones((5, 3))
    y, cache = linear_forward(x, weight, None)
    assert y.dtype == np.float64
    assert linear_backward(y, cache)[0].dtype == np.float64
