"""``npbert pretrain``."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import npbert as package
from npbert.training.metrics import read_metrics
from tests.cli.running import ROOT, assert_fails, run
from tests.training.small import VOCABULARY, small_bert, small_config, write_corpus

FAST = ("--steps", "6", "--batch-size", "4", "--learning-rate", "0.003", "--log-every", "2")


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.txt")


@pytest.fixture
def config(tmp_path):
    """A directory with a configuration and, beside it, a vocabulary."""
    directory = tmp_path / "config"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(small_config().to_dict()))
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory / "config.json"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def assert_same_model(first, second):
    a, b = package.load(first), package.load(second)
    for name, value in a.params.items():
        np.testing.assert_array_equal(value, b.params[name], err_msg=name)


def test_a_model_comes_out(capsys, corpus, config, out):
    code, said, error = run(capsys, "pretrain", "--corpus", corpus, "--config", config, "--out", out, *FAST)
    assert (code, error) == (0, "")
    assert "step 6: loss" in said and "nsp accuracy" in said and f"{out}: trained, 6 steps" in said
    bert = package.load(out)
    assert (bert.task, bert.config.hidden_size) == ("pretraining", 16)
    assert bert.fill_mask("a b [MASK] d.", top_k=1)[0][0].token in VOCABULARY
    fresh = small_bert().params
    assert any(not np.array_equal(value, fresh[name]) for name, value in bert.params.items())


def test_json_held_out_and_options(capsys, corpus, config, out):
    options = ["--held-out", corpus, "--evaluate-every", "3", "--masking", "ngram", "--static-masks", "2"]
    options += ["--optimizer", "lamb", "--schedule", "cosine", "--accumulate", "2", "--clip", "0", "--json"]
    words = ["--corpus", corpus, "--config", config, "--out", out, *FAST, *options]
    code, said, _ = run(capsys, "pretrain", *words)
    summary = json.loads(said)
    assert code == 0
    assert (summary["step"], summary["finished"], summary["out"]) == (6, True, str(out))
    records = read_metrics(out / "metrics.jsonl")
    assert [r["step"] for r in records if "held_out_loss" in r] == [3, 6]
    assert summary["held_out_loss"] == records[-1]["held_out_loss"]


def test_without_next_sentence(capsys, corpus, config, out):
    words = ["--corpus", corpus, "--config", config, "--out", out, *FAST, "--no-next-sentence"]
    code, said, _ = run(capsys, "pretrain", *words)
    assert code == 0 and "nsp" not in said
    assert package.load(out).task == "masked_lm"


def test_further_training_of_a_checkpoint(capsys, corpus, tmp_path, out):
    small_bert(seed=3).save(tmp_path / "start")
    start = package.load(tmp_path / "start")
    words = ["--corpus", corpus, "--model", tmp_path / "start", "--out", out, *FAST]
    code, _, error = run(capsys, "pretrain", *words, "--learning-rate", "1e-12")
    assert (code, error) == (0, "")
    for name, value in package.load(out).params.items():
        # The rate is so small that the start is still to be seen.
        np.testing.assert_allclose(value, start.params[name], atol=1e-6, err_msg=name)


@pytest.mark.oracle
def test_a_vocabulary_is_made_where_there_is_none(capsys, corpus, config, out):
    pytest.importorskip("tokenizers")
    (config.parent / "vocab.txt").unlink()
    config.write_text(json.dumps(small_config(vocab_size=60).to_dict()))
    words = ["--corpus", corpus, "--config", config, "--out", out, *FAST]
    code, _, error = run(capsys, "pretrain", *words)
    assert (code, error) == (0, "")
    bert = package.load(out)
    assert bert.tokenizer.encode("a b.").tokens == ["[CLS]", "a", "b", ".", "[SEP]"]


def test_a_vocabulary_cannot_be_made_without_tokenizers(capsys, corpus, config, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    (config.parent / "vocab.txt").unlink()
    words = ["pretrain", "--corpus", corpus, "--config", config, "--out", out, *FAST]
    assert_fails(capsys, words, 1, "npbert pretrain: error: ", 'pip install "npbert[tokenizers]"')
    assert not out.exists()


def test_resume_after_sigterm_gives_the_same_bits(capsys, corpus, config, tmp_path):
    """In a process of its own: the signal is a real one."""
    options = ["--corpus", corpus, "--config", config, "--steps", "300", "--batch-size", "4"]
    options += ["--save-every", "7", "--log-every", "1"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(capsys, "pretrain", *options, "--out", whole)[0] == 0

    words = [sys.executable, "-m", "npbert", "pretrain", *map(str, options), "--out", str(parts)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    metrics = parts / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 20):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert error == ""
    assert "SIGTERM: saved after step" in said and "--resume goes on from there" in said
    assert not (parts / "model.safetensors").exists()

    code, said, _ = run(capsys, "pretrain", *options, "--out", parts, "--resume")
    assert code == 0 and "trained, 300 steps" in said
    assert_same_model(whole, parts)
    assert names_in(whole) == names_in(parts)


# --- what goes wrong -----------------------------------------------------------------------------------


def test_a_run_is_not_overwritten(capsys, corpus, config, out):
    words = ["pretrain", "--corpus", corpus, "--config", config, "--out", out, *FAST]
    run(capsys, *words)
    before = (out / "model.safetensors").read_bytes()
    assert_fails(capsys, words, 1, str(out), "saved after step 6", "--resume")
    assert (out / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--learning-rate", "0.1"], "learning_rate is 0.003 there, and 0.1 now"),
        (["--seed", "1"], "seed is 0 there, and 1 now"),
        (["--mask-rate", "0.3"], "data.mask_rate is 0.15 there, and 0.3 now"),
    ],
)
def test_another_run_is_not_resumed(capsys, corpus, config, out, changed, message):
    words = ["pretrain", "--corpus", corpus, "--config", config, "--out", out, *FAST]
    run(capsys, *words)
    assert_fails(capsys, [*words, "--resume", *changed], 1, "a checkpoint of another run", message)


def test_another_config_is_not_resumed(capsys, corpus, config, out):
    words = ["pretrain", "--corpus", corpus, "--config", config, "--out", out, *FAST]
    run(capsys, *words)
    config.write_text(json.dumps(small_config(hidden_size=24).to_dict()))
    message = "config.hidden_size is 16 there, and 24 now"
    assert_fails(capsys, [*words, "--resume"], 1, "a checkpoint of another run", message)


def test_a_loss_that_is_no_number(capsys, corpus, config, out):
    """The rate is absurd: the parameters are gone after a few steps, the last good checkpoint is not."""
    words = ["--corpus", corpus, "--config", config, "--out", out, "--steps", "50", "--batch-size", "4"]
    options = ["--learning-rate", "1e38", "--warmup", "1", "--optimizer", "sgd", "--clip", "0"]
    with np.errstate(all="ignore"):
        code, _, error = run(capsys, "pretrain", *words, *options, "--save-every", "1")
    assert code == 1
    last = error.strip().splitlines()[-1]
    assert "error: step " in last and "the first that is not finite: " in last
    (checkpoint,) = out.glob("checkpoint-*")
    assert all(np.isfinite(value).all() for value in package.load(checkpoint).params.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ("corpus.txt", "no text")),
        (b"\n \n\n", ("corpus.txt", "no text")),
        (b"a b c.\n", ("corpus.txt", "one document")),
        (b"a b.\n\nc d.\n\ne f.\n", ("corpus.txt", "all of one sentence", "two that follow each other")),
        (b"a b.\nc \xff d.\n\ne f.\n", ("corpus.txt", "line 2", "byte 3", "UTF-8")),
    ],
)
def test_a_corpus_that_cannot_be_used(capsys, config, tmp_path, out, text, words):
    (tmp_path / "corpus.txt").write_bytes(text)
    argv = ["pretrain", "--corpus", tmp_path / "corpus.txt", "--config", config, "--out", out, *FAST]
    assert_fails(capsys, argv, 1, *words)
    assert not out.exists()


def test_one_sentence_documents_do_without_next_sentence(capsys, config, tmp_path, out):
    (tmp_path / "corpus.txt").write_text("a b.\n\nc d.\n\ne f.\n")
    words = ["--corpus", tmp_path / "corpus.txt", "--config", config, "--out", out, *FAST]
    assert run(capsys, "pretrain", *words, "--no-next-sentence")[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--corpus", "nowhere.txt"], 1, ["nowhere.txt", "no such file"]),
        (["--config", "nowhere.json"], 1, ["nowhere.json"]),
        (["--vocab", "nowhere.txt"], 1, ["nowhere.txt"]),
        (["--max-length", "25"], 2, ["--max-length 25", "24 positions"]),
        (["--max-length", "4"], 1, ["max_length is 4", "at least 5"]),
        (["--mask-rate", "0"], 1, ["rate is 0"]),
        (["--mask-rate", "1.5"], 2, ["--mask-rate", "from 0 to 1"]),
        (["--learning-rate", "0"], 2, ["--learning-rate", "above 0"]),
        (["--learning-rate", "nan"], 2, ["--learning-rate", "above 0"]),
        (["--steps", "0"], 2, ["--steps", "at least 1"]),
        (["--patience", "2"], 2, ["--patience", "held-out"]),
        (["--model", "x"], 2, ["--model", "--config"]),
        (["--optimizer", "adam"], 2, ["--optimizer", "adamw"]),
        (["--out", "/proc/nowhere"], 1, ["/proc/nowhere"]),
    ],
)
def test_options_that_make_no_sense(capsys, corpus, config, out, options, code, words):
    argv = ["pretrain", "--corpus", corpus, "--config", config, "--out", out, *FAST, *options]
    assert_fails(capsys, argv, code, *words)
    assert not out.exists()


def test_a_vocabulary_of_another_size(capsys, corpus, config, out):
    config.write_text(json.dumps(small_config(vocab_size=10).to_dict()))
    argv = ["pretrain", "--corpus", corpus, "--config", config, "--out", out, *FAST]
    assert_fails(capsys, argv, 1, "26", "vocab_size 10")


def test_help_has_examples(capsys):
    code, said, _ = run(capsys, "pretrain", "--help")
    assert code == 0
    assert "npbert pretrain --corpus corpus.txt --config config.json" in said
    assert "--resume" in said
