"""The judgement line by line: which line a value belongs to, and how it is wrong."""

import pytest

from npbert.learn.checking import check_exercise
from npbert.learn.exercise import prescribed_lines, replace_lines
from npbert.learn.exercises import BERT, LAYERNORM, LINEAR, SOFTMAX
from tests.learn.files import write, write_edited


def marks(result) -> dict[str, str]:
    """Return the marks by the names of the variables."""
    return {line.source.split("=")[0].strip(): line.mark for line in result.lines if line.mark}


def test_values_and_index_of_the_first_wrong_line(tmp_path):
    result = check_exercise(SOFTMAX, write(tmp_path, SOFTMAX, {"weighted": "dprobs * probs + (dprobs > 1)"}))
    assert marks(result) == {"weighted": "differs", "expected": "follows", "dx": "follows"}
    first = next(line for line in result.lines if line.mark == "differs")
    assert first.name == "weighted"
    assert first.yours == pytest.approx(first.reference + 1)
    assert f"weighted{list(first.index)}" in first.detail
    assert "of 12 wrong" in first.detail


def test_what_follows_from_two_wrong_lines(tmp_path):
    """A tuple, a comprehension, and a second mistake behind the first."""
    path = write(
        tmp_path,
        LAYERNORM,
        {
            "dx_hat": "dy",
            "through_mean": "np.stack([row.mean(axis=-1, keepdims=True) for row in dx_hat])",
            "dx": "dx_hat - through_mean",
        },
    )
    found = marks(check_exercise(LAYERNORM, path))
    assert found["dx_hat"] == found["dx"] == "differs"
    assert found["through_mean"] == found["through_variance"] == "follows"
    assert found["dbias"] == "ok"


def test_following_lines_of_a_tuple(tmp_path):
    path = write(tmp_path, BERT, {"dcontext": "2 * ops.split_heads(dmerged, HEADS)"})
    result = check_exercise(BERT, path)
    found = marks(result)
    assert found["dcontext"] == "differs"
    assert found["dq, dk, dv, _"] == found["through_key"] == found["dtable"] == "follows"
    assert result.report["status"] == "failed"


def test_wrong_shape(tmp_path):
    """Without keepdims the sum does not broadcast."""
    result = check_exercise(SOFTMAX, write(tmp_path, SOFTMAX, {"expected": "weighted.sum(axis=-1)"}))
    assert marks(result) == {"weighted": "ok", "expected": "wrong shape", "dx": "error"}
    line = next(line for line in result.lines if line.mark == "wrong shape")
    assert line.detail == "expected has shape (3,); it must be (3, 1)"
    assert result.problem.kind == "exception"
    assert "broadcast" in result.problem.message


def test_not_an_array(tmp_path):
    result = check_exercise(SOFTMAX, write(tmp_path, SOFTMAX, {"weighted": "None"}))
    assert marks(result) == {"weighted": "differs", "expected": "error"}
    assert result.problem.message.startswith("AttributeError")


def test_nan_differs(tmp_path):
    result = check_exercise(SOFTMAX, write(tmp_path, SOFTMAX, {"dx": "probs * np.nan"}))
    assert marks(result)["dx"] == "differs"
    assert result.problem.kind == "not finite"
    line = next(line for line in result.lines if line.mark == "differs")
    assert "is nan; it must be" in line.detail
    assert line.yours is None, "JSON has no NaN"


def test_a_statement_over_several_lines(tmp_path):
    path = write(tmp_path, LINEAR, {"dweight": "(\n        dy_rows.T\n        @ x_rows\n        * 2\n    )"})
    result = check_exercise(LINEAR, path)
    wrong = next(line for line in result.lines if line.mark == "differs")
    assert wrong.source.strip() == "dweight = ("


def test_values_changed_in_place(tmp_path):
    """The value counts after the line that completed it."""
    path = write(tmp_path, LINEAR, {"dweight": "dy_rows.T @ x_rows / 2\n    dweight *= 2"})
    result = check_exercise(LINEAR, path)
    assert result.solved
    assert "differs" not in {line.mark for line in result.lines}


def test_right_lines_and_a_wrong_return(tmp_path):
    path = write_edited(tmp_path, LAYERNORM, "return dx, dweight, dbias", "return dx, dbias, dweight")
    result = check_exercise(LAYERNORM, path)
    assert result.status == "wrong"
    assert {line.mark for line in result.lines} == {"ok", ""}


def test_some_lines_to_do(tmp_path):
    """What is there is judged; what fails because it uses what is missing is no error."""
    path = write(tmp_path, SOFTMAX, {"expected": "...", "weighted": "dprobs + probs"})
    result = check_exercise(SOFTMAX, path)
    assert result.status == "to do"
    assert marks(result) == {"weighted": "differs", "expected": "to do"}


def test_an_error_beside_lines_to_do(tmp_path):
    path = write(tmp_path, SOFTMAX, {"weighted": "dprobs * prob", "dx": "..."})
    result = check_exercise(SOFTMAX, path)
    assert (result.status, result.problem.kind) == ("broken", "unknown name")
    assert marks(result) == {"weighted": "error", "dx": "to do"}


def test_replace_lines_refuses_a_line_that_is_not_there():
    with pytest.raises(ValueError, match="no line for dz"):
        replace_lines(LINEAR.solution, "linear_backward", {"dz": "1"})


def test_prescribed_lines_of_a_tuple():
    source = "def f(dy, cache):\n    q, k = cache\n    dq, dk, _ = g(dy)  # (T, H) each\n    return dq, dk\n"
    (line,) = prescribed_lines(source, "f")
    assert (line.target, line.names) == ("dq, dk, _", ("dq", "dk"))
    assert "dq, dk, _ = ...  # (T, H) each" in replace_lines(source, "f", {line.target: "..."})
