"""Fools: the weak check passes the solution, the strong one does not; a right backward fools nobody."""

import pytest

from npbert.learn.fooling import check_fool, solution_functions, strong_check
from npbert.learn.fools import FOOLS

RIGHT = {
    "all-ones": {"dx": "probs * (dprobs - (dprobs * probs).sum(axis=-1, keepdims=True))"},
    "symmetric-weight": {"dx": "dy @ weight"},
    "norm-only": {"dweight": "dy.T @ x"},
    "loose-tolerance": {"dx": "dy * (normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))"},
    "no-padding": {"dx": "dy[:, None, :] * weights"},
    "dropout-off": {"dx": "dy * (1 - t * t) * keep / (1 - rate)"},
    "distinct-ids": {"dtable": "np.zeros(shape)\n    np.add.at(dtable, ids, dy)\n    return dtable"},
    "unit-weight": {"dx_hat": "dy * weight"},
}


def fool_id(fool):
    return fool.name


def with_lines(fool, lines) -> str:
    """Return a fool's file with some right-hand sides replaced."""
    source = fool.source()
    start = source.index("def backward")
    body = source[start:]
    for target, value in lines.items():
        row = next(row for row in body.splitlines() if row.strip().startswith(f"{target} = "))
        body = body.replace(row, f"    {target} = {value}")
    return source[:start] + body


def check_text(fool, text, directory):
    path = directory / fool.file_name
    path.write_text(text, encoding="utf-8")
    return check_fool(fool, path)


def test_there_are_enough():
    assert len(FOOLS) >= 5
    assert [fool.number for fool in FOOLS] == list(range(1, len(FOOLS) + 1))
    assert set(RIGHT) == {fool.name for fool in FOOLS}
    for fool in FOOLS:
        assert len(fool.hints) == 3
        assert max(map(len, fool.source().splitlines())) <= 110


@pytest.mark.parametrize("fool", FOOLS, ids=fool_id)
def test_the_weak_check_passes_the_solution_and_the_strong_does_not(fool):
    given = solution_functions(fool)
    given["weak_check"](given["forward"], given["backward"])  # raises where it does not pass
    report = strong_check(fool, given["forward"], given["backward"])
    assert report is not None
    assert report.status == "failed"


@pytest.mark.parametrize("fool", FOOLS, ids=fool_id)
def test_the_weak_check_is_a_check(fool):
    """It does see a backward that is plainly wrong."""
    given = solution_functions(fool)

    def plainly_wrong(dy, cache):
        found = given["backward"](dy, cache)
        return tuple(3 * one + 1 for one in found) if isinstance(found, tuple) else 3 * found + 1

    with pytest.raises(AssertionError, match=r"is .* not "):
        given["weak_check"](given["forward"], plainly_wrong)


@pytest.mark.parametrize("fool", FOOLS, ids=fool_id)
def test_stub_solution_and_right_backward(fool, tmp_path):
    assert check_fool(fool, tmp_path / fool.file_name).status == "not started"
    assert check_text(fool, fool.stub(), tmp_path).status == "to do"
    solved = check_text(fool, fool.source(), tmp_path)
    assert solved.status == "solved"
    assert solved.notes == (fool.why,)
    right = check_text(fool, with_lines(fool, RIGHT[fool.name]), tmp_path)
    assert right.status == "wrong"
    assert "your backward is right" in right.notes[0]


@pytest.mark.parametrize("fool", FOOLS, ids=fool_id)
def test_bad_files(fool, tmp_path):
    def backward(body: str) -> str:
        return fool.source() + f"\n\ndef backward(dy, cache):\n    {body}\n"

    seen = check_text(
        fool, backward("return tuple(np.full(np.shape(one), 7.0) for one in (dy, dy))"), tmp_path
    )
    assert seen.status in ("wrong", "broken")
    assert check_text(fool, backward("return dz"), tmp_path).problem.kind == "unknown name"
    assert check_text(fool, backward("return None"), tmp_path).problem.kind == "not an array"
    assert check_text(fool, "def backward(", tmp_path).problem.kind == "syntax error"
    assert check_text(fool, "x = 1", tmp_path).problem.kind == "missing function"


def test_what_the_weak_check_sees_is_said(tmp_path):
    fool = FOOLS[0]
    result = check_text(fool, with_lines(fool, {"dx": "np.ones_like(probs)"}), tmp_path)
    assert result.status == "wrong"
    assert "the weak check sees it: dx[0, 0] is 1, not" in result.notes[0]


def test_the_checker_uses_its_own_weak_check(tmp_path):
    fool = FOOLS[0]
    text = with_lines(fool, {"dx": "np.ones_like(probs)"})
    text += "\n\ndef weak_check(forward, backward):\n    pass\n"
    assert check_text(fool, text, tmp_path).status == "wrong"
