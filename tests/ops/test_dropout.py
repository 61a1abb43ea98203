"""Dropout: the documented mask, bit for bit, its statistics, and the gradient."""

import math
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops import dropout
from npbert.ops.dropout import dropout_backward, dropout_forward, dropout_keep_mask
from npbert.ops.elementwise import BLOCK
from tests.comparisons import assert_identical, assert_rows_close
from tests.ops.test_philox import philox_loop
from tests.oracles import complex_step_gradient
from tests.strategies import seeds, shapes
from tests.tolerances import COMPLEX_STEP

rates = st.sampled_from((0.0, 0.1, 0.3, 0.5, 0.9))
seeds64 = st.integers(0, 2**64 - 1)
words = st.integers(0, 2**32 - 1)

# Computed once by `philox_loop`; a row of the mask is read as one binary number.
GOLDEN_ROWS = [0b1111010011111111, 0b1111111111111111, 0b0011111111111111]


@given(shape=shapes(3), rate=rates, seed=seeds64, layer=words, site=words)
def test_mask_is_the_documented_one(shape, rate, seed, layer, site):
    mask = dropout_keep_mask(shape, rate, seed, layer, site)
    assert mask.shape == shape
    assert mask.dtype == bool
    for index, keep in enumerate(mask.ravel().tolist()):
        drawn = philox_loop((index // 4, 0, layer, site), (seed % 2**32, seed // 2**32))
        assert keep == (drawn[index % 4] >= math.floor(rate * 2**32)), index


def test_mask_stays_what_it_was():
    # Golden: whoever trained with a seed can draw the same masks in every later version.
    mask = dropout_keep_mask((3, 16), rate=0.1, seed=0x0123456789ABCDEF, layer=11, site=3)
    assert [int("".join(map(str, row)), 2) for row in mask.astype(int)] == GOLDEN_ROWS


def test_sites_keep_their_numbers():
    sites = {name: value for name, value in vars(dropout).items() if name.startswith("SITE_")}
    assert sites == {
        "SITE_EMBEDDING": 0,
        "SITE_ATTENTION_PROBS": 1,
        "SITE_ATTENTION_OUTPUT": 2,
        "SITE_FEED_FORWARD_OUTPUT": 3,
        "SITE_CLASSIFIER": 4,
    }


def test_the_word_at_the_threshold_is_kept():
    word = philox_loop((0, 0, 0, 0), (5, 0))[0]
    assert dropout_keep_mask((1,), word / 2**32, 5, 0, 0).all()
    assert dropout_keep_mask((1,), (word + 0.75) / 2**32, 5, 0, 0).all()  # rounded down, not to nearest
    assert not dropout_keep_mask((1,), (word + 1) / 2**32, 5, 0, 0).any()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_share_of_the_dropped(rate):
    count = 400_000
    dropped = count - np.count_nonzero(dropout_keep_mask((count,), rate, 1, 2, 3))
    # Five standard deviations of a binomial variable: a fair generator exceeds them once in 1.7 million.
    assert abs(dropped - rate * count) <= 5 * math.sqrt(count * rate * (1 - rate))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"seed": 1 + 2**32},
        {"layer": 3},
        {"site": 4},
        {"layer": 3, "site": 2},
        {"shifted": 1},
        {"shifted": 4},
    ],
)
def test_masks_of_different_places_are_independent(other):
    place = {"seed": 1, "layer": 2, "site": 3} | other
    shift = place.pop("shifted", 0)
    count = 400_000
    a = dropout_keep_mask((count,), 0.5, 1, 2, 3)
    b = dropout_keep_mask((count + shift,), 0.5, **place)[shift:]
    # Two fair coins agree half of the time; again five standard deviations.
    assert abs(np.count_nonzero(a == b) - count / 2) <= 5 * math.sqrt(count / 4)


