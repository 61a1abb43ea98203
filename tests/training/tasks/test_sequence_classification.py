"""Tables of texts: what a model must be like, what its scores mean, and how good they are."""

import json

import numpy as np
import pytest

from npbert.config import BertConfig
from npbert.data.tables import Columns
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.tasks import TextFile

TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"])
SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"


@pytest.fixture
def texts(tmp_path):
    """Return a function that writes labels, each with a text, and opens the file."""

    def opening(labels, problem_type=SINGLE, columns=None, **options):
        path = tmp_path / "a.jsonl"
        rows = [{"text": "a b", "pair": "b", "label": label} for label in labels]
        path.write_text("\n".join(map(json.dumps, rows)))
        return TextFile(path, columns or Columns("text", label="label"), problem_type, **options)

    return opening


def logits(*rows):
    return [{"logits": np.array(row, dtype=np.float32)} for row in rows]


class TestClasses:
    CONFIG = BertConfig(id2label={0: "x", 1: "y", 2: "z"})

    def test_fields(self, texts):
        file = texts(["y", "x", "z"])
        assert file.config_fields() == {"id2label": {0: "x", 1: "y", 2: "z"}, "problem_type": SINGLE}
        assert file.count == 3

    def test_encoding(self, texts):
        seen = []
        examples = texts(["z", "x"]).encode(TOKENIZER, self.CONFIG, 4, seen.append)
        assert [example.labels["labels"].item() for example in examples] == [2, 0]
        assert [example.input_ids.tolist() for example in examples] == [[2, 5, 6, 3]] * 2
        assert sum(seen) == 2

    def test_pairs_without_labels(self, texts):
        (example,) = texts(["x"], columns=Columns("text", "pair")).encode(TOKENIZER, self.CONFIG, 9)
        assert example.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1]
        assert example.labels == {}

    def test_answers(self, texts):
        file = texts(["x"], columns=Columns("text", "pair"))
        (answer,) = file.answers(logits(np.log([1, 5, 2])), self.CONFIG)
        assert (answer["text"], answer["pair"], answer["label"]) == ("a b", "b", "y")
        assert answer["probabilities"] == pytest.approx({"x": 1 / 8, "y": 5 / 8, "z": 2 / 8})
        assert answer["probability"] == answer["probabilities"]["y"]
        assert json.loads(json.dumps(answer)) == answer
        (row,) = file.rows([answer])
        assert list(row) == ["text", "pair", "label", "probability", "P(x)", "P(y)", "P(z)"]

    def test_scores(self, texts):
        file = texts(["x", "x", "y", "z"])
        answers = [{"label": label} for label in ("x", "y", "y", "y")]
        # F1 of x: 1 right of 2 true and 1 found; y: 1 of 1 and 3; z: none.
        assert file.scores(answers) == {
            "accuracy": 2 / 4,
            "macro_f1": pytest.approx((2 / 3 + 2 / 4 + 0) / 3),
        }

    def test_unknown_label(self, texts):
        with pytest.raises(ValueError, match=r"a\.jsonl: line 2: unknown label 'w'; known: 'x', 'y', 'z'"):
            texts(["x", "w"]).encode(TOKENIZER, self.CONFIG, 9)

    def test_one_class(self, texts):
        with pytest.raises(ValueError, match=r"a\.jsonl: all labels are 'x'"):
            texts(["x", "x"]).config_fields()


class TestSeveralLabels:
    CONFIG = BertConfig(id2label={0: "x", 1: "y", 2: "z"}, problem_type=SEVERAL)

    def test_encoding(self, texts):
        file = texts([["z", "x"], []], SEVERAL)
        assert file.config_fields() == {"id2label": {0: "x", 1: "z"}, "problem_type": SEVERAL}
        examples = file.encode(TOKENIZER, self.CONFIG, 9)
        assert [example.labels["labels"].tolist() for example in examples] == [[1, 0, 1], [0, 0, 0]]

    def test_answers(self, texts):
        file = texts([[]], SEVERAL, label_separator=";")
        (answer,) = file.answers(logits(np.log([3, 1 / 3, 1])), self.CONFIG)
        assert answer["labels"] == ["x", "z"]
        assert answer["probabilities"] == pytest.approx({"x": 3 / 4, "y": 1 / 4, "z": 1 / 2})
        (row,) = file.rows([answer])
        assert row["labels"] == "x;z"
        assert list(row) == ["text", "labels", "P(x)", "P(y)", "P(z)"]

    def test_scores(self, texts):
        file = texts([["x", "y"], ["z"], []], SEVERAL)
        answers = [{"labels": labels} for labels in (["x"], ["z", "y"], [])]
        assert file.scores(answers) == {"micro_f1": pytest.approx(2 * 2 / (3 + 3)), "exact_match": 1 / 3}
        assert texts([[]], SEVERAL).scores([{"labels": []}]) == {"micro_f1": 0, "exact_match": 1}


class TestNumbers:
    CONFIG = BertConfig(num_labels=1, problem_type="regression")

    def test_encoding(self, texts):
        file = texts([0.5, -2], "regression")
        assert file.config_fields() == {"num_labels": 1, "problem_type": "regression"}
        examples = file.encode(TOKENIZER, self.CONFIG, 9)
        assert [example.labels["labels"].tolist() for example in examples] == [[0.5], [-2.0]]

    def test_answers(self, texts):
        file = texts([1, 2], "regression")
        answers = file.answers(logits([0.25], [-4]), self.CONFIG)
        assert [answer["value"] for answer in answers] == [0.25, -4.0]
        assert list(file.rows(answers)[0]) == ["text", "value"]

    def test_scores(self, texts):
        file = texts([1, 2, 4], "regression")
        found = [1.5, 2.0, 2.0]
        scores = file.scores([{"value": value} for value in found])
        assert scores["mean_squared_error"] == pytest.approx((0.25 + 0 + 4) / 3)
        assert scores["pearson"] == pytest.approx(np.corrcoef([1, 2, 4], found)[0, 1])
        assert file.scores([{"value": 7.0}] * 3)["pearson"] == 0
