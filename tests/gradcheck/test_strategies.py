"""The strategies for users: shapes, dtypes, and that what they promise does turn up."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from npbert.gradcheck import check, draw, strategies
from tests.gradcheck.pairs import gather, gather_backward

ARRAYS = {
    "normals": (strategies.normals, np.float64),
    "weights": (strategies.weights, np.float64),
    "whole_numbers": (strategies.whole_numbers, np.float64),
    "degenerate_rows": (strategies.degenerate_rows, np.float64),
    "logits": (strategies.logits, np.float64),
    "dropout_masks": (strategies.dropout_masks, np.bool_),
    "ids": (lambda shape: strategies.ids(shape, size=5), np.int64),
    "labels": (lambda shape: strategies.labels(shape, classes=5), np.int64),
}


def found(strategy, condition):
    """Return an example that meets a condition; hypothesis raises where there is none."""
    return find(strategy, condition, settings=settings(max_examples=500, database=None))


@pytest.mark.parametrize("name", ARRAYS)
def test_shapes_and_dtypes(name):
    function, dtype = ARRAYS[name]

    @settings(max_examples=10)
    @given(st.data())
    def holds(data):
        assert data.draw(function(7)).shape == (7,)
        assert data.draw(function((3, 5))).shape == (3, 5)
        array = data.draw(function(strategies.shapes(3, most=60)))
        assert array.ndim == 3 and 0 < array.size <= 60
        assert array.dtype == dtype
        assert np.isfinite(array).all()

    holds()


@pytest.mark.parametrize("name", ["normals", "weights", "whole_numbers", "degenerate_rows", "logits"])
def test_float32(name):
    assert found(ARRAYS[name][0]((3, 5), dtype=np.float32), lambda array: True).dtype == np.float32


def test_shapes_are_never_square_but_for_ones():
    @given(strategies.shapes(3, most=300))
    def holds(shape):
        assert np.prod(shape) <= 300
        assert len({size for size in shape if size > 1}) == sum(size > 1 for size in shape)

    holds()


def test_weights_have_both_signs_and_zeros():
    array = draw.weights(np.random.default_rng(0), 20, 30)
    assert 0.1 < np.mean(array == 0) < 0.25
    assert (array < 0).mean() > 0.3 and (array > 0).mean() > 0.3


def test_rows_are_not_mostly_constant():
    rows = draw.normal(np.random.default_rng(0), 200, 5, scale=3.0)
    assert (np.ptp(rows, axis=-1) > 0.1).all()
    assert 2.5 < rows.std() < 3.5


def test_degenerate_rows_are_of_every_kind():
    rows = draw.degenerate_rows(np.random.default_rng(0), 600, 7)
    spread, size = np.ptp(rows, axis=-1), np.abs(rows).max(axis=-1)
    for share in (
        np.mean(size == 0),
        np.mean((spread == 0) & (size > 0)),
        np.mean((spread > 0) & (spread < 2e-3)),
        np.mean((size > 100) & (spread < 10)),
        np.mean((np.count_nonzero(rows, axis=-1) == 1) & (size == 30)),
        np.mean((spread > 0.5) & (size < 5)),
    ):
        assert 0.1 < share < 0.25


def test_logits_are_of_every_kind():
    rows = draw.logits(np.random.default_rng(0), 600, 7, largest=1e4)
    spread, largest = np.ptp(rows, axis=-1), rows.max(axis=-1, keepdims=True)
    for share in (
        np.mean(spread == 0),
        np.mean((spread > 0) & ((rows == largest).sum(axis=-1) > 1)),
        np.mean(np.sort(rows, axis=-1)[:, -1] - np.sort(rows, axis=-1)[:, -2] > 9e3),
        np.mean(spread > 2e3),
        np.mean((spread > 0.5) & (spread < 8)),
    ):
        assert share > 0.1
    assert np.abs(rows).max() <= 1e4 + 10


def test_masks():
    padded = found(strategies.masks(3, 5), lambda mask: not mask[-1].any())
    assert padded.shape == (3, 5) and padded.dtype == bool
    holes = found(strategies.masks(3, 5), lambda mask: (np.diff(mask.astype(int)) > 0).any())
    assert holes.any(axis=-1)[:-1].all()

    @given(strategies.masks(3, 5, empty_text=False))
    def no_text_is_empty(mask):
        assert mask.any(axis=-1).all()

    no_text_is_empty()


def test_dropout_masks():
    assert found(strategies.dropout_masks((30, 31)), lambda mask: mask.mean() < 0.2).any()
    assert found(strategies.dropout_masks((30, 31)), lambda mask: mask.all()).all()
    mask = found(strategies.dropout_masks((30, 31), rate=0.3), lambda mask: True)
    assert 0.6 < mask.mean() < 0.8


def test_ids_repeat_leave_some_out_and_have_padding():
    @given(strategies.ids((3, 5), size=9, padding=2))
    def holds(ids):
        assert ids.min() >= 0 and ids.max() < 9
        assert len(np.unique(ids)) < 9
        assert len(np.unique(ids)) < ids.size

    holds()
    drawn = draw.ids(np.random.default_rng(0), 40, 50, size=9, padding=2)
    assert 0.2 < np.mean(drawn == 2) < 0.5
    assert found(strategies.ids(4, size=1), lambda ids: True).tolist() == [0, 0, 0, 0]


def test_labels_none_some_or_all_ignored():
    strategy = strategies.labels(20, classes=4, ignore_index=-1)
    assert (found(strategy, lambda labels: (labels == -1).all()) == -1).all()
    assert found(strategy, lambda labels: (labels >= 0).all()).max() < 4
    assert 0 < np.mean(found(strategy, lambda labels: 0 < np.mean(labels == -1) < 1) == -1) < 1


def test_they_find_a_mistake_that_bland_ids_hide():
    def overwrites(dy, cache):
        ids, shape = cache
        dtable = np.zeros(shape, dtype=dy.dtype)
        dtable[ids] = dy  # right unless an id occurs twice
        return dtable

    table = np.random.default_rng(0).standard_normal((7, 3))
    bland = np.arange(6).reshape(2, 3)
    assert check(gather, overwrites, (bland, table)).ok
    ids = found(strategies.ids((2, 3), size=7), lambda ids: True)
    assert check(gather, gather_backward, (ids, table)).ok
    assert check(gather, overwrites, (ids, table)).status == "failed"


def test_the_import_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import npbert.gradcheck.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("pip install hypothesis")
