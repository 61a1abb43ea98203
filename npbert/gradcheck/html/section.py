"""One check in full: its heat maps, what is wrong in words, its properties, and how to run it again."""

import numpy as np

from npbert.gradcheck.html.heat_map import LEVELS, NO_ERROR, NOT_FINITE, grid_of, heat_map
from npbert.gradcheck.html.markup import (
    SYMBOLS,
    Column,
    badge,
    code,
    count,
    facts,
    number,
    table,
    text,
)
from npbert.gradcheck.report import CheckResult, Report, TensorResult
from npbert.gradcheck.wording import figures_of, oracle_name

MOST_CELLS = (64, 96)  # rows and columns of the heat map of a tensor that is not proven
MOST_CELLS_OF_PROVEN = (16, 32)  # there is nothing to find in these: smaller pages
WORST_ENTRIES = 10

GRADIENT_COLUMNS = (
    Column("Gradient of"),
    Column("Shape"),
    Column("Status"),
    Column("Error", is_number=True),
    Column("At"),
    Column("Gradient", is_number=True),
    Column("Reference", is_number=True),
    Column("Wrong", is_number=True),
    Column("Compared", is_number=True),
)
ENTRY_COLUMNS = (
    Column("Entry"),
    Column("Gradient", is_number=True),
    Column("Reference", is_number=True),
    Column("Error", is_number=True),
)
PROPERTY_COLUMNS = (
    Column("Property"),
    Column("Status"),
    Column("Figure", is_number=True),
    Column("Limit", is_number=True),
    Column("Finding"),
)


def section(name: str, report: Report, anchor: str) -> str:
    """Return everything about one check, folded where there is nothing to look into."""
    by_interest = sorted(report.tensors, key=lambda row: list(SYMBOLS).index(row.status))
    figures = "".join(_figure(row, report.rtol) for row in by_interest)
    about = [
        ("Oracle", oracle_name(report.oracle)),
        ("Tolerance", f"{report.rtol:.0e}"),
        ("Seed", str(report.seed)),
        ("Evaluations of the forward", str(report.evaluations)),
        ("Seconds", f"{report.seconds:.2f}"),
    ]
    parts = [
        f'<details class="check" id="{anchor}"{"" if report.ok else " open"}>',
        f"<summary><h2>{badge(report.status)} {code(name)}</h2></summary>",
        facts(about),
        _legend(report.rtol) if "<svg" in figures else "",
        f'<div class="figures">{figures}</div>',
        _gradients(report.tensors),
        _properties(report.checks),
        '<h3>Run it again</h3><div class="reproduce"><pre tabindex="0" aria-label="Line that runs it again">',
        f"<code>{text(report.reproduce)}</code></pre></div></details>\n",
    ]
    return "".join(parts)


def _legend(rtol: float) -> str:
    """Return what the colours of the heat maps of one check mean, which depends on its tolerance."""
    swatches = [(NO_ERROR, "0")]
    swatches += [(name, f"≤ {10.0**most * rtol:.0e}") for name, most in LEVELS[:-1]]
    swatches += [(LEVELS[-1][0], "more"), (NOT_FINITE, "not finite"), ("no", "not compared")]
    items = "".join(
        f'<li{" class=limit" if name == "b5" else ""}><i class="{name}"></i>{label}</li>'
        for name, label in swatches
    )
    return (
        f'<p class="legend-title">Relative error of an entry: blue within the tolerance of {rtol:.0e}, '
        f'yellow to red beyond it. The arrows point at the worst entry.</p><ul class="legend">{items}</ul>'
    )


