"""What scikit-learn hands over as X, as a list of texts."""

import math
from typing import Any, Final

import numpy as np

from npbert.data.wording import shown

EXPECTED: Final = "expected a list, an array or one column of texts"


def list_of_texts(X: Any) -> list[str]:
    """Return the texts of a list, a 1-d array, a column of a table, or an array of shape (n, 1).

    Parameters
    ----------
    X : array-like of str
        Whatever NumPy makes an array of: a list, a tuple, an array, a Series.

    Returns
    -------
    list of str
        At least one.

    Raises
    ------
    ValueError
        If these are not texts: names the index and the value, or the shape.

    Examples
    --------
    >>> list_of_texts(np.array([["one"], ["two"]]))
    ['one', 'two']
    >>> list_of_texts(["one", None])
    Traceback (most recent call last):
        ...
    ValueError: X[1] is None; it must be a text (a str): fill in or leave out what is missing
    """
    if isinstance(X, str):
        raise ValueError(f"X is one text, {shown(X)}; {EXPECTED}")
    if hasattr(X, "toarray"):
        raise ValueError(f"X is a sparse {type(X).__name__}; {EXPECTED}")
    array = np.asarray(X, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 0:
        raise ValueError(f"X is {shown(X)}; {EXPECTED}")
    if array.ndim > 1:
        raise ValueError(f"X has the shape {array.shape}; {EXPECTED} (a ColumnTransformer picks columns)")
    if len(array) == 0:
        raise ValueError(f"X has no texts (0 samples); {EXPECTED}")
    texts: list[str] = array.tolist()
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            hint = ": fill in or leave out what is missing" if is_missing(text) else ""
            raise ValueError(f"X[{index}] is {shown(text)}; it must be a text (a str){hint}")
    return texts


def is_missing(value: Any) -> bool:
    """Return whether a table would have nothing in this place: None, NaN, or what pandas has for them.

    Examples
    --------
    >>> is_missing(float("nan")), is_missing("")
    (True, False)
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)
