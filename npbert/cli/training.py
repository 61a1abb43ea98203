"""What ``npbert pretrain`` and ``npbert finetune`` share: the options of the training loop, and its run."""

import argparse
import json
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.bert import Bert
from npbert.cli.arguments import add_json, add_seed, positive
from npbert.cli.console import say
from npbert.cli.errors import OK, CommandError, UsageError
from npbert.cli.models import add_backend_option
from npbert.training.communicator import Alone, Communicator
from npbert.training.loop import BatchSource, TrainingResult, TrainingSettings, train
from npbert.training.metrics import METRICS_NAME, Record, read_metrics
from npbert.training.optimizers import OPTIMIZERS, Optimizer
from npbert.training.saved_run import SavedRun
from npbert.training.schedules import SCHEDULES, make_schedule
from npbert.training.step import Batch

SIGNAL_BASE: Final = 128  # as a shell reports a program that a signal ended
SHARES: Final = (
    "accuracy",
    "exact_match",
    "f1",
    "precision",
    "recall",
)  # endings of what is shown in percent


class TrainingDefaults(NamedTuple):
    """Where the two commands' options differ.

    Attributes
    ----------
    batch_size : int
    learning_rate, warmup : float
        Of the steps, the share in which the rate rises.
    save_every, evaluate_every : int or None
        Steps. None: an epoch's.
    """

    batch_size: int
    learning_rate: float
    warmup: float
    save_every: int | None = 500
    evaluate_every: int | None = 500


def add_training_options(parser: argparse.ArgumentParser, defaults: TrainingDefaults) -> None:
    """Declare the options of the optimiser, the loop and what they leave behind."""
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="where the model, checkpoints and metrics go"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out, bit for bit"
    )
    group = parser.add_argument_group("optimiser")
    group.add_argument(
        "--batch-size",
        type=positive,
        default=defaults.batch_size,
        metavar="N",
        help=f"examples of one batch (default: {defaults.batch_size})",
    )
    group.add_argument(
        "--accumulate",
        type=positive,
        default=1,
        metavar="N",
        help="batches of one step, on each process (default: 1)",
    )
    group.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="adamw", help="(default: adamw)")
    group.add_argument(
        "--learning-rate",
        type=above_zero,
        default=defaults.learning_rate,
        metavar="RATE",
        help=f"its peak (default: {defaults.learning_rate:g})",
    )
    group.add_argument(
        "--schedule",
        choices=tuple(SCHEDULES),
        default="linear",
        help="of the learning rate after the warm-up (default: linear)",
    )
    group.add_argument(
        "--warmup",
        type=share,
        default=defaults.warmup,
        metavar="SHARE",
        help=f"of the steps, in which the rate rises (default: {defaults.warmup:g})",
    )
    group.add_argument(
        "--weight-decay", type=at_least_zero, default=0.01, metavar="RATE", help="(default: 0.01)"
    )
    group.add_argument(
        "--clip",
        type=at_least_zero,
        default=1.0,
        metavar="NORM",
        help="scale gradients down to this norm; 0: never (default: 1)",
    )
    group.add_argument("--no-dropout", action="store_true", help="train without dropout")
    group = parser.add_argument_group("what is written")
    for name, steps, what in (
        ("log", 10, "records of the metrics"),
        ("save", defaults.save_every, "checkpoints"),
        ("evaluate", defaults.evaluate_every, "evaluations on held-out data"),
    ):
        group.add_argument(
            f"--{name}-every",
            type=positive,
            default=steps,
            metavar="N",
            help=f"steps between {what} (default: {steps or 'an epoch'})",
        )
    group.add_argument(
        "--patience",
        type=positive,
        metavar="N",
        help="stop after so many evaluations without a smaller loss, and keep the best model",
    )
    group.add_argument("--plot", metavar="FILE.png", help="draw the curve of the loss (needs matplotlib)")
    add_json(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="(default: float32)"
    )
    add_backend_option(parser)
    add_seed(parser, "parameters, data and dropout")
    parser.set_defaults(ranks=Alone())  # npbert.cli.parallel has others


def settings_of(arguments: argparse.Namespace, steps: int) -> TrainingSettings:
    """Return the loop's settings."""
    return TrainingSettings(
        steps=steps,
        accumulate=arguments.accumulate,
        max_grad_norm=arguments.clip or None,
        seed=arguments.seed,
        dropout=not arguments.no_dropout,
        log_every=arguments.log_every,
        save_every=arguments.save_every,
        evaluate_every=arguments.evaluate_every,
        patience=arguments.patience,
    )


def optimizer_of(arguments: argparse.Namespace, bert: Bert) -> Optimizer:
    """Return the optimiser of a model's parameters."""
    constructor = OPTIMIZERS[arguments.optimizer]
    return constructor(bert.params, weight_decay=arguments.weight_decay, share_out=bert.share_out)


