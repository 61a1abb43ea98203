"""Fooling a checker: what such an exercise is, and how the learner's backward is tried on both checks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npbert.gradcheck import Report, check
from npbert.learn.exercise import prescribed_lines, replace_lines
from npbert.learn.learner_file import LearnerError, LearnerFile, Problem, problem_of, run_file
from npbert.learn.result import Result
from npbert.learn.tracing import unfilled_lines

FORWARD, BACKWARD, WEAK_CHECK = "forward", "backward", "weak_check"
INSTRUCTIONS = """\
Write a backward that is wrong, and that weak_check passes all the same. (The
weak_check below is there to be read: the one that decides is npbert's own.)
Then see what the strong check says to it:

    npbert learn fool {number}
    npbert learn fool {number} --watch
    npbert learn fool {number} --hint 1"""


@dataclass(frozen=True)
class Fool:
    """A weak check, and what it does not see.

    Attributes
    ----------
    number : int
        Counted from 1.
    name : str
        What the check is weak in.
    title : str
    story : str
        The weak check and the function, in words.
    solution : str
        Python source: ``weak_check``, ``forward``, and a ``backward`` that fools it.
    hints : tuple of str
        Three.
    cases : callable
        Returns the tuples of arguments of the strong check.
    why : str
        Why the one passes and the other does not.
    """

    number: int
    name: str
    title: str
    story: str
    solution: str
    hints: tuple[str, str, str]
    cases: Callable[[], Sequence[tuple[Any, ...]]]
    why: str

    @property
    def file_name(self) -> str:
        """The name of the learner's file."""
        return f"fool_{self.number}_{self.name.replace('-', '_')}.py"

    def stub(self) -> str:
        """Return the file that a learner starts from."""
        targets = [line.target for line in prescribed_lines(self.solution, BACKWARD)]
        return self._file(replace_lines(self.solution.lstrip(), BACKWARD, dict.fromkeys(targets, "...")))

    def source(self) -> str:
        """Return the file with an answer."""
        return self._file(self.solution.lstrip())

    def _file(self, code: str) -> str:
        opening = f'"""Fool the checker, {self.number}: {self.title}.\n\n{self.story.strip()}\n\n'
        return f'{opening}{INSTRUCTIONS.format(number=self.number)}\n"""\n\n{code}'


def check_fool(fool: Fool, path: Path) -> Result:
    """Try a learner's backward on the weak check and on the strong one.

    Parameters
    ----------
    fool : Fool
    path : Path
        The learner's file; it is run, in this process.

    Returns
    -------
    Result
        Solved where the weak check passes and the strong one does not.
    """
    if not path.exists():
        return Result(fool.name, "not started")
    try:
        file = run_file(path)
        backward = file.function(BACKWARD)
        if unfilled_lines(file, BACKWARD):
            return Result(fool.name, "to do")
        given = solution_functions(fool)
        objection = _objection(given[WEAK_CHECK], given[FORWARD], backward, file)
    except LearnerError as error:
        return Result(fool.name, "broken", problem=error.problem)
    if objection is not None:
        return Result(fool.name, "wrong", notes=(f"the weak check sees it: {objection}",))
    report = strong_check(fool, given[FORWARD], backward)
    if report is None:
        note = "both checks pass: your backward is right. Make it wrong, where the weak check does not look"
        return Result(fool.name, "wrong", notes=(note,))
    return Result(fool.name, "solved", report=report.to_dict(), notes=(fool.why,))


def solution_functions(fool: Fool) -> dict[str, Any]:
    """Return the functions of a fool's solution by their names."""
    names: dict[str, Any] = {}
    exec(compile(fool.source(), fool.file_name, "exec"), names)
    return names


def strong_check(fool: Fool, forward: Callable[..., Any], backward: Callable[..., Any]) -> Report | None:
    """Return the gradient check's report of the first case that does not pass; None where all do."""
    for args in fool.cases():
        report = check(forward, backward, args)
        if not report.ok:
            return report
    return None


def _objection(
    weak_check: Callable[..., None],
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    file: LearnerFile,
) -> str | None:
    """Return what the weak check says against a backward; None where it passes.

    Raises
    ------
    LearnerError
        If the backward raises, or returns something that cannot be compared.
    """
    try:
        weak_check(forward, backward)
    except AssertionError as error:
        return str(error)
    except BaseException as error:
        problem = problem_of(error, file)
        if problem.line is None:
            message = f"what backward returns cannot be compared: {problem.message}"
            problem = Problem("not an array", message)
        raise LearnerError(problem) from error
    return None
