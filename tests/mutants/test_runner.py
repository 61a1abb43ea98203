"""The runner, on one mutant; what it keeps on disk; and the score."""

import json
import os
import subprocess
import sys

import pytest

from npbert.cuda import emulator
from tests.mutants.__main__ import select
from tests.mutants.catalogue import ROOT, Edit, Mutant, load
from tests.mutants.results import INVALID, KILLED, PASSED, TIMEOUT, Fingerprints, Result, Store
from tests.mutants.table import is_right, scores, table

MUTANT = Mutant("x", "npbert/x.py", ("tests/test_x.py",), "", (Edit("a", "b"),), ("y",), "", None)
EQUIVALENT = MUTANT._replace(id="e", equivalent="It is the same.")


def run(*arguments):
    command = [sys.executable, "-m", "tests.mutants", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_mutant_is_killed_and_the_result_kept(tmp_path):
    report = tmp_path / "report.json"
    only = ("--only", "linear-dx-wrong-sign", "--jobs", "1", "--no-baseline", "--cache", str(tmp_path))
    first = run(*only, "--json", str(report))
    assert first.returncode == 0, first.stderr
    assert "killed     linear-dx-wrong-sign" in first.stdout
    content = json.loads(report.read_text())
    assert content["results"][0]["outcome"] == KILLED
    assert content["results"][0]["by"].startswith("tests/ops/test_linear.py::")
    assert content["scores"][-1] == {
        "name": "all", "mutants": 1, "killed": 1, "survived": 0, "invalid": 0, "equivalent": 0
    }  # fmt: skip
    again = run(*only)
    assert again.returncode == 0
    assert "linear-dx-wrong-sign" not in again.stdout  # nothing was run


def test_list_and_bad_usage():
    assert len(run("--list").stdout.splitlines()) == len(load())
    none = run("--only", "no-such-mutant")
    assert none.returncode == 2
    assert none.stderr == "no mutant matches no-such-mutant\n"
    assert run("--jobs", "0").returncode == 2


# What a kernel may do, in the last line of a function that every test of philox.cuh calls.
IN_A_KERNEL = {
    "wrong": "return {counter.second, counter.first, counter.third, counter.fourth};",
    "endless": "for (volatile int forever = 1; forever;) {} return counter;",
    "invalid": "return nonsense;",
    "right": "return {counter.first, counter.second, counter.third, counter.fourth};",
}
RUN_KERNELS = """
import json, sys
from pathlib import Path
from tests.mutants.results import Store
from tests.mutants.runner import Limits, Runner
from tests.mutants.test_runner import MUTANT, IN_A_KERNEL, Edit

folder = Path(sys.argv[1])
runner = Runner(folder, 1, Store(folder / "results.jsonl"), Limits(first=6), lambda result, is_new: None)
mutant = MUTANT._replace(file="kernels/philox.cuh", tests=("tests/cuda/test_philox.py",))
mutants = [mutant._replace(id=id, edits=(Edit("return counter;", text),)) for id, text in IN_A_KERNEL.items()]
results = runner.run(mutants, baseline=False, whole_suite=False, keyword="published")
print(json.dumps({id: result.outcome for id, result in results.items()}))
"""


def test_mutants_of_kernels(tmp_path):
    """Those that never end are stopped, those that do not compile are no kills, the user's cache has none."""
    try:
        emulator.compiler()
    except emulator.EmulatorError as error:
        pytest.skip(f"no C++ compiler: {error}")
    command = [sys.executable, "-c", RUN_KERNELS, str(tmp_path / "runner")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {"wrong": KILLED, "endless": TIMEOUT, "invalid": INVALID, "right": PASSED}
    assert not (tmp_path / "cache").exists()


def test_select_by_id_and_by_file():
    mutants = load()
    assert [m.id for m in select(mutants, ["linear-dx-wrong-sign"])] == ["linear-dx-wrong-sign"]
    assert {m.file for m in select(mutants, ["npbert/heads/*"])} == {
        m.file for m in mutants if m.file.startswith("npbert/heads/")
    }
    assert select(mutants, None) == mutants


def test_store_remembers_and_forgets(tmp_path):
    path = tmp_path / "results.jsonl"
    result = Result("x", KILLED, "tests/test_x.py::test", 0.5)
    Store(path).put("key", result)
    Store(path).put_seconds({"test": 2.0})
    assert Store(path).get("key") == result
    assert Store(path).get("other") is None
    assert Store(path).seconds() == {"test": 2.0}
    assert Store(path, fresh=True).get("key") is None
    assert Store(path).get("key") is None


@pytest.mark.parametrize(
    ("changed", "first", "second"),
    [
        ("npbert/x.py", True, True),
        ("tests/test_x.py", True, True),
        ("tests/helper.py", True, True),
        ("tests/golden/data.bin", True, True),
        ("tests/test_other.py", False, True),
    ],
)
def test_results_are_stale_once_what_they_depend_on_changes(tmp_path, changed, first, second):
    for name in (
        "npbert/x.py",
        "tests/test_x.py",
        "tests/helper.py",
        "tests/golden/data.bin",
        "tests/test_other.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    before = Fingerprints(tmp_path)
    (tmp_path / changed).write_text("after")
    after = Fingerprints(tmp_path)
    assert (before.first_stage(MUTANT, "text") != after.first_stage(MUTANT, "text")) == first
    assert (before.second_stage(MUTANT, "text") != after.second_stage(MUTANT, "text")) == second
    assert after.first_stage(MUTANT, "text") != after.first_stage(MUTANT, "another text")


@pytest.mark.parametrize(
    ("mutant", "outcome", "right"),
    [
        (MUTANT, KILLED, True),
        (MUTANT, TIMEOUT, True),
        (MUTANT, PASSED, False),
        (MUTANT, INVALID, False),
        (EQUIVALENT, PASSED, True),
        (EQUIVALENT, KILLED, False),
    ],
)
def test_what_is_right(mutant, outcome, right):
    assert is_right(mutant, Result(mutant.id, outcome, "", 0.0)) == right


def test_scores():
    results = {"x": Result("x", TIMEOUT, "", 0.0), "e": Result("e", PASSED, "", 0.0)}
    lines = scores([MUTANT, EQUIVALENT], results)
    assert lines == [("npbert/x.py", 2, 1, 0, 0, 1), ("all", 2, 1, 0, 0, 1)]
    assert table(lines).splitlines()[-1].split() == ["all", "2", "1", "0", "0", "1"]
