"""The steps of the recipe after the vocabulary: the training command, the figures, the files that ship."""

import json
import math
import re

import numpy as np
import pytest

import npbert
from npbert.bert import Bert
from npbert.checkpoint.huggingface import read_checkpoint
from npbert.cli import build_parser
from npbert.config import BertConfig
from npbert.params import init_params
from npbert.recipes.npbert_tiny import __main__ as recipe
from npbert.recipes.npbert_tiny import evaluation, export
from npbert.recipes.npbert_tiny.baselines import NAMES
from npbert.recipes.npbert_tiny.corpus import COUNTS_NAME, HELD_OUT_NAME, SOURCES, TRAIN_NAME
from npbert.recipes.npbert_tiny.evaluation import EXACT_NAME, NEXT_SENTENCE
from npbert.recipes.npbert_tiny.settings import CONFIG, MODEL_NAME, TRAINING
from npbert.tokenizer import WordPieceTokenizer

WORDS = (
    "a",
    "an",
    "is",
    "the",
    "of",
    "in",
    "to",
    "god",
    "violin",
    "dog",
    "oak",
    "run",
    "heaven",
    "means",
    ".",
)


@pytest.fixture
def work(tmp_path):
    """Return a directory of the recipe before training: a small corpus, its counts, a tokenizer."""
    rng = np.random.default_rng(3)
    for name, documents in ((TRAIN_NAME, 40), (HELD_OUT_NAME, 8)):
        text = "\n\n".join(
            "\n".join(" ".join(rng.choice(WORDS[:-1], rng.integers(3, 9))) + "." for _ in range(6))
            for _ in range(documents)
        )
        (tmp_path / name).write_text(text + "\n")
    counts = {"documents": 1234567, "sentences": 22, "words": 333}
    names = [*(source.package for source in SOURCES), TRAIN_NAME, HELD_OUT_NAME]
    (tmp_path / COUNTS_NAME).write_text(json.dumps(dict.fromkeys(names, counts)))
    WordPieceTokenizer(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"], model_max_length=32
    ).save(tmp_path)
    return tmp_path


@pytest.fixture
def trained(work):
    """Return the model in WORK/run, as if it were trained."""
    tokenizer = WordPieceTokenizer.from_directory(work)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    bert = Bert(config, init_params(config, "pretraining", seed=1), tokenizer, "pretraining")
    bert.save(work / recipe.RUN_NAME)
    return bert


def test_the_training_command(work, monkeypatch):
    """npbert pretrain understands all of it."""
    calls = []
    monkeypatch.setattr(recipe, "npbert_command", lambda arguments: calls.append(arguments) or 3)
    assert recipe.main(["train", str(work)]) == 3
    assert recipe.main(["train", str(work), "--resume"]) == 3
    first, second = (build_parser().parse_args(call) for call in calls)
    assert (first.command, first.resume, second.resume) == ("pretrain", False, True)
    assert [first.corpus, first.held_out] == [[str(work / TRAIN_NAME)], [str(work / HELD_OUT_NAME)]]
    assert (first.config, first.out) == (str(work / "config.json"), str(work / "run"))
    for name, value in TRAINING.items():
        found = getattr(first, name.replace("-", "_"))
        assert found is True if value is None else found == float(value), name


def test_the_shipped_size():
    params = init_params(CONFIG, "pretraining", seed=0)
    assert 3e6 < sum(math.prod(value.shape) for value in params.values()) < export.MAX_WEIGHTS / 2


