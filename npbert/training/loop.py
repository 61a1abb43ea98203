"""The training loop: batches in, a trained model and its metrics out."""

import itertools
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from npbert.bert import Bert
from npbert.labels import LABELS_OF_TASK
from npbert.params import Params
from npbert.progress import progress_bar
from npbert.training.clipping import clip_by_global_norm, global_norm
from npbert.training.communicator import Alone, Communicator, check_agreement, checksum
from npbert.training.failures import TrainingError, first_not_finite
from npbert.training.metrics import MetricsFile, Record, Window, accuracies
from npbert.training.optimizers import Optimizer
from npbert.training.saved_run import Progress, SavedRun, load_params
from npbert.training.step import (
    Batch,
    Counts,
    StepResult,
    Tallies,
    Tally,
    add_counts,
    add_results,
    count_labels,
    evaluate,
    mean_loss,
    run_batch,
)
from npbert.training.stopping import listening_to_signals

DROPOUT_STREAM: Final = 0xD0  # so that dropout's seeds are not those of the data

Position = dict[str, Any]
Schedule = Callable[[int], float]


class BatchSource(Protocol):
    """Where training batches come from."""

    def batches(self, position: Position | None = None) -> Iterator[tuple[Batch, Position]]:
        """Yield batches, without end, each with the position after it.

        From any of these positions on, the same batches come again.
        """


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes
    ----------
    steps : int
        Optimiser steps in all.
    accumulate : int
        Batches whose gradients (of each process) make one step, as if they were one large batch.
    max_grad_norm : float or None
        Gradients are scaled down to this global norm. None: never.
    seed : int
        Of dropout.
    dropout : bool
        Whether to use the dropout rates of the configuration.
    log_every : int
        Steps between records of the metrics.
    save_every : int
        Steps between checkpoints.
    evaluate_every : int
        Steps between evaluations on held-out data, where there are some.
    patience : int or None
        Training stops when so many evaluations in a row brought no smaller loss, and the result is the model
        with the smallest. None: never, and the result is the last model.

    Raises
    ------
    ValueError
        For a value that is not as above.
    """

    steps: int
    accumulate: int = 1
    max_grad_norm: float | None = 1.0
    seed: int = 0
    dropout: bool = True
    log_every: int = 10
    save_every: int = 500
    evaluate_every: int = 500
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "save_every", "evaluate_every", "patience"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1) and not (name == "patience" and value is None):
                raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}; it must be an integer of at least 0")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm is {self.max_grad_norm!r}; it must be above 0, or None")


class TrainingResult(NamedTuple):
    """How a training ended.

    Attributes
    ----------
    step : int
        Steps that were taken, those before a resumption included.
    finished : bool
        False where a signal ended it; the run can be resumed.
    signal_number : int
        That signal, or 0.
    last : dict
        The last record of the metrics.
    best_step : int or None
        After which step the model was best, where training stopped early or could have.
    """

    step: int
    finished: bool
    signal_number: int
    last: Record
    best_step: int | None


def train(
    bert: Bert,
    source: BatchSource,
    optimizer: Optimizer,
    schedule: Schedule,
    settings: TrainingSettings,
    run: SavedRun,
    *,
    held_out: Callable[[], Iterable[Batch]] | None = None,
    resume: bool = False,
    communicator: Communicator | None = None,
    report: Callable[[Record], None] = lambda record: None,
    progress: bool = False,
) -> TrainingResult:
    """Train a model, and leave it, its checkpoints and its metrics in the directory of the run.

    Parameters
    ----------
    bert : Bert
        Its parameters are changed.
    source : BatchSource
    optimizer : Optimizer
        Of ``bert.params``.
    schedule : callable
        The learning rate of each step, counted from 0.
    settings : TrainingSettings
    run : SavedRun
    held_out : callable, optional
        Returns the batches to evaluate on.
    resume : bool
        Go on from the run's last checkpoint, if there is one: to the same parameters, to the last bit, as
        without the interruption.
    communicator : Communicator, optional
        The processes that train together; None: this one alone.
    report : callable
        Called with each record of the metrics.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    TrainingResult

    Raises
    ------
    TrainingError
        If the loss or a gradient is not finite: names the step and the first such tensor. The parameters are
        those before the step, and the last checkpoint remains.
    FileExistsError
        If the directory holds a run that is not to be resumed, or a model of another origin.
    ValueError
        If the checkpoint is of another run, or damaged.
    OSError
        If a file cannot be written.
    """
    ranks = communicator if communicator is not None else Alone()
    at = _start(bert, optimizer, run, resume, ranks)
    metrics, window = MetricsFile(run.directory), Window.from_json(at.window)
    last = metrics.last()
    batches = source.batches(at.position)

    with (
        listening_to_signals() as stop,
        progress_bar("training", settings.steps, progress and ranks.rank == 0) as advance,
    ):
        advance(at.step)
        while not _is_over(at, settings):
            start = time.perf_counter()
            step_batches, at.position = _take(batches, settings.accumulate * ranks.size)
            rate = schedule(at.step)
            taken = take_step(bert, step_batches, optimizer, rate, at.step, settings, ranks)
            at.step += 1
            window.add(taken.loss, taken.tallies, taken.tokens, time.perf_counter() - start)
            advance(1, note=_note(window.summary(bert.task), rate))

            records = []
            if at.step % settings.log_every == 0 or _is_over(at, settings):
                numbers = {"learning_rate": rate, "gradient_norm": taken.norm, "epoch": at.position["epoch"]}
                records.append({"step": at.step, **window.summary(bert.task), **numbers})
                window = Window()
            if held_out is not None and (at.step % settings.evaluate_every == 0 or _is_over(at, settings)):
                records.append(_evaluate(bert, held_out(), at, settings, run, ranks))
            for last in records:
                if ranks.rank == 0:
                    metrics.append(last)
                    report(last)

            is_interrupted = ranks.sum_numbers([float(stop.signal_number)])[0] > 0
            if at.step % settings.save_every == 0 or _is_over(at, settings) or is_interrupted:
                at.window = window.to_json()
                _save(bert, optimizer, at, run, ranks)
            if is_interrupted:
                return TrainingResult(at.step, False, stop.signal_number or signal.SIGTERM, last, None)

    best_step = _finish(bert, at, settings, run, ranks)
    return TrainingResult(at.step, True, 0, last, best_step)


class StepTaken(NamedTuple):
    """What one optimiser step cost, over all processes, and the gradients' norm before clipping."""

    loss: float
    tallies: Tallies
    tokens: int
    norm: float


