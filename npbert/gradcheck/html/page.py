"""The page: whether all is well, a table of the checks, and then each of them in full."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from npbert.gradcheck.html.markup import (
    SYMBOLS,
    Cell,
    Column,
    badge,
    code,
    count,
    number,
    table,
    text,
)
from npbert.gradcheck.html.section import section
from npbert.gradcheck.report import Report
from npbert.gradcheck.wording import oracle_name

HERE = Path(__file__).parent
COLUMNS = (
    Column("Check"),
    Column("Status"),
    Column("Gradients", is_number=True),
    Column("Oracle"),
    Column("Worst error", is_number=True),
    Column("Worst gradient"),
    Column("Seconds", is_number=True),
)


def page(reports: Iterable[Report | tuple[str, Report]], title: str = "Gradient check") -> str:
    """Return reports as one HTML page.

    Parameters
    ----------
    reports : iterable of Report, or of (str, Report)
        With a name, where the report's own subject does not tell them apart.
    title : str
        What stands at its top.

    Returns
    -------
    str
        The whole page. It loads nothing, and its content security policy forbids it to.

    Examples
    --------
    >>> from npbert.gradcheck import check
    >>> report = check(lambda x: (x**2, x), lambda dy, x: 2 * x * dy, (np.array([1.0, -2.0]),))
    >>> page([("square", report)]).startswith("<!doctype html>")
    True
    """
    named = [(report.subject, report) if isinstance(report, Report) else report for report in reports]
    script = (HERE / "page.js").read_text(encoding="utf-8")
    style = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Names come from anyone's code. They are escaped; if one slipped through, this would keep it inert.
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title>\n<style>{style}</style></head>\n<body>\n",
        _header(title, named),
        "<main>\n",
        _summary(named),
        *(section(name, report, _anchor(place)) for place, (name, report) in enumerate(named)),
        f"</main>\n{_footer()}<script>{script}</script>\n</body></html>\n",
    ]
    return "".join(parts)


def _header(title: str, named: Sequence[tuple[str, Report]]) -> str:
    """Return the verdict, and of what is not proven the name and what it looks like."""
    status, verdict = _verdict([report for _, report in named])
    gradients = count(sum(len(report.tensors) for _, report in named), "gradient")
    seconds = sum(report.seconds for _, report in named)
    items = "".join(
        f'<li>{badge(report.status)} <a href="#{_anchor(place)}">{code(name)}</a> '
        f"{text(_headline(report))}</li>"
        for place, (name, report) in enumerate(named)
        if not report.ok
    )
    items = f'<ul class="unproven">{items}</ul>' if items else ""
    return (
        f'<header><h1>{text(title)}</h1><p class="verdict {status}">'
        f'<span aria-hidden="true">{SYMBOLS[status]}</span> {verdict}</p>'
        f"<p>{gradients}, {seconds:.1f} s. The error of an entry is how far it is from the oracle’s value, "
        f"relative to the norm of its row.</p>{items}</header>\n"
    )


def _verdict(reports: Sequence[Report]) -> tuple[str, str]:
    """Return a status for all reports together, and the sentence that goes with it."""
    unproven = [report for report in reports if not report.ok]
    if unproven:
        failed = any(report.status == "failed" for report in unproven)
        verdict = f"{len(unproven)} of {count(len(reports), 'check')} not proven"
        return "failed" if failed else "inconclusive", verdict
    if not reports:
        return "inconclusive", "Nothing was checked"
    if len(reports) == 1:
        return "passed", "Proven"
    return "passed", f"All {len(reports)} checks proven"


def _headline(report: Report) -> str:
    """Return what the mistake looks like, else the names of what failed."""
    return report.diagnosis or ", ".join(report.failures[:3]) + (" …" if len(report.failures) > 3 else "")


def _summary(named: Sequence[tuple[str, Report]]) -> str:
    rows = [_summary_row(name, report, _anchor(place)) for place, (name, report) in enumerate(named)]
    return (
        '<section id="summary"><h2>Summary</h2><div id="controls" hidden></div>'
        f"{table(COLUMNS, rows, label='Summary')}</section>\n"
    )


def _summary_row(name: str, report: Report, anchor: str) -> list[str | Cell]:
    error = report.max_error
    worst = [
        row for row in report.tensors if error is not None and error in (row.max_error, row.projection_error)
    ]
    return [
        f'<a href="#{anchor}">{code(name)}</a>',
        Cell(badge(report.status), str(list(SYMBOLS).index(report.status))),
        str(len(report.tensors)),
        text(oracle_name(report.oracle)),
        Cell(number(error, ".1e"), number(error, ".17g")),
        code(worst[0].name) if worst else "",
        f"{report.seconds:.2f}",
    ]


def _footer() -> str:
    from npbert import __version__

    return f"<footer><p>npbert {text(__version__)}, NumPy {text(np.__version__)}</p></footer>\n"


def _anchor(place: int) -> str:
    return f"check-{place}"
