"""Plots of what benchmarks find, with matplotlib, which is imported only here."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from npbert.bench.comparison import Comparison, Report
from npbert.checkpoint import replacing_files

COLUMNS = 3


def plot_report(report: Report, path: Path) -> None:
    """Write a plot of a report: for each piece of work, how long everyone took, next to the first contender.

    Parameters
    ----------
    report : Report
    path : Path
        Its ending says the format.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If matplotlib does not know the format.
    """
    shown = [comparison for comparison in report.comparisons if any(o.seconds for o in comparison.outcomes)]
    columns = min(COLUMNS, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = _new_figure(columns, rows)
    for number, comparison in enumerate(shown):
        _plot_ratios(figure.add_subplot(rows, columns, number + 1), comparison)
    _finish(figure, report, path)


def plot_growth(report: Report, path: Path, parameters: Sequence[str]) -> None:
    """Write a plot of cost against size: for each parameter, seconds over its value, one line a contender.

    Parameters
    ----------
    report : Report
        Comparisons that have the parameter in ``facts["grows"]``.
    path : Path
    parameters : sequence of str
        One plot each.
    """
    figure = _new_figure(len(parameters), 1)
    for number, parameter in enumerate(parameters):
        axes = figure.add_subplot(1, len(parameters), number + 1)
        grown = [one for one in report.comparisons if one.facts["grows"] == parameter]
        for name in dict.fromkeys(outcome.name for one in grown for outcome in one.outcomes):
            points = [
                (one.facts[parameter], summary)
                for one in grown
                for outcome in one.outcomes
                if outcome.name == name and (summary := one.summary(outcome)) is not None
            ]
            sizes = [size for size, _ in points]
            axes.plot(sizes, [1e3 * seconds.median for _, seconds in points], marker="o", label=name)
            axes.fill_between(
                sizes,
                [1e3 * seconds.p10 for _, seconds in points],
                [1e3 * seconds.p90 for _, seconds in points],
                alpha=0.2,
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel(parameter)
        axes.set_ylabel("ms")
        axes.grid(True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    _finish(figure, report, path)


def _plot_ratios(axes: Any, comparison: Comparison) -> None:
    found = [
        (outcome.name, ratio)
        for outcome in reversed(comparison.outcomes)
        if (ratio := comparison.ratio(outcome)) is not None
    ]
    medians = [ratio.median for _, ratio in found]
    below = [ratio.median - ratio.p10 for _, ratio in found]
    above = [ratio.p90 - ratio.median for _, ratio in found]
    bars = axes.barh([name for name, _ in found], medians, xerr=(below, above))
    axes.bar_label(bars, labels=[f" {median:.2f}" for median in medians], padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"time over that of {comparison.base}")
    axes.set_title(comparison.title, fontsize="medium")
    axes.margins(x=0.15)


def _new_figure(columns: int, rows: int) -> Any:
    from matplotlib.figure import Figure

    # No pyplot: that would look for a display.
    return Figure(figsize=(6 * columns, 3.6 * rows), layout="constrained")


def _finish(figure: Any, report: Report, path: Path) -> None:
    machine = report.machine
    figure.suptitle(
        f"npbert bench {report.benchmark}: {machine.cpu}, {machine.threads} threads, {machine.started}",
        fontsize="medium",
    )
    with replacing_files(path.resolve().parent) as files:
        figure.savefig(files.new_file(path.name), format=path.suffix.removeprefix(".") or "png")
