"""dropout of the CPU engine: the textbook's bits, of masks and of what they are applied to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert import ops
from npbert.cpu import dropout as engine
from npbert.cpu.workers import workers
from tests.comparisons import assert_identical
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.op_contract import other_layouts, read_only
from tests.ops.test_dropout import rates, seeds64, words
from tests.strategies import seeds, shapes

blocks = st.sampled_from((4, 64, 32768))


@given(shape=shapes(3), rate=rates, seed=seeds64, layer=words, site=words, block=blocks)
def test_masks_are_the_textbooks(shape, rate, seed, layer, site, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", block)
        mask = engine.dropout_keep_mask(shape, rate, seed, layer, site)
    assert_identical(mask, ops.dropout_keep_mask(shape, rate, seed, layer, site), "mask")


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (4 * 32768 + 5,)])
def test_masks_of_any_length(shape):
    mask = engine.dropout_keep_mask(shape, 0.5, 1, 2, 3)
    assert_identical(mask, ops.dropout_keep_mask(shape, 0.5, 1, 2, 3), "mask")


def test_masks_of_any_number_of_workers():
    expected = ops.dropout_keep_mask((3, 40_001), 0.1, 2**63 + 5, 2, 3)
    for count in (1, 2, 3):
        with workers(count):
            mask = engine.dropout_keep_mask((3, 40_001), 0.1, 2**63 + 5, 2, 3)
        assert_identical(mask, expected, f"mask of {count} workers")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rate": 1.0}, "rate is 1.0"), ({"seed": -1}, "seed is -1"), ({"layer": 2**32}, "layer is 4294967296")],
)
def test_bad_arguments_are_named(change, message):
    good = {"shape": (2,), "rate": 0.5, "seed": 1, "layer": 2, "site": 3}
    with pytest.raises(ValueError, match=message):
        engine.dropout_keep_mask(**(good | change))


@given(shape=shapes(2), rate=rates, seed=seeds, dtype=st.sampled_from((np.float32, np.float64)), block=blocks)
def test_values_and_gradient_are_the_textbooks(shape, rate, seed, dtype, block):
    rng = np.random.default_rng(seed)
    x, dy = (read_only(a) for a in rng.normal(size=(2, *shape)).astype(dtype))
    keep = read_only(ops.dropout_keep_mask(shape, rate, seed, 0, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", block)
        y, cache = engine.dropout_forward(x, keep, rate)
        dx = engine.dropout_backward(dy, cache)
    expected, expected_cache = ops.dropout_forward(x, keep, rate)
    assert_identical(y, expected, "y")
    assert_identical(dx, ops.dropout_backward(dy, expected_cache), "dx")
    assert_identical(engine.dropout_backward(dy, cache), dx, "dx of a second run")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_layouts(dtype):
    rng = np.random.default_rng(1)
    x, keep = rng.normal(size=(3, 7, 5)).astype(dtype), rng.random((3, 7, 5)) < 0.5
    y, _ = engine.dropout_forward(x, keep, 0.5)
    for x_variant, keep_variant in zip(other_layouts(x), other_layouts(keep), strict=True):
        assert_identical(engine.dropout_forward(x_variant, keep_variant, 0.5)[0], y, "y")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_dropped_infinity_leaves_nothing(dtype):
    x = np.array([np.inf, -np.inf, np.nan, np.inf, -0.5], dtype)
    keep = np.array([False, False, False, True, True])
    y, cache = engine.dropout_forward(x, keep, 0.5)
    np.testing.assert_array_equal(y, np.array([0.0, 0.0, 0.0, np.inf, -1.0], dtype), strict=True)
    np.testing.assert_array_equal(engine.dropout_backward(x, cache), y)


def test_no_mask_is_the_identity_and_complex_numbers_are_the_textbooks():
    x = np.random.default_rng(2).normal(size=(2, 3))
    y, cache = engine.dropout_forward(x, None, 0.3)
    assert_identical(y, x, "y")
    assert_identical(engine.dropout_backward(2 * x, cache), 2 * x, "dx")
    keep = np.array([[True, False, True], [False, True, True]])
    moved = x + 1e-30j
    assert_identical(
        engine.dropout_forward(moved, keep, 0.3)[0], ops.dropout_forward(moved, keep, 0.3)[0], "y"
    )


def test_any_number_of_workers():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 40_001))
    keep = rng.random(x.shape) < 0.9
    assert x.size > 2 * engine.BLOCK
    assert_same_for_any_workers(engine.dropout_forward, engine.dropout_backward, (x, keep, 0.1), rng)
