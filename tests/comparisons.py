"""Comparisons that say where the worst disagreement is, and that a NaN cannot pass."""

import numpy as np


def assert_finite(values, what: str) -> None:
    """Fail on the first NaN or infinity."""
    bad = np.argwhere(~np.isfinite(values))
    assert bad.size == 0, f"{what} is {np.asarray(values)[tuple(bad[0])]} at {tuple(bad[0].tolist())}"


def row_norms(values) -> np.ndarray:
    """The Euclidean norm of every row (last axis); a vector is one row, and so is a scalar."""
    return np.linalg.norm(np.atleast_1d(values), axis=-1, keepdims=True)


def assert_rows_close(actual, expected, *, what: str, relative=0.0, round_off=0.0, terms=None) -> None:
    """Compare row by row: ``|actual - expected| <= relative |expected| + round_off |terms|``.

    ``|.|`` is the norm of a row (the last axis). ``terms`` has the shape of ``expected`` and holds, for each
    element, the sum of the absolute values of the terms it is made of; by default ``|expected|``.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what} has shape {actual.shape}, expected {expected.shape}"
    assert_finite(actual, what)
    assert_finite(expected, f"expected {what}")
    terms = expected if terms is None else np.asarray(terms)
    assert terms.shape == expected.shape, f"terms of {what} have shape {terms.shape}, not {expected.shape}"
    difference = actual.astype(np.float64) - expected
    allowed = relative * row_norms(expected) + round_off * row_norms(terms)
    excess = row_norms(difference) - allowed
    if (excess <= 0).all():
        return
    row = np.unravel_index(np.argmax(excess), excess.shape)[:-1]
    rows = np.atleast_1d(difference)[row]
    index = (*(int(i) for i in row), int(np.argmax(np.abs(rows))))
    raise AssertionError(
        f"{what} disagrees; worst row {row}, there at {index}: "
        f"{np.atleast_1d(actual)[index]!r}, expected {np.atleast_1d(expected)[index]!r}; "
        f"the row is off by {np.linalg.norm(rows):.3g}, {allowed[row].item():.3g} is allowed"
    )


def assert_identical(actual, expected, what: str) -> None:
    """Same shape, same dtype, same bits (but for the sign of a zero); no NaN."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype, f"{what} is {actual.dtype}, expected {expected.dtype}"
    assert_finite(actual, what)
    np.testing.assert_array_equal(actual, expected, err_msg=what, strict=True)
