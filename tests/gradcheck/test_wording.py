"""The figures of a report in words, in every mode of the check."""

from npbert.gradcheck.report import TensorResult
from npbert.gradcheck.wording import figures_of
from tests.gradcheck.pages import failed


def test_entries():
    report = failed()
    row = report.tensors[1]
    assert figures_of(row, report.rtol) == [
        ("worst entry", "[3, 2]"),
        ("gradient", f"{row.gradient:.9g}"),
        ("complex step", f"{row.reference:.9g} ± {row.uncertainty:.0e}"),
        ("relative error", f"{row.max_error:.1e}, tolerance 1e-11"),
        ("wrong", "3% of 35 entries"),
    ]


def test_a_sample():
    report = failed(max_coordinates=10)
    figures = dict(figures_of(report.tensors[1], report.rtol))
    assert figures["wrong"].endswith(" of 10 compared entries, of 35 in all")
    assert float(figures["error along random directions"]) > 1e-3


def test_the_jacobian():
    report = failed(mode="jacobian")
    row = report.tensors[1]
    assert dict(figures_of(row, report.rtol))["worst entry"] == f"[3, 2], of output {list(row.worst_output)}"


def test_directions():
    report = failed(mode="directional")
    row = report.tensors[1]
    figures = dict(figures_of(row, report.rtol))
    assert figures["gradient along a random direction"] == f"{row.gradient:.9g}"
    assert figures[f"error along {row.directions} random directions"] == f"{row.projection_error:.1e}"
    assert "worst entry" not in figures and "wrong" not in figures


def test_nothing_to_compare():
    assert figures_of(TensorResult("x", (2,), "float64", "failed", size=2), 1e-11) == []
    row = TensorResult("x", (2,), "float64", "failed", size=2, structural_zero=True)
    assert figures_of(row, 1e-11) == [("declared", "a structural zero")]
