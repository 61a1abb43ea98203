"""Checking the learner's files in a process of their own, which may hang, crash or print what it likes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from npbert.learn.learner_file import Problem
from npbert.learn.result import Result

TIME_LIMIT: Final = 30.0
START_UP: Final = 30.0  # seconds for the process itself, on a busy machine
POLL: Final = 0.02  # seconds between two looks at what the process has done
# The process gets this one's import path, without the current directory: the learner's files have names
# (linear.py, softmax.py) that an import might pick up.
START: Final = "import sys; sys.path[:] = {path!r}; from npbert.learn.worker import main; main(*sys.argv[1:])"


def check_files(
    directory: Path,
    names: Sequence[str],
    time_limit: float = TIME_LIMIT,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Result]:
    """Check some of the learner's files.

    Parameters
    ----------
    directory : Path
        Where they are.
    names : sequence of str
        Of exercises and fools.
    time_limit : float
        Seconds that the code of each file may take.
    progress : callable
        Called with the number of files that were done since the last call.

    Returns
    -------
    list of Result
        One a name, in their order. What a file does to its process is a finding too.
    """
    results: list[Result] = []
    while len(results) < len(names):
        rest = names[len(results) :]
        found, exit_code = _run_worker(directory.resolve(), rest, time_limit, progress)
        results += found
        if len(found) < len(rest) and (not found or found[-1].problem is None or not _timed_out(found[-1])):
            results.append(_crashed(rest[len(found)], exit_code))
    return results


def _run_worker(
    directory: Path, names: Sequence[str], time_limit: float, progress: Callable[[int], object]
) -> tuple[list[Result], int | None]:
    """Return the results that a worker wrote, and its exit code: None if it had to be killed."""
    path = [entry for entry in sys.path if entry and Path(entry).resolve() != directory]
    with tempfile.TemporaryDirectory(prefix="npbert-learn-") as folder:
        results = Path(folder) / "results"
        results.touch()
        command = [sys.executable, "-c", START.format(path=path)]
        worker = subprocess.Popen(
            [*command, str(results), str(directory), str(time_limit), *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # The matrices are tiny: handing them to threads takes longer than multiplying them.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        exit_code = _wait(worker, results, time_limit * len(names) + START_UP, progress)
        lines = _complete_lines(results)
    return [Result.from_dict(json.loads(line)) for line in lines], exit_code


def _wait(
    worker: "subprocess.Popen[bytes]", results: Path, seconds: float, progress: Callable[[int], object]
) -> int | None:
    """Wait for a worker, telling how far it is; end it where it takes too long, or on an interrupt."""
    deadline, done = time.monotonic() + seconds, 0
    try:
        while worker.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL)
            finished = len(_complete_lines(results))
            if finished > done:
                progress(finished - done)
                done = finished
        return worker.poll()
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _complete_lines(results: Path) -> list[str]:
    """Return the lines that were written to the end."""
    return results.read_text(encoding="utf-8").split("\n")[:-1]


def _timed_out(result: Result) -> bool:
    return result.problem is not None and result.problem.kind == "time limit"


def _crashed(name: str, exit_code: int | None) -> Result:
    if exit_code is None:
        return Result(name, "broken", Problem("time limit", "it had to be stopped from outside"))
    how = f"by signal {-exit_code}" if exit_code < 0 else f"with exit code {exit_code}"
    return Result(name, "broken", Problem("ends the process", f"Python itself ended, {how}"))
