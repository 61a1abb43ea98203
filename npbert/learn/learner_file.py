"""The learner's file: reading it, running it, and saying by name what is wrong with it."""

import ast
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npbert.learn.exercise import find_function


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, where no number needs to be compared to see it.

    Attributes
    ----------
    kind : str
        The name of it, such as ``"syntax error"``, ``"wrong shape"``, ``"time limit"``.
    message : str
        What happened.
    line : int or None
        Where in the learner's file.
    source : str
        That line.
    """

    kind: str
    message: str
    line: int | None = None
    source: str = ""


class LearnerError(Exception):
    """Something in the learner's file that nothing can be checked after."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.kind}: {problem.message}")
        self.problem = problem


@dataclass(frozen=True)
class LearnerFile:
    """A learner's file that has been run.

    Attributes
    ----------
    path : Path
    text : str
        Its source.
    tree : ast.Module
        The source, parsed.
    names : dict
        Its global variables.
    """

    path: Path
    text: str
    tree: ast.Module
    names: dict[str, Any]

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function of the file.

        Raises
        ------
        LearnerError
            If there is none of that name.
        """
        found = self.names.get(name)
        if callable(found):
            return found  # type: ignore[no-any-return]
        raise LearnerError(Problem("missing function", f"there is no function {name} in the file"))

    def source_of(self, line: int | None) -> str:
        """Return one line, without the space around it."""
        rows = self.text.splitlines()
        return rows[line - 1].strip() if line is not None and 0 < line <= len(rows) else ""

    def lines_of(self, function: str) -> range:
        """Return the numbers of the lines of a function; none, if it is not defined as one."""
        node = find_function(self.tree, function)
        return range(0) if node is None else range(node.lineno, (node.end_lineno or node.lineno) + 1)


def run_file(path: Path) -> LearnerFile:
    """Read a learner's file, and run it as a module.

    Raises
    ------
    LearnerError
        If it cannot be read, is no Python, or raises.
    """
    text = _read(path)
    try:
        tree = ast.parse(text, str(path))
        code = compile(tree, str(path), "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise LearnerError(_syntax_error(error)) from error
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    file = LearnerFile(path, text, tree, names)
    try:
        exec(code, names)
    except BaseException as error:
        raise LearnerError(problem_of(error, file)) from error
    return file


def problem_of(error: BaseException, file: LearnerFile) -> Problem:
    """Describe an exception that the learner's code raised, with the last line of theirs on its way."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file.path) and frame.lineno is not None
    ]
    line = lines[-1] if lines else None
    if isinstance(error, RecursionError) and lines:  # which call was one too many is chance
        line = max(set(lines), key=lines.count)
    message = str(error).splitlines()
    text = f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
    kind = "exception"
    if isinstance(error, NameError):
        kind, text = "unknown name", str(error)
    elif isinstance(error, SystemExit):
        kind, text = "ends the program", "it calls sys.exit() or exit()"
    return Problem(kind, text, line, file.source_of(line))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is {error.object[error.start]:#04x}, which is not UTF-8"
        raise LearnerError(Problem("unreadable file", message)) from error
    except OSError as error:
        raise LearnerError(Problem("unreadable file", error.strerror or str(error))) from error


def _syntax_error(error: SyntaxError | ValueError | RecursionError) -> Problem:
    if not isinstance(error, SyntaxError):  # a null byte; brackets nested too deeply
        return Problem("syntax error", str(error))
    return Problem("syntax error", error.msg, error.lineno, (error.text or "").strip())
