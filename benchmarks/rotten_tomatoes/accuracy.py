"""Test accuracies, run by run: what is there already is not run again."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.rotten_tomatoes import bag_of_words, frozen
from benchmarks.rotten_tomatoes import task as recipe
from benchmarks.rotten_tomatoes.task import Task, batches_of, start_model
from npbert.progress import progress_bar

Array = NDArray[np.generic]
Record = dict[str, Any]

NPBERT: Final = "npbert, fine-tuned"
TRANSFORMERS: Final = "transformers, fine-tuned"
BAG_OF_WORDS: Final = "tf-idf of word pairs, logistic regression"
FROZEN: Final = {
    "npbert, frozen: last layer, logistic head": "last",
    "npbert, frozen: mix of layers, logistic head": "mix",
}
PIECES: Final = 4  # see `TransformersTrainer`


class Trainer(Protocol):
    """A model that is fine-tuned step by step."""

    def step(self, batch: Mapping[str, Array]) -> float:
        """Learn from a batch; return the loss."""

    def scores(self, batch: Mapping[str, Array]) -> Array:
        """Return the scores of the classes, without dropout.  -> (B, 2)"""


def make_trainer(name: str, task: Task, seed: int, steps: int, pieces: int = 1) -> Trainer:
    """Return the trainer of this name; ``pieces`` is `TransformersTrainer`'s, npbert has no use for it."""
    if name == NPBERT:
        from benchmarks.rotten_tomatoes.with_npbert import NpbertTrainer

        return NpbertTrainer(task, seed, steps)
    from benchmarks.rotten_tomatoes.with_transformers import TransformersTrainer

    return TransformersTrainer(task, seed, steps, pieces)


def fine_tune(name: str, task: Task, seed: int, epochs: int = recipe.EPOCHS) -> Record:
    """Fine-tune with one seed (of the head, the order of the texts, and dropout); both see the same batches.

    Returns
    -------
    dict
        "accuracy" on the test set; "loss", the mean of the last epoch's batches; "minutes" of training.
    """
    bert = start_model(task, seed)  # for its tokenizer
    train, test = batches_of(task.train, bert, seed), batches_of(task.test, bert)
    steps = epochs * train.batches_per_epoch
    trainer = make_trainer(name, task, seed, steps, PIECES)
    start, losses = time.perf_counter(), []
    with progress_bar(f"{name}, seed {seed}", steps, enabled=True) as advance:
        for batch, _ in islice(train.batches(), steps):
            losses.append(trainer.step(batch))
            advance(1, note=f"loss {statistics.fmean(losses[-50:]):.3f}")
            if len(losses) % train.batches_per_epoch == 0:
                loss = statistics.fmean(losses[-train.batches_per_epoch :])
                epoch = len(losses) // train.batches_per_epoch
                print(f"{name}, seed {seed}, epoch {epoch}: mean loss {loss:.4f}", file=sys.stderr)
    minutes = (time.perf_counter() - start) / 60
    right = [trainer.scores(batch).argmax(axis=1) == batch["labels"] for batch in test.one_pass()]
    return {
        "accuracy": float(np.concatenate(right).mean()),
        "loss": statistics.fmean(losses[-train.batches_per_epoch :]),
        "minutes": round(minutes, 1),
    }


def measure(task: Task, seeds: Sequence[int], results: Path, only: str = "") -> Iterator[Record]:
    """Yield the record of every run; those that are not in the file of results yet are made and appended.

    Parameters
    ----------
    task : Task
    seeds : sequence of int
    results : Path
    only : str
        No run is made of a contender in whose name this is not.
    """
    done = read_results(results)
    runs: list[tuple[str, int | None, Callable[[], Record]]] = [
        (BAG_OF_WORDS, None, lambda: {"accuracy": bag_of_words.accuracy(task)})
    ]
    for seed in seeds:
        for name, layers in FROZEN.items():
            runs.append(
                (
                    name,
                    seed,
                    lambda layers=layers, seed=seed: {"accuracy": frozen.accuracy(task, layers, seed)},
                )
            )
        for name in (NPBERT, TRANSFORMERS):
            runs.append((name, seed, lambda name=name, seed=seed: fine_tune(name, task, seed)))
    for who, seed, run in runs:
        if (who, seed) not in done and only in who:
            record = {"who": who, "seed": seed, **run()}
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            done[who, seed] = record
        if (who, seed) in done:
            yield done[who, seed]


def read_results(path: Path) -> dict[tuple[str, int | None], Record]:
    """Return the records of earlier runs, by contender and seed."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {(record["who"], record["seed"]): record for record in records}


def print_table(records: Sequence[Record]) -> None:
    """Print the accuracies of each contender, their mean, and how they spread."""
    print(f"{'test accuracy':<44} {'mean':>6} {'spread':>7}  by seed")
    for who in dict.fromkeys(record["who"] for record in records):
        found = [100 * record["accuracy"] for record in records if record["who"] == who]
        spread = f"{statistics.stdev(found):.2f}" if len(found) > 1 else ""
        each = "  ".join(f"{accuracy:.2f}" for accuracy in found) if len(found) > 1 else ""
        print(f"{who:<44} {statistics.fmean(found):>6.2f} {spread:>7}  {each}")
