"""Limits of the estimators' numbers."""

import math

import numpy as np
import pytest

from npbert.sklearn.parameters import check_count, check_number


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(200)])
def test_counts(value):
    checked = check_count("epochs", value)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None, np.array([1])])
def test_what_is_no_count(value):
    with pytest.raises(ValueError, match=r"^epochs is .*; it must be an integer of at least 1$"):
        check_count("epochs", value)


def test_counts_may_begin_elsewhere():
    assert check_count("max_length", 3, least=3) == 3
    with pytest.raises(ValueError, match=r"^max_length is 2; it must be an integer of at least 3$"):
        check_count("max_length", 2, least=3)


@pytest.mark.parametrize("value", [0, 1, 0.25, np.float32(0.5)])
def test_numbers(value):
    checked = check_number("warmup", value, 0, 1)
    assert checked == value
    assert type(checked) is float


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "0.5", None, 1j])
def test_what_is_no_number_from_0_to_1(value):
    with pytest.raises(ValueError, match=r"^warmup is .*; it must be a number from 0 to 1$"):
        check_number("warmup", value, 0, 1)


@pytest.mark.parametrize("value", [0, 1, 2, math.nan])
def test_limits_may_be_excluded(value):
    with pytest.raises(ValueError, match=r"^share is .*; it must be a number between 0 and 1$"):
        check_number("share", value, 0, 1, open_ended=True)


@pytest.mark.parametrize(
    ("value", "open_ended", "limit"), [(-1, False, "of at least 0"), (0, True, "above 0")]
)
def test_there_may_be_one_limit(value, open_ended, limit):
    with pytest.raises(ValueError, match=f"^rate is {value}; it must be a number {limit}$"):
        check_number("rate", value, 0, open_ended=open_ended)
    assert check_number("rate", 1e300, 0, open_ended=open_ended) == 1e300