def _figure(row: TensorResult, rtol: float) -> str:
    """Return one tensor: the picture and, where it is not proven, what is wrong."""
    proven = row.status == "passed"
    most_cells = MOST_CELLS_OF_PROVEN if proven else MOST_CELLS
    picture = heat_map(row, rtol, *most_cells)
    if proven and not picture:
        return ""
    layout = f"{row.shape} {row.dtype}"
    if len(row.shape) > 2:
        layout += f", rows are axes 0 to {len(row.shape) - 2}, columns the last"
    caption = f"<figcaption>{badge(row.status)} {code(row.name)} <small>{text(layout)}</small></figcaption>"
    if picture:
        picture += _remark(row, most_cells)
    if proven:
        return f"<figure>{caption}{picture}</figure>"
    return f'<figure class="unproven">{caption}{_findings(row, rtol)}{picture}{_worst_entries(row)}</figure>'


def _findings(row: TensorResult, rtol: float) -> str:
    """Return in words what the mistake looks like, and how far off the worst entry is."""
    words = f'<p class="diagnosis">{text(row.diagnosis)}</p>' if row.diagnosis else ""
    words += f"<p>{text(row.note)}</p>" if row.note else ""
    figures = [(name[0].upper() + name[1:], value) for name, value in figures_of(row, rtol)]
    return words + facts(figures)


def _remark(row: TensorResult, most_cells: tuple[int, int]) -> str:
    """Say what a picture does not show: entries that were not compared, cells that are blocks."""
    grid = grid_of(row.shape, *most_cells)
    remarks = []
    if row.compared < row.size:
        remarks.append(f"a sample: {row.compared} of {row.size} entries compared")
    if grid.is_reduced:
        remarks.append(f"a cell is the worst of {grid.block_height} × {grid.block_width} entries")
    return f'<p class="remark">{"; ".join(remarks)}</p>' if remarks else ""


def _worst_entries(row: TensorResult) -> str:
    """Return the worst entries as a table: the picture in text, for whoever cannot see it or point at it."""
    entries = row.entries
    if entries is None or not entries.flat.size:
        return ""
    severity = np.where(np.isfinite(entries.error), entries.error, np.inf)
    worst = np.argsort(-severity, kind="stable")[:WORST_ENTRIES]
    rows = [
        [
            str([int(i) for i in np.unravel_index(entries.flat[n], row.shape)]),
            f"{entries.gradient[n]:.9g}",
            f"{entries.reference[n]:.9g}",
            f"{entries.error[n]:.1e}",
        ]
        for n in worst
    ]
    found = table(ENTRY_COLUMNS, rows, label=f"Worst entries of {row.name}")
    return f"<details><summary>The worst {count(len(worst), 'entry', 'entries')}</summary>{found}</details>"


def _gradients(tensors: tuple[TensorResult, ...]) -> str:
    if not tensors:
        return "<p>The check ended before any gradient was compared.</p>"
    rows = [
        [
            code(row.name),
            str(row.shape),
            badge(row.status),
            number(row.max_error, ".1e"),
            "" if row.worst_index is None else str(list(row.worst_index)),
            number(row.gradient, ".9g"),
            number(row.reference, ".9g"),
            f"{row.fraction_wrong:.0%}",
            f"{row.compared} of {row.size}",
        ]
        for row in tensors
    ]
    # The notes of the others stand beside their pictures.
    notes = [row for row in tensors if row.note and row.status == "passed"]
    items = "".join(f"<li>{code(row.name)}: {text(row.note)}</li>" for row in notes)
    return f"<h3>Gradients</h3>{table(GRADIENT_COLUMNS, rows, label='Gradients')}" + (
        f"<ul>{items}</ul>" if items else ""
    )


def _properties(checks: tuple[CheckResult, ...]) -> str:
    """Return the properties as a table; those that passed without a figure in one sentence."""
    plain = [check for check in checks if check.status == "passed" and check.figure is None]
    rows = [
        [
            text(check.name),
            badge(check.status),
            number(check.figure, ".3g"),
            number(check.limit, ".3g"),
            text(check.detail),
        ]
        for check in checks
        if check not in plain
    ]
    found = table(PROPERTY_COLUMNS, rows, label="Properties") if rows else ""
    also = f"<p>{badge('passed')} {text(', '.join(check.name for check in plain))}.</p>" if plain else ""
    return f"<h3>Properties of any right pair</h3>{found}{also}"
