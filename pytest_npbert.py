"""pytest's fixture ``gradcheck``: a wrong backward pass fails the test, with the report as its text.

    def test_my_layernorm(gradcheck):
        gradcheck(layernorm_forward, layernorm_backward, (x, weight, bias, 1e-5))

``pytest --gradcheck-html FILE`` writes a page of all checks of the session, ``--gradcheck-seed N`` draws
other cotangents. Where npbert is installed, pytest finds this module by itself; elsewhere
``pytest -p pytest_npbert`` names it.

It stands beside the package, not in it, because pytest imports it at every start, whatever is tested, and to
import anything of npbert is to import NumPy.
"""

from __future__ import annotations

import os
import pickle
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from npbert.gradcheck import Report

WORKER_OUTPUT = "npbert_reports"
SEVERITY = ("passed", "inconclusive", "failed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--gradcheck-html`` and ``--gradcheck-seed``."""
    group = parser.getgroup("npbert")
    group.addoption("--gradcheck-html", metavar="FILE", type=Path, help="write a page of all gradient checks")
    group.addoption(
        "--gradcheck-seed",
        metavar="N",
        type=_seed,
        default=0,
        help="seed of the gradient checks (default: 0)",
    )


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not an integer of at least 0")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a page that cannot be written while there is no time lost yet."""
    path = config.getoption("--gradcheck-html")
    if path is not None and path.is_dir():
        raise pytest.UsageError(f"--gradcheck-html {path} is a directory; name a file")
    config.stash[CHECKER] = Checker(config.getoption("--gradcheck-seed"), collects=path is not None)


# Of the session, so that hypothesis, which runs a test many times, has nothing against it.
@pytest.fixture(scope="session")
def gradcheck(pytestconfig: pytest.Config) -> Checker:
    """Check a backward pass as ``npbert.gradcheck.check`` does, and fail if it is wrong."""
    return pytestconfig.stash[CHECKER]


class Checker:
    """What the fixture returns: to be called like ``npbert.gradcheck.check``.

    Attributes
    ----------
    reports : dict
        Where they are collected: of each test and pair of functions the worst report. A test of hypothesis
        runs the same check on many inputs.
    """

    def __init__(self, seed: int, collects: bool) -> None:
        self.seed = seed
        self.collects = collects
        self.reports: dict[tuple[str, str], Report] = {}

    def __call__(
        self, fn: Any, backward: Any, args: Any, *, allow_inconclusive: bool = False, **options: Any
    ) -> Report:
        """Check a pair of functions.

        Parameters
        ----------
        fn, backward, args, **options
            Those of ``npbert.gradcheck.check``; the seed is ``--gradcheck-seed`` unless given.
        allow_inconclusive : bool
            Whether a check that neither proves nor refutes may pass: random inputs may leave nothing to
            prove.

        Returns
        -------
        npbert.gradcheck.Report

        Raises
        ------
        npbert.gradcheck.GradientCheckError
            If the check fails or, unless allowed, is inconclusive. Its text is the report.
        ValueError
            If the arguments of this call make no sense.
        """
        __tracebackhide__ = True  # the test is to blame, and the report says why
        from npbert.gradcheck import GradientCheckError, check

        try:
            report = check(fn, backward, args, **{"seed": self.seed, **options})
        except ValueError as error:
            raise error.with_traceback(None) from None
        if self.collects:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
            self.collect({(test, report.subject): report})
        if not (report.ok or (allow_inconclusive and report.status == "inconclusive")):
            raise GradientCheckError(str(report))
        return report

    def collect(self, reports: dict[tuple[str, str], Report]) -> None:
        """Keep reports, but of each test and pair only the worst."""
        for key, report in reports.items():
            if key not in self.reports or _badness(report) > _badness(self.reports[key]):
                self.reports[key] = report


CHECKER = pytest.StashKey[Checker]()


def _badness(report: Report) -> tuple[int, float]:
    error = report.max_error
    return SEVERITY.index(report.status), -1.0 if error is None else error


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist has collected."""
    output = getattr(node, "workeroutput", {})
    if WORKER_OUTPUT in output:
        node.config.stash[CHECKER].collect(pickle.loads(output[WORKER_OUTPUT]))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page; a worker of pytest-xdist hands over to the process that does."""
    config = session.config
    checker = config.stash[CHECKER]
    if not checker.collects:
        return
    if hasattr(config, "workeroutput"):
        config.workeroutput[WORKER_OUTPUT] = pickle.dumps(checker.reports)
        return
    from npbert.checkpoint.files import write_text_atomically
    from npbert.gradcheck.html import page

    path = config.getoption("--gradcheck-html")
    named = [(f"{test}: {subject}", report) for (test, subject), report in checker.reports.items()]
    try:
        write_text_atomically(path, page(named, title="Gradient checks"))
    except OSError as error:
        config.stash[OUTCOME] = f"no page of the gradient checks: {error}"
        session.exitstatus = session.exitstatus or pytest.ExitCode.USAGE_ERROR
    else:
        config.stash[OUTCOME] = f"page of {len(named)} gradient checks: {path}"


OUTCOME = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say where the page is."""
    if OUTCOME in config.stash:
        terminalreporter.write_line(config.stash[OUTCOME])
