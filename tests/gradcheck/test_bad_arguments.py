"""A call that makes no sense is a ValueError that says why."""

import numpy as np
import pytest

from npbert.gradcheck import check
from tests.gradcheck.pairs import linear, linear_backward, random_arguments

ARGS = random_arguments(0)["linear"]


def call(fn=linear, backward=linear_backward, args=ARGS, **options):
    return check(fn, backward, args, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fn": 3}, "fn must be callable, got int"),
        (
            {"backward": None},
            "without a backward, fn must be an object with the methods forward and backward; function",
        ),
        ({"backward": 3}, "backward must be callable, got int"),
        ({"args": ARGS[0]}, "args must be a tuple or list of arguments, got ndarray"),
        ({"oracle": "magic"}, "oracle must be one of auto, complex_step, ridders, mpmath, got 'magic'"),
        ({"oracle": None}, "oracle must be one of"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be an integer of at least 0, got 0.5"),
        ({"seed": True}, "seed must be an integer of at least 0, got True"),
        ({"rtol": 0}, "rtol must lie between 0 and 1, got 0"),
        ({"rtol": -1e-3}, "rtol must lie between 0 and 1, got -0.001"),
        ({"rtol": float("nan")}, "rtol must lie between 0 and 1, got nan"),
        ({"rtol": "small"}, "rtol must lie between 0 and 1, got 'small'"),
        ({"max_coordinates": 0}, "max_coordinates must be an integer of at least 1, got 0"),
        ({"max_coordinates": 1.5}, "max_coordinates must be an integer of at least 1, got 1.5"),
        ({"names": ["x", "weight"]}, "names has 2 entries, but there are 3 arguments"),
        ({"names": ["x", "x", "bias"]}, "names must differ from one another, got ['x', 'x', 'bias']"),
        (
            {"structural_zeros": ["wieght"]},
            "structural_zeros names 'wieght', which matches none of: x, weight, bias",
        ),
        ({"structural_zeros": "weight"}, "structural_zeros must be a collection of names, got 'weight'"),
        (
            {"structural_zeros": {"bias": 0.0}},
            "structural_zeros['bias'] must be positive and finite, got 0.0",
        ),
        (
            {"structural_zeros": {"bias": float("inf")}},
            "structural_zeros['bias'] must be positive and finite, got inf",
        ),
        ({"structural_zeros": [3]}, "structural_zeros must be a collection of names, got 3 in it"),
        (
            {"structural_zeros": {"bias": "big"}},
            "structural_zeros['bias'] must be positive and finite, got big",
        ),
        ({"args": ()}, "args holds no floating-point array, so there is no gradient to check"),
        ({"args": (np.arange(3), 1.5, None)}, "args holds no floating-point array"),
        ({"args": ({"w": np.arange(3)},)}, "args holds no floating-point array"),
        (
            {"args": (ARGS[0] * 1j, *ARGS[1:])},
            "x has dtype complex128; only gradients of real arrays are checked",
        ),
    ],
)
def test_misuse_is_a_value_error(options, message):
    with pytest.raises(ValueError) as caught:
        call(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_arguments_that_are_not_finite(bad):
    x = ARGS[0].copy()
    x[1, 2, 0] = bad
    with pytest.raises(ValueError) as caught:
        call(args=(x, *ARGS[1:]))
    assert str(caught.value) == f"x must be finite, got {bad} at [1, 2, 0]"
    with pytest.raises(ValueError) as caught:
        call(args=({"w": x},))
    assert str(caught.value) == f"x['w'] must be finite, got {bad} at [1, 2, 0]"


def test_an_empty_array_has_nothing_to_compare():
    report = check(lambda x: (2 * x, None), lambda dy, cache: 2 * dy, (np.zeros((0, 3)),))
    assert report.tensors[0].note == "has no entries"
    assert report.tensors[0].compared == 0