def take_step(
    bert: Bert,
    batches: Sequence[Batch],
    optimizer: Optimizer,
    learning_rate: float,
    step: int,
    settings: TrainingSettings,
    ranks: Communicator,
) -> StepTaken:
    """Take one optimiser step, on the mean over all labels of some batches.

    Parameters
    ----------
    bert : Bert
    batches : sequence of mapping of str to array
        ``accumulate`` for each rank, in the order of the ranks.
    optimizer : Optimizer
    learning_rate : float
    step : int
        From 0 on.
    settings : TrainingSettings
    ranks : Communicator

    Returns
    -------
    StepTaken

    Raises
    ------
    TrainingError
        If the loss or a gradient is not finite.
    """
    counts = add_counts(count_labels(batch, bert.task) for batch in batches)
    result = StepResult(0.0, {}, 0, {})
    first = ranks.rank * settings.accumulate
    numbers = range(first, first + settings.accumulate)
    own = [(batches[number], dropout_seed(settings, step * len(batches) + number)) for number in numbers]
    step_counts = counts if len(batches) > 1 else None
    for batch, seed in own:
        result = add_results(result, run_batch(bert, batch, seed, step_counts))
    result = _over_all_ranks(result, bert.task, ranks)

    if settings.max_grad_norm is None:
        norm = global_norm(result.grads, bert.share_out)
    else:
        norm = clip_by_global_norm(result.grads, settings.max_grad_norm, bert.share_out)
    if not (math.isfinite(result.loss) and math.isfinite(norm)):
        value = f"the loss is {result.loss}, the norm of the gradients {norm}"
        culprit = _first_not_finite(bert, own, step_counts, result.grads, ranks)
        raise TrainingError(f"step {step + 1}: {value}; the first that is not finite: {culprit}")
    optimizer.step(result.grads, learning_rate)
    return StepTaken(result.loss, result.tallies, result.tokens, norm)


def dropout_seed(settings: TrainingSettings, number: int) -> int | None:
    """Return the key of the dropout masks of the batch with this number, counted over all steps and ranks."""
    if not settings.dropout:
        return None
    sequence = np.random.SeedSequence([settings.seed, DROPOUT_STREAM, number])
    return int(sequence.generate_state(1, np.uint64)[0])


def _take(batches: Iterator[tuple[Batch, Position]], count: int) -> tuple[list[Batch], Position]:
    """Return the next batches and the position after the last."""
    taken = list(itertools.islice(batches, count))
    return [batch for batch, _ in taken], taken[-1][1]


def _over_all_ranks(result: StepResult, task: str, ranks: Communicator) -> StepResult:
    """Return the sums of the losses, tallies, tokens and gradients over all ranks."""
    if ranks.size == 1:
        return result
    grads = ranks.sum_gradients(result.grads)
    loss, tokens = ranks.sum_numbers([result.loss, float(result.tokens)])
    return StepResult(loss, _tallies_over_all_ranks(result.tallies, task, ranks), int(tokens), grads)


