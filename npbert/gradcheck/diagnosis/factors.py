"""Gradients that are right but for a factor: a constant, a vector along one axis, or an array."""

from collections.abc import Iterator
from math import sqrt
from typing import NamedTuple

import numpy as np

from npbert.gradcheck.diagnosis.finding import Clue
from npbert.gradcheck.diagnosis.surroundings import IGNORED, Named, Surroundings, alignments, lengths
from npbert.gradcheck.diagnosis.wrong import Wrong
from npbert.gradcheck.pair import Array
from npbert.gradcheck.round_off import row_norm

SNAP = 1e-8  # how exactly a factor must equal the number that it is explained with


class _Constant(NamedTuple):
    value: float
    text: str


def constant_factor(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is the reference times one number."""
    ratio = _ratio(wrong)
    if ratio is None or not wrong.fits(ratio * wrong.reference, 0 if wrong.entries < 3 else 1):
        return
    evidence = {"factor": ratio}
    confidence = wrong.explained(ratio * wrong.reference)
    for name, value in around.cotangents:
        if value.size == 1 and _same(ratio * float(value.reshape(())), 1.0):
            text = f"is not multiplied by {name}: it is right only where that is 1"
            yield Clue("cotangent forgotten", text, confidence, evidence)
            return
    if _same(ratio, -1.0):
        yield Clue("wrong sign", "has the wrong sign everywhere", confidence, evidence)
        return
    named = [known.text for known in _constants(around) if _same(ratio, known.value)]
    if not named and wrong.entries < 3:
        return
    digits = (
        f"{ratio:.6g}" if abs(ratio - 1) > 1e-4 else f"1 {'+' if ratio > 1 else '-'} {abs(ratio - 1):.2g}"
    )
    text = named[0] if named else f"is {digits} times the right gradient everywhere"
    yield Clue("constant factor", text, confidence, evidence)


def array_factor(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is the reference times an array that the functions know, or divided by it."""
    for factor, is_cotangent in _factors(wrong, around):
        spread = np.broadcast_to(factor.value, wrong.reference.shape)
        varies = factor.value.size > 1 and np.ptp(np.abs(factor.value)) > 1e-9 * np.max(np.abs(factor.value))
        if not varies:
            continue
        whole = factor.value.shape == wrong.reference.shape and wrong.reference.ndim > 0
        kind = "elementwise factor" if whole and wrong.reference.ndim > 1 else "factor by axis"
        if wrong.fits(wrong.reference * spread):
            text = f"has the factor {factor.name} once too often"
            yield Clue(kind, text, wrong.explained(wrong.reference * spread))
            return
        usable = spread != 0
        if np.any(~usable & (np.abs(wrong.reference) > wrong.limit)):
            continue  # where the factor is zero, so is the gradient that has it
        with np.errstate(all="ignore"):
            quotient = np.where(usable, wrong.reference / np.where(usable, spread, 1.0), wrong.gradient)
        telling = usable & wrong.known & (wrong.reference != 0)
        if np.sum(telling) >= 3 and wrong.fits(quotient):
            if is_cotangent:
                text = f"is not multiplied by {factor.name}"
                yield Clue("cotangent forgotten", text, wrong.explained(quotient))
            else:
                text = f"misses the factor {factor.name}"
                yield Clue(kind, text, wrong.explained(quotient))
            return


def factor_along_axis(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is the reference times a number a row, a column, or another slice."""
    shape = wrong.reference.shape
    if wrong.reference.ndim < 2:
        return
    last = wrong.reference.ndim - 1
    groups = [(axis,) for axis in range(last + 1)] + ([tuple(range(last))] if last > 1 else [])
    for kept in groups:
        summed = tuple(axis for axis in range(last + 1) if axis not in kept)
        weights = np.where(wrong.known, wrong.reference, 0.0)
        over = np.sum(wrong.gradient * weights, axis=summed, keepdims=True)
        under = np.sum(weights * weights, axis=summed, keepdims=True)
        factor = np.where(under > 0, over / np.where(under > 0, under, 1.0), 1.0)
        # Slices with less than three entries would fit anything.
        telling = np.sum((weights != 0), axis=summed, keepdims=True) >= 3
        if np.all((np.abs(factor - 1) <= 1e-9) | (factor == 0)) or not np.all(telling | (under == 0)):
            continue
        if wrong.fits(factor * wrong.reference, int(np.sum(under > 0))):
            where = "row" if kept == tuple(range(last)) else f"slice along axis {kept[0]} ({shape[kept[0]]})"
            text = f"is right in every {where} but for a factor of its own"
            evidence = {"smallest factor": float(factor.min()), "largest factor": float(factor.max())}
            yield Clue("factor by axis", text, wrong.explained(factor * wrong.reference), evidence)
            return


def _ratio(wrong: Wrong) -> float | None:
    """Return gradient over reference at the largest entry of the reference."""
    sizes = np.where(wrong.known, np.abs(wrong.reference), 0.0)
    if not sizes.size or not sizes.max() > 0:
        return None
    at = np.unravel_index(np.argmax(sizes), sizes.shape)
    ratio = float(wrong.gradient[at] / wrong.reference[at])
    return ratio if ratio != 0 and np.isfinite(ratio) else None


def _same(one: float, two: float) -> bool:
    return abs(one - two) <= SNAP * abs(two)


def _constants(around: Surroundings) -> Iterator[_Constant]:
    """Yield the numbers that factors tend to be, each with what it means."""
    yield _Constant(2.0, "is twice the right gradient")
    yield _Constant(0.5, "is half the right gradient: a factor 2 is forgotten")
    for name, number in around.numbers.items():
        for value, words in ((number, name), (1 - number, f"(1 - {name})")):
            if value > 0:
                yield _Constant(
                    value, f"is {words} times the right gradient: a factor 1 / {words} is missing"
                )
                yield _Constant(1 / value, f"is the right gradient divided by {words}: once too often")
    sizes = [(length, name) for length, name in lengths(around) if length > 1]
    for length, name in sizes:
        mean = f"is the right gradient divided by {length}, {name}: a mean where a sum belongs"
        yield _Constant(1 / length, mean)
        yield _Constant(length, f"is {length} times the right gradient, {name}: a sum where a mean belongs")
    for length, name in sizes:
        root = f"sqrt({length}), the root of {name}"
        yield _Constant(sqrt(length), f"is the right gradient times {root}: the scale 1 / sqrt is missing")
        yield _Constant(1 / sqrt(length), f"is the right gradient divided by {root}: once too often")
    for length, name in sizes:
        off = f"the right gradient with {length - 1} in the place of {length}, {name}"
        yield _Constant(length / (length - 1), f"is {off}")
        yield _Constant((length - 1) / length, f"is the right gradient times {length - 1} / {length}, {name}")
    counts = [(int(np.sum(value != IGNORED)), value.size, name) for name, value in around.integers]
    counts += [(int(value.sum()), value.size, name) for name, value in around.masks]
    for count, size, name in counts:
        if 0 < count < size:
            text = f"is divided by {size}, all {name}, where only the {count} that count belong"
            yield _Constant(count / size, text)
            yield _Constant(
                size / count, f"is divided by the {count} {name} that count, instead of by {size}"
            )
    for sign, words in ((-2.0, "-2"), (-0.5, "-1/2")):
        yield _Constant(sign, f"is {words} times the right gradient")


def _factors(wrong: Wrong, around: Surroundings) -> Iterator[tuple[Named, bool]]:
    """Yield arrays that may multiply the gradient, in every way in which they can be broadcast to it.

    The flag says whether it is a cotangent.
    """
    shape = wrong.reference.shape
    for factor in around.cotangents:
        if factor.value.shape == shape:
            yield factor, True
    for factor in (*around.arrays, *_row_quantities(around, shape), *_counts(around, shape)):
        if factor.value.size > 1:
            squeezed = factor.value.reshape([length for length in factor.value.shape if length > 1])
            for aligned in alignments(squeezed.shape, shape):
                yield Named(factor.name, squeezed.reshape(aligned)), False


def _row_quantities(around: Surroundings, shape: tuple[int, ...]) -> Iterator[Named]:
    """Yield what normalising functions compute of the rows of their arguments."""
    for name, value in around.arguments:
        if value.shape != shape or value.ndim < 2 or shape[-1] < 2:
            continue
        deviation = value.std(axis=-1, keepdims=True)
        length = row_norm(value)[..., :1]
        yield Named(f"std of the row of {name}", deviation)
        yield Named(f"variance of the row of {name}", deviation**2)
        yield Named(f"length of the row of {name}", length)
        yield Named(f"squared length of the row of {name}", length**2)


def _counts(around: Surroundings, shape: tuple[int, ...]) -> Iterator[Named]:
    """Yield how many tokens each text has, and how often each row of a table was read."""
    for name, value in around.masks:
        if value.ndim > 1 and value.shape[-1] > 1:
            yield Named(f"number of {name} in the row", value.sum(axis=-1).astype(float))
    for name, value in around.integers:
        if shape and value.size and value.min() >= 0 and value.max() < shape[0]:
            count = np.bincount(value.ravel(), minlength=shape[0]).astype(float)
            yield Named(f"how often the row occurs in {name}", np.maximum(count, 1))


def slices(value: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Yield the parts of an array at each index of its leading axes, for every number of leading axes."""
    for axes in range(1, value.ndim + 1):
        for index in np.ndindex(value.shape[:axes]):
            yield index, value[index]
