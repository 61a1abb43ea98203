"""Two options for pytest, with which .ci/run makes sure that every test has run somewhere.

The default run skips the comparisons whose peers (torch, transformers, ...) are not installed. Once they
are, ``pytest --rest --no-skips`` runs what is left and takes no excuse.
"""

from collections.abc import Generator
from typing import Any

import pytest

PASSED = "npbert/passed"  # key in pytest's cache: ids of the tests that passed in the last run without --rest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--rest`` and ``--no-skips``."""
    group = parser.getgroup("npbert")
    group.addoption(
        "--rest",
        action="store_true",
        help="run the tests marked oracle and those that did not pass in the last run without --rest",
    )
    group.addoption("--no-skips", action="store_true", help="a skip or an expected failure is a failure")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, with ``--rest``, what has passed already.

    A test marked oracle is never left out: what it does may depend on which peers are installed.
    """
    if not config.getoption("--rest"):
        return
    passed = set(config.cache.get(PASSED, []))
    done = [item for item in items if item.nodeid in passed and item.get_closest_marker("oracle") is None]
    config.hook.pytest_deselected(items=done)
    done_ids = {item.nodeid for item in done}
    items[:] = [item for item in items if item.nodeid not in done_ids]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Remember what passed, for a later ``--rest``."""
    cache = getattr(config, "cache", None)  # -p no:cacheprovider takes it away
    if cache is not None and not config.getoption("--rest"):
        passed = terminalreporter.stats.get("passed", [])
        cache.set(PASSED, [report.nodeid for report in passed])


# Outermost of the wrappers, so as to see what pytest's own handling of skip and xfail makes of a test.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Turn a skipped or xfailed test into a failure, with ``--no-skips``."""
    report = yield
    return _refuse_skip(report, item.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Turn a file skipped as a whole into a failure, with ``--no-skips``."""
    report = yield
    return _refuse_skip(report, collector.config)


def _refuse_skip(report: Any, config: pytest.Config) -> Any:
    if report.skipped and config.getoption("--no-skips"):
        expected_failure = getattr(report, "wasxfail", None)
        if expected_failure is None:
            report.longrepr = f"skipped, which --no-skips forbids: {report.longrepr[2]}"
        else:
            report.longrepr = f"expected to fail, which --no-skips forbids: {expected_failure}"
            del report.wasxfail  # or pytest would go on to count it as an expected failure
        report.outcome = "failed"
    return report
