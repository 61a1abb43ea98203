"""The script that counts false alarms: it counts, goes on where it stopped, and a wrong op would show."""

import json
import sys

import pytest

from benchmarks import false_alarms
from npbert.gradcheck.suite import draw_problem


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["false_alarms.py", "--json", *arguments])
    code = false_alarms.main()
    return code, json.loads(capsys.readouterr().out)


def test_draws_take_turns():
    assert false_alarms.draws(["a", "b"], 5) == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]


def test_it_goes_on_where_it_stopped(monkeypatch, capsys, tmp_path):
    state = tmp_path / "state.jsonl"
    code, first = run(monkeypatch, capsys, "--draws", "3", "--state", str(state))
    assert code == 0
    assert (first["draws"], first["failed"], first["inconclusive"]) == (3, 0, 0)
    assert 0 < first["worst"]["max_error"] <= 1e-11

    with state.open("a") as file:
        file.write('{"case": "layern')  # cut off by a crash
    asked = []
    monkeypatch.setattr(false_alarms, "run", lambda todo, jobs, file: asked.append(list(todo)) or [])
    code, again = run(monkeypatch, capsys, "--draws", "3", "--state", str(state))
    assert asked == [[]]
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_a_wrong_op_shows(monkeypatch, capsys):
    def draw(name, seed):
        problem = draw_problem(name, seed)
        return problem._replace(backward=lambda dy, cache: [-one for one in problem.backward(dy, cache)])

    monkeypatch.setattr(false_alarms, "draw_problem", draw)
    result = false_alarms.examine(("linear (bias)", 7))
    assert (result["status"], result["seed"]) == ("failed", 7)
    assert "FAILED" in result["report"]
    monkeypatch.setattr(false_alarms, "run", lambda todo, jobs, file: map(false_alarms.examine, todo))
    code, figures = run(monkeypatch, capsys, "--draws", "1")
    assert (code, figures["failed"]) == (1, 1)
    assert figures["alarms"][0]["case"] == "linear (bias)"


def test_misuse(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, "--draws", "0")
    assert "--draws and --jobs must be at least 1" in capsys.readouterr().err
