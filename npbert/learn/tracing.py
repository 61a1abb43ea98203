"""Watching a backward at work: the value of every variable, at the line that gave it."""

import ast
import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Literal, NamedTuple

import numpy as np

from npbert.learn.exercise import PrescribedLine, bound_names, find_function
from npbert.learn.learner_file import LearnerFile
from npbert.learn.same import same_array, tolerance

Mark = Literal["", "ok", "differs", "wrong shape", "follows", "to do", "error"]


class Step(NamedTuple):
    """A variable got a value."""

    name: str
    line: int
    value: Any


@dataclass(frozen=True)
class Trace:
    """What one call of a function did.

    Attributes
    ----------
    steps : list of Step
        In the order in which they happened; values that were changed in place come again.
    variables : dict
        All local variables, as they were last.
    returned : object
        None where it raised.
    error : BaseException or None
        What it raised.
    """

    steps: list[Step]
    variables: dict[str, Any]
    returned: Any
    error: BaseException | None


@dataclass(frozen=True)
class LineResult:
    """One line of the learner's backward.

    Attributes
    ----------
    line : int
        Its number in the file.
    source : str
    mark : str
        ``"ok"``, ``"differs"``, ``"wrong shape"``, ``"to do"``, ``"error"``; ``"follows"`` for a line that is
        right but was given wrong values; empty for one that is not judged.
    detail : str
        What is wrong, in words.
    name : str
        The variable that is wrong.
    index : tuple of int or None
        Where it differs most, as are the next two.
    yours, reference : float or None
        None where they are not finite.
    """

    line: int
    source: str
    mark: Mark = ""
    detail: str = ""
    name: str = ""
    index: tuple[int, ...] | None = None
    yours: float | None = None
    reference: float | None = None


def traced_call(function: Callable[..., Any], args: Sequence[Any], names: Collection[str]) -> Trace:
    """Call a function and record each value that some of its variables get.

    Only the function's own frame is traced, so what it calls runs at full speed.

    Parameters
    ----------
    function : callable
        Written in Python.
    args : sequence
    names : collection of str
        The variables to watch.
    """
    code = _code_of(function)
    recorder = _Recorder(names)

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        return recorder.watch if frame.f_code is code else None

    previous = sys.gettrace()
    sys.settrace(enter)
    try:
        returned = function(*args)
    except BaseException as error:
        return Trace(recorder.steps, recorder.variables, None, error)
    finally:
        sys.settrace(previous)
    return Trace(recorder.steps, recorder.variables, returned, None)


def reference_values(trace: Trace) -> dict[str, Any]:
    """Return the last value of each variable; not the cache, as a learner's may be another."""
    last = trace.variables | {step.name: step.value for step in trace.steps}
    return {name: value for name, value in last.items() if name != "cache"}


def unfilled_lines(file: LearnerFile, function: str) -> dict[int, str]:
    """Return the lines of a function that still are ``target = ...``, with their targets."""
    node = find_function(file.tree, function)
    statements = [] if node is None else [one for one in ast.walk(node) if isinstance(one, ast.Assign)]
    return {
        one.lineno: ast.unparse(one.targets[0]).strip("()")
        for one in statements
        if isinstance(one.value, ast.Constant) and one.value.value is Ellipsis
    }


def judge_lines(
    file: LearnerFile,
    function: str,
    prescribed: Sequence[PrescribedLine],
    trace: Trace,
    reference: Mapping[str, Any],
    error_line: int | None,
) -> list[LineResult]:
    """Compare a learner's variables with those of the same name in the solution, line by line.

    A variable that had its right value at any time is right: what is done to it afterwards is judged where
    it is used. A line that gives the right value when it is given right ones only follows from a wrong one.

    Parameters
    ----------
    file : LearnerFile
    function : str
        The name of the backward.
    prescribed : sequence of PrescribedLine
        Which variables there are to compare.
    trace : Trace
        Of the learner's backward.
    reference : mapping of str to object
        The right values.
    error_line : int or None
        Where the backward raised.

    Returns
    -------
    list of LineResult
        One for each line of the function.
    """
    to_do = unfilled_lines(file, function)
    starts = _statement_starts(file, function)
    found: dict[int, LineResult] = {}
    for name in (name for line in prescribed for name in line.names):
        steps = [step for step in trace.steps if step.name == name and step.value is not Ellipsis]
        right = [step for step in steps if same_array(step.value, reference[name])]
        if steps:
            step = (right or steps)[-1]
            line = starts.get(step.line, step.line)
            if right:
                result = LineResult(line, "", "ok")
            elif _right_by_itself(file, function, name, trace, reference):
                result = LineResult(line, "", "follows")
            else:
                result = _difference(line, name, step.value, reference[name])
            if line not in found or found[line].mark in ("ok", "follows"):
                found[line] = result
    for line in to_do:
        found[line] = LineResult(line, "", "to do")
    if error_line is not None and error_line not in to_do:
        line = starts.get(error_line, error_line)
        found[line] = LineResult(line, "", "error")
    rows = file.text.splitlines()
    return [
        LineResult(**{**vars(found.get(number, LineResult(number, ""))), "source": rows[number - 1].rstrip()})
        for number in file.lines_of(function)
    ]


