"""``npbert gradcheck``."""

import json
import re

import numpy as np
import pytest

from npbert import ops
from npbert.cli.gradcheck_report import show
from npbert.gradcheck import check
from npbert.gradcheck.suite import case_names, run_suite
from tests.cli.running import assert_fails, run

# Quick ones: the whole suite is tested in tests/gradcheck.
SOME = ["--only", "layernorm*", "--only", "CLS POOLING"]
NAMES = ["layernorm (eps 1e-12)", "layernorm (eps 0.3)", "CLS pooling"]


def wrong_backward(dy, cache):
    """Return the gradients of a layer norm, of which dx is a little off."""
    dx, dweight, dbias = ops.layernorm_backward(dy, cache)
    return dx + 1e-3, dweight, dbias


@pytest.fixture
def broken_layernorm(monkeypatch):
    """Let one case of the suite be wrong."""
    from npbert.gradcheck import suite
    from npbert.gradcheck.suite.case import Case, Problem

    def draw(rng):
        args = (rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5), 0.3)
        return Problem(ops.layernorm_forward, wrong_backward, args)

    cases = [Case(case.name, draw) if case.name == NAMES[1] else case for case in suite.CASES]
    monkeypatch.setattr(suite, "CASES", tuple(cases))


def test_table(capsys):
    code, output, error = run(capsys, "gradcheck", *SOME)
    assert (code, error) == (0, "")
    header, *rows = output.splitlines()
    for word in ("case", "tensors", "oracle", "error", "worst tensor", "status"):
        assert word in header
    assert [name for row, name in zip(rows, NAMES, strict=False) if row.startswith(name)] == NAMES
    assert all(" passed " in row and " complex " in row for row in rows[:3])
    assert "All 7 gradients of 3 cases proven" in rows[-1]


def test_json(capsys):
    code, output, _ = run(capsys, "gradcheck", *SOME, "--seed", "5", "--json")
    found = json.loads(output)
    assert code == 0
    assert (found["ok"], found["seed"]) == (True, 5)
    assert [case["case"] for case in found["cases"]] == NAMES
    for case in found["cases"]:
        assert case["status"] == "passed"
        assert 0 < case["max_error"] < 1e-11
        assert "seed=5" in case["reproduce"]


def test_a_wrong_gradient(broken_layernorm, capsys):
    code, output, error = run(capsys, "gradcheck", *SOME)
    assert (code, error) == (1, "")
    row = next(line for line in output.splitlines() if line.startswith(NAMES[1]))
    assert " failed " in row and " x " in row
    assert "reproduce: from npbert.gradcheck.suite import run_case" in output
    assert output.count("reproduce:") == 1  # the reports of those that passed are not printed
    assert "1 of 3 cases not proven" in output


def test_a_wrong_gradient_in_full(broken_layernorm, capsys):
    _, output, _ = run(capsys, "gradcheck", *SOME)
    (_, report), *others = [found for found in run_suite(0, names=NAMES[:2]) if not found[1].ok]
    assert not others
    worst = report.tensors[0]
    lines = [line.strip() for line in output.splitlines()]
    assert f"{NAMES[1]}: FAILED" in lines
    assert " ".join(report.diagnosis.split()) in " ".join(output.split())  # wrapped, maybe
    assert "x (3, 5): failed" in lines
    figures = dict(re.split("  +", line, maxsplit=1) for line in lines if "  " in line)
    assert figures["worst entry"] == str(list(worst.worst_index))
    assert figures["gradient"] == f"{worst.gradient:.9g}"
    assert figures["complex step"].startswith(f"{worst.reference:.9g} ± ")
    assert figures["relative error"] == f"{worst.max_error:.1e}, tolerance 1e-11"
    assert figures["wrong"] == f"{worst.fraction_wrong:.0%} of 15 entries"
    assert any(line.startswith("failed: adjoint identity") for line in lines)
    assert all(len(line) <= 80 for line in lines if not line.startswith("reproduce:"))


def test_at_most_a_few_tensors_in_full(capsys):
    params = {f"p{number}": np.ones(2) for number in range(20)}
    report = check(
        lambda params: (sum(params.values()), params),
        lambda dy, params: dict.fromkeys(params, 2 * dy),
        (params,),
    )
    show(report)
    output = capsys.readouterr().out
    assert output.count("worst entry") == 8
    assert "and 12 more: " in output


def test_a_wrong_gradient_in_json(broken_layernorm, capsys):
    code, output, _ = run(capsys, "gradcheck", *SOME, "--json")
    found = json.loads(output)
    assert (code, found["ok"]) == (1, False)
    assert [case["status"] for case in found["cases"]] == ["passed", "failed", "passed"]


def test_list(capsys):
    assert run(capsys, "gradcheck", "--list") == (0, "\n".join(case_names()) + "\n", "")
    code, output, _ = run(capsys, "gradcheck", "--list", "--json", "--only", "layer*")
    assert (code, json.loads(output)) == (0, NAMES[:2])


def test_only_without_a_match(capsys):
    arguments = ["gradcheck", "--only", "layernorm*", "--only", "nothing*"]
    assert_fails(capsys, arguments, 2, "'nothing*'", "--list")


def test_html(broken_layernorm, capsys, tmp_path):
    path = tmp_path / "new" / "page.html"
    code, output, error = run(capsys, "gradcheck", *SOME, "--html", path)
    assert (code, error) == (1, "")
    assert f"The page is {path}" in output
    page = path.read_text(encoding="utf-8")
    assert "1 of 3 checks not proven" in page
    assert all(name in page for name in NAMES)
    assert list(path.parent.iterdir()) == [path]


def test_html_and_json(capsys, tmp_path):
    path = tmp_path / "page.html"
    code, output, _ = run(capsys, "gradcheck", *SOME, "--html", path, "--json")
    assert code == 0 and json.loads(output)["ok"]
    assert "All 3 checks proven" in path.read_text(encoding="utf-8")


def test_html_where_a_directory_is(capsys, tmp_path):
    assert_fails(capsys, ["gradcheck", *SOME, "--html", tmp_path], 2, "--html", "is a directory")
