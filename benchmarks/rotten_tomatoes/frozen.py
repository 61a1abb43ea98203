"""Feature-based use: MiniLM stays as it is, and a logistic head learns on its vectors.

The hyper-parameters are the defaults of ``npbert finetune --frozen``.
"""

import math

import numpy as np

from benchmarks.rotten_tomatoes.task import (
    BATCH_SIZE,
    CLASSES,
    MAX_GRAD_NORM,
    MAX_LENGTH,
    WARMUP,
    WEIGHT_DECAY,
    Task,
)
from npbert import load
from npbert.cli.frozen import BATCH_TOKENS, EPOCHS, LEARNING_RATE
from npbert.data.labelled import encode_texts
from npbert.training.adamw import AdamW
from npbert.training.frozen import FrozenClassifier, FrozenSettings, decays_in_head, train_head
from npbert.training.schedules import make_schedule


def accuracy(task: Task, layers: str, seed: int) -> float:
    """Return the test accuracy of a head on the means of tokens' vectors.

    Parameters
    ----------
    task : Task
    layers : str
        Whose vectors: "last" or "mix".
    seed : int
        Of the order of the texts.
    """
    encoder = load(task.model, task="encoder", num_labels=len(CLASSES))
    assert encoder.tokenizer is not None
    classifier = FrozenClassifier(encoder, FrozenSettings(layers))
    train, test = (
        classifier.features(encode_texts(part.texts, None, encoder.tokenizer, MAX_LENGTH), BATCH_TOKENS)
        for part in (task.train, task.test)
    )
    steps = EPOCHS * math.ceil(len(train) / BATCH_SIZE)
    losses = train_head(
        classifier,
        train,
        np.array(task.train.labels),
        AdamW(classifier.head, weight_decay=WEIGHT_DECAY, decays=decays_in_head),
        make_schedule("linear", peak=LEARNING_RATE, warmup_steps=round(WARMUP * steps), total_steps=steps),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        seed=seed,
        max_grad_norm=MAX_GRAD_NORM,
    )
    list(losses)  # it trains as its losses are asked for
    return float((classifier.logits(test).argmax(axis=1) == task.test.labels).mean())
