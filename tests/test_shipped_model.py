"""npbert-tiny as it ships: the files, what it says to simple questions, and what its card promises."""

import json
import re

import numpy as np
import pytest

import npbert
from npbert.checkpoint.shipped import NPBERT_TINY, SHIPPED_DIRECTORY
from npbert.cli.demo import GAPS
from npbert.recipes.npbert_tiny.model_card import EXAMPLES
from npbert.recipes.npbert_tiny.settings import CONFIG, MAX_LENGTH, MAX_WEIGHTS, TRAINING, VOCAB_SIZE
from tests.cli.running import python

DIRECTORY = SHIPPED_DIRECTORY / NPBERT_TINY

# A word that would be right, for each gap of the demo.
RIGHT = ("instrument", "plant", "person", "tree", "flowers", "water", "desert", "large", "manner")


@pytest.fixture(scope="module")
def bert():
    """Return the model."""
    return npbert.load(NPBERT_TINY)


def test_the_files():
    names = {path.name for path in DIRECTORY.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"} <= names
    assert (DIRECTORY / "model.safetensors").stat().st_size <= MAX_WEIGHTS
    assert json.loads((DIRECTORY / "config.json").read_text())["dtype"] == "float16"


def test_the_model(bert):
    assert bert.task == "pretraining" and bert.dtype == np.float32
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    assert [getattr(bert.config, name) for name in sizes] == [getattr(CONFIG, name) for name in sizes]
    assert bert.max_tokens == MAX_LENGTH and bert.tokenizer.vocab_size == VOCAB_SIZE
    assert all(np.isfinite(value).all() and value.any() for value in bert.params.values())


def test_it_knows_some_words(bert):
    found = [
        right in [word.token for word in bert.fill_mask(text, top_k=5)[0]]
        for text, right in zip(GAPS, RIGHT, strict=True)
    ]
    assert all(found), dict(zip(GAPS, found, strict=True))


def test_no_network_is_asked():
    """Nor anything imported that could ask one."""
    program = (
        "import socket, sys\n"
        "socket.socket = None\n"
        "import npbert\n"
        f"print(npbert.load('npbert-tiny').fill_mask({GAPS[0]!r}, 1)[0][0].token)\n"
        "print('huggingface_hub' in sys.modules)"
    )
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "False"


def test_the_card(bert):
    card = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University." in card
    for name, value in TRAINING.items():
        assert (f"--{name}" if value is None else f"--{name} {value}") in card
    for text in EXAMPLES:
        best = bert.fill_mask(text, top_k=1)[0][0]
        shown = re.search(re.escape(f"`{text}` | ") + r"(\S+) (\d\.\d\d)", card)
        assert (shown[1], float(shown[2])) == (best.token, pytest.approx(best.probability, abs=0.0051))


def test_it_beats_the_baselines():
    """By the card's table, on the held-out text."""
    card = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z -]+) \| ([\d.]+)% \| ([\d.]+) \|$", card, flags=re.MULTILINE)
    figures = {name: (float(accuracy), float(perplexity)) for name, accuracy, perplexity in rows}
    accuracy, perplexity = figures[NPBERT_TINY]
    for name in ("unigram", "left neighbour"):
        assert accuracy > figures[name][0] + 5  # points
        assert perplexity < figures[name][1] / 2


@pytest.mark.oracle
class TestAgainstTransformers:
    """transformers reads the directory, and computes the same."""

    def test_scores(self, bert):
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        theirs = transformers.BertForPreTraining.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
        batch = bert.tokenizer.batch(["a violin is a [MASK] instrument.", "[MASK]"])
        with torch.no_grad():
            expected = theirs(**{name: torch.from_numpy(value) for name, value in batch.items()})
        found = bert.forward(**batch)
        real = batch["attention_mask"].astype(bool)
        np.testing.assert_allclose(
            found.prediction_logits[real],
            expected.prediction_logits.numpy()[real],
            atol=2e-4,  # float32 after four layers, logits of size 10
        )
        np.testing.assert_allclose(
            found.seq_relationship_logits, expected.seq_relationship_logits.numpy(), atol=2e-4
        )

    def test_tokens(self, bert):
        transformers = pytest.importorskip("transformers")
        theirs = transformers.AutoTokenizer.from_pretrained(DIRECTORY)
        for text in ("A violin is a [MASK] instrument!", "Élan, naïveté; 中文 3.5"):
            assert theirs(text)["input_ids"] == bert.tokenizer.encode(text).ids
