"""Reports: what they say, in words, as JSON and as an exception."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import npbert.gradcheck
from npbert.gradcheck import GradientCheckError, check
from npbert.ops.layernorm import layernorm_backward, layernorm_forward
from tests.gradcheck.pairs import (
    linear,
    linear_backward,
    random_arguments,
    softmax,
    softmax_backward,
)


def wrong_backward(dy, cache):
    dx, dweight, dbias = linear_backward(dy, cache)
    dweight[3, 2] = 0
    return dx, dweight, dbias


@pytest.fixture
def passed():
    return check(linear, linear_backward, random_arguments(0)["linear"], seed=7)


@pytest.fixture
def failed():
    return check(linear, wrong_backward, random_arguments(0)["linear"], seed=7)


def test_a_report_is_frozen(passed):
    with pytest.raises(dataclasses.FrozenInstanceError):
        passed.seed = 3


def test_raise_if_failed(passed, failed):
    passed.raise_if_failed()
    with pytest.raises(GradientCheckError) as caught:
        failed.raise_if_failed()
    assert isinstance(caught.value, AssertionError)
    assert str(failed) in str(caught.value)


def test_inconclusive_raises_too():
    report = check(lambda x: (0 * x, None), lambda dy, cache: 0 * dy, (np.ones(3),))
    assert report.status == "inconclusive"
    assert not report
    with pytest.raises(GradientCheckError):
        report.raise_if_failed()


def test_text_of_a_failure(failed):
    text = str(failed)
    assert text.startswith("linear / wrong_backward: FAILED, worst relative error ")
    line = next(line for line in text.splitlines() if line.split()[:1] == ["weight"])
    assert "failed" in line
    assert "[3, 2]" in line
    assert "3%" in line
    assert "35 of 35" in line
    assert f"{failed.tensors[1].reference:.9g}" in line
    assert (
        "reproduce: from tests.gradcheck.pairs import linear; from tests.gradcheck.test_report import" in text
    )
    assert all(len(line) < 200 for line in text.splitlines())


def test_text_of_a_check_that_never_got_to_an_oracle():
    def raises(x):
        raise RuntimeError("no")

    text = str(check(raises, softmax_backward, random_arguments(0)["softmax"]))
    assert text.startswith("raises / softmax_backward: FAILED (no oracle")
    assert "raises raised RuntimeError: no" in text


def test_json_round_trip(passed, failed):
    for report in (passed, failed):
        text = json.dumps(report.to_dict(), allow_nan=False)
        read = json.loads(text)
        assert read["status"] == report.status
        assert read["seed"] == 7
        assert [row["name"] for row in read["tensors"]] == ["x", "weight", "bias"]
        assert read["tensors"][1]["max_error"] == report.tensors[1].max_error
        assert read["tensors"][1]["shape"] == [7, 5]
        assert {check["name"] for check in read["checks"]} >= {"forward runs", "linear in the cotangent"}


def test_options_may_be_numpy_scalars():
    args = random_arguments(0)["linear"]
    report = check(linear, linear_backward, args, seed=np.int64(3), rtol=np.float32(1e-6))
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.seed == 3


def test_json_of_what_json_cannot_hold():
    # A reference of exactly zero: any error is infinitely large beside it.
    report = check(lambda x: (0 * x, None), lambda dy, cache: dy, (np.ones(3),))
    assert report.max_error == np.inf
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["max_error"] == "inf"


def test_the_same_seed_gives_the_same_report(failed):
    again = check(linear, wrong_backward, random_arguments(0)["linear"], seed=7)
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(failed, seconds=0)
    other = check(linear, wrong_backward, random_arguments(0)["linear"], seed=8)
    assert other.tensors[1].reference != failed.tensors[1].reference


def test_the_line_that_reproduces_it_is_complete():
    args = (*(np.random.default_rng(0).standard_normal(shape) for shape in ((3, 5), (5,), (5,))), 1e-5)
    report = check(
        layernorm_forward,
        layernorm_backward,
        args,
        seed=3,
        rtol=1e-10,
        oracle="ridders",
        max_coordinates=4,
        names=["a", "b", "c", "eps"],
    )
    scope = {"args": args, "npbert": npbert}
    importing, call = report.reproduce.rsplit("; ", 1)
    exec(importing, scope)
    again = eval(call, scope)
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(report, seconds=0)
    assert [row.name for row in again.tensors] == ["a", "b", "c"]


def test_lambdas_are_reported_by_what_they_are(passed):
    report = check(lambda x: (2 * x, None), lambda dy, cache: 2 * dy, (np.ones(3),))
    assert report.subject == "<lambda> / <lambda>"
    assert report.reproduce.startswith("npbert.gradcheck.check(")


def test_callable_objects():
    class Double:
        def __call__(self, x):
            return 2 * x, None

    class Twice:
        def __call__(self, dy, cache):
            return 2 * dy

    report = check(Double(), Twice(), (np.ones(3),))
    assert report.ok, str(report)
    assert report.subject == "Double / Twice"


def test_figures_of_the_report(passed):
    assert passed.evaluations > sum(row.size for row in passed.tensors)
    assert 0 < passed.seconds < 60
    assert passed.max_error == max(row.max_error for row in passed.tensors)
    assert passed.failures == ()


def test_needs_nothing_but_numpy():
    code = (
        "import sys, numpy.random; before = set(sys.modules); import npbert.gradcheck.suite; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names); "
        "print(sorted(new))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() in ("['npbert']", "['npbert', 'numpy']")


def test_softmax_row_sums_do_not_fool_the_cotangent():
    """With ones for dy the gradient of softmax is zero, and a wrong backward would pass."""
    report = check(softmax, lambda dy, probs: 0 * dy, random_arguments(0)["softmax"])
    assert report.status == "failed"
    assert abs(report.tensors[0].reference) > 1e-3


def test_entries_are_every_compared_coordinate(failed):
    row = failed.tensors[1]
    entries = row.entries
    assert list(entries.flat) == list(range(35))
    assert list(np.flatnonzero(entries.wrong)) == [3 * 5 + 2]
    worst = np.argmax(entries.error)
    assert np.unravel_index(entries.flat[worst], row.shape) == row.worst_index
    assert (entries.gradient[worst], entries.reference[worst]) == (row.gradient, row.reference)
    assert entries.error[worst] == row.max_error
    assert "entries" not in repr(failed)
    assert "entries" not in failed.to_dict()["tensors"][1]


def test_entries_of_a_sample_and_of_a_scalar():
    report = check(
        lambda x, factor: (factor * np.sin(x), (x, factor)),
        lambda dy, cache: (cache[1] * np.cos(cache[0]) * dy, np.sum(np.sin(cache[0]) * dy)),
        (np.random.default_rng(0).standard_normal((40, 30)), np.array(1.5)),
        max_coordinates=100,
    )
    assert report.ok, str(report)
    sampled, scalar = report.tensors
    assert sampled.entries.flat.shape == (100,) == np.unique(sampled.entries.flat).shape
    assert sampled.entries.flat.max() > 900
    assert list(scalar.entries.flat) == [0]
