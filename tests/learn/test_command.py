"""``npbert learn`` as a user meets it: files, exit codes, JSON, watching, answers."""

import json
import os
import subprocess
import sys
import time

import pytest

from npbert.learn.exercises import LADDER, LAYERNORM, LINEAR, SOFTMAX
from npbert.learn.fools import FOOLS
from npbert.learn.hunts import all_hunts
from npbert.learn.workshop import move_aside, note_answer, solved_hunts, write_new
from tests.cli.running import ROOT, assert_fails, run
from tests.learn.files import write


@pytest.fixture
def learn(capsys, tmp_path, monkeypatch):
    """Return a function that runs ``npbert learn`` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv: run(capsys, "learn", *argv)


@pytest.fixture
def files(tmp_path):
    """Return the default directory of the learner's files."""
    (tmp_path / "npbert-learn").mkdir()
    return tmp_path / "npbert-learn"


def test_the_list(learn, files):
    write(files, LINEAR)
    write(files, LAYERNORM, LAYERNORM.wrong_answers[0].lines)
    write(files, SOFTMAX, {"dx": "dy *"})
    code, output, error = learn()
    assert (code, error) == (0, "")
    rows = {row.split()[1]: row for row in output.splitlines() if len(row.split()) > 1}
    assert rows["linear"].endswith("solved")
    assert rows["layernorm"].endswith("wrong: forgets the mean term")
    assert rows["softmax"].endswith("broken: syntax error")
    assert rows["bert"].endswith("not started")
    assert "Next: npbert learn bias" in output
    listed = json.loads(learn("--json")[1])
    assert [one["name"] for one in listed["exercises"]] == [exercise.name for exercise in LADDER]
    assert listed["exercises"][0]["status"] == "solved"
    assert len(listed["fools"]) == len(FOOLS)


