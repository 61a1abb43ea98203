"""What a wrong gradient can be made of: the arrays and numbers that the two functions work with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import prod
from typing import Any, NamedTuple

import numpy as np

from npbert.gradcheck.pair import Array

MAX_ARRAYS = 300  # a whole model's cache holds thousands; those near the beginning will do
IGNORED = -100  # the label that PyTorch's losses, and so everybody's, do not count


class Named(NamedTuple):
    """An array and what sentences call it."""

    name: str
    value: Array


class _Found(NamedTuple):
    """Anything that was found, and where."""

    name: str
    value: Any


@dataclass(frozen=True)
class Surroundings:
    """Everything that the functions were given or returned.

    Attributes
    ----------
    arguments, outputs, cotangents, cached : tuple of Named
        Floating-point arrays.
    integers, masks : tuple of Named
        Arrays of ids, labels or booleans, among the arguments and in the cache.
    numbers : mapping of str to float
        Floating-point numbers, likewise.
    indices : mapping of str to int
        Whole numbers: the index of the padding, for example.
    right : mapping of str to ndarray
        The right gradients, as far as they are known, by the names of their tensors.
    """

    arguments: tuple[Named, ...]
    outputs: tuple[Named, ...]
    cotangents: tuple[Named, ...]
    cached: tuple[Named, ...]
    integers: tuple[Named, ...]
    masks: tuple[Named, ...]
    numbers: Mapping[str, float]
    indices: Mapping[str, int] = field(default_factory=dict)
    right: Mapping[str, Array] = field(default_factory=dict)

    @property
    def arrays(self) -> tuple[Named, ...]:
        """All floating-point arrays but the cotangents."""
        return (*self.arguments, *self.outputs, *self.cached)


def survey(
    args: Mapping[str, Any], outputs: Sequence[Any], cotangents: Sequence[Any], cache: Any
) -> Surroundings:
    """Sort arguments, outputs and whatever the cache holds.

    Parameters
    ----------
    args : mapping of str to object
        The arguments by name; entries of dictionaries among them by their own names.
    outputs, cotangents : sequence
        Those of the forward; None where there is none.
    cache : object
        What the forward returned for the backward: tuples, dictionaries and objects in it are looked into.
    """
    found = [_Found(name, value) for name, value in args.items()]
    kept = list(_walk("cache", cache))[:MAX_ARRAYS]
    several = len(outputs) > 1
    names = [f"output {number}" if several else "the output" for number in range(len(outputs))]
    douts = [f"the cotangent of {name}" if several else "the cotangent" for name in names]
    mixed = [Named(*entry) for entry in (*found, *kept) if isinstance(entry.value, np.ndarray)]
    masks = [entry for entry in mixed if entry.value.dtype.kind == "b" and entry.value.size > 1]
    integers = [entry for entry in mixed if entry.value.dtype.kind in "iu"]
    arguments = _different(_floating(found))
    return Surroundings(
        arguments=tuple(arguments),
        outputs=_floating([_Found(*pair) for pair in zip(names, outputs, strict=True)]),
        cotangents=_floating([_Found(*pair) for pair in zip(douts, cotangents, strict=True)]),
        cached=tuple(_different(_floating(kept), arguments)),
        integers=tuple(_different(integers)),
        masks=tuple(_different([*masks, *_zeros_and_ones(integers)])),
        numbers={entry.name: float(entry.value) for entry in (*found, *kept) if _is_float(entry.value)},
        indices={entry.name: entry.value for entry in (*found, *kept) if _is_index(entry.value)},
    )


def alignments(inner: Sequence[int], outer: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the shapes in which an array can be broadcast to another one's axes, in order.

    Parameters
    ----------
    inner, outer : sequence of int
        The shape of the array, and of the other one.

    Examples
    --------
    >>> list(alignments((2, 3), (2, 5, 3)))
    [(2, 1, 3)]
    """
    for axes in combinations(range(len(outer)), len(inner)):
        if all(outer[axis] == length for axis, length in zip(axes, inner, strict=True)):
            yield tuple(outer[axis] if axis in axes else 1 for axis in range(len(outer)))


def lengths(surroundings: Surroundings) -> Iterator[tuple[int, str]]:
    """Yield the numbers of things that a mean may divide by, with their names."""
    for name, value in (*surroundings.arguments, *surroundings.outputs):
        for axis, length in enumerate(value.shape):
            yield length, f"{name}.shape[{axis}]"
        for axes in range(2, value.ndim):
            yield prod(value.shape[:axes]), f"the number of rows of {name}"
        yield value.size, f"the number of entries of {name}"
    for name, value in surroundings.masks:
        yield int(value.sum()), f"the number of places where {name} is True"
    for name, value in surroundings.integers:
        yield value.size, f"the number of entries of {name}"
        yield int(np.sum(value != IGNORED)), f"the number of {name} that are not ignored"


def _walk(name: str, value: Any, depth: int = 0) -> Iterator[_Found]:
    """Yield the arrays and numbers in a cache, under the names by which a program gets at them."""
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        yield _Found(name, value)
    elif depth < 8 and isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, entry in zip(value._fields, value, strict=True):
            yield from _walk(f"{name}.{key}", entry, depth + 1)
    elif depth < 8 and isinstance(value, (tuple, list)):
        for number, entry in enumerate(value):
            yield from _walk(f"{name}[{number}]", entry, depth + 1)
    elif depth < 8 and isinstance(value, dict):
        for key, entry in value.items():
            yield from _walk(f"{name}[{key!r}]", entry, depth + 1)
    elif depth < 8 and hasattr(value, "__dict__") and not isinstance(value, type):
        for key, entry in vars(value).items():
            yield from _walk(f"{name}.{key}", entry, depth + 1)


def _floating(found: Sequence[_Found]) -> tuple[Named, ...]:
    return tuple(
        Named(name, value.astype(np.float64))
        for name, value in found
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.all(np.isfinite(value))
    )


def _zeros_and_ones(integers: Sequence[Named]) -> Iterator[Named]:
    for name, value in integers:
        if value.size and set(np.unique(value)) == {0, 1}:
            yield Named(name, value.astype(bool))


def _different(found: Sequence[Named], others: Sequence[Named] = ()) -> list[Named]:
    """Return the arrays without those that equal an earlier one: the cache repeats the arguments."""
    kept: list[Named] = []
    for entry in found:
        if not any(np.array_equal(entry.value, other.value) for other in (*others, *kept)):
            kept.append(entry)
    return kept


def _is_float(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind == "f"
    return isinstance(value, (float, np.floating))


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
