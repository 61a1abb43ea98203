"""Element-wise formulas in blocks: the same whatever the size, shape, layout and precision."""

import numpy as np
import pytest

from npbert.ops.elementwise import BLOCK, blocks, elementwise
from tests.comparisons import assert_identical


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 3])
def test_blocks_cover_every_element_once(size):
    parts = list(blocks(size, np))
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(size))
    assert all(0 < part.stop - part.start <= BLOCK for part in parts)


def test_another_library_gets_one_block():
    assert list(blocks(3 * BLOCK, object())) == [slice(0, 3 * BLOCK)]
    assert list(blocks(0, object())) == []


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (3, BLOCK)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_shape_and_dtype_stay(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    assert_identical(elementwise(lambda x: 3.0 * x, x), 3 * x, "y")
    transposed = x.T
    assert_identical(elementwise(lambda x: 3.0 * x, transposed), 3 * transposed, "y of another layout")


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (np.float32, np.float64),
        (np.float64, np.float64),
        (np.complex64, np.complex128),
        (np.complex128, np.complex128),
        (np.int32, np.float64),
        (bool, np.float64),
    ],
)
def test_formula_gets_double_precision(dtype, wide):
    seen = []
    elementwise(lambda x: seen.append(x) or x, np.ones((2, 3), dtype))
    assert [(x.dtype, x.shape) for x in seen] == [(wide, (6,))]


def test_rounded_once():
    x = np.float32([0.1, 0.7])
    y = elementwise(lambda x: (x + 1.0) - 1.0, x)
    assert_identical(y, x, "y")  # in float32 the sum would have lost bits
    assert np.any((x + np.float32(1)) - np.float32(1) != x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_a_formula_that_works_in_place_leaves_the_input_alone(dtype):
    x = np.random.default_rng(1).normal(size=(3, 5)).astype(dtype)
    before = x.copy()
    y = elementwise(lambda x: np.multiply(x, 2, out=x), x)
    assert_identical(y, 2 * before, "y")
    assert_identical(x, before, "x")


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, object, "U1"])
def test_other_dtypes_are_named(dtype):
    with pytest.raises(ValueError, match=r"x has dtype .*; float32, float64, complex64 and complex128 are"):
        elementwise(lambda x: x, np.zeros(2).astype(dtype))
