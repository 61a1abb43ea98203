"""The patterns in the order in which they are tried, and from them the list of diagnoses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npbert.gradcheck import compare
from npbert.gradcheck.diagnosis import factors, places, precision, support, terms, what_if
from npbert.gradcheck.diagnosis.finding import Clue, Diagnosis, Mistake, subject
from npbert.gradcheck.diagnosis.known import matching_mistakes
from npbert.gradcheck.diagnosis.surroundings import Surroundings, survey
from npbert.gradcheck.diagnosis.wrong import Wrong
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.pair import Array

# The kinds of diagnosis; of those that explain as much of an error, the first one here is named first.
KINDS = (
    "known mistake",
    "swapped",
    "missing sum",
    "sum too many",
    "wrong axis",
    "wrong shape",
    "no gradient",
    "zero",
    "not zero",
    "wrong sign",
    "constant factor",
    "cotangent forgotten",
    "cotangent copied",
    "another gradient",
    "array copied",
    "factor by axis",
    "elementwise factor",
    "transposed",
    "reordered",
    "term",
    "mean term",
    "variance term",
    "softmax correction",
    "projection",
    "row term",
    "mean and variance terms",
    "duplicate ids",
    "ignored labels",
    "labels",
    "absent ids",
    "dropped places",
    "masked places",
    "padding",
    "value range",
    "last tile",
    "first slices",
    "one slice",
    "forgotten input",
    "rank one",
    "precision",
    "approximation",
    "row sums",
    "not a zero",
    "unknown",
)
MAX_EVALUATIONS = 1000  # of the forward, to learn the references that the comparison only sampled

Pattern = Callable[[Wrong, Surroundings], Iterator[Clue]]
PATTERNS: tuple[Pattern, ...] = (
    places.all_zero,
    places.not_zero,
    factors.constant_factor,
    places.copied,
    places.another_gradient,
    places.one_slice,
    places.wrong_axis,
    factors.array_factor,
    factors.factor_along_axis,
    places.transposed,
    places.reordered,
    terms.term,
    terms.term_in_rows,
    support.padding_row,
    support.repeated_ids,
    support.places,
    support.value_range,
    support.tiles,
)
# Tried where none of these, nor a forgotten input, explains the error.
HINTS: tuple[Pattern, ...] = (terms.outer_product, precision.small_error, terms.sums_of_rows)


def diagnose(
    objective: Objective,
    gradients: Sequence[Any],
    noise: Sequence[Array],
    failed: Sequence[bool],
    oracle: str,
    argument_names: Sequence[str],
    mistakes: Sequence[Mistake] = (),
    structural: bool = True,
) -> tuple[Diagnosis, ...]:
    """Explain wrong gradients.

    Parameters
    ----------
    objective : Objective
        Where the gradients were taken. The oracle is asked again, about all entries of the wrong ones, or
        about as many rows as ``MAX_EVALUATIONS`` allows.
    gradients : sequence
        What the backward returned for each leaf, in whatever shape, or None.
    noise : sequence of ndarray
        The round-off of the gradients.
    failed : sequence of bool
        Which of them are wrong.
    oracle : str
        The oracle to ask.
    argument_names : sequence of str
        What the arguments are called.
    mistakes : sequence of Mistake
        Backwards that are wrong in a known way.
    structural : bool
        Whether to look for patterns too, which takes many evaluations of the forward.

    Returns
    -------
    tuple of Diagnosis
        The most telling first. Every wrong gradient is in one, if only in that which knows no explanation.
    """
    if not any(failed):
        return ()
    found = matching_mistakes(objective, gradients, noise, failed, mistakes)
    explained = {name for diagnosis in found for name in diagnosis.tensors}
    leaves = objective.pair.leaves
    left = [n for n, bad in enumerate(failed) if bad and leaves[n].name not in explained]
    if not left or not structural:
        return tuple(found)
    forward = objective.pair.forward(objective.pair.arguments(objective.values))
    around = survey(
        _arguments(objective, argument_names), forward.outputs, objective.cotangents, forward.cache
    )
    with np.errstate(all="ignore"):
        rest = _structural(objective, gradients, noise, failed, left, oracle, around, argument_names)
    return (*found, *rest)


def _structural(
    objective: Objective,
    gradients: Sequence[Any],
    noise: Sequence[Array],
    failed: Sequence[bool],
    left: Sequence[int],
    oracle: str,
    around: Surroundings,
    argument_names: Sequence[str],
) -> list[Diagnosis]:
    """Return the diagnoses that the figures alone give, ranked."""
    leaves = objective.pair.leaves
    budget = MAX_EVALUATIONS // len(left)
    given = {leaf.name: _array(gradient) for leaf, gradient in zip(leaves, gradients, strict=True)}
    returned = {name: value for name, value in given.items() if value is not None}
    wrong: dict[str, Wrong] = {}
    right = {
        leaf.name: returned[leaf.name]
        for leaf, bad in zip(leaves, failed, strict=True)
        if not bad and leaf.name in returned
    }
    for number in left:
        name = leaves[number].name
        gradient = returned.get(name)
        reference, known, doubt = _reference(objective, number, gradient, oracle, budget)
        shaped = reference if gradient is None or gradient.shape != reference.shape else gradient
        wrong[name] = Wrong(name, shaped, reference, known, noise[number] + doubt)
        if known.all():
            right[name] = reference

    found = list(places.changed_places([*wrong], returned, right))
    for diagnosis in found:
        for name in diagnosis.tensors:
            del wrong[name]
    around = replace(around, right=right)
    numbers = {leaf.name: number for number, leaf in enumerate(leaves)}
    clues = {}
    for name, entry in wrong.items():
        forgotten = what_if.forgotten_input(entry, objective, numbers[name], oracle, argument_names)
        clues[name] = _clues(entry, returned.get(name), around, forgotten)
    return sorted([*found, *_joined(clues)], key=_rank)


def _clues(
    wrong: Wrong, gradient: Array | None, around: Surroundings, forgotten: Iterator[Clue]
) -> list[Clue]:
    """Return what explains one gradient: the first pattern that does, or a forgotten input, or else hints."""
    if gradient is None:
        return [Clue("no gradient", "is not there, or not an array of finite floating-point numbers", 0.5)]
    if gradient.shape != wrong.reference.shape:
        return list(places.wrong_shape(gradient, wrong.reference, around)) if wrong.known.all() else []
    if not wrong.differs.any():
        # Only a declaration can make a gradient fail that agrees with its reference.
        text = "agrees with the oracle, and is not the structural zero that it is declared to be"
        return [Clue("not a zero", text, 0.5)] if wrong.known.all() else []
    found = (clue for pattern in PATTERNS for clue in pattern(wrong, around))
    first = next(found, None) or next(forgotten, None)
    if first is not None:
        return [first]
    return [clue for hint in HINTS for clue in hint(wrong, around)]


def _joined(clues: Mapping[str, Sequence[Clue]]) -> list[Diagnosis]:
    """Make one diagnosis of the clues that say the same about several gradients."""
    names: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], Clue] = {}
    for name, found in clues.items():
        for clue in found:
            names.setdefault((clue.kind, clue.text), []).append(name)
            first.setdefault((clue.kind, clue.text), clue)
    diagnoses = [
        Diagnosis(
            clue.kind,
            tuple(names[key]),
            f"{subject(names[key])} {clue.text}",
            clue.confidence,
            dict(clue.evidence),
        )
        for key, clue in first.items()
    ]
    unexplained = tuple(name for name, found in clues.items() if not found)
    if unexplained:
        sentence = f"no known pattern explains the error of {subject(unexplained).removeprefix('each of ')}"
        if len(unexplained) > 1 and not all(name.isidentifier() for name in unexplained):
            # Parameters come in the order of the forward: an error spreads from the last ones to the first.
            sentence += f"; begin with the last, {unexplained[-1]}, as errors spread backwards"
        diagnoses.append(Diagnosis("unknown", unexplained, sentence, 0.0))
    return diagnoses


def _rank(diagnosis: Diagnosis) -> tuple[float, int, int]:
    return (-round(diagnosis.confidence, 1), KINDS.index(diagnosis.kind), -len(diagnosis.tensors))


def _array(gradient: Any) -> Array | None:
    """Return a gradient as float64, None where it is none or not finite."""
    if not isinstance(gradient, (np.ndarray, np.generic)) or gradient.dtype.kind != "f":
        return None
    value = np.asarray(gradient, dtype=np.float64)
    return value if np.all(np.isfinite(value)) else None


def _reference(
    objective: Objective, number: int, gradient: Array | None, oracle: str, budget: int
) -> tuple[Array, Array, Array]:
    """Ask the oracle about a leaf: its derivatives, where they are known, and their uncertainty.

    Of a leaf with more entries than the budget allows for, whole rows are taken: patterns are in rows.
    """
    value = objective.values[number]
    reference, doubt = np.zeros(value.shape), np.zeros(value.shape)
    known = np.zeros(value.shape, dtype=bool)
    width = value.shape[-1] if value.ndim else 1
    count = value.size // max(width, 1)
    affordable = max(1, min(count, budget // max(width, 1)))
    rows = _rows(gradient, count, affordable) if value.size else np.arange(0)
    for row in rows:
        for column in range(width):
            index = tuple(int(i) for i in np.unravel_index(row * width + column, value.shape))
            estimate = compare.differentiate(objective, number, unit(value, index), oracle)
            if np.isfinite(estimate.value):
                reference[index], known[index] = estimate.value, True
                doubt[index] = estimate.uncertainty
    return reference, known, doubt


def _rows(gradient: Array | None, count: int, affordable: int) -> Array:
    """Choose rows: half of them those with the largest gradient, the others evenly spread."""
    if affordable >= count:
        return np.arange(count)
    spread = np.linspace(0, count - 1, affordable).astype(int)
    if gradient is None or gradient.size % count or not gradient.size:
        return np.unique(spread)
    sizes = np.abs(gradient).reshape(count, -1).max(axis=1)
    largest = np.argsort(sizes)[::-1][: (affordable + 1) // 2]
    return np.unique(np.concatenate([largest, spread[::2]]))


def _arguments(objective: Objective, names: Sequence[str]) -> dict[str, Any]:
    """Return the arguments by name, leaves as float64."""
    leaves = objective.pair.leaves
    found: dict[str, Any] = {leaf.name: value for leaf, value in zip(leaves, objective.values, strict=True)}
    for name, arg in zip(names, objective.pair.args, strict=True):
        if not isinstance(arg, dict):
            found.setdefault(name, arg)
    return found