def test_evaluation(work, trained, capsys):
    assert recipe.main(["evaluate", str(work)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {MODEL_NAME, NEXT_SENTENCE, *NAMES}
    places = figures[MODEL_NAME]["places"]
    assert places > 30 and all(figures[name]["places"] == places for name in NAMES)
    # By hand: the model's own losses at the same places.
    loss, correct, count = 0.0, 0, 0
    for batch in evaluation.held_out_batches(work, trained.tokenizer):
        labels = batch.pop("labels")
        del batch["next_sentence_label"]
        logits = trained.forward(**batch).prediction_logits.astype(np.float64)
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        for row, column in np.argwhere(labels != -100):
            loss -= log_probs[row, column, labels[row, column]]
            correct += logits[row, column].argmax() == labels[row, column]
            count += 1
    assert count == places
    assert figures[MODEL_NAME]["accuracy"] == correct / count
    # float32 logits of size 1: their rounding is a millionth of the loss.
    assert figures[MODEL_NAME]["perplexity"] == pytest.approx(math.exp(loss / count), rel=1e-5)
    assert 0 <= figures[NEXT_SENTENCE]["accuracy"] <= 1


def test_the_baselines_learn_from_the_training_text(work, trained):
    """Asked about text that it has counted, the bigram knows more."""
    unseen = evaluation.baseline_figures(trained.tokenizer, work)
    (work / TRAIN_NAME).write_text(
        (work / TRAIN_NAME).read_text() + "\n" + (work / HELD_OUT_NAME).read_text() * 9
    )
    seen = evaluation.baseline_figures(trained.tokenizer, work)
    for name in NAMES[1:]:
        assert seen[name]["perplexity"] < unseen[name]["perplexity"]


def test_export(work, trained, tmp_path, capsys):
    out = tmp_path / "out"
    assert recipe.main(["export", str(work), "--out", str(out)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {MODEL_NAME, EXACT_NAME, NEXT_SENTENCE, *NAMES}

    checkpoint = read_checkpoint(out)
    assert checkpoint.config["dtype"] == "float16"
    assert checkpoint.config["architectures"] == ["BertForPreTraining"]
    bert = npbert.load(out)
    assert bert.tokenizer.vocab == trained.tokenizer.vocab and bert.tokenizer.model_max_length == 32
    for name, value in bert.params.items():
        np.testing.assert_array_equal(value, trained.params[name].astype(np.float16).astype(np.float32))
    # The figures are those of what was written.
    assert evaluation.model_figures(bert, work)[MODEL_NAME] == figures[MODEL_NAME]
    assert figures[MODEL_NAME] != figures[EXACT_NAME]


def test_the_model_card(work, trained, tmp_path, capsys):
    recipe.main(["export", str(work), "--out", str(tmp_path / "out")])
    figures = json.loads(capsys.readouterr().out)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    front, body = re.fullmatch(r"---\n(.+?)\n---\n(.+)", card, flags=re.DOTALL).groups()
    assert "license_name: mit-and-wordnet-3.0" in front and "pipeline_tag: fill-mask" in front
    assert "$" not in body
    for name in (MODEL_NAME, *NAMES):
        row = figures[name]
        assert f"| {name} | {row['accuracy']:.1%} | {row['perplexity']:.1f} |" in body
    assert f"{figures[EXACT_NAME]['perplexity']:.4f}" in body
    assert "| 1,234,567 | 22 | 333 |" in body
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in body
    for command in (
        "corpus work --download",
        "vocabulary work",
        "train work",
        f"export work --out {MODEL_NAME}",
    ):
        line = f"python -m npbert.recipes.npbert_tiny {command}"
        assert line in body
        recipe.build_parser().parse_args(command.split())
    assert all(source.package in body and source.version in body for source in SOURCES)
    word, probability = re.search(r"`a violin is a \[MASK\] instrument\.` \| (\S+) (0\.\d\d)", body).groups()
    best = npbert.load(tmp_path / "out").fill_mask("a violin is a [MASK] instrument.")[0][0]
    assert (word, probability) == (best.token, f"{best.probability:.2f}")


def test_weights_that_are_too_large_are_not_written(work, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "MAX_WEIGHTS", 1000)
    assert recipe.main(["export", str(work), "--out", str(tmp_path / "out")]) == 1
    assert "bytes in float16; at most 1,000 are shipped" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_that_overflow_are_not_written(work, trained, tmp_path, capsys):
    trained.params["bert.pooler.dense.weight"][1, 2] = 70000
    trained.save(work / "run")
    assert recipe.main(["export", str(work), "--out", str(tmp_path / "out")]) == 1
    assert "bert.pooler.dense.weight[1, 2] is 70000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_vocabulary(work, trained, tmp_path, capsys):
    vocab = (work / "vocab.txt").read_text()
    (work / "vocab.txt").write_text(vocab.replace("dog", "cat"))
    assert recipe.main(["export", str(work), "--out", str(tmp_path / "out")]) == 1
    assert "vocabulary is not that of" in capsys.readouterr().err


def test_no_model(work, capsys):
    assert recipe.main(["evaluate", str(work)]) == 1
    error = capsys.readouterr().err
    assert str(work / "run") in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["bake"], ["export", "work"], ["corpus"]])
def test_bad_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        recipe.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
