"""Where a mutant is tested: a copy of the package and its tests, in which one module is changed.

The process that runs the tests is forked from one that has already imported NumPy, pytest and hypothesis,
which saves a second or more each time. It imports npbert and the tests from the copy, and makes sure of that.
"""

import contextlib
import importlib
import json
import math
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import hypothesis
import mpmath
import numpy as np
import pytest
from hypothesis import Phase

from tests.mutants.catalogue import ROOT

PRELOADED = (hypothesis, mpmath, np, pytest)  # heavy, and the same for every mutant
# Copied is what lies in the checkout, but for hidden files and what a build leaves there.
NOT_COPIED = ("build", "dist", "shared", "__pycache__")
# About the time an import takes, and about the installation: nothing that a mutant could change.
LEFT_OUT = ("tests/test_import.py", "tests/test_packaging.py")

TIMES = "seconds.json"
RUNNING = "running.txt"  # the test that runs, for one that ends its process
FAILURE = "failure.json"  # name and text of the exception that a test failed with
INVALID = 90  # exit status: the mutant cannot be imported
ENVIRONMENT = {
    "CI": "true",  # hypothesis draws the same examples in every run
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",  # a file that changes several times a second must not be cached
}


class Workspace:
    """A copy of the checkout in which one mutant at a time can live."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__", "mutants", ".*")
        for source in ROOT.iterdir():
            if source.name in NOT_COPIED or source.name.startswith(".") or source.suffix == ".egg-info":
                continue
            if source.is_dir():
                shutil.copytree(source, folder / source.name, ignore=ignored)
            else:
                shutil.copy(source, folder / source.name)

    def test_files(self) -> list[str]:
        """Return every test file of the default suite, and the folder of the doctests."""
        paths = sorted((self.folder / "tests").rglob("test_*.py"))
        files = [path.relative_to(self.folder).as_posix() for path in paths]
        return [*(file for file in files if file not in LEFT_OUT), "npbert"]

    @contextlib.contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        """Replace one file for a while."""
        path = self.folder / file
        before = path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(before, encoding="utf-8")


class QuickFirst:
    """A pytest plugin: the tests that took least time come first, for any failure ends the run."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = dict(seconds)  # by the test's id; a test that is not in it counts as quick

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the quick tests first."""
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember how long a test takes that passes."""
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration


class LastWords:
    """A pytest plugin: writes down which test runs, and what the first failure is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Name the test that begins."""
        (self.folder / RUNNING).write_text(nodeid, encoding="utf-8")

    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        """Keep the exception."""
        if call.excinfo is not None and not (self.folder / FAILURE).exists():
            words = {"name": call.excinfo.typename, "text": str(call.excinfo.value)}
            (self.folder / FAILURE).write_text(json.dumps(words), encoding="utf-8")


def run_tests(
    folder: Path,
    tests: Sequence[str],
    log: Path,
    modules: Sequence[str],
    seconds: Mapping[str, float],
    limit: float,
    keyword: str,
) -> None:
    """Run tests in a workspace, to the first failure. Called in a process of its own, which ends here.

    Leaves what each test took in the workspace, in `TIMES`, and the exception of the first failure, in
    `FAILURE`. Is stopped after ``limit`` seconds of processor time, which an endless loop reaches, and a busy
    machine does not. With a ``keyword``, only the tests that ``pytest -k`` selects are run.

    The exit status is pytest's (0: all passed, 1: one failed, 2: a test file cannot be imported), or
    `INVALID`.
    """
    os.setpgrp()  # what tests start ends with them
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit) + 9))  # SIGXCPU, then SIGKILL
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.chdir(folder)
    for left_over in (FAILURE, RUNNING):
        (folder / left_over).unlink(missing_ok=True)
    # Compiled kernels: the user's cache is no place for those of mutants.
    os.environ |= ENVIRONMENT | {"PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / ".cache")}
    sys.dont_write_bytecode = True
    _import_from(folder)
    # The profiles of tests/conftest.py build on the one in use. Any failure will do, not only the smallest.
    hypothesis.settings.register_profile(
        "no shrinking", phases=(Phase.explicit, Phase.generate), report_multiple_bugs=False
    )
    hypothesis.settings.load_profile("no shrinking")
    try:
        for module in modules:
            found = Path(importlib.import_module(module).__file__ or "")
            if folder not in found.parents:
                print(f"{module} comes from {found}, not from {folder}")
                os._exit(INVALID)
    except Exception as error:
        print(f"the mutant cannot be imported: {error!r}")
        os._exit(INVALID)
    options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-m", "not oracle"]
    options += ["-k", keyword] if keyword else []
    plugin = QuickFirst(seconds)
    status = pytest.main([*options, f"--rootdir={folder}", *tests], plugins=[plugin, LastWords(folder)])
    sys.stdout.flush()
    (folder / TIMES).write_text(json.dumps(plugin.seconds), encoding="utf-8")
    os._exit(int(status))


def _import_from(folder: Path) -> None:
    """Forget the checkout's modules, and look for them in the folder from now on."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("npbert", "tests", "conftest"):
            del sys.modules[name]
    checkout = ROOT.resolve()
    sys.path[:] = [str(folder), *(p for p in sys.path if Path(p or ".").resolve() not in (checkout, folder))]
    importlib.invalidate_caches()


def failure(folder: Path) -> dict[str, str]:
    """Return the name and the text of the exception that a test failed with; empty where there was none."""
    path = folder / FAILURE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"name": "", "text": ""}


def first_failure(log: Path) -> str:
    """Return the id of the test that failed, or of the last one that began, or pytest's last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split(" - ")[0].split(" ", 1)[1]
    running = log.with_name(RUNNING)
    if running.exists():
        return running.read_text(encoding="utf-8")
    return next((line for line in reversed(lines) if line.strip()), "no output")
