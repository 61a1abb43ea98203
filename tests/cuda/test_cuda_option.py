"""``pytest --cuda``: which tests it runs and where, in runs of their own, on a stand-in for a device."""

import re

import pytest

from tests.cli.running import ROOT, python
from tests.cuda import fake_cupy

# Some of every kind: of the contract, with arrays of their own, of bad input, of the emulator, of models, of
# no kernel.
SOME = ("tests/cuda/test_embedding.py", "tests/cuda/test_bert.py", "tests/ops/test_embedding.py")


def run_pytest(*arguments, **options):
    return python("-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments, cwd=ROOT, **options)


def count(done, what):
    """How many tests passed, failed, ..."""
    found = re.search(rf"(\d+) {what}", done.stdout.splitlines()[-1])
    return int(found[1]) if found else 0


def test_without_cupy_it_says_what_is_missing(tmp_path):
    (tmp_path / "cupy.py").write_text('raise ModuleNotFoundError("No module named \'cupy\'", name="cupy")\n')
    done = run_pytest("--cuda", "tests/cuda", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.startswith("ERROR: --cuda: CuPy is not installed: pip install ")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("emulated")
def test_the_tests_of_kernels_run_on_the_device_and_no_others():
    done = run_pytest("-p", "tests.cuda.fake_cupy", "--cuda", *SOME)
    assert done.returncode == 0, done.stdout
    assert count(done, "passed") >= 20
    assert count(done, "deselected") >= 20
    launches = re.search(rf"(\d+) launches on {fake_cupy.NAME}", done.stdout)
    assert int(launches[1]) >= 100


TESTS = """
import numpy as np
import pytest

from npbert.cuda import emulator, gelu_forward
from tests.cuda import fake_cupy

X = np.linspace(-3, 3, 8)


@pytest.mark.usefixtures("compiler")
def test_arrays_of_the_host_go_there_and_back():
    before = fake_cupy.RawKernel.count
    y, _ = gelu_forward(X)
    assert abs(y[-1] - 2.99595) < 1e-5
    assert fake_cupy.RawKernel.count == before + 1


@pytest.mark.usefixtures("compiler")
def test_a_switch_that_a_device_has_not():
    with emulator.options(schedule="descending"):
        gelu_forward(X)


@pytest.mark.usefixtures("emulated")
def test_the_emulator():
    raise AssertionError


def test_no_kernel():
    raise AssertionError
"""


@pytest.mark.usefixtures("emulated")
def test_nothing_runs_emulated(tmp_path):
    """A test of the emulator's switches has to say that it is one, or it fails."""
    (tmp_path / "conftest.py").write_text("from tests.cuda.conftest import *\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    plugins = ("-p", "conftest", "-p", "tests.cuda.fake_cupy")  # the first is that of the checkout
    done = run_pytest("--rootdir", tmp_path, "-c", "/dev/null", *plugins, "--cuda", tmp_path)
    found = {what: count(done, what) for what in ("passed", "failed", "deselected")}
    assert found == {"passed": 1, "failed": 1, "deselected": 2}, done.stdout
    assert "a device has no such switch: use `emulated`" in done.stdout