def recipe_of(arguments: argparse.Namespace, bert: Bert, data: Mapping[str, Any], steps: int) -> Record:
    """Return all that a run's result depends on, for its checkpoints."""
    names = ("optimizer", "learning_rate", "schedule", "warmup", "weight_decay", "clip")
    return {
        "task": bert.task,
        "dtype": str(bert.dtype),
        "backend": bert.backend,
        "config": bert.config.to_dict(),
        "data": dict(data),
        "steps": steps,
        "seed": arguments.seed,
        "dropout": not arguments.no_dropout,
        **{name: getattr(arguments, name) for name in names},
        "accumulate": batches_per_step(arguments),
    }


def batches_per_step(arguments: argparse.Namespace) -> int:
    """Return how many batches make one step: those of all ranks.

    A run may go on with more ranks that accumulate less, or the reverse: it sees the same data.
    """
    ranks: Communicator = arguments.ranks
    return int(arguments.accumulate) * ranks.size


def run_training(
    arguments: argparse.Namespace,
    bert: Bert,
    source: BatchSource,
    steps: int,
    data: Mapping[str, Any],
    held_out: Callable[[], Iterable[Batch]] | None = None,
    conclude: Callable[[], Record] = Record,
) -> int:
    """Train as the options say, and report.

    Parameters
    ----------
    arguments : argparse.Namespace
        With what `add_training_options` declares, and ``ranks``, the processes that train together.
    bert : Bert
    source : BatchSource
    steps : int
    data : mapping
        What identifies the data, for the checkpoints.
    held_out : callable, optional
        Returns the batches to evaluate on.
    conclude : callable
        Called when the model is trained; returns what else there is to report.

    Returns
    -------
    int
        The exit code: 128 and the signal's number where a signal ended the training.
    """
    if arguments.patience is not None and held_out is None:
        raise UsageError("--patience needs held-out data to evaluate on")
    if arguments.plot is not None:
        require_plotting()
    ranks: Communicator = arguments.ranks
    run = SavedRun(arguments.out, recipe_of(arguments, bert, data, steps))
    warmup_steps = round(arguments.warmup * steps)
    schedule = make_schedule(
        arguments.schedule, peak=arguments.learning_rate, warmup_steps=warmup_steps, total_steps=steps
    )
    try:
        result = train(
            bert,
            source,
            optimizer_of(arguments, bert),
            schedule,
            settings_of(arguments, steps),
            run,
            held_out=held_out,
            resume=arguments.resume,
            communicator=ranks,
            report=lambda record: None if arguments.json else say(describe(record)),
            progress=True,
        )
    except FileExistsError as error:
        raise CommandError(f"{error} (--resume, or another --out)") from None
    if arguments.plot is not None and ranks.rank == 0:
        from npbert.training.plot import plot_metrics

        plot_metrics(read_metrics(run.directory / METRICS_NAME), Path(arguments.plot))
    return _report_end(arguments, result, run, conclude() if result.finished and ranks.rank == 0 else {})


def _report_end(
    arguments: argparse.Namespace, result: TrainingResult, run: SavedRun, conclusion: Record
) -> int:
    if arguments.json:
        summary = {"out": arguments.out, "step": result.step, "finished": result.finished, **result.last}
        summary |= conclusion
        print(json.dumps(summary, indent=2))
    if not result.finished:
        name = signal.Signals(result.signal_number).name
        if not arguments.json:
            say(f"{name}: saved after step {result.step}; the same command with --resume goes on from there")
        return SIGNAL_BASE + result.signal_number
    if not arguments.json:
        best = "" if result.best_step is None else f"; the best model is that of step {result.best_step}"
        say(f"{run.directory}: trained, {result.step} steps{best}", "good")
        if conclusion:
            say(numbers(conclusion))
    return OK


def describe(record: Record) -> str:
    """Return a record of the metrics as a line for people.

    Examples
    --------
    >>> describe({"step": 20, "loss": 2.5, "mlm_accuracy": 0.25, "learning_rate": 1e-4})
    'step 20: loss 2.5, mlm accuracy 25.0%, learning rate 0.0001'
    """
    rest = {name: value for name, value in record.items() if name != "step"}
    return f"step {record['step']}: {numbers(rest)}"


def numbers(record: Record) -> str:
    """Return named numbers as a line for people.

    Examples
    --------
    >>> numbers({"loss": 0.5, "macro_f1": 0.25, "tokens_per_second": 12345.6})
    'loss 0.5, macro f1 25.0%, tokens per second 12,346'
    """
    parts = []
    for name, value in record.items():
        shown = f"{value:.1%}" if name.endswith(SHARES) else f"{value:.4g}"
        if name == "tokens_per_second":
            shown = f"{value:,.0f}"
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)


def require_plotting() -> None:
    """Say now, not after hours of training, that matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CommandError('--plot needs matplotlib: pip install "npbert[plot]"') from None


def above_zero(text: str) -> float:
    """Return the number above 0 that a text spells."""
    return _number(text, lambda value: value > 0, "above 0")


def at_least_zero(text: str) -> float:
    """Return the number of at least 0 that a text spells."""
    return _number(text, lambda value: value >= 0, "at least 0")


def share(text: str) -> float:
    """Return the number from 0 to 1 that a text spells."""
    return _number(text, lambda value: 0 <= value <= 1, "from 0 to 1")


def _number(text: str, is_allowed: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not is_allowed(value) or value == float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be {what}")
    return value
