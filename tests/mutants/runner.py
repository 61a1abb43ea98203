"""Try mutants, several at a time: the mirrored tests first, and the rest of the suite where these pass."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutants import workspace as ws
from tests.mutants.catalogue import Mutant, apply, is_compiled, runs_kernels, source
from tests.mutants.results import INVALID, KILLED, PASSED, TIMEOUT, Fingerprints, Result, Store
from tests.mutants.workspace import Workspace, first_failure, run_tests

# Which test files say most about a mutant that its mirrored tests let live; the others follow.
RELEVANT = ("tests/ops/", "tests/test_model", "tests/test_heads", "tests/test_bert", "tests/gradcheck/")


# What a mutant in C++ is invalid for: the emulator's message, whichever test gets it.
DOES_NOT_COMPILE = "does not compile for the emulator"
# How a kernel may end the process of the tests; any other way may be for want of memory.
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

# A test that waits for ever takes no processor time; it is stopped after this many times its limit.
PATIENCE = 10


class Limits(NamedTuple):
    """Seconds of processor time after which a stage counts as a timeout."""

    first: float = 120.0
    second: float = 900.0


class _Job(NamedTuple):
    mutant: Mutant | None  # None: the package as it is, which has to pass
    tests: tuple[str, ...]
    key: str
    seconds: float
    is_first_stage: bool


class _Running(NamedTuple):
    job: _Job
    process: BaseProcess
    started: float
    log: Path
    restore: contextlib.ExitStack


class Runner:
    """Runs jobs in workspaces, one process for each."""

    def __init__(
        self, folder: Path, jobs: int, store: Store, limits: Limits, report: Callable[[Result, bool], None]
    ) -> None:
        self.workspaces = [Workspace(folder / f"workspace{number}") for number in range(jobs)]
        self.prints = Fingerprints(self.workspaces[0].folder)
        self.suite = sorted(self.workspaces[0].test_files(), key=_relevance)
        self.store, self.limits, self.report = store, limits, report
        self.context = multiprocessing.get_context("fork")
        self.queue: deque[_Job] = deque()
        self.results: dict[str, Result] = {}
        self.whole_suite = True
        self.keyword = ""
        self.seconds = store.seconds()  # what each test takes

    def run(
        self,
        mutants: Sequence[Mutant],
        baseline: bool = True,
        whole_suite: bool = True,
        keyword: str = "",
    ) -> dict[str, Result]:
        """Return the last result of every mutant, by id.

        Parameters
        ----------
        mutants : sequence of Mutant
        baseline : bool
            Whether to run the package as it is, too: the same tests, of all mutants.
        whole_suite : bool
            Whether a mutant that passes the mirrored tests goes on to the rest.
        keyword : str
            Of the mirrored tests, run those that ``pytest -k`` selects.

        Raises
        ------
        RuntimeError
            If the package as it is does not pass its own tests: there is nothing to learn from mutants then.
        """
        self.whole_suite, self.keyword, self.results = whole_suite, keyword, {}
        if baseline:
            mirrored = sorted({test for mutant in mutants for test in mutant.tests})
            tests = tuple(self.suite if whole_suite else mirrored)
            key = "as it is " + self.prints.second_stage(_NOTHING, " ".join(tests))
            self._enqueue(_Job(None, tests, key, 2 * self.limits.second, False))
        for mutant in mutants:
            text = apply(mutant, source(mutant, self.workspaces[0].folder))
            key = self.prints.first_stage(mutant, text, keyword)
            self._enqueue(_Job(mutant, self._existing(mutant.tests), key, self.limits.first, True))
        running: dict[int, _Running] = {}
        try:
            while self.queue or running:
                for number, place in enumerate(self.workspaces):
                    if number not in running and self.queue:
                        running[number] = self._start(self.queue.popleft(), place)
                wait([entry.process.sentinel for entry in running.values()], timeout=1.0)
                for number, entry in list(running.items()):
                    if (
                        not entry.process.is_alive()
                        or time.monotonic() - entry.started > PATIENCE * entry.job.seconds
                    ):
                        del running[number]
                        self._finish(entry)
        finally:
            for entry in running.values():
                _end(entry)
            self.store.put_seconds(self.seconds)
        return self.results

    def _existing(self, tests: Sequence[str]) -> tuple[str, ...]:
        return tuple(test for test in tests if (self.workspaces[0].folder / test).exists())

    def _enqueue(self, job: _Job) -> None:
        known = self.store.get(job.key)
        if known is not None:
            self._conclude(job, known, is_new=False)
        elif job.tests:
            self.queue.append(job)
        else:
            self._conclude(job, Result(job.mutant.id if job.mutant else "", PASSED, "", 0.0), is_new=False)

    def _start(self, job: _Job, place: Workspace) -> _Running:
        restore = contextlib.ExitStack()
        modules = ["npbert"]
        if job.mutant is not None:
            text = apply(job.mutant, source(job.mutant, place.folder))
            restore.enter_context(place.changed(job.mutant.file, text))
            modules += ["npbert.bert"]
            modules += [] if is_compiled(job.mutant) else [_module_name(job.mutant.file)]
        log = place.folder / "pytest.log"
        keyword = self.keyword if job.is_first_stage else ""
        process = self.context.Process(
            target=run_tests, args=(place.folder, job.tests, log, modules, self.seconds, job.seconds, keyword)
        )
        process.start()
        return _Running(job, process, time.monotonic(), log, restore)

    def _finish(self, entry: _Running) -> None:
        seconds = round(time.monotonic() - entry.started, 2)
        was_alive = entry.process.is_alive()
        _end(entry)
        times = entry.log.with_name(ws.TIMES)
        if times.exists():
            self.seconds |= json.loads(times.read_text(encoding="utf-8"))
        result = _result(entry, was_alive, seconds)
        if entry.job.mutant is not None or result.outcome == PASSED:
            self.store.put(entry.job.key, result)
        self._conclude(entry.job, result, is_new=True)

    def _conclude(self, job: _Job, result: Result, is_new: bool) -> None:
        if job.mutant is None:
            if result.outcome != PASSED:
                raise RuntimeError(f"the package as it is does not pass its tests: {result.by}")
            return
        is_real = job.mutant.equivalent is None
        goes_on = self.whole_suite and is_real and job.is_first_stage and result.outcome == PASSED
        if goes_on:
            text = apply(job.mutant, source(job.mutant, self.workspaces[0].folder))
            rest = tuple(test for test in self.suite if test not in job.tests)
            # Its own doctests first; the others follow with the whole folder.
            doctests = () if is_compiled(job.mutant) else (job.mutant.file,)
            key = self.prints.second_stage(job.mutant, text)
            self._enqueue(_Job(job.mutant, (*doctests, *rest), key, self.limits.second, False))
            return
        self.results[job.mutant.id] = result
        self.report(result, is_new)


_NOTHING = Mutant("", "", (), "", (), (), "", None)


def _result(entry: _Running, was_alive: bool, seconds: float) -> Result:
    mutant, status = entry.job.mutant, entry.process.exitcode or 0
    name = mutant.id if mutant else "the package as it is"
    by, failure = first_failure(entry.log), ws.failure(entry.log.parent)
    if was_alive or status == -signal.SIGXCPU:
        return Result(name, TIMEOUT, f"stopped after {seconds:.0f} s: {by}", seconds, "no end")
    if status == pytest.ExitCode.OK:
        return Result(name, PASSED, "", seconds)
    if status in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        outcome = INVALID if DOES_NOT_COMPILE in failure["text"] else KILLED
        return Result(name, outcome, by, seconds, failure["name"])
    if mutant and runs_kernels(mutant) and -status in CRASHES:
        return Result(name, KILLED, by, seconds, signal.Signals(-status).name)
    # It cannot be imported, or something is wrong with the run: short memory, a missing file.
    return Result(name, INVALID, f"exit status {status}: {by}", seconds)


def _end(entry: _Running) -> None:
    """Stop the process of a job with everything that it started, and restore its workspace."""
    if entry.process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(entry.process.pid, signal.SIGKILL)  # it leads a group of its own
    entry.process.join()
    entry.restore.close()


def _relevance(test: str) -> tuple[int, str]:
    for rank, prefix in enumerate(RELEVANT):
        if test.startswith(prefix):
            return rank, test
    return len(RELEVANT), test


def _module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
