"""Records of what was measured, and the file they are kept in."""

import json

import pytest

from npbert.training.metrics import MetricsFile, Window, read_metrics
from npbert.training.step import Tally


def test_a_window_is_the_mean_of_its_steps():
    window = Window()
    window.add(3.0, {"labels": Tally(4, 8.0, 1), "next_sentence_label": Tally(2, 2.0, 2)}, 100, 0.5)
    window.add(2.0, {"labels": Tally(6, 3.0, 4), "next_sentence_label": Tally(2, 1.0, 1)}, 50, 0.5)
    assert window.summary("pretraining") == {
        "loss": 2.5,
        "mlm_loss": 1.1,  # of ten labels, not the mean of the two means
        "mlm_accuracy": 0.5,
        "nsp_loss": 0.75,
        "nsp_accuracy": 0.75,
        "tokens_per_second": 150.0,
    }


def test_a_window_survives_being_saved():
    window = Window()
    window.add(3.0, {"labels": Tally(4, 8.0, None)}, 100, 0.5)
    again = Window.from_json(json.loads(json.dumps(window.to_json())))
    assert again.to_json() == window.to_json()
    assert again.summary("sequence_classification") == window.summary("sequence_classification")
    assert Window.from_json({}).to_json() == Window().to_json()


def test_an_empty_window_has_no_division_by_zero():
    assert Window().summary("pretraining") == {"loss": 0.0, "tokens_per_second": 0.0}


def test_records_are_read_as_they_were_written(tmp_path):
    file = MetricsFile(tmp_path)
    assert file.last() == {}
    records = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 1 / 3}]
    for record in records:
        file.append(record)
    assert read_metrics(file.path) == records
    assert file.last() == records[-1]


def test_records_of_later_steps_and_a_broken_line_are_cut(tmp_path):
    file = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        file.append({"step": step})
    with file.path.open("a") as stream:
        stream.write('{"step": 4, "lo')
    assert [record["step"] for record in read_metrics(file.path)] == [1, 2, 3]
    file.cut_after(2)
    assert file.path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', "3"])
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl: line 2: not a record"):
        read_metrics(path)
