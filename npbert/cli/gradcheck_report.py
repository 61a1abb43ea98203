"""One check that did not pass, for a terminal of 80 columns: the mistake, the figures, how to repeat it."""

import textwrap
from typing import TYPE_CHECKING

from npbert.cli.console import Style, printable, say

if TYPE_CHECKING:
    from npbert.gradcheck import Report, TensorResult

WIDTH = 78
MOST_TENSORS = 8  # that are shown in full; a wrong layer makes most tensors below it wrong
STATUS_STYLES: dict[str, Style] = {"passed": "good", "failed": "bad", "inconclusive": "bad", "skipped": "dim"}
ORACLES = {"complex_step": "complex step", "ridders": "Ridders", "": "none"}


def show(report: "Report") -> None:
    """Print one report."""
    say()
    say(printable(f"{report.subject}: {report.status.upper()}"), STATUS_STYLES[report.status])
    for diagnosis in report.diagnoses:
        _say_wrapped(diagnosis.sentence, "strong")
    unproven = [row for row in report.tensors if row.status != "passed"]
    for row in unproven[:MOST_TENSORS]:
        _show_tensor(row, report.rtol)
    if len(unproven) > MOST_TENSORS:
        others = ", ".join(row.name for row in unproven[MOST_TENSORS:])
        _say_wrapped(f"and {len(unproven) - MOST_TENSORS} more: {others}")
    for check in report.checks:
        if check.status not in ("passed", "skipped"):
            figure = "" if check.figure is None else f": {check.figure:.3g}"
            limit = "" if check.limit is None else f" (limit {check.limit:.3g})"
            detail = f": {check.detail}" if check.detail else ""
            _say_wrapped(f"{check.status}: {check.name}{figure}{limit}{detail}", STATUS_STYLES[check.status])
    say(f"  reproduce: {printable(report.reproduce)}")


def _show_tensor(row: "TensorResult", rtol: float) -> None:
    """Print where one gradient is wrong, both values, the oracle and its own error, and how much is wrong."""
    say(printable(f"  {row.name} {row.shape}: {row.status}"), STATUS_STYLES[row.status])
    if row.note:
        _say_wrapped(row.note, indent=4)
    if row.worst_index is None or row.gradient is None or row.reference is None:
        return
    uncertainty = f" ± {row.uncertainty:.0e}" if row.uncertainty else ""
    facts = [
        ("worst entry", str(list(row.worst_index))),
        ("gradient", f"{row.gradient:.9g}"),
        ("reference", f"{row.reference:.9g}{uncertainty}, by {ORACLES.get(row.oracle, row.oracle)}"),
        ("error", f"{row.max_error:.1e} of the norm of its row; tolerance {rtol:.0e}"),
        ("wrong", f"{row.fraction_wrong:.0%} of {row.compared} compared entries, of {row.size} in all"),
    ]
    if row.projection_error is not None:
        facts.append(("along random directions", f"{row.projection_error:.1e}"))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        say(f"    {name:{width}}  {value}")


def _say_wrapped(text: str, style: Style = "", indent: int = 2) -> None:
    for line in textwrap.wrap(printable(text), WIDTH - indent) or [""]:
        say(" " * indent + line, style)
