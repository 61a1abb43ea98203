"""Gradients that are off by a term: one that is missing, or one that takes something out of every row."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from npbert.gradcheck.diagnosis.finding import Clue, gradient_of
from npbert.gradcheck.diagnosis.surroundings import Named, Surroundings, alignments
from npbert.gradcheck.diagnosis.wrong import Wrong
from npbert.gradcheck.pair import Array
from npbert.gradcheck.round_off import row_norm

MISSING = {-1.0: "misses the term {}", 1.0: "has the term {} once too often"}
MISSING |= {
    -2.0: "subtracts the term {} instead of adding it",
    2.0: "adds the term {} instead of subtracting it",
}


class _Basis(NamedTuple):
    """Something of which every row of an error may be a multiple."""

    kind: str
    text: str
    value: Array


def term(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The error is an array that the functions know, or a product of the cotangent with one."""
    error = wrong.error
    at = np.unravel_index(np.argmax(np.abs(error)), error.shape)
    for candidate in _terms(wrong, around):
        if candidate.value.shape != error.shape or candidate.value[at] == 0:
            continue
        times = float(error[at] / candidate.value[at])
        pattern = wrong.reference + times * candidate.value
        if not wrong.fits(pattern, 1):
            continue
        form = next((form for value, form in MISSING.items() if abs(times - value) < 1e-6), None)
        text = (
            f"is off by {times:.6g} times {candidate.name}" if form is None else form.format(candidate.name)
        )
        if candidate.name == "the cotangent" and form == MISSING[-1.0]:
            text += ", as where the gradient of a residual connection is forgotten"
        yield Clue("term", text, wrong.explained(pattern), {"times": times})
        return


