"""``npbert finetune``, and ``npbert predict`` with what it wrote."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import npbert as package
from tests.cli.conftest import tiny_bert
from tests.cli.running import ROOT, assert_fails, run

TEXTS = ["the cat sleeps .", "a cat sings", "the dog barks .", "a dog sleeps loudly", "dog .", "the cat ."]
LABELS = ["cat", "cat", "dog", "dog", "dog", "cat"]
FAST = ("--learning-rate", "0.01", "--batch-size", "2", "--no-dropout")
SELDOM = ("--save-every", "1000", "--evaluate-every", "1000", "--json")

CONLL = "the O\ncat B-PET\nsleeps O\n\nthe O\ncat B-PET\ndog I-PET\nsleeps O\n\ncat B-PET\n. O\n"
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "the cat sleeps . the dog barks",
                    "qas": [
                        {"id": "1", "question": "cat", "answers": [{"text": "sleeps", "answer_start": 8}]},
                        {"id": "2", "question": "dog", "answers": [{"text": "barks", "answer_start": 25}]},
                    ],
                }
            ]
        }
    ]
}


def write_csv(path, rows, header=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def table(tmp_path):
    return write_csv(tmp_path / "train.csv", zip(TEXTS, LABELS, strict=True))


@pytest.fixture
def conll(tmp_path):
    path = tmp_path / "train.conll"
    path.write_text(CONLL)
    return path


@pytest.fixture
def squad(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(SQUAD))
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def predictions(capsys, *arguments):
    """Return what npbert predict prints."""
    code, said, error = run(capsys, "predict", *arguments)
    assert (code, error) == (0, "")
    return [json.loads(line) for line in said.splitlines()]


class TestClassification:
    def test_learns_its_examples(self, capsys, encoder, table, out):
        arguments = ["--train", table, "--eval", table, "--model", encoder, "--out", out, *FAST]
        code, said, error = run(capsys, "finetune", *arguments, "--epochs", "40", *SELDOM)
        assert (code, error) == (0, "")
        summary = json.loads(said)
        assert (summary["accuracy"], summary["macro_f1"], summary["step"]) == (1, 1, 120)
        assert summary["held_out_loss"] < 0.2
        config = json.loads((out / "config.json").read_text())
        assert config["id2label"] == {"0": "cat", "1": "dog"}
        assert config["label2id"] == {"cat": 0, "dog": 1}
        assert config["architectures"] == ["BertForSequenceClassification"]
        assert config["problem_type"] == "single_label_classification"
        assert not (out / "modules.json").exists()

        found = predictions(capsys, "--model", out, "--input", table)
        assert [answer["label"] for answer in found] == LABELS
        assert [answer["text"] for answer in found] == TEXTS
        bert = package.load(out)
        logits = bert.forward(**bert.tokenizer.batch(TEXTS)).logits.astype(float)
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(
            [list(answer["probabilities"].values()) for answer in found], expected, rtol=1e-4
        )

    def test_evaluates_and_saves_each_epoch(self, capsys, encoder, table, out):
        arguments = ["--train", table, "--eval", table, "--model", encoder, "--out", out, *FAST]
        code, said, _ = run(capsys, "finetune", *arguments, "--epochs", "2")
        assert code == 0
        assert "step 3: held out loss" in said and "step 6: held out loss" in said
        assert "accuracy" in said.splitlines()[-1] and "macro f1" in said.splitlines()[-1]
        assert (out / "checkpoint-00000006").is_dir()

    def test_seeds_draw_heads(self, capsys, encoder, table, tmp_path):
        heads = []
        for number, seed in enumerate((0, 1, 0)):
            arguments = ["--train", table, "--model", encoder, "--out", tmp_path / f"out{number}", *FAST]
            assert run(capsys, "finetune", *arguments, "--epochs", "1", "--seed", seed)[0] == 0
            heads.append(package.load(tmp_path / f"out{number}").params["classifier.weight"])
        assert np.all(heads[0] == heads[2])
        assert not np.any(heads[0] == heads[1])

    def test_a_head_for_these_labels_is_kept(self, capsys, encoder, table, out, tmp_path):
        start = ["finetune", "--train", table, *FAST, "--epochs", "1"]
        assert run(capsys, *start, "--model", encoder, "--out", out)[0] == 0
        further = tmp_path / "further"
        still = ["--learning-rate", "1e-12", "--weight-decay", "0"]
        assert run(capsys, *start, "--model", out, "--out", further, *still)[0] == 0
        before, after = (package.load(path).params["classifier.weight"] for path in (out, further))
        np.testing.assert_allclose(after, before, rtol=1e-6)
        other = write_csv(tmp_path / "other.csv", [("a cat", "x"), ("a dog", "y")])
        new = tmp_path / "new"
        start = ["finetune", "--train", other, *FAST, "--epochs", "1", "--model", out, "--out", new, *still]
        assert run(capsys, *start)[0] == 0
        assert not np.any(package.load(new).params["classifier.weight"] == before)

    def test_pairs_and_numbers(self, capsys, encoder, out, tmp_path):
        rows = [("a cat", "a cat", 1), ("a cat", "a dog", 0), ("the dog", "the dog", 1), ("dog", "bird", 0)]
        path = write_csv(tmp_path / "pairs.csv", rows, ("a", "b", "score"))
        columns = ["--text", "a", "--pair", "b", "--label", "score"]
        arguments = ["--train", path, "--eval", path, "--model", encoder, "--out", out, *columns, *FAST]
        code, said, error = run(
            capsys, "finetune", *arguments, "--problem-type", "regression", "--epochs", "150", *SELDOM
        )
        assert (code, error) == (0, "")
        assert json.loads(said)["mean_squared_error"] < 0.1
        assert json.loads(said)["pearson"] > 0.9
        config = json.loads((out / "config.json").read_text())
        assert config["problem_type"] == "regression"
        found = predictions(capsys, "--model", out, "--input", path, *columns[:4])
        assert [round(answer["value"]) for answer in found] == [1, 0, 1, 0]
        assert found[1]["pair"] == "a dog"

    def test_several_labels(self, capsys, encoder, out, tmp_path):
        labels = [["cat"], ["cat", "dog"], ["dog"], []]
        texts = ["a cat", "cat and dog", "the dog barks", "bird"]
        path = tmp_path / "train.jsonl"
        rows = [{"text": text, "label": some} for text, some in zip(texts, labels, strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)))
        arguments = ["--train", path, "--eval", path, "--model", encoder, "--out", out, *FAST]
        code, said, error = run(
            capsys, "finetune", *arguments, "--problem-type", "multi_label", "--epochs", "150", *SELDOM
        )
        assert (code, error) == (0, "")
        assert json.loads(said)["exact_match"] == 1
        assert [answer["labels"] for answer in predictions(capsys, "--model", out, "--input", path)] == labels


def test_token_classification(capsys, encoder, conll, out):
    arguments = ["--train", conll, "--eval", conll, "--model", encoder, "--out", out, *FAST]
    code, said, error = run(
        capsys, "finetune", "--task", "token_classification", *arguments, *SELDOM, "--epochs", "150"
    )
    assert (code, error) == (0, "")
    summary = json.loads(said)
    assert (summary["accuracy"], summary["f1"]) == (1, 1)
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "B-PET", "1": "I-PET", "2": "O"}
    found = predictions(capsys, "--model", out, "--input", conll)
    assert [answer["tags"] for answer in found] == [
        ["O", "B-PET", "O"],
        ["O", "B-PET", "I-PET", "O"],
        ["B-PET", "O"],
    ]


def test_question_answering(capsys, encoder, squad, out):
    arguments = ["--train", squad, "--eval", squad, "--model", encoder, "--out", out, *FAST]
    code, said, error = run(
        capsys, "finetune", "--task", "question_answering", *arguments, "--epochs", "150", *SELDOM
    )
    assert (code, error) == (0, "")
    assert json.loads(said)["exact_match"] == 1
    found = predictions(capsys, "--model", out, "--input", squad)
    assert [(answer["id"], answer["answer"], answer["start"]) for answer in found] == [
        ("1", "sleeps", 8),
        ("2", "barks", 25),
    ]


class TestFrozen:
    @pytest.fixture
    def start(self, encoder, table, out):
        return ["finetune", "--frozen", "--train", table, "--model", encoder, "--out", out]

    @pytest.mark.parametrize("options", [[], ["--layers", "mix"], ["--pooling", "cls"]])
    def test_the_head_learns_and_the_encoder_does_not(self, options, capsys, start, encoder, table, out):
        arguments = [*start, *options, "--eval", table, "--epochs", "200", "--learning-rate", "0.3", "--json"]
        code, said, error = run(capsys, *arguments)
        assert (code, error) == (0, "")
        summary = json.loads(said)
        assert (summary["accuracy"], summary["epoch"], summary["step"]) == (1, 200, 200)
        before, after = package.load(encoder), package.load(out)
        for name, value in before.params.items():
            np.testing.assert_array_equal(after.params[name], value, err_msg=name)
        assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "cat", "1": "dog"}
        found = predictions(capsys, "--model", out, "--input", table)
        assert [answer["label"] for answer in found] == LABELS

    def test_metrics(self, capsys, start, table, out):
        code, said, _ = run(capsys, *start, "--eval", table, "--epochs", "2", "--batch-size", "4")
        assert code == 0
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert [(record["step"], record["epoch"]) for record in records] == [(2, 1), (4, 2)]
        assert records[1]["loss"] < records[0]["loss"]
        assert f"step 4: epoch 2, loss {records[1]['loss']:.4g}, held out accuracy" in said
        assert "macro f1" in said.splitlines()[-1]

    def test_is_the_same_again(self, capsys, start, out, tmp_path):
        assert run(capsys, *start, "--epochs", "3")[0] == 0
        assert run(capsys, *start[:-1], tmp_path / "again", "--epochs", "3")[0] == 0
        first, second = (
            (path / "frozen_head.safetensors").read_bytes() for path in (out, tmp_path / "again")
        )
        assert first == second

    def test_numbers(self, capsys, encoder, out, tmp_path):
        path = write_csv(tmp_path / "a.csv", [("a cat", 1.5), ("the dog barks", -2), ("bird sings", 0)])
        start = ["finetune", "--frozen", "--train", path, "--eval", path, "--model", encoder, "--out", out]
        start += ["--problem-type", "regression", "--epochs", "400", "--learning-rate", "0.1", "--json"]
        code, said, _ = run(capsys, *start)
        assert code == 0
        assert json.loads(said)["mean_squared_error"] < 0.1
        found = predictions(capsys, "--model", out, "--input", path)
        np.testing.assert_allclose([answer["value"] for answer in found], [1.5, -2, 0], atol=0.5)

    def test_plot(self, capsys, start, tmp_path):
        pytest.importorskip("matplotlib")
        assert run(capsys, *start, "--epochs", "2", "--plot", tmp_path / "curve.png")[0] == 0
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")

    def test_nothing_is_overwritten(self, capsys, start, out):
        assert run(capsys, *start, "--epochs", "1")[0] == 0
        assert_fails(capsys, start, 1, str(out), "holds a model")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--resume"], ["--resume does not go with --frozen"]),
            (["--patience", "2"], ["--patience does not go"]),
            (["--accumulate", "2"], ["--accumulate does not go"]),
            (["--layers", "first"], ["first"]),
        ],
    )
    def test_bad_usage(self, options, words, capsys, start, out):
        assert_fails(capsys, [*start, *options], 2, *words)
        assert not out.exists()

    def test_only_texts(self, capsys, conll, encoder, out):
        arguments = ["finetune", "--frozen", "--task", "token_classification", "--train", conll]
        assert_fails(capsys, [*arguments, "--model", encoder, "--out", out], 2, "sequence_classification")


class TestResuming:
    def test_goes_on_bit_for_bit(self, capsys, encoder, table, tmp_path):
        start = ["finetune", "--train", table, "--model", encoder, "--batch-size", "4", "--epochs", "3"]
        assert run(capsys, *start, "--out", tmp_path / "whole")[0] == 0
        arguments = [*map(str, start), "--out", str(tmp_path / "cut"), "--save-every", "1", "--epochs", "3"]
        # Interrupted where it stands after the first steps.
        process = subprocess.Popen(
            [sys.executable, "-m", "npbert", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while not any((tmp_path / "cut").glob("checkpoint-*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode in (0, 130)
        code = run(capsys, *arguments, "--resume")[0]
        assert code == 0
        whole, cut = (package.load(tmp_path / name).params for name in ("whole", "cut"))
        for name, value in whole.items():
            np.testing.assert_array_equal(cut[name], value, err_msg=name)

    def test_another_file_is_another_run(self, capsys, encoder, table, out, tmp_path):
        start = ["finetune", "--model", encoder, "--out", out, "--epochs", "1", *FAST]
        assert run(capsys, *start, "--train", table)[0] == 0
        other = write_csv(tmp_path / "other.csv", [("a cat", "cat"), ("a dog", "dog")])
        assert_fails(capsys, [*start, "--train", other, "--resume"], 1, "another run")

    def test_nothing_is_overwritten(self, capsys, encoder, table, out):
        start = ["finetune", "--model", encoder, "--out", out, "--epochs", "1", "--train", table, *FAST]
        assert run(capsys, *start)[0] == 0
        before = (out / "model.safetensors").read_bytes()
        assert_fails(capsys, start, 1, "--resume")
        assert (out / "model.safetensors").read_bytes() == before


class TestBadInput:
    """Each is one line that names the file and the place; nothing is written."""

    @pytest.fixture(autouse=True)
    def nothing_written(self, out):
        yield
        assert not out.exists()

    @pytest.fixture
    def start(self, encoder, out):
        return ["finetune", "--model", encoder, "--out", out]

    def test_missing_file(self, capsys, start, tmp_path):
        assert_fails(capsys, [*start, "--train", tmp_path / "no.csv"], 1, "no.csv: no such file")

    def test_missing_column(self, capsys, start, table):
        assert_fails(
            capsys,
            [*start, "--train", table, "--label", "category"],
            1,
            "no column 'category'",
            "'text', 'label'",
        )

    def test_broken_utf8(self, capsys, start, tmp_path):
        path = tmp_path / "a.csv"
        path.write_bytes(b"text,label\na cat,x\n\xff,y\n")
        assert_fails(capsys, [*start, "--train", path], 1, "a.csv: line 3, byte 1: 0xff")

    def test_field_of_ten_megabytes(self, capsys, start, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text('text,label\na cat,x\n"' + "x" * (10 << 20) + "\n")
        assert_fails(
            capsys, [*start, "--train", path], 1, "line 3", "column 'text'", "10,485,76", "1,048,576", "quote"
        )

    def test_only_one_class(self, capsys, start, tmp_path):
        path = write_csv(tmp_path / "a.csv", [("a cat", "x"), ("a dog", "x")])
        assert_fails(capsys, [*start, "--train", path], 1, "a.csv: all labels are 'x'")

    def test_unknown_label_to_evaluate(self, capsys, start, table, tmp_path):
        path = write_csv(tmp_path / "eval.csv", [("a cat", "cat"), ("a bird", "bird")])
        assert_fails(
            capsys,
            [*start, "--train", table, "--eval", path],
            1,
            "eval.csv: line 3",
            "'bird'",
            "'cat', 'dog'",
        )

    def test_unknown_tag_to_evaluate(self, capsys, start, conll, tmp_path):
        path = tmp_path / "eval.conll"
        path.write_text("a O\ncat B-CAT\n")
        arguments = [*start, "--task", "token_classification", "--train", conll, "--eval", path]
        assert_fails(capsys, arguments, 1, "eval.conll: line 2", "'B-CAT'", "'B-PET', 'I-PET', 'O'")

    def test_answer_that_is_not_there(self, capsys, start, tmp_path):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(SQUAD).replace("25", "24"))
        arguments = [*start, "--task", "question_answering", "--train", path]
        assert_fails(
            capsys, arguments, 1, "a.json: data[0].paragraphs[0].qas[1].answers[0].answer_start is 24"
        )

    def test_wrong_kind_of_file(self, capsys, start, conll):
        assert_fails(capsys, [*start, "--train", conll], 1, "train.conll", ".csv, .tsv or .jsonl")

    def test_more_tokens_than_positions(self, capsys, start, table):
        assert_fails(
            capsys, [*start, "--train", table, "--max-length", "17"], 2, "--max-length 17", "16 positions"
        )

    def test_no_room_for_a_question(self, capsys, start, squad):
        arguments = [*start, "--task", "question_answering", "--train", squad, "--max-length", "4"]
        assert_fails(capsys, arguments, 1, "max_length is 4", "'1'")

    def test_model_that_is_not_there(self, capsys, table, out, tmp_path):
        arguments = ["finetune", "--model", tmp_path / "no", "--train", table, "--out", out]
        assert_fails(capsys, arguments, 1, str(tmp_path / "no"))

    def test_model_without_tokenizer(self, capsys, start, encoder, table):
        for name in ("vocab.txt", "tokenizer.json"):
            (encoder / name).unlink()
        assert_fails(capsys, [*start, "--train", table], 1, "vocab.txt")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--epochs", "0"], ["at least 1"]),
            (["--tag-column", "0"], ["0 is no column"]),
            (["--tag-column", "x"], ["not an integer"]),
            (["--problem-type", "ordinal"], ["ordinal"]),
            (["--task", "masked_lm"], ["masked_lm"]),
            (["--separator", ","], ["','"]),
            (["--patience", "1"], ["--patience needs held-out data"]),
        ],
    )
    def test_bad_usage(self, options, words, capsys, start, table):
        assert_fails(capsys, [*start, "--train", table, *options], 2, *words)


class TestPredicting:
    @pytest.fixture
    def model(self, tmp_path):
        tiny_bert("sequence_classification").save(tmp_path / "model")
        return tmp_path / "model"

    @pytest.fixture
    def start(self, model, table):
        return ["predict", "--model", model, "--input", table]

    def test_csv_and_json_lines_say_the_same(self, capsys, start, tmp_path):
        lines, rows = tmp_path / "p.jsonl", tmp_path / "p.csv"
        for output in (lines, rows):
            code, said, _ = run(capsys, *start, "-o", output)
            assert code == 0
            assert said.startswith(f"{output}: 6 predictions, in ")
        records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        with rows.open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert [row["label"] for row in table] == [record["label"] for record in records]
        assert [float(row["P(LABEL_1)"]) for row in table] == [
            record["probabilities"]["LABEL_1"] for record in records
        ]

    def test_placeholder_names_and_scores(self, capsys, model, tmp_path):
        path = write_csv(tmp_path / "a.csv", [("a cat", "LABEL_1"), ("the dog", "LABEL_0")])
        code, said, _ = run(
            capsys,
            "predict",
            "--model",
            model,
            "--input",
            path,
            "-o",
            tmp_path / "p.csv",
            "--score",
            "--json",
        )
        assert code == 0
        summary = json.loads(said)
        assert summary["predictions"] == 2 and summary["accuracy"] in (0, 0.5, 1)
        code, said, _ = run(
            capsys, "predict", "--model", model, "--input", path, "-o", tmp_path / "p.csv", "--score"
        )
        assert "accuracy" in said and "2 predictions" in said

    def test_labels_are_not_looked_at(self, capsys, start, tmp_path):
        path = write_csv(tmp_path / "a.csv", [("a cat",)], ("text",))
        assert len(predictions(capsys, *start[1:3], "--input", path)) == 1

    def test_nothing_is_half_written(self, capsys, start, tmp_path, monkeypatch):
        output = tmp_path / "p" / "p.jsonl"
        output.parent.mkdir()
        output.write_text("old")
        monkeypatch.setattr(
            "os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        assert_fails(capsys, [*start, "-o", output], 1, "no space left")
        assert output.read_text() == "old"
        assert [path.name for path in output.parent.iterdir()] == ["p.jsonl"]

    def test_unknown_label_to_score(self, capsys, start, tmp_path):
        assert_fails(
            capsys,
            [*start, "--score", "-o", tmp_path / "p.csv"],
            1,
            "train.csv: line 2",
            "unknown label 'cat'",
        )

    def test_model_that_predicts_nothing(self, capsys, encoder, table):
        assert_fails(
            capsys, ["predict", "--model", encoder, "--input", table], 1, "'encoder'", "npbert finetune"
        )

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            (["--json"], 2, ["-o FILE"]),
            (["--score"], 2, ["-o FILE"]),
            (["-o", "p.txt"], 2, ["p.txt", ".jsonl or .csv"]),
            (["-o", "missing/p.csv"], 1, ["missing/p.csv", "no directory"]),
            (["--text", "body"], 1, ["no column 'body'"]),
            (["--max-length", "17"], 2, ["--max-length 17"]),
        ],
    )
    def test_bad_usage(self, options, code, words, capsys, start):
        assert_fails(capsys, [*start, *options], code, *words)
