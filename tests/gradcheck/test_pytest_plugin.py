"""The fixture ``gradcheck`` and its options, in sessions of pytest of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import pytest_npbert
from tests.gradcheck.pages import Reader, failed, inconclusive, passed

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent.parent
# Where npbert is installed, pytest finds the plugin anyhow; to name it once more does no harm, nor does it
# that this process has imported it already.
PLUGIN = ("-p", "pytest_npbert", "-W", "ignore::pytest.PytestAssertRewriteWarning")

EXAMPLES = """
import numpy as np
import pytest

def square(x):
    return x**2, x

def square_backward(dy, x):
    return 2 * x * dy

def wrong_backward(dy, x):
    return x * dy

X = np.array([[1.0, -2.0, 3.0]])

def test_right(gradcheck):
    report = gradcheck(square, square_backward, (X,))
    assert report.ok
"""

WRONG = """
def test_wrong(gradcheck):
    gradcheck(square, wrong_backward, (X,))
"""

SENSELESS = """
def test_senseless(gradcheck):
    gradcheck(square, square_backward, (X,), oracle="delphi")
"""

UNDECIDED = """
def zero(x):
    return 0 * x, None

def zero_backward(dy, cache):
    return 0 * dy

def test_undecided(gradcheck):
    gradcheck(zero, zero_backward, (X,))

def test_undecided_but_allowed(gradcheck):
    assert gradcheck(zero, zero_backward, (X,), allow_inconclusive=True).status == "inconclusive"

def test_wrong_is_never_allowed(gradcheck):
    gradcheck(square, wrong_backward, (X,), allow_inconclusive=True)
"""

RANDOM = """
from hypothesis import given, settings
from npbert.gradcheck import strategies

@settings(max_examples=5)
@given(strategies.normals((2, 3)))
def test_random(gradcheck, x):
    gradcheck(square, square_backward, (x,))
"""


def run(pytester, source, *options):
    """Run a file of tests in this process."""
    pytester.makepyfile(source)
    return pytester.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider", *options)


def test_a_right_pair_passes(pytester):
    run(pytester, EXAMPLES).assert_outcomes(passed=1)


def test_a_wrong_pair_fails_with_the_report(pytester):
    result = run(pytester, EXAMPLES + WRONG)
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert "square / wrong_backward: FAILED" in text
    assert re.search(r"E +reproduce: .*check\(square, wrong_backward, args, seed=0\)", text)
    assert "> " in text and "gradcheck(square, wrong_backward, (X,))" in text  # the line of the test
    assert "pytest_npbert.py" not in text and "check.py" not in text  # and none of ours
    result.stdout.fnmatch_lines(["FAILED *::test_wrong - npbert.gradch*"])


def test_a_call_that_makes_no_sense_is_an_error_of_the_test(pytester):
    result = run(pytester, EXAMPLES + SENSELESS)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*ValueError: oracle must be one of *'delphi'"])
    assert "options.py" not in result.stdout.str() and "pytest_npbert.py" not in result.stdout.str()


def test_inconclusive(pytester):
    result = run(pytester, EXAMPLES + UNDECIDED)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["FAILED *test_undecided - *", "FAILED *test_wrong_is_never_allowed - *"])


def test_seed(pytester):
    result = run(pytester, EXAMPLES + WRONG, "--gradcheck-seed", "41")
    assert "args, seed=41)" in result.stdout.str()
    result = run(pytester, EXAMPLES + WRONG.replace("(X,)", "(X,), seed=3"), "--gradcheck-seed", "41")
    assert "args, seed=3)" in result.stdout.str()


@pytest.mark.parametrize("seed", ["-1", "two", ""])
def test_bad_seed(pytester, seed):
    result = run(pytester, EXAMPLES, f"--gradcheck-seed={seed}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is not an integer of at least 0" in result.stderr.str()


def test_page_of_all_checks(pytester):
    result = run(pytester, EXAMPLES + WRONG + RANDOM, "--gradcheck-html", "out/page.html")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["page of 3 gradient checks: out*page.html"])
    text = Reader((pytester.path / "out" / "page.html").read_text(encoding="utf-8")).text()
    assert "1 of 3 checks not proven" in text
    for test, pair in (
        ("test_right", "square / square_backward"),
        ("test_wrong", "square / wrong_backward"),
        ("test_random", "square / square_backward"),  # once, not for every example
    ):
        # In the table and over the check; above both, where it is not proven.
        assert text.count(f"::{test}: {pair}") == (3 if test == "test_wrong" else 2)


def test_no_page_unless_asked_for(pytester):
    run(pytester, EXAMPLES)
    assert not list(pytester.path.rglob("*.html"))


def test_a_page_that_cannot_be_written(pytester):
    result = run(pytester, EXAMPLES, "--gradcheck-html", ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "is a directory" in result.stderr.str()
    result = run(pytester, EXAMPLES, "--gradcheck-html", "test_a_page_that_cannot_be_written.py/page.html")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["no page of the gradient checks: *"])


def test_of_each_test_and_pair_the_worst_is_kept():
    checker = pytest_npbert.Checker(0, collects=True)
    good, undecided, bad = passed(), inconclusive(), failed()
    for report in (good, undecided, bad, good):
        checker.collect({("test", "pair"): report})
    checker.collect({("other", "pair"): good})
    assert checker.reports == {("test", "pair"): bad, ("other", "pair"): good}


def test_workers_hand_over_their_reports(tmp_path):
    """As with pytest-xdist: in each worker a session, whose output reaches the node of the main process."""

    def session(**attributes):
        path = tmp_path / "page.html"
        config = SimpleNamespace(stash=pytest.Stash(), getoption=lambda name: path, **attributes)
        config.stash[pytest_npbert.CHECKER] = pytest_npbert.Checker(0, collects=True)
        return SimpleNamespace(config=config, exitstatus=0)

    main, worker = session(), session(workeroutput={})
    worker.config.stash[pytest_npbert.CHECKER].collect({("test", "pair"): failed()})
    pytest_npbert.pytest_sessionfinish(worker)
    assert not list(tmp_path.iterdir())
    pytest_npbert.pytest_testnodedown(
        SimpleNamespace(config=main.config, workeroutput=worker.config.workeroutput)
    )
    pytest_npbert.pytest_testnodedown(SimpleNamespace(config=main.config))  # a worker that crashed
    pytest_npbert.pytest_sessionfinish(main)
    assert "test: pair" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_it_costs_a_session_that_does_not_use_it_nothing(tmp_path):
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "    print('loaded:', sorted(loaded & {'pytest_npbert', 'npbert', 'numpy'}))\n"
    )
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    # Other plugins that are installed may import NumPy.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "-q", tmp_path],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded: ['pytest_npbert']" in done.stdout
