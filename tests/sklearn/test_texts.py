"""What counts as texts."""

import re

import numpy as np
import pytest
from scipy.sparse import csr_array

from npbert.sklearn.texts import list_of_texts

TEXTS = ["one text", "", "ein anderer – größerer"]


@pytest.mark.parametrize(
    "as_given",
    [
        list,
        tuple,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        lambda texts: np.array(texts, dtype=object)[:, None],
        lambda texts: [[text] for text in texts],
        lambda texts: [np.str_(text) for text in texts],
        lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
    ],
)
def test_texts_as_lists_and_arrays(as_given):
    texts = list_of_texts(as_given(TEXTS))
    assert texts == TEXTS
    assert all(isinstance(text, str) for text in texts)


@pytest.mark.parametrize("dtype", ["str", "string", "object", "category"])
def test_texts_as_columns_of_a_table(dtype):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"number": [1, 2, 3], "text": pandas.Series(TEXTS, dtype=dtype)})
    table.index = [5, 3, 9]
    assert list_of_texts(table["text"]) == TEXTS
    assert list_of_texts(table[["text"]]) == TEXTS


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("one text", "X is one text, 'one text'; expected a list"),
        (7, "X is 7; expected a list"),
        ((text for text in TEXTS), "X is <generator"),
        ([], "X has no texts (0 samples)"),
        (np.empty((0, 1), dtype=object), "X has no texts (0 samples)"),
        ([["a", "b"], ["c", "d"]], "X has the shape (2, 2)"),
        (np.array([[["a"]]]), "X has the shape (1, 1, 1)"),
        (csr_array(np.eye(2)), "X is a sparse csr_array"),
        (["a", 7], "X[1] is 7; it must be a text (a str)"),
        (["a", b"b"], "X[1] is b'b'; it must be a text"),
        ([["a"], ["b", "c"]], "X[0] is ['a']; it must be a text"),
        (np.eye(2)[:, :1], "X[0] is 1.0; it must be a text"),
        ([["a"], [None]], "X[1] is None; it must be a text (a str): fill in or leave out what is missing"),
        (["a", float("nan")], "X[1] is nan; it must be a text (a str): fill in or"),
        (["a", np.nan], "X[1] is nan; it must be a text (a str): fill in or"),
        (
            ["a", np.float32(np.nan)],
            "X[1] is np.float32(nan); it must be a text (a str): fill in or leave out",
        ),
        (["a", [7] * 100], "X[1] is [7, 7, 7"),
    ],
    ids=str,
)
def test_what_is_not_a_list_of_texts(X, message):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        list_of_texts(X)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("dtype", ["str", "string", "object"])
def test_a_missing_value_of_a_table(dtype):
    pandas = pytest.importorskip("pandas")
    column = pandas.Series(["a", pandas.NA if dtype == "object" else None], dtype=dtype)
    with pytest.raises(ValueError, match=r"X\[1\] is (nan|<NA>|None); .* leave out what is missing"):
        list_of_texts(column)
