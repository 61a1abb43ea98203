"""Options for pytest: two with which .ci/run makes sure that every test has run somewhere, and --cuda.

The default run skips the comparisons whose peers (torch, transformers, ...) are not installed. Once they
are, ``pytest --rest --no-skips`` runs what is left and takes no excuse.

``pytest --cuda`` runs on a CUDA device the tests that otherwise run their kernels emulated. It leaves out the
tests that run no kernel, which a device cannot change, and those of what only the emulator has: schedules,
sanitizers, traces.
"""

from collections.abc import Callable, Generator
from importlib.util import find_spec
from typing import Any

import pytest

PASSED = "npbert/passed"  # key in pytest's cache: ids of the tests that passed in the last run without --rest
# Fixtures of tests/cuda: of a test that runs kernels, and of one that needs the emulator for it.
RUNS_KERNELS, EMULATOR_ONLY = "compiler", "emulated"
COMPILES = "compile_kernel("  # in an example of a docstring

# Without scikit-learn its examples cannot be imported. Nor can its tests, which are then skipped.
collect_ignore = [] if find_spec("sklearn") else ["npbert/sklearn"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--rest``, ``--no-skips`` and ``--cuda``."""
    group = parser.getgroup("npbert")
    group.addoption(
        "--rest",
        action="store_true",
        help="run the tests marked oracle and those that did not pass in the last run without --rest",
    )
    group.addoption("--no-skips", action="store_true", help="a skip or an expected failure is a failure")
    group.addoption(
        "--cuda", action="store_true", help="run on a CUDA device the tests of kernels, and no others"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Stop at once where ``--cuda`` cannot be had."""
    if config.getoption("--cuda"):
        from npbert.cuda.device import DeviceError, require_device

        try:
            require_device()
        except DeviceError as error:
            raise pytest.UsageError(f"--cuda: {error}") from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, with ``--cuda``, what a device does not run, and, with ``--rest``, what has passed already.

    Skip the examples of docstrings that cannot be run here. A test marked oracle is never left out: what it
    does may depend on which peers are installed.
    """
    _skip_examples_that_cannot_compile(items)
    if config.getoption("--cuda"):
        _keep(config, items, _runs_on_a_device)
    if config.getoption("--rest"):
        passed = set(config.cache.get(PASSED, []))
        _keep(config, items, lambda item: item.nodeid not in passed or item.get_closest_marker("oracle"))


def _skip_examples_that_cannot_compile(items: list[pytest.Item]) -> None:
    """Skip the doctests that run a kernel emulated, where there is no C++ compiler."""
    examples = [item for item in items if isinstance(item, pytest.DoctestItem)]
    compiling = [item for item in examples if any(COMPILES in e.source for e in item.dtest.examples)]
    if not compiling:
        return
    from npbert.cuda import emulator

    try:
        emulator.compiler()
    except emulator.EmulatorError as error:
        for item in compiling:
            item.add_marker(pytest.mark.skip(reason=f"no C++ compiler: {error}"))


def _runs_on_a_device(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return RUNS_KERNELS in fixtures and EMULATOR_ONLY not in fixtures


def _keep(config: pytest.Config, items: list[pytest.Item], wanted: Callable[[pytest.Item], Any]) -> None:
    kept = [item for item in items if wanted(item)]
    kept_ids = {item.nodeid for item in kept}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept_ids])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Remember what passed, for a later ``--rest``."""
    cache = getattr(config, "cache", None)  # -p no:cacheprovider takes it away
    is_default_run = not config.getoption("--rest") and not config.getoption("--cuda")
    if cache is not None and is_default_run:
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
