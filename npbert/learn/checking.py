"""Checking a learner's file: runs, lines, gradients, and which known mistake they show."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from npbert.gradcheck import Mistake, Report, check
from npbert.learn.exercise import NO_LINES, Exercise, prescribed_lines
from npbert.learn.learner_file import LearnerError, LearnerFile, Problem, problem_of, run_file
from npbert.learn.result import Result
from npbert.learn.same import same_array
from npbert.learn.tracing import Trace, judge_lines, reference_values, traced_call, unfilled_lines

# The properties of a gradient that the checker tests, as problems that a learner is told by name.
PROBLEMS: Final = {
    "backward runs": "exception",
    "gradient count": "wrong number of gradients",
    "gradient present": "returns None",
    "gradient is an array": "not an array",
    "gradient shape": "wrong shape",
    "gradient dtype": "wrong dtype",
    "gradient finite": "not finite",
    "inputs unmodified by backward": "changes its inputs",
    "cotangent unmodified": "changes its inputs",
    "cache usable twice": "changes its cache",
    "backward deterministic": "not deterministic",
    "non-contiguous inputs": "depends on the memory layout",
}
ADVICE: Final = {
    "wrong shape": "a gradient has exactly the shape of what it belongs to, and is not left to broadcasting",
    "wrong dtype": "a NumPy float64 (np.sqrt(2), np.zeros without dtype=) turns float32 into float64; use "
    "math.sqrt, dtype=dy.dtype",
    "changes its inputs": "compute new arrays: a = a * b instead of a *= b",
    "changes its cache": "compute new arrays: a = a * b instead of a *= b",
    "returns None": "is there a return statement?",
}
SEED: Final = 0


@dataclass(frozen=True)
class Pair:
    """A forward and its backward, ready to be called."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


@dataclass(frozen=True)
class _Run:
    """One case: arguments, a cotangent, and what the learner's functions and the solution did with them."""

    args: tuple[Any, ...]
    dy: Any
    cache: Any
    trace: Trace
    reference: dict[str, Any]


def solution_pair(
    exercise: Exercise, lines: Mapping[str, str] = NO_LINES, ops: ModuleType | None = None
) -> Pair:
    """Return the two functions of an exercise's solution, or of a wrong answer.

    Parameters
    ----------
    exercise : Exercise
    lines : mapping of str to str
        Right-hand sides that are other than in the solution.
    ops : module, optional
        For exercises that take one; `npbert.ops` by default.
    """
    names: dict[str, Any] = {}
    exec(compile(exercise.source(lines), exercise.file_name, "exec"), names)
    return _pair(exercise, names[exercise.forward_name], names[exercise.backward_name], ops)


def known_mistakes(exercise: Exercise, ops: ModuleType | None = None) -> list[Mistake]:
    """Return the wrong answers of an exercise as backwards that can be compared with."""
    return [
        Mistake(wrong.name, wrong.description, solution_pair(exercise, wrong.lines, ops).backward)
        for wrong in exercise.wrong_answers
    ]


def check_exercise(exercise: Exercise, path: Path, ops: ModuleType | None = None) -> Result:
    """Check a learner's file.

    Parameters
    ----------
    exercise : Exercise
    path : Path
        The file; it is run, in this process.
    ops : module, optional
        For exercises that take one: what their functions are given.

    Returns
    -------
    Result
        ``"not started"`` where there is no such file. Whatever the file does wrong is a finding.
    """
    if not path.exists():
        return Result(exercise.name, "not started")
    try:
        file = run_file(path)
        pair = _pair(
            exercise, file.function(exercise.forward_name), file.function(exercise.backward_name), ops
        )
        runs = [_run(exercise, file, pair, args, ops) for args in exercise.cases()]
    except LearnerError as error:
        return Result(exercise.name, "broken", problem=error.problem)
    to_do = unfilled_lines(file, exercise.backward_name)
    unfinished = _unfinished(exercise, file, runs, bool(to_do))
    if unfinished is not None:
        return unfinished
    return _compare(exercise, file, pair, runs, ops)