def term_in_rows(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """Every row of the error is a multiple of one thing: of ones, of x-hat, of the probabilities."""
    if wrong.error.ndim == 0 or wrong.error.shape[-1] < 3:
        return
    if _rows(wrong) == 1 < wrong.error.size // wrong.error.shape[-1]:
        return  # an error in one of several rows says where it is, rather than what
    ones = np.ones(wrong.error.shape)
    is_constant = np.ptp(wrong.error[wrong.differs]) <= 1e-6 * np.max(np.abs(wrong.error))
    if is_constant and _rows(wrong) > 1:
        return  # one number for all rows is no mean of anything in them
    by_row = _multiple(wrong, ones, wrong.error.ndim - 1)
    if by_row is not None:
        text = (
            "differs in every row by a constant: it equals a backward in which the mean term is missing or "
            "wrong"
        )
        yield Clue("mean term", text, wrong.explained(by_row))
        return
    # x itself is a multiple of the unit vector, and says less.
    bases = sorted(_bases(wrong, around), key=lambda basis: basis.kind == "row term")
    for basis in bases:
        pattern = _multiple(wrong, basis.value, wrong.error.ndim - 1)
        if pattern is not None:
            yield Clue(basis.kind, basis.text, wrong.explained(pattern))
            return
    for axis in range(wrong.error.ndim - 1):
        pattern = _multiple(wrong, ones, axis)
        if pattern is not None:
            text = (
                f"differs by a constant along axis {axis}: a mean over that axis is missing or out of place"
            )
            yield Clue("mean term", text, wrong.explained(pattern))
            return
    for basis in bases:
        if basis.kind == "variance term" and wrong.error.shape[-1] >= 4:
            pattern = _two_multiples(wrong, basis.value)
            if wrong.fits(pattern, 2 * _rows(wrong)):
                text = (
                    "differs in every row by a constant and a multiple of x-hat: it equals a backward that "
                    "takes mean and variance for constants, or weighs them wrongly"
                )
                yield Clue("mean and variance terms", text, wrong.explained(pattern))
                return


def outer_product(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The error, as a matrix, is the product of a column and a row."""
    if wrong.error.ndim < 2 or not wrong.known.all():
        return
    matrix = wrong.error.reshape(-1, wrong.error.shape[-1])
    rows, columns = (int(np.sum(np.any(matrix != 0, axis=axis))) for axis in (1, 0))
    if min(rows, columns) < 3:
        return
    left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
    part = (left[:, :1] * sizes[0] @ right[:1]).reshape(wrong.error.shape)
    if wrong.fits(wrong.reference + part, rows + columns):
        text = "is off by the product of one column and one row: one term of a sum of such products"
        # True of many a small matrix for no reason: a hint.
        yield Clue("rank one", text, 0.5, {"explained": wrong.explained(wrong.reference + part)})


def sums_of_rows(wrong: Wrong, around: Surroundings) -> Iterator[Clue]:
    """The reference's rows sum to zero, and those of the gradient do not."""
    if wrong.error.ndim == 0 or wrong.error.shape[-1] < 2:
        return
    whole = wrong.known.all(axis=-1)
    size = np.where(whole, np.abs(wrong.reference).sum(axis=-1), 0.0)
    if not np.any(size > 0):
        return
    want = np.abs(np.where(whole, wrong.reference.sum(axis=-1), 0.0))
    got = np.abs(np.where(whole, wrong.gradient.sum(axis=-1), 0.0))
    if np.all(want <= 1e-9 * size + wrong.noise.sum(axis=-1)) and np.any(got > 1e-3 * size):
        text = (
            "should sum to zero in every row, and does not: what each entry takes from the others of its row "
            "is missing or wrong"
        )
        yield Clue("row sums", text, 0.5, {"largest sum": float(got.max())})


def _terms(wrong: Wrong, around: Surroundings) -> Iterator[Named]:
    yield from around.cotangents
    yield from (Named(gradient_of(name), value) for name, value in around.right.items() if name != wrong.name)
    yield from around.arrays
    shape = wrong.reference.shape
    for cotangent in around.cotangents:
        if cotangent.value.shape != shape:
            continue
        for array in around.arrays:
            for aligned in alignments(array.value.shape, shape):
                yield Named(
                    f"{cotangent.name} times {array.name}", cotangent.value * array.value.reshape(aligned)
                )


def _bases(wrong: Wrong, around: Surroundings) -> Iterator[_Basis]:
    """Yield arrays whose multiples the rows of an error may be, and what it means if they are."""
    shape = wrong.error.shape
    for array in (*around.arrays, *_derived(around, shape)):
        for aligned in alignments(array.value.shape, shape):
            value = np.broadcast_to(array.value.reshape(aligned), shape)
            if aligned[-1] == shape[-1] and np.any(np.ptp(value, axis=-1) > 0):
                yield _basis(array.name, value, value[np.any(wrong.differs, axis=-1)])


def _derived(around: Surroundings, shape: tuple[int, ...]) -> Iterator[Named]:
    """Yield the normalised rows, and the softmax, of arguments and outputs: a cache need not hold them."""
    for name, value in (*around.arguments, *around.outputs):
        if value.shape == shape:
            centred = value - value.mean(axis=-1, keepdims=True)
            spread = centred.std(axis=-1, keepdims=True)
            yield Named(f"the normalised {name}", centred / np.where(spread > 0, spread, 1.0))
            powers = np.exp(value - value.max(axis=-1, keepdims=True))
            yield Named(f"the softmax of {name}", powers / powers.sum(axis=-1, keepdims=True))


def _basis(name: str, value: Array, rows: Array) -> _Basis:
    """Say what a multiple of an array in every row means: its rows where the gradient is wrong tell."""
    sums = rows.sum(axis=-1)
    live = np.any(rows != 0, axis=-1)
    if np.all(rows >= 0) and np.allclose(sums[live], 1, rtol=0, atol=1e-6):
        text = f"differs in every row by a multiple of the probabilities p ({name}): it equals a backward in "
        return _Basis("softmax correction", f"{text}which the softmax correction is missing or wrong", value)
    if np.all(np.abs(sums) <= 1e-6 * np.abs(rows).sum(axis=-1) + 1e-300):
        text = f"differs in every row by a multiple of x-hat ({name}): it equals a backward in which the "
        return _Basis("variance term", f"{text}variance term is missing or wrong", value)
    if np.allclose(row_norm(rows)[..., 0][live], 1, rtol=0, atol=1e-6):
        text = f"differs in every row by a multiple of the unit vector ({name}): what points along it is "
        return _Basis("projection", f"{text}not taken out, or wrongly", value)
    return _Basis("row term", f"differs in every row by a multiple of {name}", value)


def _rows(wrong: Wrong) -> int:
    return int(np.sum(np.any(wrong.differs, axis=-1)))


def _multiple(wrong: Wrong, basis: Array, axis: int) -> Array | None:
    """Return the pattern in which every slice of the error along an axis is a multiple of the basis's."""
    if wrong.error.shape[axis] < 3:
        return None
    basis = np.where(wrong.known, basis, 0.0)
    under = np.sum(basis * basis, axis=axis, keepdims=True)
    times = np.sum(wrong.error * basis, axis=axis, keepdims=True) / np.where(under > 0, under, 1.0)
    used = int(np.sum(np.any(wrong.differs, axis=axis)))
    pattern = wrong.reference + times * basis
    # A slice with fewer than three entries of the basis would fit anything.
    telling = np.sum(basis != 0, axis=axis, keepdims=True) >= 3
    enough = bool(np.any(telling & (times != 0)))
    return pattern if enough and wrong.fits(pattern, used) else None


def _two_multiples(wrong: Wrong, basis: Array) -> Array:
    """Return the pattern in which every row of the error is a constant plus a multiple of the basis's row."""
    mean = wrong.error.mean(axis=-1, keepdims=True)
    centred = basis - basis.mean(axis=-1, keepdims=True)
    under = np.sum(centred * centred, axis=-1, keepdims=True)
    times = np.sum(wrong.error * centred, axis=-1, keepdims=True) / np.where(under > 0, under, 1.0)
    return np.asarray(wrong.reference + mean + times * centred)
