"""A corpus, a model and a run that take a moment, for the tests of training."""

from pathlib import Path

import numpy as np

from npbert.bert import Bert
from npbert.config import BertConfig
from npbert.data.pretraining import PretrainingData
from npbert.params import init_params
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.loop import TrainingSettings, train
from npbert.training.optimizers import OPTIMIZERS
from npbert.training.saved_run import SavedRun
from npbert.training.schedules import make_schedule

WORDS = [chr(ord("a") + number) for number in range(20)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]


def write_corpus(path: Path, documents: int = 12, seed: int = 0) -> Path:
    """Write sentences in which each word says what the next may be."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(documents):
        lines = []
        for _ in range(int(rng.integers(2, 6))):
            start = int(rng.integers(len(WORDS)))
            words = [WORDS[(start + place) % len(WORDS)] for place in range(int(rng.integers(3, 8)))]
            lines.append(" ".join(words) + ".")
        texts.append("\n".join(lines) + "\n")
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def small_config(**changes) -> BertConfig:
    fields = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 24,
    }
    return BertConfig(**fields | changes)


def small_bert(task="pretraining", seed=0, dtype=np.float32, backend="cpu", **changes) -> Bert:
    if task == "question_answering":
        changes.pop("num_labels", None)
    config = small_config(**changes)
    tokenizer = WordPieceTokenizer(VOCABULARY)
    return Bert(config, init_params(config, task, seed), tokenizer, task, dtype, backend)


def small_data(corpus: Path, bert: Bert, **options) -> PretrainingData:
    return PretrainingData(
        corpus, bert.tokenizer, **{"batch_size": 4, "max_length": 24, "buffer_tokens": 150} | options
    )


def small_run(directory, corpus, *, bert=None, optimizer="adamw", rate=1e-2, recipe=None, **options):
    """Train the small model; return it and the result.

    ``options`` are fields of the settings, and arguments of `train`.
    """
    bert = bert if bert is not None else small_bert()
    fields = TrainingSettings.__dataclass_fields__
    settings = TrainingSettings(
        **{"steps": 12, "save_every": 5, "log_every": 2}
        | {name: value for name, value in options.items() if name in fields}
    )
    arguments = {name: value for name, value in options.items() if name not in fields}
    source = arguments.pop("source", None) or small_data(corpus, bert)
    result = train(
        bert,
        source,
        OPTIMIZERS[optimizer](bert.params, weight_decay=0.01),
        make_schedule("linear", peak=rate, warmup_steps=2, total_steps=settings.steps),
        settings,
        SavedRun(directory, {"steps": settings.steps} if recipe is None else recipe),
        **arguments,
    )
    return bert, result