def _tallies_over_all_ranks(tallies: Tallies, task: str, ranks: Communicator) -> Tallies:
    """Return the sums; a rank that has evaluated no batch, and so has no tallies, takes part all the same."""
    total = {}
    for name in LABELS_OF_TASK[task]:
        some = tallies.get(name, Tally())
        has_correct = some.correct is not None
        numbers = [name in tallies, some.count, some.loss, some.correct or 0, not has_correct]
        present, count, loss, correct, unknown = ranks.sum_numbers([float(number) for number in numbers])
        if present:
            total[name] = Tally(int(count), loss, None if unknown else int(correct))
    return total


def _first_not_finite(
    bert: Bert,
    own: Sequence[tuple[Batch, int | None]],
    step_counts: Counts | None,
    grads: Params,
    ranks: Communicator,
) -> str:
    """Name the first tensor that is not finite, of the first rank that has one: the same name on all ranks.

    ``own`` are this rank's batches and their seeds, ``grads`` the sums over all batches and ranks.
    """
    name = ""
    for batch, seed in own:
        name = name or first_not_finite(bert, batch, seed, run_batch(bert, batch, seed, step_counts).grads)
    for rank, found in enumerate(ranks.gather_texts(name)):
        if found:
            return found if ranks.size == 1 else f"{found}, on rank {rank}"
    return f"{first_not_finite(bert, own[0][0], own[0][1], grads) or 'the loss'}, summed over all batches"


def _start(bert: Bert, optimizer: Optimizer, run: SavedRun, resume: bool, ranks: Communicator) -> Progress:
    """Return where to begin; a checkpoint that is resumed goes into the model and the optimiser."""
    if not (resume and run.checkpoints()):
        run.check_is_new()
    if ranks.rank == 0:
        run.directory.mkdir(parents=True, exist_ok=True)
        run.tidy_up()
    ranks.wait_for_all()
    at = run.restore(bert, optimizer) if run.checkpoints() else Progress()
    if ranks.size > 1:
        start = {"recipe": json.dumps(run.recipe), "step": str(at.step), "parameters": checksum(bert.params)}
        check_agreement(ranks, start)
    if ranks.rank == 0:
        MetricsFile(run.directory).cut_after(at.step)
    return at


def _is_over(at: Progress, settings: TrainingSettings) -> bool:
    has_run_out_of_patience = settings.patience is not None and at.without_gain >= settings.patience
    return at.step >= settings.steps or has_run_out_of_patience


def _evaluate(
    bert: Bert,
    batches: Iterable[Batch],
    at: Progress,
    settings: TrainingSettings,
    run: SavedRun,
    ranks: Communicator,
) -> Record:
    """Return a record of the held-out data, and keep the model if it is the best, where that is wanted."""
    _, tallies = evaluate(bert, itertools.islice(batches, ranks.rank, None, ranks.size))
    tallies = _tallies_over_all_ranks(tallies, bert.task, ranks)
    loss = mean_loss(tallies)
    if at.best is None or loss < at.best:
        at.best, at.best_step, at.without_gain = loss, at.step, 0
        if settings.patience is not None and ranks.rank == 0:
            bert.save(run.best)
    else:
        at.without_gain += 1
    record = {"loss": loss, **accuracies(tallies, bert.task)}
    return {"step": at.step} | {f"held_out_{name}": value for name, value in record.items()}


def _save(bert: Bert, optimizer: Optimizer, at: Progress, run: SavedRun, ranks: Communicator) -> None:
    if ranks.rank == 0:
        run.save(bert, optimizer, at)
    ranks.wait_for_all()


def _finish(
    bert: Bert, at: Progress, settings: TrainingSettings, run: SavedRun, ranks: Communicator
) -> int | None:
    """Write the trained model; return after which step it was best, where the best one is the result."""
    best_step = None
    if settings.patience is not None and at.best is not None:
        best_step = at.best_step
        load_params(bert, run.best)
    if ranks.rank == 0:
        bert.save(run.directory)
    ranks.wait_for_all()
    return best_step


def _note(summary: Record, rate: float) -> str:
    """What stands beside the progress bar.

    Examples
    --------
    >>> _note({"loss": 2.5, "mlm_loss": 2.0, "mlm_accuracy": 0.5, "tokens_per_second": 8000.4}, 1e-4)
    'loss 2.500, mlm accuracy 50.0%, learning rate 1.0e-04, 8,000 tokens/s'
    """
    parts = [f"loss {summary['loss']:.3f}"]
    for name, value in summary.items():
        if name.endswith("accuracy"):
            parts.append(f"{name.replace('_', ' ')} {value:.1%}")
    return ", ".join([*parts, f"learning rate {rate:.1e}", f"{summary['tokens_per_second']:,.0f} tokens/s"])
