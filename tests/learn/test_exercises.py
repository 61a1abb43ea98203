"""Every exercise of the ladder: its stub fails, its solution passes, its wrong answers are recognised."""

import numpy as np
import pytest

from npbert import ops
from npbert.learn.checking import check_exercise, draw_cotangent, known_mistakes, solution_pair
from npbert.learn.exercise import prescribed_lines
from npbert.learn.exercises import (
    ATTENTION,
    CROSS_ENTROPY,
    EMBEDDING,
    GELU,
    LADDER,
    LAYERNORM,
    LINEAR,
    SOFTMAX,
)
from npbert.learn.same import same_array
from tests.learn.files import write

WRONG = [(exercise, wrong) for exercise in LADDER for wrong in exercise.wrong_answers]


def same_gradients(one, two):
    """Tell whether two backwards returned the same: an array, or several, or dictionaries of them."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same_gradients(one[key], two[key]) for key in one)
    if isinstance(one, tuple) and isinstance(two, tuple):
        return len(one) == len(two) and all(map(same_gradients, one, two))
    return same_array(one, two)


def name_of(value):
    return getattr(value, "name", None)


def test_the_ladder_is_the_promised_one():
    assert [exercise.name for exercise in LADDER] == [
        "linear",
        "bias",
        "gelu",
        "softmax",
        "cross-entropy",
        "layernorm",
        "embedding",
        "attention",
        "tied-decoder",
        "bert",
    ]


@pytest.mark.parametrize("exercise", LADDER, ids=name_of)
def test_content_is_complete(exercise):
    assert len(exercise.hints) == 3
    assert all(len(hint) > 40 for hint in exercise.hints)
    assert len(exercise.wrong_answers) >= 4
    for field in ("name", "description"):
        values = [getattr(wrong, field) for wrong in exercise.wrong_answers]
        assert all(values)
    assert len({wrong.name for wrong in exercise.wrong_answers}) == len(exercise.wrong_answers)
    assert max(map(len, exercise.formula.splitlines())) < 80
    assert max(map(len, exercise.source().splitlines())) <= 110


@pytest.mark.parametrize("exercise", LADDER, ids=name_of)
def test_stub_is_to_do(exercise, tmp_path):
    path = tmp_path / exercise.file_name
    path.write_text(exercise.stub(), encoding="utf-8")
    result = check_exercise(exercise, path)
    assert (result.status, result.problem) == ("to do", None)
    prescribed = prescribed_lines(exercise.solution, exercise.backward_name)
    assert len(prescribed) >= 3
    assert sum(line.mark == "to do" for line in result.lines) == len(prescribed)
    assert {line.mark for line in result.lines} == {"to do", ""}


@pytest.mark.parametrize("exercise", LADDER, ids=name_of)
def test_solution_solves(exercise, tmp_path):
    result = check_exercise(exercise, write(tmp_path, exercise))
    assert result.status == "solved"
    marks = [line.mark for line in result.lines if line.mark]
    assert marks == ["ok"] * len(prescribed_lines(exercise.solution, exercise.backward_name))


@pytest.mark.parametrize(("exercise", "wrong"), WRONG, ids=name_of)
def test_wrong_answer_gets_its_own_diagnosis(exercise, wrong, tmp_path):
    result = check_exercise(exercise, write(tmp_path, exercise, wrong.lines))
    assert result.status in ("wrong", "broken")  # broken: where the shape is wrong
    assert (result.mistake, result.diagnosis) == (wrong.name, wrong.description)
    assert result.report is not None
    assert result.report["status"] == "failed"


@pytest.mark.parametrize(("exercise", "wrong"), WRONG, ids=name_of)
def test_wrong_lines_are_those_that_were_changed(exercise, wrong, tmp_path):
    result = check_exercise(exercise, write(tmp_path, exercise, wrong.lines))
    marked = [line for line in result.lines if line.mark in ("differs", "wrong shape")]
    assert marked, "no line is marked"
    assert {line.name for line in marked} <= set(wrong.lines)
    if marked[0].mark == "differs" and marked[0].yours is not None:
        assert abs(marked[0].yours - marked[0].reference) > 1e-9


@pytest.mark.parametrize("exercise", LADDER, ids=name_of)
def test_wrong_answers_differ_from_each_other_and_from_the_solution(exercise):
    pair = solution_pair(exercise)
    args = [case for case in exercise.cases() if not is_float32(case)]
    inputs = [(draw_cotangent(output), cache) for output, cache in (pair.forward(*case) for case in args)]
    backwards = [pair.backward, *(mistake.backward for mistake in known_mistakes(exercise))]
    gradients = [[backward(dy, cache) for dy, cache in inputs] for backward in backwards]
    for number, one in enumerate(gradients):
        for two in gradients[:number]:
            assert not all(same_gradients(a, b) for a, b in zip(one, two, strict=True))


def is_float32(case) -> bool:
    return any(isinstance(arg, np.ndarray) and arg.dtype == np.float32 for arg in case)


@pytest.mark.parametrize(
    ("exercise", "forward", "backward"),
    [
        (GELU, ops.gelu_forward, ops.gelu_backward),
        (SOFTMAX, ops.softmax_forward, ops.softmax_backward),
        (CROSS_ENTROPY, ops.cross_entropy_forward, ops.cross_entropy_backward),
        (LAYERNORM, ops.layernorm_forward, ops.layernorm_backward),
        (ATTENTION, ops.softmax_attention_forward, ops.softmax_attention_backward),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_solution_agrees_with_the_textbook(exercise, forward, backward):
    pair = solution_pair(exercise)
    for case in exercise.cases():
        y, cache = pair.forward(*case)
        textbook_y, textbook_cache = forward(*case)
        np.testing.assert_allclose(y, textbook_y, rtol=1e-6, atol=1e-7)
        dy = draw_cotangent(y)
        assert same_gradients(pair.backward(dy, cache), backward(dy, textbook_cache))


def test_a_mistake_of_ones_own_is_not_given_another_name(tmp_path):
    result = check_exercise(LINEAR, write(tmp_path, LINEAR, {"dx": "(dy @ weight) * 1.5"}))
    assert (result.status, result.mistake) == ("wrong", "")


def test_lines_may_be_written_otherwise(tmp_path):
    """No prescribed name is needed: what counts is the gradient."""
    source = EMBEDDING.source()
    start = source.index("    dy_rows =")
    body = "    table = np.zeros((vocabulary, width), dy.dtype)\n    np.add.at(table, ids, dy)\n"
    body += "    if padding_idx is not None:\n        table[padding_idx] = 0\n    return table\n"
    path = tmp_path / EMBEDDING.file_name
    path.write_text(source[:start] + body, encoding="utf-8")
    assert check_exercise(EMBEDDING, path).solved


def test_not_started(tmp_path):
    assert check_exercise(LINEAR, tmp_path / "linear.py").status == "not started"
