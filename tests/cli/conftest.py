"""A tiny model on the disk, and a text file."""

import numpy as np
import pytest

from npbert.bert import Bert
from npbert.checkpoint import PoolingSettings
from npbert.config import BertConfig
from npbert.params import parameter_shapes
from npbert.tokenizer import WordPieceTokenizer

WORDS = ["a", "cat", "dog", "bird", "barks", "sings", "sleeps", "loudly", "the", "."]
LINES = ["the cat sleeps .", "", "a dog barks loudly", "the bird sings"]


def tiny_bert(task: str) -> Bert:
    """Return a BERT of a handful of words with random, not small, parameters."""
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=16,
    )
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(config, task)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    pooling = PoolingSettings(mode="mean", normalize=True) if task == "encoder" else None
    return Bert(config, params, tokenizer, task=task, pooling=pooling)


@pytest.fixture
def encoder(tmp_path):
    """Return the directory of a sentence encoder."""
    tiny_bert("encoder").save(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def masked_lm(tmp_path):
    """Return the directory of a model that scores words."""
    tiny_bert("masked_lm").save(tmp_path / "masked_lm")
    return tmp_path / "masked_lm"


@pytest.fixture
def corpus(tmp_path):
    """Return a text file of four lines, one of them empty."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path