def argument_names(exercise: Exercise) -> list[str]:
    """Return what the forward calls its arguments."""
    return list(inspect.signature(solution_pair(exercise).forward).parameters)[: len(exercise.cases()[0])]


def gradient_report(
    exercise: Exercise,
    pair: Pair,
    args: tuple[Any, ...],
    names: Sequence[str] | None = None,
    mistakes: Sequence[Mistake] = (),
) -> Report:
    """Run the gradient check on one case of an exercise."""
    forward = pair.forward
    if exercise.differentiable is not None:
        forward = exercise.differentiable(forward, args)
    return check(
        forward,
        pair.backward,
        args,
        names=argument_names(exercise) if names is None else names,
        seed=SEED,
        structural_zeros=exercise.structural_zeros,
        mistakes=mistakes,
    )


def draw_cotangent(output: Any) -> Any:
    """Return a random cotangent of an output's shape and dtype."""
    output = np.asarray(output)
    return np.asarray(np.random.default_rng(SEED).standard_normal(output.shape), dtype=output.dtype)


def _pair(
    exercise: Exercise, forward: Callable[..., Any], backward: Callable[..., Any], ops: ModuleType | None
) -> Pair:
    if not exercise.takes_ops:
        return Pair(forward, backward)
    if ops is None:
        import npbert.ops as ops
    return Pair(partial(forward, ops=ops), partial(backward, ops=ops))


def _run(
    exercise: Exercise, file: LearnerFile, pair: Pair, args: tuple[Any, ...], ops: ModuleType | None
) -> _Run:
    """Run forward and backward of the learner and of the solution on one case.

    Raises
    ------
    LearnerError
        If the forward, which was given, no longer does what it did.
    """
    solution = solution_pair(exercise, ops=ops)
    names = [
        name for line in prescribed_lines(exercise.solution, exercise.backward_name) for name in line.names
    ]
    expected, solution_cache = solution.forward(*_copies(args))
    dy = draw_cotangent(expected)
    reference = reference_values(traced_call(solution.backward, (dy, solution_cache), names))
    try:
        output, cache = pair.forward(*_copies(args))
        changed = not same_array(output, expected)
    except BaseException as error:
        problem = problem_of(error, file)
        message = f"{exercise.forward_name}, which was given, raises {problem.message}"
        raise LearnerError(replace(problem, kind="forward changed", message=message)) from error
    if changed:
        message = f"{exercise.forward_name} was given, and now returns something else; --reset brings it back"
        raise LearnerError(Problem("forward changed", message))
    return _Run(args, dy, cache, traced_call(pair.backward, (np.array(dy), cache), names), reference)


def _unfinished(exercise: Exercise, file: LearnerFile, runs: Sequence[_Run], to_do: bool) -> Result | None:
    """Return the result where there is nothing to compare yet: lines to do, an exception, no gradients."""
    first = runs[0]
    for run in runs:
        error = run.trace.error
        if error is not None and not to_do:
            problem = problem_of(error, file)
            return Result(exercise.name, "broken", problem, lines=_lines(exercise, file, run, problem.line))
        if error is None and run.trace.returned is None and not to_do:
            message = f"{exercise.backward_name} returns None; {ADVICE['returns None']}"
            lines = _lines(exercise, file, run)
            return Result(exercise.name, "broken", Problem("returns None", message), lines=lines)
    if not to_do:
        return None
    problem_found = None
    error = first.trace.error
    if error is not None:
        problem = problem_of(error, file)
        # What fails because it uses a line that is still to do is no mistake.
        if not _uses_unfilled(problem, file, exercise):
            problem_found = problem
    lines = _lines(exercise, file, first, None if problem_found is None else problem_found.line)
    return Result(exercise.name, "to do" if problem_found is None else "broken", problem_found, lines=lines)


