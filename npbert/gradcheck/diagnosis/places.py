"""Right numbers in wrong places: swapped, transposed, reordered, of another shape, or another gradient's."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

import numpy as np

from npbert.gradcheck.diagnosis.factors import slices
from npbert.gradcheck.diagnosis.finding import Clue, Diagnosis, gradient_of, listed
from npbert.gradcheck.diagnosis.surroundings import Surroundings
from npbert.gradcheck.diagnosis.wrong import Wrong
from npbert.gradcheck.pair import Array

MAX_SLICES = 200


def changed_places(
    wrong: Sequence[str], gradients: Mapping[str, Array], right: Mapping[str, Array]
) -> Iterator[Diagnosis]:
    """Look for wrong gradients that are each other's.

    Parameters
    ----------
    wrong : sequence of str
        Names of the wrong gradients.
    gradients, right : mapping of str to ndarray
        What the backward returned, in whatever shape, and what it should have.
    """
    candidates = [name for name in wrong if name in gradients and name in right]
    left = set(candidates)
    for first, second in combinations(candidates, 2):
        both = {first, second}
        swapped = equal(gradients[first], right[second]) and equal(gradients[second], right[first])
        if swapped and both <= left and not equal(right[first], right[second]):
            left -= both
            names = listed([gradient_of(first), gradient_of(second)])
            sentence = f"{names} have changed places: each is the other's right gradient"
            yield Diagnosis("swapped", (first, second), sentence, 1.0)
    if 3 <= len(left) <= 5:
        names_left = [name for name in candidates if name in left]
        for order in permutations(names_left):
            moved = all(a != b for a, b in zip(names_left, order, strict=True))
            if moved and all(
                equal(gradients[a], right[b]) and right[b].any()
                for a, b in zip(names_left, order, strict=True)
            ):
                places = ", ".join(
                    f"{gradient_of(b)} in the place of {gradient_of(a)}"
                    for a, b in zip(names_left, order, strict=True)
                )
                sentence = f"the gradients are in the wrong order: {places}"
                yield Diagnosis("swapped", tuple(names_left), sentence, 1.0)
                return


def wrong_shape(gradient: Array, right: Array, around: Surroundings) -> Iterator[Clue]:
    """Compare a gradient with a reference of another shape."""
    shapes = f"{gradient.shape} instead of {right.shape}"
    axes = range(gradient.ndim)
    for count in range(1, gradient.ndim - right.ndim + 1):
        for summed in combinations(axes, count):
            total = gradient.sum(axis=summed)
            if total.size < gradient.size and equal(total, right):
                words = f"axis {summed[0]}" if count == 1 else f"axes {listed([str(a) for a in summed])}"
                text = f"has the shape {shapes}: the sum over {words}, where it was broadcast, is missing"
                yield Clue("missing sum", text)
                return
    if gradient.ndim == right.ndim:
        broadcast = tuple(axis for axis in axes if right.shape[axis] == 1 < gradient.shape[axis])
        if broadcast and equal(gradient.sum(axis=broadcast, keepdims=True), right):
            text = f"has the shape {shapes}: the sum over the axes that were broadcast is missing"
            yield Clue("missing sum", text)
            return
        short = tuple(axis for axis in axes if gradient.shape[axis] == 1 < right.shape[axis])
        if short and equal(right.sum(axis=short, keepdims=True), gradient):
            yield Clue("sum too many", f"has the shape {shapes}: it is summed over an axis that must stay")
            return
    for name, value in around.cotangents:
        if equal(gradient, value):
            yield Clue("cotangent copied", f"has the shape {shapes}: {name} is passed through unchanged")
            return
    for count in range(1, right.ndim - gradient.ndim + 1):
        for summed in combinations(range(right.ndim), count):
            if equal(right.sum(axis=summed), gradient):
                yield Clue("sum too many", f"has the shape {shapes}: it is summed over axes that must stay")
                return
    if gradient.ndim >= 2 and equal(np.swapaxes(gradient, -1, -2), right):
        yield Clue("transposed", f"has the shape {shapes}: it is the transpose of the right gradient")
        return
    if gradient.size == right.size and equal(gradient.reshape(right.shape), right):
        yield Clue("wrong shape", f"has the shape {shapes}; the numbers are right, in the right order")
        return
    for name, value in around.cotangents:
        for count in range(1, value.ndim):
            for summed in combinations(range(value.ndim), count):
                total = value.sum(axis=summed)
                if total.size == gradient.size and equal(total.reshape(gradient.shape), gradient):
                    text = f"has the shape {shapes}: {name} is summed over the wrong axes"
                    yield Clue("wrong axis", text)
                    return
    yield Clue("wrong shape", f"has the shape {shapes}", 0.5)


def wrong_axis(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is a sum over other axes than it should be."""
    for name, value in around.cotangents:
        for count in range(1, value.ndim - wrong.gradient.ndim + 1):
            for summed in combinations(range(value.ndim), count):
                total = value.sum(axis=summed)
                if total.shape == wrong.gradient.shape and wrong.gradient.size > 1 and wrong.fits(total):
                    yield Clue("wrong axis", f"is {name}, summed over the axes {summed}: the wrong ones")
                    return


