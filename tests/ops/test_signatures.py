"""The form that all ops share: names, argument order, docstrings."""

import inspect
import re

import pytest

from npbert import ops

FORWARDS = sorted(name for name in ops.__all__ if name.endswith("_forward"))
BACKWARDS = sorted(name for name in ops.__all__ if name.endswith("_backward"))


def section(function, title: str) -> list[tuple[list[str], str]]:
    """The entries ``a, b : what they are`` of a numpydoc section, as ``([a, b], what they are)``."""
    doc = inspect.getdoc(function) or ""
    match = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[^\n]*\n-{{3,}}|\Z)", doc, re.MULTILINE | re.DOTALL)
    assert match, f"{function.__name__} has no section {title}"
    entries = re.findall(r"^(\w+(?:, \w+)*) : (.+)$", match[1], re.MULTILINE)
    return [(names.split(", "), text) for names, text in entries]


def documented(function, title: str) -> list[str]:
    return [name for names, _ in section(function, title) for name in names]


def test_there_are_ops():
    assert len(FORWARDS) >= 13


def test_forwards_and_backwards_come_in_pairs():
    assert [n.removesuffix("_forward") for n in FORWARDS] == [n.removesuffix("_backward") for n in BACKWARDS]


@pytest.mark.parametrize("name", FORWARDS)
def test_a_pair_is_in_one_file(name):
    forward, backward = getattr(ops, name), getattr(ops, name.replace("_forward", "_backward"))
    assert forward.__module__ == backward.__module__
    assert forward.__module__.startswith("npbert.ops.")


@pytest.mark.parametrize("name", [n for n in ops.__all__ if n.endswith(("_forward", "_backward"))])
def test_the_docstring_has_every_parameter_and_what_is_returned(name):
    function = getattr(ops, name)
    assert documented(function, "Parameters") == list(inspect.signature(function).parameters)
    assert documented(function, "Returns")
    assert (inspect.getdoc(function) or "").splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_returns_its_value_and_a_cache(name):
    returned = documented(getattr(ops, name), "Returns")
    assert len(returned) == 2
    assert returned[1] == "cache"


@pytest.mark.parametrize("name", FORWARDS)
def test_a_backward_takes_the_gradient_of_the_value_and_the_cache(name):
    value, _ = documented(getattr(ops, name), "Returns")
    backward = getattr(ops, name.replace("_forward", "_backward"))
    assert list(inspect.signature(backward).parameters) == [f"d{value}", "cache"]


@pytest.mark.parametrize("name", FORWARDS)
def test_a_backward_returns_the_gradients_of_the_floating_arrays_in_their_order(name):
    """Integers, flags and scalars get none. How many come back is checked where the ops are called."""
    forward, backward = getattr(ops, name), getattr(ops, name.replace("_forward", "_backward"))
    floating = [
        n
        for names, text in section(forward, "Parameters")
        if re.search("floating|float32", text)
        for n in names
    ]
    assert floating
    assert documented(backward, "Returns") == [f"d{n}" for n in floating]
