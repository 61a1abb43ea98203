"""What the benchmarks on a CPU find, as tables, as a plot, or as JSON."""

import argparse
import json
from collections.abc import Sequence
from typing import Final

from npbert.bench.comparison import FLOOR, Comparison, Report
from npbert.bench.contest import Outcome
from npbert.bench.machine import Machine
from npbert.cli.console import Cell, Column, Styled, heading, say, table
from npbert.cli.errors import FAILED, OK

COLUMNS: Final = (
    Column("who"),
    Column("ms", "right"),
    Column("p10 to p90", "right"),
    Column("tokens/s", "right"),
    Column("GFLOP/s", "right"),
    Column("times the first", "right"),
    Column("p10 to p90", "right"),
    Column("peak MB", "right"),
)
METHOD_ALONE: Final = """\
Medians, and between which values the middle 80 % are. Contenders take turns; a time is divided by that of the
first one in the same round."""
METHOD: Final = """\
Results are checked before anything is timed; what is wrong is not timed. Medians, and between which values
the middle 80 % are. Contenders take turns; a time is divided by that of the first one in the same round.
GFLOP/s counts the matrix products that are needed, for all alike; the floor computes only them."""


def show(
    benchmark: str,
    arguments: argparse.Namespace,
    machine: Machine,
    comparisons: Sequence[Comparison],
    missing: dict[str, str],
    method: str = METHOD,
    growing: Sequence[str] = (),
    one_table_each: str = "",
) -> int:
    """Print what was found, plot it if asked to, and return the exit code: 1 if npbert itself is wrong.

    Parameters
    ----------
    benchmark : str
        The command.
    arguments : argparse.Namespace
        With ``json`` and ``plot``.
    machine : Machine
    comparisons : sequence of Comparison
    missing : dict of str to str
        Who could not take part, and why.
    method : str
        How it was measured.
    growing : sequence of str
        What grows from comparison to comparison, if that is the point: one table and one plot for each.
    one_table_each : str
        The name of a fact: all comparisons that have it in common are shown in one table, a row each.
    """
    report = Report(benchmark, machine, method, list(comparisons), missing)
    if arguments.plot is not None:
        from npbert.bench.plot import plot_growth, plot_report, plot_rows

        if growing:
            plot_growth(report, arguments.plot, growing)
        elif one_table_each:
            plot_rows(report, arguments.plot, one_table_each)
        else:
            plot_report(report, arguments.plot)
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _say_machine(report.machine)
        if growing:
            _show_growth(report, growing)
        elif one_table_each:
            _show_in_tables(report, one_table_each)
        else:
            for comparison in report.comparisons:
                heading(comparison.title)
                _show_comparison(comparison)
        say()
        for name, why in report.missing.items():
            say(f"{name}: {why}")
        say(report.method, "dim")
        if arguments.plot is not None:
            say(f"\nPlot: {arguments.plot}")
    failed = any(
        outcome.failure and outcome.name.startswith("npbert")
        for comparison in report.comparisons
        for outcome in comparison.outcomes
    )
    return FAILED if failed else OK


def _say_machine(machine: Machine) -> None:
    load = "" if machine.load is None else f", load {machine.load:.1f} before the start"
    say(f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads each{load}", "strong")
    for library in machine.blas:
        say(f"NumPy's products: {library}")
    say(", ".join(f"{name} {version}" for name, version in machine.versions.items()))


def _show_comparison(comparison: Comparison) -> None:
    rows = [_row(comparison, outcome) for outcome in comparison.outcomes]
    # Columns that nothing can be said about are left out.
    kept = [number for number in range(len(COLUMNS)) if number < 2 or any(row[number] for row in rows)]
    table([COLUMNS[number] for number in kept], [[row[number] for number in kept] for row in rows])
    _say_failures(comparison)


def _show_growth(report: Report, growing: Sequence[str]) -> None:
    for parameter in growing:
        found = [one for one in report.comparisons if one.facts["grows"] == parameter]
        heading(f"Growing: {parameter}")
        rows = [
            [str(one.facts[parameter]) if number == 0 else "", *_row(one, outcome)]
            for one in found
            for number, outcome in enumerate(one.outcomes)
        ]
        table([Column(parameter, "right"), *COLUMNS[:-1]], [row[:-1] for row in rows])
        for one in found:
            _say_failures(one, f"{one.title}, ")


def _show_in_tables(report: Report, fact: str) -> None:
    for value in dict.fromkeys(one.facts[fact] for one in report.comparisons):
        found = [one for one in report.comparisons if one.facts[fact] == value]
        names = list(dict.fromkeys(outcome.name for one in found for outcome in one.outcomes))
        heading(f"{value}: ms, and times the first of a row")
        table(
            [Column("what"), *(Column(name, "right") for name in names)],
            [[one.title.removesuffix(f", {value}"), *_cells(one, names)] for one in found],
        )
        for one in found:
            _say_failures(one, f"{one.title}, ")


def _cells(comparison: Comparison, names: Sequence[str]) -> list[Cell]:
    outcomes = {outcome.name: outcome for outcome in comparison.outcomes}
    cells: list[Cell] = []
    for name in names:
        outcome = outcomes.get(name)
        seconds = None if outcome is None else comparison.summary(outcome)
        if outcome is None or seconds is None:
            cells.append("" if outcome is None else Styled("not timed", "bad"))
            continue
        ratio = comparison.ratio(outcome)
        is_faster_peer = ratio is not None and ratio.median < 1 and name != FLOOR
        text = _milliseconds(seconds.median)
        if name != comparison.base and ratio is not None:
            text += f"  {ratio.median:5.2f}"
        cells.append(Styled(text, "bad") if is_faster_peer else text)
    return cells


def _say_failures(comparison: Comparison, prefix: str = "") -> None:
    for outcome in comparison.outcomes:
        if outcome.failure:
            say(f"{prefix}{outcome.name}: {outcome.failure}", "bad")


def _row(comparison: Comparison, outcome: Outcome) -> list[Cell]:
    seconds, ratio = comparison.summary(outcome), comparison.ratio(outcome)
    peak = comparison.peak_bytes.get(outcome.name)
    megabytes = "" if peak is None else f"{peak / 1e6:.0f}"
    if seconds is None:
        return [outcome.name, Styled("not timed", "bad"), "", "", "", "", "", megabytes]
    is_base = outcome.name == comparison.base
    return [
        outcome.name,
        _milliseconds(seconds.median),
        f"{_milliseconds(seconds.p10)} to {_milliseconds(seconds.p90)}",
        f"{comparison.tokens / seconds.median:,.0f}" if comparison.tokens else "",
        f"{comparison.flops / seconds.median / 1e9:.0f}" if comparison.flops else "",
        "" if ratio is None else f"{ratio.median:.2f}",
        "" if ratio is None or is_base else f"{ratio.p10:.2f} to {ratio.p90:.2f}",
        megabytes,
    ]


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
