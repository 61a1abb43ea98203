"""``npbert fill-mask``."""

import json

import pytest

import npbert
from npbert.checkpoint import shipped
from tests.cli.running import assert_fails, run

TEXT = "the [MASK] barks [MASK] ."


def test_words_and_probabilities(capsys, masked_lm):
    code, output, error = run(capsys, "fill-mask", TEXT, "--model", masked_lm, "--top-k", "3")
    assert (code, error) == (0, "")
    expected = npbert.load(masked_lm).fill_mask(TEXT, top_k=3)
    first, second = output.split("\n\n")
    for number, (part, words) in enumerate(zip((first, second), expected, strict=True), start=1):
        title, header, *rows = part.strip().splitlines()
        assert (title, header.split()) == (f"mask {number}", ["probability", "word"])
        assert [row.split() for row in rows] == [[f"{word.probability:.4f}", word.token] for word in words]


def test_json(capsys, masked_lm):
    code, output, _ = run(capsys, "fill-mask", TEXT, "--model", masked_lm, "--top-k", "15", "--json")
    found = json.loads(output)
    assert code == 0
    assert found["text"] == TEXT
    assert len(found["masks"]) == 2
    for words in found["masks"]:
        probabilities = [word["probability"] for word in words]
        assert len(words) == 15  # the whole vocabulary
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)
        assert probabilities == sorted(probabilities, reverse=True)
        assert {"token", "token_id", "probability"} == set(words[0])


@pytest.mark.parametrize(
    ("text", "word"), [("the dog barks", "[MASK]"), ("", "[MASK]"), ("[MASK] a" * 9, "16")]
)
def test_bad_text(text, word, capsys, masked_lm):
    assert_fails(capsys, ["fill-mask", text, "--model", masked_lm], 1, word)


def test_more_words_than_there_are(capsys, masked_lm):
    assert_fails(capsys, ["fill-mask", TEXT, "--model", masked_lm, "--top-k", "16"], 1, "top_k is 16", "15")


def test_a_model_that_scores_no_words(capsys, encoder):
    assert_fails(
        capsys, ["fill-mask", TEXT, "--model", encoder], 1, str(encoder), "encoder", "BertForMaskedLM"
    )


def test_a_fresh_head_is_a_warning(capsys, encoder):
    config = encoder / "config.json"
    config.write_text(config.read_text().replace("BertModel", "BertForMaskedLM"))
    code, output, error = run(capsys, "fill-mask", TEXT, "--model", encoder)
    assert code == 0 and output
    assert error.startswith("npbert fill-mask: warning: ") and error.count("\n") == 1
    assert "cls.predictions" in error


def test_the_model_that_npbert_ships_is_the_default(capsys, masked_lm, monkeypatch):
    masked_lm.rename(masked_lm.with_name(shipped.NPBERT_TINY))
    monkeypatch.setattr(shipped, "SHIPPED_DIRECTORY", masked_lm.parent)
    code, output, error = run(capsys, "fill-mask", TEXT, "--json")
    assert (code, error) == (0, "")
    expected = npbert.load("npbert-tiny").fill_mask(TEXT)
    found = json.loads(output)["masks"]
    assert [[word["token"] for word in words] for words in found] == [
        [word.token for word in words] for words in expected
    ]
