"""The curve of a training run, as a picture."""

import io
from collections.abc import Sequence
from pathlib import Path

from npbert.checkpoint.files import write_bytes_atomically
from npbert.training.metrics import Record


def plot_metrics(records: Sequence[Record], path: Path) -> None:
    """Draw the losses above and the accuracies below, over the steps; needs matplotlib.

    Parameters
    ----------
    records : sequence of dict
        From `npbert.training.metrics.read_metrics`.
    path : path
        A file that ends in .png (or .svg, .pdf).

    Raises
    ------
    ValueError
        If there is no record, or matplotlib does not know the file's ending.
    """
    from matplotlib.figure import Figure

    if not records:
        raise ValueError("nothing to plot: no record of the metrics")
    figure = Figure(figsize=(8, 6), layout="constrained")
    losses, shares = figure.subplots(2, 1, sharex=True)
    for axes, ending in ((losses, "loss"), (shares, "accuracy")):
        for name in _names(records, ending):
            points = [(record["step"], record[name]) for record in records if name in record]
            marker = "o" if name.startswith("held_out") else ""
            axes.plot(*zip(*points, strict=True), marker=marker, label=name.replace("_", " "))
        if axes.lines:
            axes.legend()
        axes.set_ylabel(ending)
        axes.grid(alpha=0.3)
    shares.set_xlabel("step")
    shares.set_ylim(0, 1)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=120)
    write_bytes_atomically(path, buffer.getvalue())


def _names(records: Sequence[Record], ending: str) -> list[str]:
    """Return the fields with this ending, each once, in the order in which they first occur."""
    return list(dict.fromkeys(name for record in records for name in record if name.endswith(ending)))
