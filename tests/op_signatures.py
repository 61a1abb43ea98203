"""The form that all ops share, those of the textbook and those of an engine: names, arguments, docstrings."""

import inspect
import re
from collections.abc import Callable, Sequence


def section(function: Callable, title: str) -> list[tuple[list[str], str]]:
    """The entries ``a, b : what they are`` of a numpydoc section, as ``([a, b], what they are)``."""
    doc = inspect.getdoc(function) or ""
    match = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[^\n]*\n-{{3,}}|\Z)", doc, re.MULTILINE | re.DOTALL)
    assert match, f"{function.__name__} has no section {title}"
    entries = re.findall(r"^(\w+(?:, \w+)*) : (.+)$", match[1], re.MULTILINE)
    return [(names.split(", "), text) for names, text in entries]


def documented(function: Callable, title: str) -> list[str]:
    """The names that a section describes, in its order."""
    return [name for names, _ in section(function, title) for name in names]


def assert_documented(function: Callable) -> None:
    """Each parameter is described, and what is returned; the summary is a sentence."""
    assert documented(function, "Parameters") == list(inspect.signature(function).parameters)
    assert documented(function, "Returns")
    assert (inspect.getdoc(function) or "").splitlines()[0].endswith((".", ":"))


def assert_is_pair(forward: Callable, backward: Callable, gradients: Sequence[str] | None = None) -> None:
    """A forward and a backward of one file, whose arguments and results belong together.

    A forward returns its value and a cache. The backward takes the gradient of that value, called ``d`` plus
    its name, and the cache. It returns the gradients of the forward's floating-point arrays in their order;
    integers, flags and scalars get none; ``gradients`` says what comes back where it is something else. (How
    many come back is checked where the ops are called.)
    """
    assert forward.__module__ == backward.__module__
    returned = documented(forward, "Returns")
    assert len(returned) == 2
    value, cache = returned
    assert cache == "cache"
    assert list(inspect.signature(backward).parameters) == [f"d{value}", "cache"]
    floating = [
        name
        for names, text in section(forward, "Parameters")
        if re.search("floating|float32|of the dtype", text)
        for name in names
    ]
    assert floating
    assert documented(backward, "Returns") == list(gradients or [f"d{name}" for name in floating])
