"""The form that all ops share: names, argument order, docstrings."""

import pytest

from npbert import ops
from tests.op_signatures import assert_documented, assert_is_pair

FORWARDS = sorted(name for name in ops.__all__ if name.endswith("_forward"))
BACKWARDS = sorted(name for name in ops.__all__ if name.endswith("_backward"))


def test_there_are_ops():
    assert len(FORWARDS) >= 13


def test_forwards_and_backwards_come_in_pairs():
    assert [n.removesuffix("_forward") for n in FORWARDS] == [n.removesuffix("_backward") for n in BACKWARDS]


@pytest.mark.parametrize("name", FORWARDS + BACKWARDS)
def test_the_docstring_has_every_parameter_and_what_is_returned(name):
    assert_documented(getattr(ops, name))


@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_and_a_backward_belong_together(name):
    forward, backward = getattr(ops, name), getattr(ops, name.replace("_forward", "_backward"))
    assert_is_pair(forward, backward)
    assert forward.__module__.startswith("npbert.ops.")
