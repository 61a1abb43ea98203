"""What counts as labels."""

import re

import numpy as np
import pytest

from npbert.sklearn.labels import classes_and_numbers


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["b", "a", "b", "c"], ["a", "b", "c"]),
        ((3, -1, 3, 10), [-1, 3, 10]),
        ([True, False, True, True], [False, True]),
        (np.array([2.0, 1.0, 2.0, 2.0]), [1.0, 2.0]),
        (np.array(["b", "a", "b", "c"], dtype=object), ["a", "b", "c"]),
    ],
    ids=str,
)
def test_classes_are_sorted_and_of_the_type_of_the_labels(y, classes):
    found, numbers = classes_and_numbers(y, "C")
    assert found.tolist() == classes
    assert found.dtype == np.asarray(y).dtype
    assert found[numbers].tolist() == list(y)


def test_labels_in_a_table():
    pandas = pytest.importorskip("pandas")
    for dtype in ("str", "category"):
        found, numbers = classes_and_numbers(
            pandas.Series(["b", "a", "b"], dtype=dtype, index=[4, 2, 7]), "C"
        )
        assert (found.tolist(), numbers.tolist()) == (["a", "b"], [1, 0, 1])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "C requires y to be passed, but the target y is None"),
        ([], "y has no labels; C needs at least 2 classes"),
        (["a", "a"], "y has only one class, 'a'; C needs at least 2 classes"),
        ([7, 7], "y has only one class, 7; C needs"),
        (["a", None, "b"], "y[1] is None; every text needs a label"),
        (np.array(["a", np.nan], dtype=object), "y[1] is nan; every text needs a label"),
        ([1.0, np.nan], "y[1] is nan; every text needs a label"),
        ([1.0, np.inf], "contains infinity"),
        ([0.5, 1.5, 2.0], "Unknown label type: continuous"),
        (np.array(["a", 1], dtype=object), "y has labels of several types (int, str); make them one"),
        ([["a", "b"], ["b", "a"]], "y should be a 1d array, got an array of shape (2, 2)"),
        ("ab", "y should be a 1d array"),
    ],
    ids=str,
)
def test_what_are_not_labels_of_two_classes(y, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        classes_and_numbers(y, "C")
