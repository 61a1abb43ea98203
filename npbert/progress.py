"""A progress bar for whatever takes longer than a moment: rich's where it is installed, else a plain line."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MIN_SECONDS_BETWEEN_LINES = 0.2


@contextmanager
def progress_bar(description: str, total: int, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Show how much of ``total`` is done, on the standard error.

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
        To be called with the number of units done since the last call.

    Examples
    --------
    >>> with progress_bar("encoding", total=2, enabled=False) as advance:
    ...     advance(1)
    ...     advance(1)
    """
    if not enabled:
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        with _plain_bar(description, total) as advance:
            yield advance
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)


@contextmanager
def _plain_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """One line that rewrites itself; on something that is no terminal, nothing until the end."""
    finished = 0
    last_shown = 0.0

    def advance(done: int) -> None:
        nonlocal finished, last_shown
        finished += done
        now = time.monotonic()
        if sys.stderr.isatty() and now - last_shown >= MIN_SECONDS_BETWEEN_LINES:
            sys.stderr.write(f"\r{description}: {finished}/{total}")
            sys.stderr.flush()
            last_shown = now

    yield advance
    start = "\r" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{start}{description}: {finished}/{total}\n")
