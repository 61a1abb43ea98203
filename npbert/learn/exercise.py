"""What an exercise is, and how the file that a learner gets is made from its solution."""

import ast
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

NO_LINES: Mapping[str, str] = MappingProxyType({})
INSTRUCTIONS = """\
Replace each ... below by one expression, from the top down. Keep the names: the
checker compares every one of them with its right value. Further lines and names
of your own are welcome. Check this file, or have it checked whenever you save
it, or get a hint (1, then 2, then 3; --solution shows the answer):

    npbert learn {command}
    npbert learn {command} --watch
    npbert learn {command} --hint 1"""


class PrescribedLine(NamedTuple):
    """A line of a backward that the learner is to write: ``target = value  # (shape)``."""

    target: str  # what is left of the equals sign
    names: tuple[str, ...]  # the names in it
    line: int  # counted from 1


@dataclass(frozen=True)
class WrongAnswer:
    """A mistake that people make, as the lines of the solution that it changes.

    Attributes
    ----------
    name : str
        What the backward does, as a verb: ``"forgets the mean term"``.
    description : str
        Why that is wrong; the sentence a learner is told.
    symptom : str
        How a gradient check shows it: ``"dx is wrong in every row, by one number a row"``.
    lines : mapping of str to str
        The right-hand sides that differ from the solution's, by their targets.
    """

    name: str
    description: str
    symptom: str
    lines: Mapping[str, str]


@dataclass(frozen=True)
class Exercise:
    """A forward that is given, and a backward to be written.

    Attributes
    ----------
    name : str
        As it is called on the command line.
    title : str
        What the function is, in a few words.
    formula : str
        Formula and shapes, as the learner reads them.
    solution : str
        Python source of the forward and the backward. In the backward, a line that ends in a comment with
        a shape is for the learner to write.
    function : str
        The two are called ``<function>_forward`` and ``<function>_backward``.
    hints : tuple of str
        Three: the idea, the derivation, nearly the code.
    cases : callable
        Returns the tuples of arguments at which the backward is checked.
    wrong_answers : tuple of WrongAnswer
    remember : str
        What to take along, said when it is solved.
    structural_zeros : tuple of str
        Gradients that are zero by construction.
    takes_ops : bool
        Whether both functions take a last argument ``ops``: the learner's earlier functions.
    differentiable : callable, optional
        Takes the forward and a case's arguments, and returns the function that the backward is the derivative
        of, where that is not the forward itself: where something is held constant by decision.
    """

    name: str
    title: str
    formula: str
    solution: str
    function: str
    hints: tuple[str, str, str]
    cases: Callable[[], Sequence[tuple[Any, ...]]]
    wrong_answers: tuple[WrongAnswer, ...]
    remember: str
    structural_zeros: tuple[str, ...] = ()
    takes_ops: bool = False
    differentiable: Callable[[Callable[..., Any], tuple[Any, ...]], Callable[..., Any]] | None = None

    @property
    def forward_name(self) -> str:
        """The name of the function that is given."""
        return f"{self.function}_forward"

    @property
    def backward_name(self) -> str:
        """The name of the function to be written."""
        return f"{self.function}_backward"

    @property
    def file_name(self) -> str:
        """The name of the learner's file."""
        return f"{self.name.replace('-', '_')}.py"

    def stub(self) -> str:
        """Return the file that a learner starts from."""
        targets = [line.target for line in prescribed_lines(self.solution, self.backward_name)]
        return self.source(dict.fromkeys(targets, "..."))

    def source(self, lines: Mapping[str, str] = NO_LINES) -> str:
        """Return a whole file: the solution, with other right-hand sides for some of its lines.

        Parameters
        ----------
        lines : mapping of str to str
            By the targets of the lines.
        """
        opening = f'"""Exercise {self.name}: {self.title}.\n\n{self.formula.strip()}\n\n'
        header = f'{opening}{INSTRUCTIONS.format(command=self.name)}\n"""\n\n'
        return header + replace_lines(self.solution.lstrip(), self.backward_name, lines)

    def wrong_answer(self, name: str) -> WrongAnswer:
        """Return the wrong answer of a name."""
        return next(wrong for wrong in self.wrong_answers if wrong.name == name)


def prescribed_lines(source: str, function: str) -> list[PrescribedLine]:
    """Return the lines of a function that a learner is to write: those with a shape at their end.

    Parameters
    ----------
    source : str
        Python source.
    function : str
        Name of the function.

    Examples
    --------
    >>> prescribed_lines("def f(dy, cache):\\n    x = cache\\n    dx = dy * x  # (D,)\\n    return dx", "f")
    [PrescribedLine(target='dx', names=('dx',), line=3)]
    """
    rows = source.splitlines()
    return [
        PrescribedLine(_target(statement), bound_names(statement.targets[0]), statement.lineno)
        for statement in _assignments(source, function)
        if "  # (" in rows[statement.lineno - 1]
    ]


def replace_lines(source: str, function: str, lines: Mapping[str, str]) -> str:
    """Return source in which some assignments of a function have other right-hand sides.

    Parameters
    ----------
    source : str
        Python source; the assignments are one line each.
    function : str
        Name of the function.
    lines : mapping of str to str
        The new right-hand sides by the targets of the assignments.

    Raises
    ------
    ValueError
        If the function has no such assignment.
    """
    rows = source.splitlines()
    missing = dict(lines)
    for statement in _assignments(source, function):
        target = _target(statement)
        if target in missing:
            value, row = statement.value, rows[statement.lineno - 1]
            rows[statement.lineno - 1] = (
                row[: value.col_offset] + missing.pop(target) + row[value.end_col_offset :]
            )
    if missing:
        raise ValueError(f"{function} has no line for {', '.join(missing)}")
    return "\n".join(rows) + "\n"


def bound_names(target: ast.expr) -> tuple[str, ...]:
    """Return the variables that an assignment's target binds or writes into, without ``_``.

    Examples
    --------
    >>> bound_names(ast.parse("dq, rows[ids], _ = 1, 2, 3").body[0].targets[0])
    ('dq', 'rows')
    """
    if isinstance(target, ast.Name):
        return () if target.id == "_" else (target.id,)
    if isinstance(target, ast.Tuple | ast.List):
        return tuple(name for element in target.elts for name in bound_names(element))
    if isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
        return bound_names(target.value)
    return ()


def find_function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """Return the top-level function of a name; the last one, as Python does."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[-1] if found else None


def closest(name: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean ...?"`` where a known name looks like the given one, else an empty text."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _assignments(source: str, function: str) -> list[ast.Assign]:
    found = find_function(ast.parse(source), function)
    assert found is not None
    return [statement for statement in found.body if isinstance(statement, ast.Assign)]


def _target(statement: ast.Assign) -> str:
    return ast.unparse(statement.targets[0]).strip("()")
