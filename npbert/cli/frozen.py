"""``npbert finetune --frozen``: the encoder stays as it is, and a small head learns on its features."""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.cli.console import say
from npbert.cli.errors import OK, CommandError, UsageError
from npbert.cli.models import load_with_tokenizer, source_or_installed
from npbert.cli.task_files import encode_file, length_limit
from npbert.cli.training import batches_per_step, describe, numbers, require_plotting
from npbert.data.labelled import EncodedExample
from npbert.pooling import POOLING_MODES
from npbert.progress import progress_bar
from npbert.training.frozen import (
    LAYERS,
    FrozenClassifier,
    FrozenSettings,
    decays_in_head,
    train_head,
)
from npbert.training.metrics import METRICS_NAME, Record
from npbert.training.optimizers import OPTIMIZERS
from npbert.training.saved_run import SavedRun
from npbert.training.schedules import make_schedule
from npbert.training.tasks import TaskFile, TextFile

Array = NDArray[Any]

EPOCHS: Final = 30
LEARNING_RATE: Final = 0.01
BATCH_TOKENS: Final = 1024  # of the encoder: no more than stays in the cache


def add_frozen_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--frozen`` and what goes with it."""
    group = parser.add_argument_group("feature-based use")
    group.add_argument(
        "--frozen",
        action="store_true",
        help="sequence classification: leave the encoder as it is, compute its features once, and train a "
        f"logistic head on them ({EPOCHS} epochs, learning rate {LEARNING_RATE:g}, if nothing else is said)",
    )
    group.add_argument(
        "--layers",
        choices=LAYERS,
        default="last",
        help="whose vectors are the features: the last layer's, or a learned mix of all (default: last)",
    )
    group.add_argument(
        "--pooling",
        choices=POOLING_MODES[::-1],
        default="mean",
        help="from a text's tokens to its vector: their mean, or the first one's (default: mean)",
    )


def run_frozen(arguments: argparse.Namespace, training_file: TaskFile, held_out_file: TaskFile | None) -> int:
    """Compute features, train the head, write both, and say how it went."""
    if not isinstance(training_file, TextFile):
        raise UsageError("--frozen is for --task sequence_classification")
    for name, is_given in (
        ("--resume", arguments.resume),
        ("--patience", arguments.patience is not None),
        ("--accumulate", batches_per_step(arguments) > 1),
    ):
        if is_given:
            raise UsageError(f"{name} does not go with --frozen, where a head learns in seconds")
    if arguments.plot is not None:
        require_plotting()
    out = Path(arguments.out)
    try:
        SavedRun(out, {}).check_is_new()
    except FileExistsError as error:
        raise CommandError(str(error)) from None
    encoder = load_with_tokenizer(
        source_or_installed(arguments.model),
        "encoder",
        arguments.dtype,
        arguments.backend,
        **training_file.config_fields(),
    )
    classifier = FrozenClassifier(encoder, FrozenSettings(arguments.layers, arguments.pooling))
    max_length = length_limit(arguments, encoder)
    examples = encode_file(training_file, encoder, max_length)
    held_out = [] if held_out_file is None else encode_file(held_out_file, encoder, max_length)

    features = _features(classifier, [*examples, *held_out])
    labels = np.stack([example.labels["labels"] for example in examples])
    records: list[Record] = []
    scores: Record = {}
    for record in _train(arguments, classifier, features[: len(examples)], labels):
        if held_out_file is not None:
            scores = _scores(classifier, features[len(examples) :], held_out_file)
        records.append(record | {f"held_out_{name}": score for name, score in scores.items()})
        if not arguments.json:
            say(describe(records[-1]))
    lines = "".join(json.dumps(record) + "\n" for record in records)
    classifier.save(out, {METRICS_NAME: lines})
    if arguments.plot is not None:
        from npbert.training.plot import plot_metrics

        plot_metrics(records, Path(arguments.plot))
    _report(arguments, records[-1], scores)
    return OK


def _features(classifier: FrozenClassifier, examples: list[EncodedExample]) -> Array:
    with progress_bar("reading", total=len(examples)) as advance:
        return classifier.features(examples, BATCH_TOKENS, advance)


def _train(
    arguments: argparse.Namespace, classifier: FrozenClassifier, features: Array, labels: Array
) -> Iterator[Record]:
    """Train the head, and yield a record of each epoch."""
    steps_per_epoch = math.ceil(len(features) / arguments.batch_size)
    steps = arguments.epochs * steps_per_epoch
    schedule = make_schedule(
        arguments.schedule,
        peak=arguments.learning_rate,
        warmup_steps=round(arguments.warmup * steps),
        total_steps=steps,
    )
    optimizer = OPTIMIZERS[arguments.optimizer](
        classifier.head, weight_decay=arguments.weight_decay, decays=decays_in_head
    )
    losses = train_head(
        classifier,
        features,
        labels,
        optimizer,
        schedule,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        max_grad_norm=arguments.clip or None,
    )
    with progress_bar("training", arguments.epochs) as advance:
        for epoch, loss in enumerate(losses, start=1):
            advance(1, note=f"loss {loss:.3f}")
            yield {"step": epoch * steps_per_epoch, "epoch": epoch, "loss": loss}


def _scores(classifier: FrozenClassifier, features: Array, file: TaskFile) -> Record:
    logits = [{"logits": scores} for scores in classifier.logits(features)]
    return file.scores(file.answers(logits, classifier.encoder.config))


def _report(arguments: argparse.Namespace, last: Record, scores: Record) -> None:
    if arguments.json:
        print(json.dumps({"out": arguments.out, "finished": True, **last, **scores}, indent=2))
        return
    say(f"{arguments.out}: trained, {last['step']} steps", "good")
    if scores:
        say(numbers(scores))
