"""The curve of a training run."""

import pytest

from npbert.training.plot import plot_metrics

RECORDS = [
    {"step": 10, "loss": 3.0, "mlm_loss": 2.5, "mlm_accuracy": 0.2},
    {"step": 20, "loss": 2.0, "mlm_loss": 1.5, "mlm_accuracy": 0.4},
    {"step": 20, "held_out_loss": 2.2, "held_out_mlm_accuracy": 0.3},
]


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["curve.png", "curve.svg", "new/curve.png"])
def test_a_picture_is_drawn(tmp_path, name):
    pytest.importorskip("matplotlib")
    plot_metrics(RECORDS, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    if name.endswith("png"):
        assert data.startswith(b"\x89PNG")
    else:
        for word in ("held out loss", "mlm accuracy", "step"):
            assert word in data.decode()  # text stands in comments beside its outlines


@pytest.mark.oracle
def test_nothing_to_plot(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_metrics([], tmp_path / "curve.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.oracle
def test_an_ending_that_is_no_picture(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="docx"):
        plot_metrics(RECORDS, tmp_path / "curve.docx")
    assert list(tmp_path.iterdir()) == []