class _Recorder:
    """Looks at the watched variables after each line, and notes what is new."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self.steps: list[Step] = []
        self.variables: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}
        self._line: int | None = None

    def watch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Take an event of the traced frame; a line's event comes before it runs."""
        if self._line is not None:
            values = frame.f_locals
            for name in self.names:
                if name in values and not (name in self._seen and _identical(self._seen[name], values[name])):
                    self._seen[name] = _kept(values[name])
                    self.steps.append(Step(name, self._line, self._seen[name]))
        if event == "line":
            self._line = frame.f_lineno
        else:
            self.variables = dict(frame.f_locals)
        return self.watch


def _code_of(function: Callable[..., Any]) -> CodeType | None:
    """Return the code of a function, under its decorators and partial applications."""
    function = getattr(function, "func", function)
    return getattr(inspect.unwrap(function), "__code__", None)


def _kept(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _identical(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return one.shape == two.shape and one.dtype == two.dtype and one.tobytes() == two.tobytes()
    return one is two


def _statement_starts(file: LearnerFile, function: str) -> dict[int, int]:
    """Return for each line of a function's assignments the first line of the statement it is in."""
    node = find_function(file.tree, function)
    statements = [] if node is None else [one for one in ast.walk(node) if isinstance(one, ast.Assign)]
    return {
        line: one.lineno
        for one in statements
        if any(bound_names(target) for target in one.targets)
        for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)
    }


def _right_by_itself(
    file: LearnerFile, function: str, name: str, trace: Trace, reference: Mapping[str, Any]
) -> bool:
    """Tell whether a variable's expression gives its right value where all other values are right."""
    node = find_function(file.tree, function)
    statements = [] if node is None else [one for one in ast.walk(node) if isinstance(one, ast.Assign)]
    found = [one for one in statements if any(name in bound_names(target) for target in one.targets)]
    if len(found) != 1 or len(found[0].targets) != 1:
        return False
    # Copies: the expression may write to what it is given. One dictionary for all names: inside of a
    # comprehension, eval does not see local variables.
    names = {**file.names, **_copied(trace.variables), **_copied(dict(reference))}
    try:
        value = eval(compile(ast.Expression(found[0].value), str(file.path), "eval"), names)
    except Exception:
        return False
    return same_array(_part(found[0].targets[0], value, name), reference[name])


def _copied(value: Any) -> Any:
    """Return a value with copies of all arrays in it, also of those in dictionaries, lists and tuples."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_copied(entry) for entry in value]
    if isinstance(value, tuple):
        entries = [_copied(entry) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    return value


def _part(target: ast.expr, value: Any, name: str) -> Any:
    """Return what an assignment of a value to a target gives to one of the target's names."""
    if isinstance(target, ast.Tuple):
        for element, part in zip(target.elts, value, strict=True):
            if name in bound_names(element):
                return part
    return value


def _difference(line: int, name: str, value: Any, reference: Any) -> LineResult:
    """Say how a value differs from the right one."""
    if value is None or not isinstance(value, np.ndarray | np.generic) or reference is None:
        expected = f"shape {np.shape(reference)}" if isinstance(reference, np.ndarray) else repr(reference)
        kind = "None" if value is None else f"{value!r} ({type(value).__name__})"
        return LineResult(line, "", "differs", f"{name} is {kind}; it must be {expected}", name)
    wanted = np.asarray(reference)
    if value.shape != wanted.shape:
        detail = f"{name} has shape {value.shape}; it must be {wanted.shape}"
        return LineResult(line, "", "wrong shape", detail, name)
    got, want = value.astype(float), wanted.astype(float)
    with np.errstate(invalid="ignore"):
        error = np.abs(got - want)
        error = np.where(np.isnan(error), np.inf, error)
    limit = tolerance(value, wanted) if value.dtype.kind == "f" and wanted.dtype.kind == "f" else 0.0
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))
    wrong, size = int(np.sum(error > limit)), error.size
    where = f"{name}{list(index)}" if index else name
    detail = f"{where} is {got[index]:.6g}; it must be {want[index]:.6g} ({wrong} of {size} wrong)"
    return LineResult(line, "", "differs", detail, name, index, _finite(got[index]), _finite(want[index]))


def _finite(value: Any) -> float | None:
    """Return a number that JSON can hold, None for NaN and infinities."""
    return float(value) if np.isfinite(value) else None