def test_the_list_makes_no_files(learn, tmp_path):
    assert learn()[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_first_a_stub_then_checks_never_overwritten(learn, tmp_path):
    code, output, error = learn("layernorm")
    path = tmp_path / "npbert-learn" / "layernorm.py"
    assert (code, error) == (1, "")
    assert path.read_text() == LAYERNORM.stub()
    assert "Written: npbert-learn" in output
    assert "6 lines" in output
    code, output, _ = learn("layernorm")
    assert (code, path.read_text()) == (1, LAYERNORM.stub())
    assert "6 of 6 lines to do" in output
    write(path.parent, LAYERNORM)
    own = path.read_text()
    code, output, _ = learn("layernorm")
    assert (code, path.read_text()) == (0, own)
    assert "layernorm: solved" in output
    assert "Next: npbert learn embedding" in output


def test_a_wrong_answer(learn, files):
    write(files, LAYERNORM, LAYERNORM.wrong_answer("forgets the mean term").lines)
    code, output, _ = learn("layernorm")
    assert code == 1
    lines = output.splitlines()
    assert lines[0] == "layernorm: not yet"
    assert lines[1] == "Your gradients equal those of the backward that forgets the mean term:"
    assert any(row.startswith("differs") and "dx = (dx_hat" in row for row in lines)
    assert any(row.startswith("ok") and "through_mean =" in row for row in lines)
    assert any(row.startswith("First wrong line: ") and "dx[1, 0, 0] is -0.57387" in row for row in lines)
    assert any(row.startswith("x ") and "failed" in row for row in lines)


def test_json_of_a_check(learn, files):
    created = json.loads(learn("linear", "--json")[1])
    assert (created["created"], created["solved"], created["status"]) == (True, False, "to do")
    write(files, LINEAR, {"dx": "dy @ wait"})
    code, output, error = learn("linear", "--json")
    found = json.loads(output)
    assert (code, error, found["created"]) == (1, "", False)
    assert found["problem"]["kind"] == "unknown name"
    assert found["lines"][-2]["mark"] == "error"


def test_no_traceback_for_a_syntax_error(learn, files):
    write(files, LINEAR, {"dx": "dy @@ weight"})
    code, output, error = learn("linear")
    assert (code, error) == (1, "")
    assert "Syntax error in line" in output
    assert "Traceback" not in output


def test_hints_and_solution(learn, tmp_path):
    for number in (1, 2, 3):
        code, output, _ = learn("gelu", "--hint", str(number))
        assert (code, output.splitlines()[0]) == (0, f"Hint {number} of 3")
    code, output, _ = learn("softmax", "--solution")
    assert (code, output) == (0, SOFTMAX.source())
    assert json.loads(learn("fool", "2", "--solution", "--json")[1])["solution"] == FOOLS[1].source()
    assert list(tmp_path.iterdir()) == [], "asking for help writes nothing"


def test_reset_keeps_a_backup(learn, files, capsys):
    path = write(files, LINEAR)
    assert_fails(capsys, ["learn", "linear", "--reset"], 2, "--yes")
    assert path.read_text() == LINEAR.source()
    for number in (1, 2):
        path.write_text(f"# mine, {number}\n")
        assert learn("linear", "--reset", "--yes")[0] == 0
        assert path.read_text() == LINEAR.stub()
        assert (files / f"linear.py.{number}.bak").read_text() == f"# mine, {number}\n"


def test_hunts(learn, tmp_path):
    hunt = all_hunts()[2]
    code, output, _ = learn("hunt", "3")
    assert code == 1
    assert "sum_j exp" in output
    assert all(choice.name in output for choice in hunt.choices)
    assert hunt.bug.lines["dx"] not in output, "the code is not shown"
    wrong = hunt.answer % len(hunt.choices) + 1
    code, output, _ = learn("hunt", "3", "--answer", str(wrong))
    assert (code, output[:3]) == (1, "No.")
    assert not (tmp_path / "npbert-learn").exists(), "wrong answers are not noted"
    code, output, _ = learn("hunt", "3", "--answer", str(hunt.answer))
    assert (code, output[:4]) == (0, "Yes,")
    assert f"dx = {hunt.bug.lines['dx']}" in output
    assert "1 of 16 found" in learn()[1]
    assert learn("hunt", "3")[0] == 0
    assert json.loads(learn("hunt", "--json")[1])["number"] == 1, "the first that is not found"
    facts = json.loads(learn("hunt", "4", "--solution", "--json")[1])
    assert facts["answer"] == all_hunts()[3].answer


def test_fools(learn, tmp_path):
    code, output, _ = learn("fool")
    path = tmp_path / "npbert-learn" / FOOLS[0].file_name
    assert code == 1
    assert path.read_text() == FOOLS[0].stub()
    assert learn("fool", "1")[0] == 1
    path.write_text(FOOLS[0].source())
    code, output, _ = learn("fool", "1")
    assert code == 0
    assert "The strong check does not" in output
    assert "compares zeros" in output.replace("\n", " ")
    assert learn("fool")[0] == 1
    assert (tmp_path / "npbert-learn" / FOOLS[1].file_name).exists(), "the next one"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["layernrom"], ["did you mean layernorm?"]),
        (["linear", "3"], ["linear has no numbers"]),
        (["hunt", "99"], ["there are 16"]),
        (["fool", "99"], ["there are 8"]),
        (["hunt", "0"], ["at least 1"]),
        (["hunt", "1", "--answer", "9"], ["1 to 5"]),
        (["hunt", "1", "--hint", "1"], ["no --hint"]),
        (["linear", "--answer", "1"], ["for hunts"]),
        (["linear", "--hint", "4"], ["--hint"]),
        (["linear", "--hint", "1", "--watch"], ["not allowed with"]),
        (["linear", "--yes"], ["--reset"]),
        (["linear", "--watch", "--json"], ["--json"]),
        (["--watch"], ["needs the name"]),
        (["linear", "--time-limit", "0"], ["more than 0"]),
        (["linear", "--time-limit", "soon"], ["not a number"]),
        (["linear", "--dir", "file"], ["not a directory"]),
    ],
)
def test_bad_usage(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert_fails(capsys, ["learn", *argv], 2, *words)


def test_another_directory_and_time_limit(learn, tmp_path):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine", LINEAR, {"dx": "0\n    while True:\n        pass"})
    code, output, _ = learn("linear", "--dir", "mine", "--time-limit", "1")
    assert code == 1
    assert "Time limit in line" in output
    assert "still running after 1 s" in output


def test_watch_checks_again_when_the_file_is_saved(files):
    """The whole way: a stub, a wrong answer, then the right one, which ends it."""
    command = [sys.executable, "-m", "npbert", "learn", "linear", "--watch", "--dir", str(files)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            shown = read_until(process, "Watching")
            assert "4 of 4 lines to do" in shown
            save(files, {"dx": "np.broadcast_to(weight.sum(axis=0), x.shape)"})
            shown = read_until(process, "Watching")
            assert "takes dy for ones in dx" in shown
            save(files, {})
            assert "linear: solved" in process.stdout.read()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def test_watch_is_stopped_by_ctrl_c(files):
    command = [sys.executable, "-m", "npbert", "learn", "linear", "--watch", "--dir", str(files)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        read_until(process, "Watching")
        process.send_signal(2)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (1, "")


def read_until(process, word: str) -> str:
    """Return what a process prints, up to the line with a word."""
    shown = ""
    for line in process.stdout:
        shown += line
        if line.startswith(word):
            return shown
    raise AssertionError(f"ended without {word!r}: {shown}")


def save(directory, lines) -> None:
    """Save as some editors do: write beside, then rename."""
    path = directory / LINEAR.file_name
    beside = directory / "linear.py.new"
    beside.write_text(LINEAR.source(lines), encoding="utf-8")
    # A file system may keep times in steps of a hundredth of a second.
    later = time.time_ns() + 10_000_000
    os.utime(beside, ns=(later, later))
    beside.replace(path)


def test_workshop(tmp_path):
    path = tmp_path / "new" / "file.py"
    assert write_new(path, "one")
    assert not write_new(path, "two")
    assert path.read_text() == "one"
    assert move_aside(path).read_text() == "one"
    assert move_aside(path) is None
    assert solved_hunts(tmp_path) == {}
    note_answer(tmp_path, 3, 2)
    (tmp_path / "hunts.txt").open("a").write("nonsense\n5 x\n7 1\n")
    assert solved_hunts(tmp_path) == {3: 2, 7: 1}
