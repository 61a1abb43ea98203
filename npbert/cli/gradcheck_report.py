"""One check that did not pass, for a terminal of 80 columns: the mistake, the figures, how to repeat it."""

import textwrap
from typing import TYPE_CHECKING

from npbert.cli.console import Style, printable, say

if TYPE_CHECKING:
    from npbert.gradcheck import Report, TensorResult

WIDTH = 78
MOST_TENSORS = 8  # that are shown in full; a wrong layer makes most tensors below it wrong
STATUS_STYLES: dict[str, Style] = {"passed": "good", "failed": "bad", "inconclusive": "bad", "skipped": "dim"}


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
    from npbert.gradcheck.wording import figures_of

    say(printable(f"  {row.name} {row.shape}: {row.status}"), STATUS_STYLES[row.status])
    if row.note:
        _say_wrapped(row.note, indent=4)
    figures = figures_of(row, rtol)
    width = max((len(name) for name, _ in figures), default=0)
    for name, value in figures:
        say(f"    {name:{width}}  {value}")


def _say_wrapped(text: str, style: Style = "", indent: int = 2) -> None:
    for line in textwrap.wrap(printable(text), WIDTH - indent) or [""]:
        say(" " * indent + line, style)
