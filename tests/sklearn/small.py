"""A model of some thousand parameters, and texts of its words in two classes."""

from pathlib import Path
from typing import Any

import numpy as np

from npbert import Bert, BertConfig, WordPieceTokenizer, init_params

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD, NEITHER = ["fine", "moving", "wise"], ["dull", "silly", "flat"], ["a", "film", "the", "plot", "is"]


def save_model(
    directory: Path,
    words: list[str],
    task: str = "encoder",
    seed: int = 0,
    hidden_size: int = 16,
    **settings: Any,
) -> str:
    """Write a model that knows these words, with random parameters; return where."""
    tokenizer = WordPieceTokenizer(SPECIAL + words)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    Bert(config, init_params(config, task, seed), tokenizer, task, **settings).save(directory)
    return str(directory)


def save_model_for_reviews(directory: Path, **settings: Any) -> str:
    """Write a model that knows the words of `reviews`; return where."""
    return save_model(directory, GOOD + BAD + NEITHER, **settings)


def reviews(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return texts of one to eight words, and which of two classes each is of."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        label = str(rng.choice(["bad", "good"]))
        words = [rng.choice(GOOD if label == "good" else BAD), *rng.choice(NEITHER, rng.integers(0, 8))]
        texts.append(" ".join(rng.permutation(words)))
        labels.append(label)
    return texts, labels
