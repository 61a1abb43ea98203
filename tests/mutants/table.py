"""The score: how many mutants of each module were made, and how many were killed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.mutants.catalogue import Mutant
from tests.mutants.results import INVALID, KILLED, PASSED, TIMEOUT, Result


class Score(NamedTuple):
    """A line of the table."""

    name: str
    mutants: int
    killed: int
    survived: int
    invalid: int
    equivalent: int


def is_right(mutant: Mutant, result: Result) -> bool:
    """Return whether a mutant came out as it should: killed, or, if equivalent, not killed."""
    if mutant.equivalent is not None:
        return result.outcome == PASSED
    return result.outcome in (KILLED, TIMEOUT)


def score(name: str, mutants: Sequence[Mutant], results: Mapping[str, Result]) -> Score:
    """Count what came of some mutants; an equivalent one counts as that alone."""
    real = [results[mutant.id].outcome for mutant in mutants if mutant.equivalent is None]
    return Score(
        name,
        len(mutants),
        sum(outcome in (KILLED, TIMEOUT) for outcome in real),
        real.count(PASSED),
        real.count(INVALID),
        len(mutants) - len(real),
    )


def scores(mutants: Sequence[Mutant], results: Mapping[str, Result]) -> list[Score]:
    """Return a score for each module, and their sum."""
    files = dict.fromkeys(mutant.file for mutant in mutants)
    lines = [score(file, [m for m in mutants if m.file == file], results) for file in files]
    return [*lines, score("all", mutants, results)]


def table(lines: Sequence[Score]) -> str:
    """Lay the scores out for a terminal."""
    width = max(len(line.name) for line in lines)
    columns = ("mutants", "killed", "survived", "invalid", "equivalent")
    header = "  ".join([f"{'module':{width}}", *columns])
    rows = [
        "  ".join([f"{line.name:{width}}", *(f"{getattr(line, name):{len(name)}}" for name in columns)])
        for line in lines
    ]
    return "\n".join([header, "-" * len(header), *rows[:-1], "-" * len(header), rows[-1]])