def test_mask_depends_on_the_logical_index_only():
    flat = dropout_keep_mask((30,), 0.5, 1, 2, 3)
    assert_identical(dropout_keep_mask((5, 3, 2), 0.5, 1, 2, 3).ravel(), flat, "mask")
    assert_identical(dropout_keep_mask((7,), 0.5, 1, 2, 3), flat[:7], "start of the mask")
    # Long enough to be drawn in several blocks, which must not show.
    long = dropout_keep_mask((4 * BLOCK + 5,), 0.5, 1, 2, 3)
    for index in (*range(30), *range(4 * BLOCK - 20, 4 * BLOCK + 5)):
        word = philox_loop((index // 4, 0, 2, 3), (1, 0))[index % 4]
        assert long[index] == (word >= 2**31)
    assert dropout_keep_mask((0, 3), 0.5, 1, 2, 3).shape == (0, 3)
    assert dropout_keep_mask((), 0.5, 1, 2, 3) == flat[0]


def test_the_largest_arguments_are_allowed():
    mask = dropout_keep_mask((4,), 0.5, 2**64 - 1, 2**32 - 1, 2**32 - 1)
    drawn = philox_loop((0, 0, 2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1))
    assert mask.tolist() == [word >= 2**31 for word in drawn]


class TooLarge:
    """Stands for an array that no memory holds; what would be written to its end is kept."""

    def __init__(self, shape, dtype):
        self.rows, self.end = shape[0], None

    def __len__(self):
        return self.rows

    def __setitem__(self, part, rows):
        assert part == slice(0, self.rows)
        self.end = rows

    def reshape(self, *_):
        return self

    def __getitem__(self, _):
        return self


def test_counter_goes_on_beyond_32_bits():
    # An array library that draws only the last block of 2^34 + 4 elements, the first one beyond 2^32 blocks.
    library = types.SimpleNamespace(
        empty=TooLarge,
        arange=lambda start, stop, dtype: np.arange(stop - 1, stop, dtype=dtype),
        asarray=np.asarray,
        broadcast_arrays=np.broadcast_arrays,
        stack=np.stack,
    )
    mask = dropout_keep_mask((2**34 + 4,), 0.5, 5, 2, 3, xp=library)
    drawn = philox_loop((0, 1, 2, 3), (5, 0))
    assert drawn != philox_loop((0, 0, 2, 3), (5, 0))
    assert mask.end.tolist() == [[word >= 2**31 for word in drawn]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.0}, "rate is 1.0; it must be at least 0 and less than 1"),
        ({"rate": -0.1}, "rate is -0.1"),
        ({"rate": math.nan}, "rate is nan"),
        ({"seed": -1}, r"seed is -1; it must be at least 0 and less than 2\^64"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"layer": 2**32}, r"layer is 4294967296; it must be at least 0 and less than 2\^32"),
        ({"site": -1}, "site is -1"),
        ({"site": 2**32}, r"site is 4294967296; it must be at least 0 and less than 2\^32"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"shape": (2,), "rate": 0.5, "seed": 1, "layer": 2, "site": 3}
    with pytest.raises(ValueError, match=message):
        dropout_keep_mask(**(good | change))


@given(shape=shapes(2), rate=rates, seed=seeds)
def test_values_and_gradient(shape, rate, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(size=shape), rng.normal(size=shape)
    keep = dropout_keep_mask(shape, rate, seed, 0, 0)
    before = x.copy(), dy.copy(), keep.copy()
    y, cache = dropout_forward(x, keep, rate)
    dx = dropout_backward(dy, cache)
    for index in np.ndindex(shape):
        assert y[index] == pytest.approx(x[index] / (1 - rate) if keep[index] else 0.0, rel=1e-15)
    step = complex_step_gradient(lambda z: dropout_forward(z, keep, rate)[0], [x], 0, dy)
    assert_rows_close(dx, step, what="dx", relative=COMPLEX_STEP)
    for now, then in zip((x, dy, keep), before, strict=True):
        assert_identical(now, then, "input")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_and_layout(dtype):
    x = np.arange(1, 13).reshape(3, 4).astype(dtype).T
    keep = dropout_keep_mask(x.shape, 0.5, 1, 2, 3)
    y, cache = dropout_forward(x, keep, 0.5)
    assert_identical(y, np.where(keep, 2 * np.ascontiguousarray(x), 0).astype(dtype), "y")
    assert dropout_backward(x, cache).dtype == dtype


def test_no_mask_is_the_identity():
    x = np.random.default_rng(0).normal(size=(2, 3))
    y, cache = dropout_forward(x, None, 0.3)
    assert_identical(y, x, "y")
    assert_identical(dropout_backward(2 * x, cache), 2 * x, "dx")


def test_a_dropped_infinity_leaves_nothing():
    y, cache = dropout_forward(np.array([np.inf, 1.0]), np.array([False, True]), 0.5)
    assert y.tolist() == [0.0, 2.0]
    assert dropout_backward(np.array([np.nan, 1.0]), cache).tolist() == [0.0, 2.0]


def test_expected_value_stays():
    x = np.ones(400_000)
    y, _ = dropout_forward(x, dropout_keep_mask(x.shape, 0.1, 7, 0, 0), 0.1)
    # An element has the variance rate / (1 - rate); five standard deviations of the mean.
    assert abs(y.mean() - 1) <= 5 * math.sqrt(0.1 / 0.9 / x.size)
