"""Gradients that are right for another input: a backward that forgets a weight, a mask or an output.

The oracle is asked what the gradient would be if one input were ones, or zeros, or a mask all True, or if
nothing flowed back from one of several outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npbert.gradcheck import compare
from npbert.gradcheck.diagnosis.finding import Clue
from npbert.gradcheck.diagnosis.wrong import Wrong
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.pair import BrokenPair, Pair

PROBES = 3  # entries that are looked at before all of them are


@dataclass(frozen=True)
class _Change:
    """Another input, and what it means if the gradient is right for it."""

    text: str
    args: tuple[Any, ...]
    values: list[Any]
    cotangents: list[Any]


def forgotten_input(
    wrong: Wrong, objective: Objective, number: int, oracle: str, names: Sequence[str]
) -> Iterator[Clue]:
    """The gradient is what it would be if one input were trivial.

    Parameters
    ----------
    wrong : Wrong
    objective : Objective
        Where the gradient was taken.
    number : int
        Which leaf it belongs to.
    oracle : str
    names : sequence of str
        What the arguments are called.
    """
    error = np.abs(wrong.error).ravel()
    order = np.argsort(error)[::-1]
    indices = [np.unravel_index(flat, wrong.error.shape) for flat in order if wrong.known.flat[flat]]
    if not indices:
        return
    for change in _changes(objective, names):
        pair = Pair(objective.pair.fn, objective.pair.backward, change.args, objective.pair.leaves)
        changed = Objective(pair, change.values, change.cotangents, True)
        pattern = np.array(wrong.gradient)
        try:
            for place, index in enumerate(indices):
                where = tuple(int(i) for i in index)
                along = unit(objective.values[number], where)
                pattern[where] = compare.differentiate(changed, number, along, oracle).value
                if place < PROBES and abs(pattern[where] - wrong.gradient[where]) > wrong.limit[where]:
                    break
            else:
                if wrong.fits(pattern):
                    yield Clue("forgotten input", change.text, wrong.explained(pattern))
                    return
        except BrokenPair:
            continue


def _changes(objective: Objective, names: Sequence[str]) -> Iterator[_Change]:
    """Yield the inputs that are the given ones but for one of them."""
    args, values, cotangents = objective.pair.args, objective.values, objective.cotangents
    for number, leaf in enumerate(objective.pair.leaves):
        if leaf.key is None:
            for constant in (1.0, 0.0):
                other = [*values]
                other[number] = np.full(leaf.value.shape, constant)
                text = f"is what it would be if {leaf.name} were {constant:.0f}: {leaf.name} is forgotten"
                yield _Change(text, args, other, cotangents)
    masks = [n for n, arg in enumerate(args) if isinstance(arg, np.ndarray) and arg.dtype.kind == "b"]
    numbers = [n for n, arg in enumerate(args) if isinstance(arg, float)]
    for position in masks:
        everywhere = np.ones_like(args[position])
        changed = (*args[:position], everywhere, *args[position + 1 :])
        name = names[position]
        yield _Change(f"is what it would be without {name}: it is forgotten", changed, values, cotangents)
        for other_position in numbers:
            both = (*changed[:other_position], 0.0, *changed[other_position + 1 :])
            text = f"is what it would be without {name} and {names[other_position]}: they are forgotten"
            yield _Change(text, both, values, cotangents)
    for position in numbers:
        changed = (*args[:position], 0.0, *args[position + 1 :])
        name = names[position]
        yield _Change(f"is what it would be if {name} were 0: it is forgotten", changed, values, cotangents)
    flowing = [n for n, cotangent in enumerate(cotangents) if cotangent is not None]
    for output in flowing if len(flowing) > 1 else []:
        without = [np.zeros_like(c) if n == output else c for n, c in enumerate(cotangents)]
        yield _Change(f"misses what flows back from output {output}", args, values, without)
