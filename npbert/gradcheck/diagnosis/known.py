"""Gradients that equal those of a mistake that the caller knows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from npbert.gradcheck.diagnosis.finding import Diagnosis, Mistake
from npbert.gradcheck.objective import Objective
from npbert.gradcheck.pair import Array, BrokenPair, Pair
from npbert.gradcheck.round_off import row_norm

SAME = 1e-9  # two ways to compute the same wrong gradient differ in round-off only


def matching_mistakes(
    objective: Objective,
    gradients: Sequence[Any],
    noise: Sequence[Array],
    failed: Sequence[bool],
    mistakes: Sequence[Mistake],
) -> list[Diagnosis]:
    """Return the mistakes that gave these gradients, the closest first.

    A mistake that gives all of them comes before those that give some of the wrong ones and all of the right
    ones: a backward may have two mistakes at once.

    Parameters
    ----------
    objective : Objective
        Where the gradients were taken.
    gradients : sequence
        What the backward under test returned.
    noise : sequence of ndarray
        Their round-off.
    failed : sequence of bool
        Which of them are wrong.
    mistakes : sequence of Mistake
    """
    names = [leaf.name for leaf in objective.pair.leaves]
    wrong = [name for name, bad in zip(names, failed, strict=True) if bad]
    found: list[tuple[float, float, Diagnosis]] = []
    for mistake in mistakes:
        theirs = _gradients(objective, mistake)
        if theirs is None:
            continue
        distances = [_distance(*entry) for entry in zip(gradients, theirs, noise, strict=True)]
        same = [name for name, distance in zip(names, distances, strict=True) if distance <= 1]
        explained = tuple(name for name in wrong if name in same)
        if not explained or not set(names) - set(wrong) <= set(same):
            continue
        share = len(explained) / len(wrong)
        figures = {"wrong gradients": float(len(wrong)), "of them equal": float(len(explained))}
        diagnosis = Diagnosis(
            "known mistake", explained, mistake.description, share, figures, mistake=mistake.name
        )
        found.append((-share, sum(distance for distance in distances if distance <= 1), diagnosis))
    return [diagnosis for _, _, diagnosis in sorted(found, key=lambda entry: entry[:2])]


def validate_mistakes(mistakes: Any) -> None:
    """Refuse what is not a sequence of mistakes.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    if not isinstance(mistakes, (tuple, list)):
        raise ValueError(f"mistakes must be a sequence of Mistake, got {type(mistakes).__name__}")
    for number, mistake in enumerate(mistakes):
        if not isinstance(mistake, Mistake):
            raise ValueError(f"mistakes[{number}] must be a Mistake, got {type(mistake).__name__}")
        if not callable(mistake.backward):
            kind = type(mistake.backward).__name__
            raise ValueError(f"mistakes[{number}].backward must be callable, got {kind}")


def _gradients(objective: Objective, mistake: Mistake) -> list[Any] | None:
    """Return the mistake's gradients; None where it makes no sense for these arguments."""
    pair = Pair(objective.pair.fn, mistake.backward, objective.pair.args, objective.pair.leaves)
    try:
        with np.errstate(all="ignore"):
            return pair.gradients_at(objective.values, objective.cotangents)
    except BrokenPair:
        return None


def _distance(one: Any, two: Any, noise: Array) -> float:
    """Return how far apart two gradients are, in units of what is allowed: at most 1 if they are the same."""
    if one is None or two is None:
        return 0.0 if one is two else float("inf")
    try:
        one, two = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    except (TypeError, ValueError):  # not numbers
        return float("inf")
    if one.shape != two.shape:
        return float("inf")
    if not (np.all(np.isfinite(one)) and np.all(np.isfinite(two))):
        return 0.0 if np.array_equal(one, two, equal_nan=True) else float("inf")
    size = row_norm(one)
    allowed = SAME * size + 8 * np.finfo(float).eps * np.max(size, initial=0.0)
    if noise.shape == one.shape:
        allowed = allowed + noise
    apart = np.abs(one - two)
    return float(
        np.max(np.where(apart > 0, apart / np.where(allowed > 0, allowed, 1e-300), 0.0), initial=0.0)
    )
