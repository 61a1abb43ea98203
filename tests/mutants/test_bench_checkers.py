"""The comparison of checkers in benchmarks/, without its peers: it runs, and it counts right."""

import json
import subprocess
import sys

import pytest

from benchmarks import bench_checkers, op_pairs
from npbert import ops
from tests.mutants.catalogue import ROOT, load

MUTANTS = [mutant for mutant in load() if mutant.id.startswith("linear-dweight-")][:3]


def test_kills_and_false_alarms():
    checkers = {
        "npbert": bench_checkers.ask_npbert,
        "accepts everything": lambda pair: "right",
        "rejects everything": lambda pair: "wrong",
    }
    run = bench_checkers.Run(checkers, MUTANTS, seconds=float("inf"))
    run.run(["rich"], draws=1)
    found = {name: bench_checkers.summary(run, "rich", name, set()) for name in checkers}
    assert [found[name]["backward"] for name in found] == [3, 3, 3]
    assert [found[name]["backward_killed"] for name in found] == [3, 0, 0]
    assert [found[name]["false_alarms"] for name in found] == [0, 0, 2]  # with and without a bias
    assert found["npbert"]["checks_found"] == found["npbert"]["checks"] > 0
    assert found["accepts everything"]["backward_missed"] == sorted(mutant.id for mutant in MUTANTS)


@pytest.mark.parametrize("inputs", ["rich", "bland"])
@pytest.mark.parametrize("module", op_pairs.CASES_OF)
def test_right_pairs_are_accepted(module, inputs):
    for case in op_pairs.case_names(module, inputs):
        pair = op_pairs.draw(module, inputs, case, seed=0)
        assert bench_checkers.ask_npbert(pair) == "right", case


def test_a_mutant_is_taken_away_again():
    before = ops.linear_backward
    with op_pairs.installed(MUTANTS[0]):
        assert ops.linear_backward is not before
    assert ops.linear_backward is before


def test_command():
    command = [sys.executable, "benchmarks/bench_checkers.py", "--only", MUTANTS[0].id, "--peers"]
    command += ["--draws", "1", "--inputs", "rich", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["problems"] == facts["problems_wanted"] == 2
    figures = facts["inputs"]["rich"]["npbert.gradcheck"]
    assert (figures["backward_killed"], figures["false_alarms"]) == (1, 0)
