"""``npbert finetune``: a model learns a task from a file of examples."""

import argparse
import math
from pathlib import Path
from typing import Any, Final

from npbert.bert import Bert
from npbert.checkpoint.huggingface import task_from_architectures
from npbert.cli import frozen
from npbert.cli.arguments import add_command, positive
from npbert.cli.models import add_encoder_option, load_with_tokenizer, source_or_installed
from npbert.cli.parallel import on_all_ranks
from npbert.cli.task_files import (
    PROBLEMS,
    TASKS,
    add_file_options,
    encode_file,
    length_limit,
    open_file,
    quiet_config,
)
from npbert.cli.training import TrainingDefaults, add_training_options, batches_per_step, run_training
from npbert.data.labelled import EncodedExample, LabelledData
from npbert.progress import progress_bar
from npbert.training.predictions import predict
from npbert.training.tasks import Record, TaskFile

DESCRIPTION = """\
Fine-tune a BERT: it learns a task from a file of examples with their labels,
and is written as a checkpoint that npbert predict, npbert.load and transformers
read.

Ctrl-C saves a checkpoint, and so does the end of each epoch; the same command
with --resume goes on from the last one."""

EXAMPLES = """\
npbert finetune --train reviews.csv --text text --label category --eval more.csv --out sentiment
npbert finetune --train reviews.csv --label category --frozen --layers mix --out sentiment
npbert finetune --train scores.tsv --problem-type regression --text a --pair b --label score --out similarity
npbert finetune --task token_classification --train eng.train --eval eng.testa --out entities
npbert finetune --task question_answering --train train-v2.0.json --model ./bert-base-uncased --out answers"""

EPOCHS: Final = 3
DEFAULTS: Final = TrainingDefaults(
    batch_size=32, learning_rate=5e-5, warmup=0.1, save_every=None, evaluate_every=None
)


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "finetune",
        on_all_ranks(run),
        summary="train a model for a task on labelled examples",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--task", choices=TASKS, default=TASKS[0], help="what to learn (default: sequence_classification)"
    )
    parser.add_argument("--train", metavar="FILE", required=True, help="examples to learn from")
    parser.add_argument("--eval", metavar="FILE", help="examples to evaluate on")
    add_encoder_option(parser)
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help=f"times to see each example (default: {EPOCHS})"
    )
    parser.add_argument(
        "--problem-type",
        choices=tuple(PROBLEMS),
        default="single_label",
        help="what a label is: one class, several, or a number (default: single_label)",
    )
    add_file_options(parser)
    frozen.add_frozen_options(parser)
    add_training_options(parser, DEFAULTS)
    parser.set_defaults(learning_rate=None)  # whose default depends on --frozen


def run(arguments: argparse.Namespace) -> int:
    """Read, train, evaluate, and say how it went."""
    problem_type = PROBLEMS[arguments.problem_type]
    training_file = open_file(arguments, arguments.task, arguments.train, problem_type=problem_type)
    held_out_file = None
    if arguments.eval is not None:
        held_out_file = open_file(arguments, arguments.task, arguments.eval, problem_type=problem_type)
    if arguments.epochs is None:
        arguments.epochs = frozen.EPOCHS if arguments.frozen else EPOCHS
    if arguments.learning_rate is None:
        arguments.learning_rate = frozen.LEARNING_RATE if arguments.frozen else DEFAULTS.learning_rate
    if arguments.frozen:
        return frozen.run_frozen(arguments, training_file, held_out_file)
    bert = _start_model(arguments, training_file)
    max_length = length_limit(arguments, bert)

    data = _data(arguments, bert, encode_file(training_file, bert, max_length))
    held_out = examples = None
    if held_out_file is not None:
        examples = encode_file(held_out_file, bert, max_length)
        held_out = _data(arguments, bert, examples).one_pass
    per_step = batches_per_step(arguments)
    for name in ("save_every", "evaluate_every"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, math.ceil(data.batches_per_epoch / per_step))

    def conclude() -> Record:
        return {} if held_out_file is None else _scores(bert, held_out_file, examples or [])

    return run_training(
        arguments,
        bert,
        data,
        math.ceil(arguments.epochs * data.batches_per_epoch / per_step),
        _identity(arguments),
        held_out,
        conclude,
    )


def _start_model(arguments: argparse.Namespace, file: TaskFile) -> Bert:
    """Load the model; its head is drawn anew, unless it was made for just these labels."""
    source = source_or_installed(arguments.model)
    fields = file.config_fields()
    config = quiet_config(source)
    changed = config.replace(**fields)
    is_made_for_it = (
        task_from_architectures(config.architectures) == file.task
        and changed.label_names == config.label_names
        and changed.problem_type == config.problem_type
    )
    if not is_made_for_it:
        fields["head_seed"] = arguments.seed
    bert = load_with_tokenizer(source, file.task, arguments.dtype, arguments.backend, **fields)
    bert.pooling = None  # that of a sentence encoder, which this is no longer
    return bert


def _data(arguments: argparse.Namespace, bert: Bert, examples: list[EncodedExample]) -> LabelledData:
    assert bert.tokenizer is not None
    return LabelledData(
        examples, pad_id=bert.tokenizer.pad_id, batch_size=arguments.batch_size, seed=arguments.seed
    )


def _scores(bert: Bert, file: TaskFile, examples: list[EncodedExample]) -> Record:
    """Return how good the trained model's answers are."""
    with progress_bar("evaluating", total=len(examples)) as advance:
        logits = predict(bert, examples, advance=advance)
    return file.scores(file.answers(logits, bert.config))


def _identity(arguments: argparse.Namespace) -> Record:
    """Return what says which examples a run sees, for its checkpoints."""
    names = (
        "problem_type",
        "epochs",
        "batch_size",
        "max_length",
        "text",
        "pair",
        "label",
        "label_separator",
        "token_column",
        "tag_column",
        "separator",
        "stride",
    )
    path = Path(arguments.train)
    train = [path.name, path.stat().st_size]
    return {"train": train, **{name: getattr(arguments, name) for name in names}}
