"""Rounding to float16: what changes, and that nothing becomes infinite."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npbert.checkpoint.half_precision import LARGEST, to_half_precision

FINITE = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
    elements=st.floats(-65504, 65504, width=32),
)


@given(FINITE)
def test_every_value_is_rounded_to_the_nearest(value):
    halved, rounding = to_half_precision({"x": value})
    found = halved["x"]
    assert found.dtype == np.float16 and found.shape == value.shape
    assert np.isfinite(found).all()
    # Half a unit in the last place: 2**-11 of the value, or of the smallest normal number.
    np.testing.assert_array_less(
        np.abs(found.astype(np.float64) - value), np.maximum(np.abs(value), 2.0**-14) * 2.0**-11 * 1.0001
    )
    assert rounding.values == value.size
    assert rounding.vanished == ((found == 0) & (value != 0)).sum()
    change = np.abs(found.astype(np.float64) - value)
    assert rounding.largest_change == (change.max() if value.size else 0)


def test_what_is_counted():
    params = {"a": np.array([1.0, 2.0**-25, -(2.0**-24), 0.0]), "b": np.array([2049.0, 3.0])}
    halved, rounding = to_half_precision(params)
    assert halved["a"].tolist() == [1.0, 0.0, -(2.0**-24), 0.0]
    assert halved["b"].tolist() == [2048.0, 3.0]
    assert rounding == (6, 1, 1.0)
    assert params["b"].tolist() == [2049.0, 3.0]


@pytest.mark.parametrize("value", [65505.0, -65520.0, 1e9, np.inf, -np.inf, np.nan])
def test_what_does_not_fit_is_named(value):
    weight = np.ones((2, 3))
    weight[1, 2] = value
    with pytest.raises(ValueError, match=r"^layer\.weight\[1, 2\] is .*; float16 holds no more than 65504$"):
        to_half_precision({"bias": np.ones(2), "layer.weight": weight})


def test_the_largest_fits():
    halved, _ = to_half_precision({"x": np.array([LARGEST, -LARGEST])})
    assert halved["x"].tolist() == [65504.0, -65504.0]
