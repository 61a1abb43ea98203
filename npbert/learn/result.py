"""What checking one of the learner's files found: plain data, that a program can read as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from npbert.learn.learner_file import Problem
from npbert.learn.tracing import LineResult

# not started: no file. to do: lines are left as "...". broken: no number needed to be compared.
Status = Literal["solved", "not started", "to do", "wrong", "broken"]


@dataclass(frozen=True)
class Result:
    """The state of an exercise.

    Attributes
    ----------
    name : str
        Of the exercise.
    status : {"solved", "not started", "to do", "wrong", "broken"}
    problem : Problem or None
        What is wrong by name, where something is.
    mistake : str
        The known mistake that the gradients equal: what it does. Empty if there is none.
    diagnosis : str
        Why it is one; where there is none, what the error looks like.
    lines : tuple of LineResult
        The learner's backward, judged line by line.
    report : dict or None
        The gradient check's report that failed, as `npbert.gradcheck.Report.to_dict` returns it.
    case : str
        Which arguments that report is about.
    notes : tuple of str
        What else there is to say.
    losses : tuple of float
        Of the training, for the exercise that has one.
    printed : str
        What the learner's code printed.
    """

    name: str
    status: Status
    problem: Problem | None = None
    mistake: str = ""
    diagnosis: str = ""
    lines: tuple[LineResult, ...] = ()
    report: dict[str, Any] | None = None
    case: str = ""
    notes: tuple[str, ...] = ()
    losses: tuple[float, ...] = field(default=())
    printed: str = ""

    @property
    def solved(self) -> bool:
        """Whether nothing is left to do."""
        return self.status == "solved"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as dictionaries, lists, strings and numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Result":
        """Return the result that `to_dict` took apart."""
        problem, lines = fields["problem"], fields["lines"]
        restored = {
            "problem": None if problem is None else Problem(**problem),
            "lines": tuple(LineResult(**{**line, "index": _tuple(line["index"])}) for line in lines),
            "notes": tuple(fields["notes"]),
            "losses": tuple(fields["losses"]),
        }
        return cls(**{**fields, **restored})


def _tuple(index: Any) -> tuple[int, ...] | None:
    return None if index is None else tuple(index)
