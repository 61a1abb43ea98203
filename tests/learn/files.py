"""Writing learners' files for the tests."""

from collections.abc import Mapping
from pathlib import Path

from npbert.learn.exercise import NO_LINES, Exercise
from npbert.learn.exercises import LADDER


def write(directory: Path, exercise: Exercise, lines: Mapping[str, str] = NO_LINES) -> Path:
    """Write an exercise's solution, with some of its lines replaced."""
    path = directory / exercise.file_name
    path.write_text(exercise.source(lines), encoding="utf-8")
    return path


def write_edited(directory: Path, exercise: Exercise, old: str, new: str) -> Path:
    """Write an exercise's solution, with a piece of its text replaced."""
    source = exercise.source()
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times"
    path = directory / exercise.file_name
    path.write_text(source.replace(old, new), encoding="utf-8")
    return path


def solve_all(directory: Path) -> None:
    """Write the solutions of the whole ladder."""
    for exercise in LADDER:
        write(directory, exercise)
