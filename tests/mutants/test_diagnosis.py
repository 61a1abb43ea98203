"""The score of the diagnoses is computed as it says, and the mistakes of one op are all named."""

import pytest

from npbert.gradcheck.diagnosis.order import KINDS
from tests.mutants.catalogue import load
from tests.mutants.diagnosis import CASES, Score, cases_of, main, mutated_problems, run, summary, table

MUTANTS = {mutant.id: mutant for mutant in load()}


def test_expected_kinds_exist():
    expected = {mutant.diagnosis for mutant in MUTANTS.values()} - {""}
    assert len(expected) > 20
    assert expected <= set(KINDS)


def test_what_is_expected_is_asked_for():
    for mutant in MUTANTS.values():
        assert not mutant.diagnosis or mutant.file in CASES, mutant.id


@pytest.mark.parametrize("file", CASES)
def test_every_module_has_cases(file):
    assert cases_of(next(mutant for mutant in MUTANTS.values() if mutant.file == file))


def test_mistakes_are_named():
    file = "npbert/ops/linear.py"
    mutants = [mutant for mutant in MUTANTS.values() if mutant.file == file and mutant.equivalent is None]
    scores = [score for score in run(mutants, lambda score: None) if score.outcome == "scored"]
    assert len(scores) >= 10
    for score in scores:
        assert score.right, score
        assert not score.expected or score.kind == score.expected, score


def test_a_mutant_leaves_the_package_as_it_is():
    from npbert.ops import linear_backward

    mutant = MUTANTS["linear-dx-wrong-sign"]
    with mutated_problems(mutant) as draw:
        problem = draw("linear (bias)")
    assert problem.backward is not linear_backward
    assert problem.backward.__globals__ is not linear_backward.__globals__
    from npbert.ops import linear_backward as again

    assert again is linear_backward


def test_the_table():
    scores = [
        Score("a", "npbert/ops/x.py", "scored", right=True, expected="zero", kind="zero"),
        Score("b", "npbert/ops/x.py", "scored", right=False, expected="zero", kind="unknown"),
        Score("c", "npbert/ops/x.py", "scored", right=True),
        Score("d", "npbert/ops/x.py", "no gradient is wrong"),
    ]
    line, total = summary(scores)
    assert line[1:] == total[1:] == (4, 3, 2, 2, 1)
    assert "2 of 3  67%" in table([line, total])


def test_bad_usage(capsys):
    assert main(["--only", "nothing"]) == 2
    assert "no mutant" in capsys.readouterr().err
