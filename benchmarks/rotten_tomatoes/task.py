"""The task, the same for everyone: the reviews, their split, the hyper-parameters, the first weights."""

import hashlib
import warnings
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from npbert import Bert, load
from npbert.bench.texts import CORPUS
from npbert.data.labelled import EncodedExample, LabelledData, encode_texts
from npbert.data.tables import read_rows
from npbert.params import draw_parameter
from npbert.training.schedules import make_schedule

CLASSES: Final = ("fresh", "rotten")  # the file has plots of films, too: these are left out
TEST_SHARE: Final = 5  # one film of so many is for the test

EPOCHS: Final = 3
BATCH_SIZE: Final = 32
MAX_LENGTH: Final = 128
LEARNING_RATE: Final = 5e-5
WARMUP: Final = 0.1  # of the steps; then linearly to 0
WEIGHT_DECAY: Final = 0.01  # not of biases and layer norms
MAX_GRAD_NORM: Final = 1.0
# Dropout is as the model's configuration has it: 0.1 everywhere.


class Reviews(NamedTuple):
    """Some texts, and the number of each one's class."""

    texts: list[str]
    labels: list[int]


class Task(NamedTuple):
    """What is given: a model's directory and the reviews."""

    model: Path
    train: Reviews
    test: Reviews


def read_task(model: Path, corpora: Path) -> Task:
    """Read the reviews, and split them by film: no film is in both parts."""
    train, test = Reviews([], []), Reviews([], [])
    for _, fields in read_rows(corpora / CORPUS, ["text", "category", "movie_name"]):
        if fields["category"] in CLASSES:
            part = test if is_for_test(fields["movie_name"]) else train
            part.texts.append(fields["text"])
            part.labels.append(CLASSES.index(fields["category"]))
    return Task(model, train, test)


def is_for_test(film: str) -> bool:
    """Return whether the reviews of a film are for the test.

    Examples
    --------
    >>> [film for film in "abcdefghijkl" if is_for_test(film)]
    ['j']
    """
    return int(hashlib.md5(film.encode()).hexdigest(), 16) % TEST_SHARE == 0


def start_model(task: Task, seed: int) -> Bert:
    """Return the pre-trained model with a head for two classes, drawn with this seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the head is freshly drawn: that is the intention
        bert = load(task.model, task="sequence_classification", num_labels=len(CLASSES))
    for name in ("classifier.weight", "classifier.bias"):
        bert.params[name] = draw_parameter(bert.config, name, bert.params[name].shape, seed)
    return bert


def batches_of(reviews: Reviews, bert: Bert, seed: int = 0) -> LabelledData:
    """Return the batches of some reviews, padded to the longest of each batch."""
    assert bert.tokenizer is not None
    examples = [
        EncodedExample(one.input_ids, one.token_type_ids, labels={"labels": np.array(label, dtype=np.int64)})
        for one, label in zip(
            encode_texts(reviews.texts, None, bert.tokenizer, MAX_LENGTH), reviews.labels, strict=True
        )
    ]
    return LabelledData(examples, pad_id=bert.tokenizer.pad_id, batch_size=BATCH_SIZE, seed=seed)


def learning_rate(step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0, of so many."""
    return make_schedule("linear", peak=LEARNING_RATE, warmup_steps=round(WARMUP * steps), total_steps=steps)(
        step
    )
