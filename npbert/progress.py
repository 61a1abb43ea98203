"""A progress bar for whatever takes longer than a moment: rich's where it is installed, else a plain line."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

MIN_SECONDS_BETWEEN_LINES = 0.2


class Advance(Protocol):
    """What moves a bar on: so many units done since the last call, and perhaps something to say."""

    def __call__(self, done: int, note: str = "") -> None:
        """Move on by ``done`` units, and show ``note`` beside the bar."""


@contextmanager
def progress_bar(description: str, total: int, enabled: bool = True) -> Iterator[Advance]:
    """Show how much of ``total`` is done, on the standard error, if that is a terminal.

    Parameters
    ----------
    description : str
    total : int
        How many units there are.
    enabled : bool
        False shows nothing.

    Yields
    ------
    callable
        To be called with the number of units done since the last call, and, if wanted, a note.

    Examples
    --------
    >>> with progress_bar("encoding", total=2, enabled=False) as advance:
    ...     advance(1)
    ...     advance(1, note="done")
    """
    if not enabled or not sys.stderr.isatty():
        yield lambda done, note="": None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column
    except ImportError:
        with _plain_bar(description, total) as advance:
            yield advance
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda done, note="": bar.update(task, advance=done, note=note)


@contextmanager
def _plain_bar(description: str, total: int) -> Iterator[Advance]:
    """One line that rewrites itself, and is gone at the end."""
    finished = 0
    last_shown = 0.0
    width = 0

    def show(line: str) -> None:
        nonlocal width
        sys.stderr.write("\r" + line.ljust(width))  # over all of the line before
        sys.stderr.flush()
        width = len(line)

    def advance(done: int, note: str = "") -> None:
        nonlocal finished, last_shown
        finished += done
        now = time.monotonic()
        if now - last_shown >= MIN_SECONDS_BETWEEN_LINES:
            show(f"{description}: {finished}/{total} {note}")
            last_shown = now

    try:
        yield advance
    finally:
        show("")
        sys.stderr.write("\r")
