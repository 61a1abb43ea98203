"""What a check found: plain data that prints itself, turns into JSON, or fails a test."""

import textwrap
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.gradcheck.diagnosis.finding import Diagnosis

Status = Literal["passed", "failed", "inconclusive", "skipped"]


class Entries(NamedTuple):
    """The coordinates of one tensor that were compared, side by side: what a heat map shows.

    Attributes
    ----------
    flat : (n,) ndarray of int64
        Where each is, in the tensor laid out in C order.
    gradient, reference : (n,) ndarray of float64
        The two values.
    error : (n,) ndarray of float64
        How far apart they are, relative to the norm of the reference's row.
    wrong : (n,) ndarray of bool
        Whether that is too far.
    """

    flat: NDArray[np.int64]
    gradient: NDArray[np.float64]
    reference: NDArray[np.float64]
    error: NDArray[np.float64]
    wrong: NDArray[np.bool_]


@dataclass(frozen=True)
class TensorResult:
    """The comparison of one gradient with its reference.

    Attributes
    ----------
    name : str
        The argument, or the key of the entry where the argument is a dictionary.
    shape : tuple of int
        Shape of the argument; ``dtype`` is its dtype as the caller passed it.
    status : {"passed", "failed", "inconclusive"}
        Inconclusive: the oracle's own uncertainty is larger than the tolerance, or the comparison proves
        nothing (see ``note``).
    max_error : float or None
        Largest error, relative to the norm of the reference's row (see `npbert.gradcheck.compare`).
        None where there was nothing to compare, as are the next four.
    worst_index : tuple of int or None
        Where that error is.
    gradient, reference : float or None
        The two values there.
    uncertainty : float or None
        The oracle's uncertainty there, absolute: ten times its error estimate plus the round-off floor.
    projection_error : float or None
        Largest relative error along random directions through the whole tensor; None where every
        coordinate was compared.
    fraction_wrong : float
        Of the compared coordinates, the fraction that is wrong.
    compared, size : int
        Number of coordinates compared, and that there are.
    oracle : str
        The oracle that gave the reference.
    structural_zero : bool
        True where the caller declared that this gradient is exactly zero.
    note : str
        What else there is to say, in words.
    diagnosis : str
        Which mistake the error looks like, in a sentence; empty where nothing is wrong.
    worst_output : tuple of int or None
        In Jacobian mode, the entry of the outputs whose derivative is shown: the number of the output, then
        the index in it.
    directions : int
        In directional mode, the number of directions compared.
    entries : Entries or None
        Every compared coordinate. Left out where reports are compared, printed or turned into dictionaries.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    status: Status
    max_error: float | None = None
    worst_index: tuple[int, ...] | None = None
    gradient: float | None = None
    reference: float | None = None
    uncertainty: float | None = None
    projection_error: float | None = None
    fraction_wrong: float = 0.0
    compared: int = 0
    size: int = 0
    oracle: str = ""
    structural_zero: bool = False
    note: str = ""
    diagnosis: str = ""
    worst_output: tuple[int, ...] | None = None
    directions: int = 0
    entries: Entries | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class CheckResult:
    """One named property of the pair, such as ``"inputs unmodified by forward"``.

    Attributes
    ----------
    name : str
        The property, the same words in every report.
    status : {"passed", "failed", "inconclusive", "skipped"}
        Skipped: it did not apply, ``detail`` says why.
    figure, limit : float or None
        The measured number and what it is held against, where the property has one.
    detail : str
        What happened, in words.
    """

    name: str
    status: Status
    figure: float | None = None
    limit: float | None = None
    detail: str = ""


class GradientCheckError(AssertionError):
    """Raised by `Report.raise_if_failed`; its text is the whole report."""


@dataclass(frozen=True)
class Report:
    """Everything that one call of `npbert.gradcheck.check` found.

    Attributes
    ----------
    subject : str
        The names of the two functions.
    tensors : tuple of TensorResult
        One a gradient, in the order of the arguments.
    checks : tuple of CheckResult
        The properties that hold for any correct pair, in the order in which they were tested.
    oracle : str
        ``"complex_step"``, ``"ridders"``, or ``""`` where the check ended before any oracle ran.
    rtol : float
        The tolerance of the comparison with the oracle.
    seed : int
        Seed of the cotangents, sampled coordinates and directions.
    evaluations : int
        How often the forward was run by the oracle.
    seconds : float
        Wall time.
    reproduce : str
        A line of Python that runs this check again.
    diagnoses : tuple of Diagnosis
        Which mistakes the wrong gradients look like, the most telling first.
    """

    subject: str
    tensors: tuple[TensorResult, ...]
    checks: tuple[CheckResult, ...]
    oracle: str
    rtol: float
    seed: int
    evaluations: int
    seconds: float
    reproduce: str
    diagnoses: tuple[Diagnosis, ...] = ()

    @property
    def status(self) -> Status:
        """``"failed"`` if anything failed, else ``"inconclusive"`` if anything was, else ``"passed"``."""
        found = {row.status for row in self.tensors} | {check.status for check in self.checks}
        if "failed" in found:
            return "failed"
        return "inconclusive" if "inconclusive" in found else "passed"

    @property
    def ok(self) -> bool:
        """True where everything passed: an inconclusive check is not a proof."""
        return self.status == "passed"

    @property
    def max_error(self) -> float | None:
        """The largest relative error of any tensor, along projections too; None where none was compared."""
        errors = [error for row in self.tensors for error in (row.max_error, row.projection_error)]
        return max((error for error in errors if error is not None), default=None)

    @property
    def diagnosis(self) -> str:
        """The most telling diagnosis, in a sentence; empty where no gradient is wrong."""
        return self.diagnoses[0].sentence if self.diagnoses else ""

    @property
    def failures(self) -> tuple[str, ...]:
        """The names of the tensors and checks that failed or were inconclusive."""
        checks = [check.name for check in self.checks if _matters(check.status)]
        return (*checks, *(row.name for row in self.tensors if _matters(row.status)))

    def __bool__(self) -> bool:
        """Return `ok`, so that ``assert check(...)`` does what it says."""
        return self.ok

    def raise_if_failed(self) -> None:
        """Raise `GradientCheckError`, with the report as its text, unless everything passed."""
        if not self.ok:
            raise GradientCheckError(f"\n{self}")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dictionaries, lists, strings and numbers that ``json.dumps`` accepts.

        Numbers that JSON cannot hold (NaN, infinities) become strings.
        """
        summary = {"status": self.status, "max_error": self.max_error, "diagnosis": self.diagnosis}
        # Without the entries, of which asdict would copy every array.
        found = asdict(replace(self, tensors=tuple(replace(row, entries=None) for row in self.tensors)))
        for row in found["tensors"]:
            del row["entries"]
        return {key: _jsonable(value) for key, value in {**summary, **found}.items()}

    def to_html(self) -> str:
        """Return the report as a page with heat maps of the errors, to be written to a file and opened.

        See `npbert.gradcheck.html.page` for several reports on one page.
        """
        from npbert.gradcheck.html import page

        return page([self])

    def __str__(self) -> str:
        error = "" if self.max_error is None else f", worst relative error {self.max_error:.1e}"
        how = f"{self.oracle.replace('_', ' ') or 'no oracle'}, rtol {self.rtol:.0e}, seed {self.seed}"
        lines = [f"{self.subject}: {self.status.upper()}{error} ({how}, {self.seconds:.2f} s)"]
        if self.tensors:
            lines += ["", *_columns([_TENSOR_HEADER, *map(_tensor_cells, self.tensors)])]
        sentences = [diagnosis.sentence for diagnosis in self.diagnoses]
        lines += ["", *_paragraphs("diagnosis: ", sentences)] if sentences else []
        notes = [f"{row.name}: {row.note}" for row in self.tensors if row.note]
        if notes:
            lines += ["", *(f"  {note}" for note in notes)]
        plain = [check for check in self.checks if check.status == "passed" and check.figure is None]
        telling = [_check_cells(check) for check in self.checks if check not in plain]
        lines += ["", *_columns(telling)] if telling else []
        if plain:
            names = "passed: " + ", ".join(check.name for check in plain)
            lines += ["", *textwrap.wrap(names, 108, initial_indent="  ", subsequent_indent="          ")]
        lines += ["", f"  reproduce: {self.reproduce}"]
        return "\n".join(lines)


