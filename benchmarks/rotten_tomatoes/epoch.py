"""The time of an epoch: contenders take turns at some batches of it, all at the same ones."""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.rotten_tomatoes import task as recipe
from benchmarks.rotten_tomatoes.accuracy import NPBERT, TRANSFORMERS, Trainer, make_trainer
from benchmarks.rotten_tomatoes.task import Task, batches_of, start_model
from npbert.bench.contest import Contender, Outcome, contest, ratios, summarize
from npbert.data.labelled import LabelledData

Array = NDArray[np.generic]

TOLERANCE = 1e-4  # of the scores, which are of size 0.1 to 1, in float32


def measure(task: Task, rounds: int, batches: int) -> list[Outcome]:
    """Time steps of fine-tuning: dropout, forward, backward, clipping, AdamW.

    Parameters
    ----------
    task : Task
    rounds : int
        Times that each contender is measured.
    batches : int
        Steps of each time.

    Returns
    -------
    list of Outcome
        Seconds of an epoch, as long as that many of its batches take in proportion.
    """
    bert = start_model(task, seed=0)
    data = batches_of(task.train, bert)
    first = next(data.one_pass())
    expected = first_scores(task, first)
    contenders = []
    for name, who, length in (
        (NPBERT, "npbert", None),
        (TRANSFORMERS, "transformers, padded to the longest of a batch", None),
        (TRANSFORMERS, f"transformers, padded to {recipe.MAX_LENGTH}", recipe.MAX_LENGTH),
    ):
        trainer = make_trainer(name, task, 0, recipe.EPOCHS * data.batches_per_epoch)
        wrong = wrong_scores(trainer, first, expected)
        stream = endless(data, length)
        contenders.append(
            Contender(who, partial(take_steps, trainer, stream, batches), lambda _, wrong=wrong: wrong)
        )
    share = data.batches_per_epoch / batches
    return [
        outcome._replace(seconds=tuple(share * value for value in outcome.seconds))
        for outcome in contest(contenders, rounds)
    ]


def take_steps(trainer: Trainer, stream: Iterator[Mapping[str, Array]], count: int) -> None:
    """Learn from the next batches."""
    for _ in range(count):
        trainer.step(next(stream))


def endless(data: LabelledData, length: int | None) -> Iterator[dict[str, Array]]:
    """Yield the batches of epoch after epoch; padded further, to a length, if one is given."""
    for batch, _ in data.batches():
        yield batch if length is None else padded(batch, length)


def padded(batch: Mapping[str, Array], length: int) -> dict[str, Array]:
    """Return a batch with more padding; 0 is MiniLM's padding token, and the mask of it."""
    return {
        name: value if value.ndim == 1 else np.pad(value, ((0, 0), (0, length - value.shape[1])))
        for name, value in batch.items()
    }


def first_scores(task: Task, batch: Mapping[str, Array]) -> Array:
    """Return the textbook's scores of a batch before training, in float64."""
    from npbert import Bert

    bert = start_model(task, seed=0)
    textbook = Bert(bert.config, bert.params, task=bert.task, dtype=np.float64, backend="reference")
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    scores: Array = textbook.forward(**inputs).logits
    return scores


def wrong_scores(trainer: Trainer, batch: Mapping[str, Array], expected: Array) -> str:
    """Return what is wrong with a contender's scores before training, "" for nothing."""
    error = float(np.abs(trainer.scores(batch) - expected).max())
    return "" if error <= TOLERANCE else f"wrong: the scores are off by {error:.1e}"


def print_table(outcomes: list[Outcome]) -> None:
    """Print the seconds of an epoch, and how many times npbert's that is."""
    print(f"{'an epoch':<48} {'seconds':>8} {'p10 to p90':>14} {'times':>6}  p10 to p90")
    for outcome in outcomes:
        if outcome.failure:
            print(f"{outcome.name:<48} {outcome.failure}")
            continue
        seconds, times = summarize(outcome.seconds), ratios(outcome, outcomes[0])
        assert times is not None
        spread = f"{seconds.p10:.0f} to {seconds.p90:.0f}"
        print(
            f"{outcome.name:<48} {seconds.median:>8.0f} {spread:>14} {times.median:>6.2f}  "
            f"{times.p10:.2f} to {times.p90:.2f}"
        )
