"""Hunts: each bug is visible, its answer is accepted, every other is refused with a reason."""

import pytest

from npbert.learn.hunts import all_hunts, evidence

HUNTS = all_hunts()


def hunt_id(hunt):
    return f"{hunt.number} {hunt.exercise.name}"


def test_there_are_enough_and_they_are_the_same_each_time():
    assert len(HUNTS) >= 12
    assert [hunt.number for hunt in HUNTS] == list(range(1, len(HUNTS) + 1))
    assert all_hunts() == HUNTS
    assert len({(hunt.exercise.name, hunt.bug.name) for hunt in HUNTS}) == len(HUNTS)
    assert len({hunt.answer for hunt in HUNTS}) > 2, "the right answer always has the same number"


@pytest.mark.parametrize("hunt", HUNTS, ids=hunt_id)
def test_choices(hunt):
    assert 4 <= len(hunt.choices) <= 5
    assert hunt.choices[hunt.answer - 1] is hunt.bug
    assert len({choice.symptom for choice in hunt.choices}) == len(hunt.choices)


@pytest.mark.parametrize("hunt", HUNTS, ids=hunt_id)
def test_answers(hunt):
    for number, choice in enumerate(hunt.choices, start=1):
        why = hunt.explain(number)
        assert choice.symptom in why
        if number == hunt.answer:
            assert why.startswith("Yes")
            assert choice.description in why
        else:
            assert why.startswith("No")
            assert hunt.bug.name not in why, "a refusal gives the answer away"


@pytest.mark.parametrize("hunt", HUNTS, ids=hunt_id)
def test_the_report_shows_the_bug(hunt):
    found = evidence(hunt)
    assert not found[0].report.ok
    assert any(row.status == "failed" for row in found[0].report.tensors)
    assert found[0].numbers
    for _, wrong, right in found[0].numbers:
        assert wrong != right
