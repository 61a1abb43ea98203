"""Plots of what benchmarks find, with matplotlib, which is imported only here."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from npbert.bench.comparison import Comparison, Report
from npbert.bench.contest import Summary
from npbert.checkpoint import replacing_files

COLUMNS = 2


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


def plot_rows(report: Report, path: Path, fact: str) -> None:
    """Write a plot with a row for each piece of work, and a dot in it for each contender.

    Parameters
    ----------
    report : Report
    path : Path
    fact : str
        All comparisons that have it in common share one panel.
    """
    values = list(dict.fromkeys(one.facts[fact] for one in report.comparisons))
    most_rows = max(sum(one.facts[fact] == value for one in report.comparisons) for value in values)
    figure = _new_figure(len(values), 1, width=9, height=2 + 0.3 * most_rows)
    for number, value in enumerate(values):
        axes = figure.add_subplot(1, len(values), number + 1)
        found = [one for one in report.comparisons if one.facts[fact] == value]
        titles = [one.title.removesuffix(f", {value}") for one in found]
        for name in dict.fromkeys(outcome.name for one in found for outcome in one.outcomes):
            points = [
                (ratio, row)
                for row, one in enumerate(found)
                for outcome in one.outcomes
                if outcome.name == name and (ratio := one.ratio(outcome)) is not None
            ]
            axes.errorbar(
                [ratio.median for ratio, _ in points],
                [row for _, row in points],
                xerr=_spread([ratio for ratio, _ in points]),
                fmt="o",
                label=name,
            )
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yticks(range(len(titles)), titles)
        axes.invert_yaxis()
        axes.set_xlabel("time over that of the first")
        axes.set_title(str(value))
        axes.grid(True, axis="x", alpha=0.3)
        axes.legend(fontsize="small")
    _finish(figure, report, path)


def plot_growth(report: Report, path: Path, parameters: Sequence[str]) -> None:
    """Write a plot of cost against size: for each parameter, seconds over its value, one line a contender.

    Parameters
    ----------
    report : Report
        Comparisons that have the parameter in ``facts["grows"]``.
    path : Path
    parameters : sequence of str
        One panel each.
    """
    figure = _new_figure(2, math.ceil(len(parameters) / 2))
    for number, parameter in enumerate(parameters):
        axes = figure.add_subplot(math.ceil(len(parameters) / 2), 2, number + 1)
        grown = [one for one in report.comparisons if one.facts["grows"] == parameter]
        for name in dict.fromkeys(outcome.name for one in grown for outcome in one.outcomes):
            points = [
                (one.facts[parameter], summary)
                for one in grown
                for outcome in one.outcomes
                if outcome.name == name and (summary := one.summary(outcome)) is not None
            ]
            sizes = [size for size, _ in points]
            lines = axes.plot(sizes, [1e3 * seconds.median for _, seconds in points], "o-", label=name)
            axes.fill_between(
                sizes,
                [1e3 * seconds.p10 for _, seconds in points],
                [1e3 * seconds.p90 for _, seconds in points],
                alpha=0.2,
            )
            if points:
                _plot_proportion(axes, sizes, points[-1][1].median, lines[0].get_color(), parameter)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks([one.facts[parameter] for one in grown])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(parameter)
        axes.set_ylabel("ms")
        axes.grid(True, which="both", alpha=0.3)
        axes.legend(fontsize="small", title="dotted: in proportion")
    _finish(figure, report, path)


def _plot_proportion(axes: Any, sizes: Sequence[int], last: float, color: Any, parameter: str) -> None:
    """Draw what the cost would be if it were in proportion; with workers, to one over their number."""
    power = -1 if parameter == "workers" else 1
    values = [1e3 * last * (size / sizes[-1]) ** power for size in sizes]
    axes.plot(sizes, values, ":", color=color)


def _plot_ratios(axes: Any, comparison: Comparison) -> None:
    found = [
        (outcome.name, ratio)
        for outcome in reversed(comparison.outcomes)
        if (ratio := comparison.ratio(outcome)) is not None
    ]
    medians = [ratio.median for _, ratio in found]
    bars = axes.barh([name for name, _ in found], medians, xerr=_spread([ratio for _, ratio in found]))
    axes.bar_label(bars, labels=[f" {median:.2f}" for median in medians], padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"time over that of {comparison.base}")
    axes.set_title(comparison.title, fontsize="small")
    axes.margins(x=0.15)


def _spread(ratios: Sequence[Summary]) -> list[list[float]]:
    """Return how far the middle 80 % reach below and above the medians."""
    return [
        [ratio.median - ratio.p10 for ratio in ratios],
        [ratio.p90 - ratio.median for ratio in ratios],
    ]


def _new_figure(columns: int, rows: int, width: float = 8, height: float = 4) -> Any:
    from matplotlib.figure import Figure

    # No pyplot: that would look for a display.
    return Figure(figsize=(width * columns, height * rows), layout="constrained")


def _finish(figure: Any, report: Report, path: Path) -> None:
    machine = report.machine
    figure.suptitle(
        f"npbert bench {report.benchmark}\n{machine.cpu}, {machine.threads} threads, {machine.started}",
        fontsize="medium",
    )
    with replacing_files(path.resolve().parent) as files:
        figure.savefig(files.new_file(path.name), format=path.suffix.removeprefix(".") or "png")
