"""Names of labels and their numbers."""

import numpy as np
import pytest

from npbert.data.label_names import label_array, label_names, sorted_names
from npbert.data.tables import TextExample

SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"


def examples(*labels):
    return [TextExample("a", None, label, line) for line, label in enumerate(labels, start=2)]


def test_names_are_sorted():
    assert label_names("f", examples("b", "a", "b"), SINGLE) == ("a", "b")
    assert label_names("f", examples("10", "9", "10"), SINGLE) == ("9", "10")
    assert label_names("f", examples((), ("b", "a"), ("b",)), SEVERAL) == ("a", "b")
    assert label_names("f", examples(0.5, 1.0), "regression") == ()
    assert sorted_names(["²", "1", "01"]) == ("01", "1", "²")  # a superscript is no integer


def test_one_label_of_several_is_enough_to_learn():
    assert label_names("f", examples(("a",), ()), SEVERAL) == ("a",)


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (["a", "a"], SINGLE, "train.csv: all labels are 'a'; .* at least 2"),
        ([(), ()], SEVERAL, "train.csv: no row has a label"),
    ],
)
def test_nothing_to_learn(labels, problem_type, message):
    with pytest.raises(ValueError, match=message):
        label_names("train.csv", examples(*labels), problem_type)


def test_arrays():
    numbers = {"a": 0, "b": 1, "c": 2}
    (one, several, none, number) = examples("b", ("c", "a"), (), -2.5)
    found = label_array("f", one, numbers, SINGLE)
    assert (found.dtype, found.shape, found.item()) == (np.int64, (), 1)
    found = label_array("f", several, numbers, SEVERAL)
    assert found.dtype == np.float64 and found.tolist() == [1, 0, 1]
    assert label_array("f", none, numbers, SEVERAL).tolist() == [0, 0, 0]
    assert label_array("f", number, {}, "regression").tolist() == [-2.5]


@pytest.mark.parametrize(("label", "problem_type"), [("x", SINGLE), (("a", "x"), SEVERAL)])
def test_unknown_label(label, problem_type):
    with pytest.raises(ValueError, match=r"eval\.csv: line 2: unknown label 'x'; known: 'a', 'b'$"):
        label_array("eval.csv", examples(label)[0], {"a": 0, "b": 1}, problem_type)