def all_zero(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is zero."""
    if not wrong.gradient.any() and wrong.error.any():
        yield Clue("zero", f"is zero everywhere: nothing flows back to {wrong.name}")


def not_zero(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient should be zero."""
    if wrong.known.all() and np.all(np.abs(wrong.reference) <= wrong.limit):
        yield Clue("not zero", f"should be zero: the output does not depend on {wrong.name}")


def copied(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is the cotangent, or an array that the functions know."""
    for name, value in around.cotangents:
        if value.shape == wrong.gradient.shape and value.size > 1 and wrong.fits(value):
            yield Clue("cotangent copied", f"is {name}, passed through unchanged")
            return
    for name, value in around.arrays:
        if value.shape == wrong.gradient.shape and value.any() and wrong.fits(value):
            yield Clue("array copied", f"is {name} itself")
            return


def another_gradient(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is that of another argument."""
    for name, value in around.right.items():
        if name != wrong.name and value.shape == wrong.gradient.shape and value.any() and wrong.fits(value):
            yield Clue("another gradient", f"is the gradient of {name}")
            return


def transposed(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """Two axes of equal length are swapped."""
    for one, two in combinations(range(wrong.reference.ndim), 2):
        swapped = np.swapaxes(wrong.reference, one, two)
        if wrong.known.all() and wrong.fits(swapped):
            is_matrix = wrong.reference.ndim == 2
            text = "is the transpose of the right gradient"
            text = text if is_matrix else f"has the axes {one} and {two} swapped"
            yield Clue("transposed", text, wrong.explained(swapped))
            return


def reordered(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The slices along an axis are the right ones, in another order."""
    if not wrong.known.all():
        return
    for axis in range(wrong.reference.ndim):
        length = wrong.reference.shape[axis]
        if length < 2:
            continue
        where = "its entries" if wrong.reference.ndim == 1 else f"its slices along axis {axis}"
        if wrong.fits(np.flip(wrong.reference, axis)):
            yield Clue("reordered", f"has {where} in reverse order")
            return
        for shift in range(1, length):
            if wrong.fits(np.roll(wrong.reference, shift, axis)):
                by = shift if shift <= length / 2 else shift - length
                yield Clue("reordered", f"has {where} shifted by {by}", 1.0, {"shift": float(by)})
                return
        order = _order(wrong, axis)
        if order is not None and wrong.fits(np.take(wrong.reference, order, axis)):
            yield Clue("reordered", f"has {where} in another order")
            return
    shape = wrong.reference.shape
    for axes in permutations(range(wrong.reference.ndim)):
        if axes != tuple(range(wrong.reference.ndim)):
            moved = np.transpose(wrong.reference, axes).reshape(shape)
            if wrong.fits(moved):
                text = f"is the right gradient with its axes taken in the order {axes}, reshaped"
                yield Clue("reordered", text)
                return


def one_slice(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The gradient is one term of the sum that it should be."""
    for name, value in around.cotangents:
        if value.ndim <= wrong.gradient.ndim or wrong.gradient.ndim == 0:
            continue
        for number, (index, part) in enumerate(slices(value)):
            if number == MAX_SLICES:
                return
            if part.shape == wrong.gradient.shape and wrong.fits(part):
                at = list(index)
                text = f"is the slice of {name} at {at} alone: it should be a sum over all of them"
                yield Clue("missing sum", text)
                return


def equal(one: Array, two: Array) -> bool:
    """Tell whether two arrays have the same shape and, up to round-off, the same values."""
    if one.shape != two.shape:
        return False
    return bool(np.all(np.abs(one - two) <= 1e-9 * np.max(np.abs(two), initial=0.0)))


def _order(wrong: Wrong, axis: int) -> list[int] | None:
    """Return which slice of the reference each slice of the gradient is; None where they do not pair up."""
    got = np.moveaxis(wrong.gradient, axis, 0)
    want = np.moveaxis(wrong.reference, axis, 0)
    got, want = got.reshape(len(got), -1), want.reshape(len(want), -1)
    if len(got) > 200 or np.sum(want.any(axis=1)) < 2:
        return None
    apart = np.abs(got[:, None, :] - want[None, :, :]).max(axis=2)
    order = [int(number) for number in apart.argmin(axis=1)]
    return order if len(set(order)) == len(order) else None
