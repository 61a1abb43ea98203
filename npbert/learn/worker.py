"""The process that runs the learner's files; `npbert.learn.runner` starts it.

It writes one result a line to a file, so that those before a crash are kept.
"""

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from npbert.learn.checking import check_exercise
from npbert.learn.exercises import BERT, LADDER
from npbert.learn.fooling import check_fool
from npbert.learn.fools import FOOLS
from npbert.learn.learner_file import Problem
from npbert.learn.result import Result
from npbert.learn.whole_bert import check_whole_bert

PRINTED_LIMIT = 4000  # characters of output to keep: a file may print without end


class _Printed(io.TextIOBase):
    """Keeps the beginning of what is written to it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: PRINTED_LIMIT - len(self.text)]
        return len(text)


def main(results: str, directory: str, time_limit: str, *names: str) -> None:
    """Check files and write down the results.

    Parameters
    ----------
    results : str
        The file to write to.
    directory : str
        Where the learner's files are.
    time_limit : str
        Seconds that each may take.
    *names : str
        Of exercises and fools.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    with Path(results).open("w", encoding="utf-8") as file:

        def write(result: Result) -> None:
            file.write(json.dumps(result.to_dict()) + "\n")
            file.flush()

        for name in names:
            with _limited_to(float(time_limit), Path(directory), name, write):
                result = _check(name, Path(directory))
            write(result)


def _check(name: str, directory: Path) -> Result:
    printed = _Printed()
    with redirect_stdout(printed), redirect_stderr(printed):
        result = _check_quietly(name, directory)
    return replace(result, printed=printed.text)


def _check_quietly(name: str, directory: Path) -> Result:
    if name == BERT.name:
        return check_whole_bert(directory)
    for exercise in LADDER:
        if exercise.name == name:
            return check_exercise(exercise, directory / exercise.file_name)
    fool = next(fool for fool in FOOLS if fool.name == name)
    return check_fool(fool, directory / fool.file_name)


@contextmanager
def _limited_to(
    seconds: float, directory: Path, name: str, write: Callable[[Result], None]
) -> Iterator[None]:
    """End the process where the code inside takes longer, saying where it was."""
    main_thread, finished = threading.get_ident(), threading.Lock()

    def give_up() -> None:
        if finished.acquire(blocking=False):
            message = f"still running after {seconds:g} s: a loop without end?"
            line, source = _position(sys._current_frames().get(main_thread), directory)
            write(Result(name, "broken", Problem("time limit", message, line, source)))
            os._exit(1)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if not finished.acquire(blocking=False):
            time.sleep(60)  # too late: give_up is about to end the process


def _position(frame: Any, directory: Path) -> tuple[int | None, str]:
    """Return the line of a learner's file that is running, and its text."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent == directory:
            rows = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return frame.f_lineno, rows[frame.f_lineno - 1].strip() if frame.f_lineno <= len(rows) else ""
        frame = frame.f_back
    return None, ""
