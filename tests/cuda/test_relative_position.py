"""Relative positions: what an op owes, and the scatter that does not depend on an order."""

import numpy as np
import pytest
from hypothesis import given, settings

from npbert import ops
from npbert.cuda import relative_position as engine
from tests.comparisons import assert_identical
from tests.op_contract import assert_op_contract
from tests.ops.test_relative_position import (
    GRADIENTS,
    TERMS,
    arguments,
    kinds,
    relative_shapes,
    spare_positions,
)
from tests.strategies import integers, seeds

pytestmark = pytest.mark.usefixtures("compiler")


@settings(max_examples=10)
@given(shape=relative_shapes, seed=seeds, spare=spare_positions, kind=kinds)
def test_contract(shape, seed, spare, kind):
    rng = np.random.default_rng(seed)
    assert_op_contract(
        engine.relative_position_forward,
        engine.relative_position_backward,
        arguments(rng, shape, spare, kind),
        rng,
        gradients=GRADIENTS,
        terms=TERMS,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_whole_numbers_are_exact(dtype):
    """Distance 0 is found 40 times, and most others in two chunks of the sorted pairs."""
    rng = np.random.default_rng(0)
    q, k = integers(rng, 2, 1, 2, 40, 3).astype(dtype)
    table = integers(rng, 2 * 43 - 1, 3).astype(dtype)
    dbias = integers(rng, 1, 2, 40, 40).astype(dtype)
    for kind in ("relative_key", "relative_key_query"):
        bias, cache = engine.relative_position_forward(q, k, table, kind)
        expected_bias, expected_cache = ops.relative_position_forward(q, k, table, kind)
        assert_identical(bias, expected_bias, "bias")
        found = engine.relative_position_backward(dbias, cache)
        expected = ops.relative_position_backward(dbias, expected_cache)
        for name, actual, reference in zip(GRADIENTS, found, expected, strict=True):
            assert_identical(actual, reference, f"d{name}")