def _uses_unfilled(problem: Problem, file: LearnerFile, exercise: Exercise) -> bool:
    """Tell whether the line that raised is, or mentions, one whose value is still to be written."""
    targets = unfilled_lines(file, exercise.backward_name)
    names = {name.strip() for target in targets.values() for name in target.split(",")}
    words = "".join(c if c.isalnum() or c == "_" else " " for c in problem.source).split()
    return problem.line in targets or not names.isdisjoint(words) or "ellipsis" in problem.message


def _compare(
    exercise: Exercise, file: LearnerFile, pair: Pair, runs: Sequence[_Run], ops: ModuleType | None
) -> Result:
    """Hold the learner's gradients against the oracle, and against the known mistakes."""
    names = argument_names(exercise)
    pair, mistakes = _with_solution(exercise, pair, ops)
    for run in runs:
        report = gradient_report(exercise, pair, run.args, names, mistakes)
        if report.ok:
            continue
        problem = _first_problem(report)
        return Result(
            exercise.name,
            "wrong" if problem is None else "broken",
            problem,
            _mistake(report),
            report.diagnosis,
            _lines(exercise, file, run),
            report.to_dict(),
            describe_arguments(names, run.args),
        )
    return Result(exercise.name, "solved", lines=_lines(exercise, file, runs[0]))


def _with_solution(exercise: Exercise, pair: Pair, ops: ModuleType | None) -> tuple[Pair, list[Mistake]]:
    """Return the pair, and the known mistakes, with a cache that holds the solution's, too.

    The mistakes are backwards of the solution's forward; a learner's may keep other things.
    """
    solution = solution_pair(exercise, ops=ops).forward

    @wraps(pair.forward)
    def forward(*args: Any) -> tuple[Any, tuple[Any, Any]]:
        output, cache = pair.forward(*args)
        return output, (cache, solution(*args)[1])

    @wraps(pair.backward)
    def backward(dy: Any, caches: tuple[Any, Any]) -> Any:
        return pair.backward(dy, caches[0])

    def given_solution(mistake: Mistake) -> Mistake:
        return mistake._replace(backward=lambda dy, caches: mistake.backward(dy, caches[1]))

    return Pair(forward, backward), [given_solution(one) for one in known_mistakes(exercise, ops)]


def _mistake(report: Report) -> str:
    """Return the name of the known mistake that explains all gradients; empty if there is none."""
    return next((found.mistake for found in report.diagnoses[:1] if found.confidence == 1), "")


def _first_problem(report: Report) -> Problem | None:
    for finding in report.checks:
        kind = PROBLEMS.get(finding.name)
        if finding.status == "failed" and kind is not None:
            advice = f"; {ADVICE[kind]}" if kind in ADVICE else ""
            detail = finding.detail or "the gradients differ"
            return Problem(kind, f"{detail}{advice}")
    return None


def _lines(
    exercise: Exercise, file: LearnerFile, run: _Run, error_line: int | None = None
) -> tuple[Any, ...]:
    prescribed = prescribed_lines(exercise.solution, exercise.backward_name)
    return tuple(judge_lines(file, exercise.backward_name, prescribed, run.trace, run.reference, error_line))


def describe_arguments(names: Sequence[str], args: Sequence[Any]) -> str:
    """Return the arguments of a case in a line: shapes, the dtype float32, other values."""
    return ", ".join(f"{name} {_described(arg)}" for name, arg in zip(names, args, strict=False))


def _described(arg: Any) -> str:
    if isinstance(arg, np.ndarray):
        return f"{arg.shape}" + (f" {arg.dtype}" if arg.dtype == np.float32 else "")
    return f"of {len(arg)} arrays" if isinstance(arg, dict) else repr(arg)


def _copies(args: Sequence[Any]) -> list[Any]:
    return [
        arg.copy() if isinstance(arg, np.ndarray) else dict(arg) if isinstance(arg, dict) else arg
        for arg in args
    ]
