"""Hunts: a backward has a bug; which one it is, the gradient check's report must tell."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from npbert.gradcheck import Report
from npbert.learn.checking import (
    argument_names,
    describe_arguments,
    draw_cotangent,
    gradient_report,
    solution_pair,
)
from npbert.learn.exercise import Exercise, WrongAnswer
from npbert.learn.exercises import (
    ATTENTION,
    BERT,
    BIAS,
    CROSS_ENTROPY,
    EMBEDDING,
    GELU,
    LAYERNORM,
    LINEAR,
    SOFTMAX,
    TIED_DECODER,
)
from npbert.learn.same import same_array

CHOICES: Final = 5
SHOWN_ROWS, SHOWN_COLUMNS = 4, 6


@dataclass(frozen=True)
class Hunt:
    """One bug to be found.

    Attributes
    ----------
    number : int
        Counted from 1.
    exercise : Exercise
        Where the formula comes from, and the inputs.
    bug : WrongAnswer
    choices : tuple of WrongAnswer
        What the learner chooses from; the bug is among them.
    """

    number: int
    exercise: Exercise
    bug: WrongAnswer
    choices: tuple[WrongAnswer, ...]

    @property
    def answer(self) -> int:
        """The number of the right choice, counted from 1."""
        return self.choices.index(self.bug) + 1

    def explain(self, answer: int) -> str:
        """Say why a choice is right, or why it is not; the latter does not give the right one away.

        Parameters
        ----------
        answer : int
            Counted from 1.
        """
        chosen = self.choices[answer - 1]
        if chosen is self.bug:
            return f"Yes, it {chosen.name}: {chosen.description} The report shows it: {chosen.symptom}."
        return f"No. If it {chosen.name}, the report shows this: {chosen.symptom}. Here it does not."


@dataclass(frozen=True)
class Evidence:
    """What a learner sees of a bug, for one set of arguments.

    Attributes
    ----------
    case : str
        The arguments.
    report : Report
        Of the gradient check.
    numbers : tuple of (str, str, str)
        For each wrong gradient: its name, its first rows, and the right ones.
    """

    case: str
    report: Report
    numbers: tuple[tuple[str, str, str], ...]


BUGS: Final[tuple[tuple[Exercise, str], ...]] = (
    (LINEAR, "averages dweight over the rows"),
    (LAYERNORM, "forgets the mean term"),
    (SOFTMAX, "forgets the sum over the row"),
    (EMBEDDING, "overwrites where ids repeat"),
    (CROSS_ENTROPY, "divides by all rows, ignored ones too"),
    (GELU, "forgets that the gate depends on x"),
    (LAYERNORM, "forgets the weight"),
    (BIAS, "sums over the axes in front only"),
    (ATTENTION, "forgets dropout on the way back"),
    (LINEAR, "takes dy for ones in dx"),
    (TIED_DECODER, "loses the embedding's gradient"),
    (CROSS_ENTROPY, "lets ignored rows through"),
    (SOFTMAX, "subtracts the sum without the factor p"),
    (ATTENTION, "forgets the transpose for dk"),
    (LAYERNORM, "divides by D - 1 in the variance term"),
    (BERT, "forgets the residual around the feed-forward layer"),
)


def all_hunts() -> tuple[Hunt, ...]:
    """Return the hunts, from plain to hard."""
    return tuple(
        Hunt(number, exercise, exercise.wrong_answer(name), _choices(exercise, name, number))
        for number, (exercise, name) in enumerate(BUGS, start=1)
    )


def evidence(hunt: Hunt) -> list[Evidence]:
    """Check the buggy backward on all inputs of its exercise, but those that only test the dtype."""
    names = argument_names(hunt.exercise)
    return [
        Evidence(
            describe_arguments(names, args),
            gradient_report(hunt.exercise, solution_pair(hunt.exercise, hunt.bug.lines), args, names),
            tuple(_wrong_numbers(hunt, args, names)),
        )
        for args in hunt.exercise.cases()
        if not any(isinstance(arg, np.ndarray) and arg.dtype == np.float32 for arg in args)
    ]


def _choices(exercise: Exercise, bug: str, number: int) -> tuple[WrongAnswer, ...]:
    """Draw some wrong answers of the exercise, the bug among them, each with another symptom."""
    right = exercise.wrong_answer(bug)
    others = [wrong for wrong in exercise.wrong_answers if wrong.symptom != right.symptom]
    rng = np.random.default_rng(number)
    drawn = [others[int(index)] for index in rng.permutation(len(others))]
    distinct = {wrong.symptom: wrong for wrong in drawn}
    chosen = [right, *list(distinct.values())[: CHOICES - 1]]
    return tuple(chosen[int(index)] for index in rng.permutation(len(chosen)))


def _wrong_numbers(hunt: Hunt, args: tuple[Any, ...], names: list[str]) -> Iterator[tuple[str, str, str]]:
    right_pair, wrong_pair = solution_pair(hunt.exercise), solution_pair(hunt.exercise, hunt.bug.lines)
    output, cache = right_pair.forward(*args)
    dy = draw_cotangent(output)
    right, wrong = right_pair.backward(dy, cache), wrong_pair.backward(dy, cache)
    for name, found, wanted in _aligned(right, wrong, args, names):
        if wanted is not None and not same_array(found, wanted):
            yield name, _first_rows(found), _first_rows(wanted)


def _aligned(
    right: Any, wrong: Any, args: tuple[Any, ...], names: list[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names of the gradients with what the buggy backward and the right one return."""
    if isinstance(right, dict):
        for key in args[0]:
            yield key, wrong[key], right[key]
        return
    floating = [
        name
        for name, arg in zip(names, args, strict=False)
        if arg is None or (isinstance(arg, np.ndarray) and arg.dtype.kind == "f")
    ]
    right, wrong = (one if isinstance(one, tuple) else (one,) for one in (right, wrong))
    yield from zip(floating, wrong, right, strict=False)


def _first_rows(gradient: Any) -> str:
    array = np.asarray(gradient)
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    lines = [
        " ".join(f"{value:9.4f}" for value in row[:SHOWN_COLUMNS])
        + (" ..." if len(row) > SHOWN_COLUMNS else "")
        for row in rows[:SHOWN_ROWS]
    ]
    return "\n".join(lines + (["..."] if len(rows) > SHOWN_ROWS else []))
