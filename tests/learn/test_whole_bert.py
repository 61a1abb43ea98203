"""The last exercise: the learner's functions as an engine, checked and trained."""

import numpy as np
import pytest

import npbert.ops
from npbert.learn.checking import solution_pair
from npbert.learn.engine import engine_of
from npbert.learn.exercises import ATTENTION, BERT, GELU, LADDER, LAYERNORM
from npbert.learn.whole_bert import EARLIER, check_model, check_whole_bert
from tests.learn.files import solve_all, write

PLUGGED = ("linear", "bias", "gelu", "softmax", "cross-entropy", "layernorm", "embedding", "attention")


@pytest.fixture
def solved(tmp_path):
    """Return a directory in which everything is solved."""
    solve_all(tmp_path)
    return tmp_path


def test_everything_solved_trains(solved):
    result = check_whole_bert(solved)
    assert result.status == "solved"
    assert result.losses[0] > 3
    assert np.mean(result.losses[-20:]) < 0.2
    assert "the cat drinks [MASK]: milk" in result.notes


def test_an_unsolved_part_keeps_it_open(solved):
    write(solved, GELU, {"slope": "gate"})
    (solved / ATTENTION.file_name).unlink()
    result = check_whole_bert(solved)
    assert (result.status, result.losses) == ("to do", ())
    assert result.notes == (
        "first solve gelu, attention: until then the textbook's functions stand in for yours",
    )


def test_a_wrong_joint_is_diagnosed_before_the_parts_are_there(tmp_path):
    wrong = BERT.wrong_answer("forgets the residual around attention")
    write(tmp_path, BERT, wrong.lines)
    result = check_whole_bert(tmp_path)
    assert (result.status, result.mistake) == ("wrong", wrong.name)


def test_the_engine_runs_the_learners_functions():
    """Each operation that BERT is built on is called, forward and backward, in npbert's own model."""
    called = set()

    def spied(name, function):
        def spy(*args):
            called.add((name, function.__name__.rpartition("_")[2]))
            return function(*args)

        return spy

    pairs = {exercise.name: solution_pair(exercise) for exercise in EARLIER}
    spies = {
        name: type(pair)(spied(name, pair.forward), spied(name, pair.backward))
        for name, pair in pairs.items()
    }
    assert check_model(engine_of(spies)).ok
    expected = set(PLUGGED) - {"softmax"}  # attention has its own; the op stands by itself
    assert called == {(name, way) for name in expected for way in ("forward", "backward")}


def test_the_model_check_sees_a_wrong_part():
    pairs = {exercise.name: solution_pair(exercise) for exercise in EARLIER}
    pairs["layernorm"] = solution_pair(LAYERNORM, {"dx_hat": "dy"})
    report = check_model(engine_of(pairs))
    assert report.status == "failed"
    assert "bert.embeddings.LayerNorm.bias" in report.failures


def test_the_engine_has_all_names_and_falls_back():
    engine = engine_of({})
    assert set(npbert.ops.__all__) <= set(vars(engine))
    assert engine.layernorm_backward is npbert.ops.layernorm_backward
    assert engine_of({"layernorm": solution_pair(LAYERNORM)}).layernorm_backward.__module__ != "npbert.ops"


def test_bert_comes_last():
    assert LADDER[-1] is BERT