_TENSOR_HEADER = [
    "tensor",
    "shape",
    "status",
    "error",
    "at",
    "gradient",
    "reference",
    "±",
    "wrong",
    "compared",
]


def _tensor_cells(row: TensorResult) -> list[str]:
    """Return the cells of one line of the table of tensors."""
    return [
        row.name,
        str(row.shape),
        row.status,
        _number(row.projection_error if row.directions else row.max_error, ".1e"),
        _place(row),
        _number(row.gradient, ".9g"),
        _number(row.reference, ".9g"),
        _number(row.uncertainty, ".0e"),
        f"{row.fraction_wrong:.0%}",
        f"{row.directions} directions" if row.directions else f"{row.compared} of {row.size}",
    ]


def _place(row: TensorResult) -> str:
    """Return where the worst error is: the entry, and in Jacobian mode of which output's derivative."""
    if row.worst_index is None:
        return ""
    entry = str(list(row.worst_index))
    return entry if row.worst_output is None else f"{entry} of output {list(row.worst_output)}"


def _check_cells(check: CheckResult) -> list[str]:
    """Return the cells of one line of the list of properties."""
    figure = "" if check.figure is None else f"{check.figure:.3g}"
    limit = "" if check.limit is None else f"(limit {check.limit:.3g})"
    return [check.status, check.name, figure, limit, check.detail]


def _columns(rows: list[list[str]]) -> list[str]:
    """Align cells in columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _paragraphs(label: str, texts: list[str]) -> list[str]:
    """Wrap texts, each behind a label."""
    indent = " " * (len(label) + 2)
    return [
        line
        for text in texts
        for line in textwrap.wrap(text, 108, initial_indent=f"  {label}", subsequent_indent=indent)
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _matters(status: Status) -> bool:
    return status in ("failed", "inconclusive")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value
