"""``npbert predict``: what a fine-tuned model makes of the texts of a file."""

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.bert import DEFAULT_BATCH_TOKENS, Bert
from npbert.checkpoint import replacing_files
from npbert.cli.arguments import add_command, add_json, positive
from npbert.cli.console import say
from npbert.cli.errors import OK, CommandError, UsageError
from npbert.cli.models import add_backend_option, load_with_tokenizer
from npbert.cli.outputs import checked_output
from npbert.cli.task_files import TASKS, add_file_options, encode_file, length_limit, open_file
from npbert.cli.training import numbers
from npbert.progress import progress_bar
from npbert.training.frozen import is_frozen, load_frozen
from npbert.training.predictions import predict
from npbert.training.tasks import Logits, Record, TaskFile
from npbert.training.tasks.sequence_classification import problem_type_of

DESCRIPTION = """\
Let a fine-tuned model judge the texts of a file: the label of each text (and the
probabilities of all), the tag of each word, or the answer to each question. The
file is as for npbert finetune, without labels, unless --score asks how good the
predictions are."""

EXAMPLES = """\
npbert predict --model sentiment --input reviews.csv --text text -o predictions.jsonl
npbert predict --model sentiment --input more.csv --label category --score -o predictions.csv
npbert predict --model answers --input dev-v2.0.json --may-be-none"""

STANDARD_OUTPUT: Final = "-"
FORMATS: Final = (".jsonl", ".csv")


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "predict",
        run,
        summary="label texts, tag words or answer questions with a fine-tuned model",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("--model", metavar="DIR", required=True, help="what npbert finetune wrote")
    parser.add_argument("--input", metavar="FILE", required=True, help="what to judge")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        default=STANDARD_OUTPUT,
        help="a file .jsonl or .csv; - for JSON Lines on the standard output (default)",
    )
    parser.add_argument(
        "--score", action="store_true", help="read the labels, too, and say how many are right"
    )
    parser.add_argument(
        "--may-be-none",
        action="store_true",
        help="questions: the answer is empty where the model finds none likelier (as in SQuAD 2.0)",
    )
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=DEFAULT_BATCH_TOKENS,
        metavar="N",
        help=f"most tokens in a batch, which bounds the memory (default: {DEFAULT_BATCH_TOKENS})",
    )
    add_file_options(parser)
    add_backend_option(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read, predict, write, and say what was written."""
    to_terminal = arguments.output == STANDARD_OUTPUT
    if to_terminal and (arguments.json or arguments.score):
        raise UsageError("the standard output has the predictions; with --json or --score give -o FILE")
    output = None if to_terminal else _checked_output(arguments.output)
    model = _load(arguments)
    file = open_file(
        arguments,
        model.task,
        arguments.input,
        problem_type=problem_type_of(model.bert.config),
        labelled=arguments.score,
        may_be_none=arguments.may_be_none,
    )
    start = time.perf_counter()
    answers = _answers(arguments, model, file)
    seconds = time.perf_counter() - start

    if output is None:
        sys.stdout.write(_json_lines(answers))
        return OK
    text = _json_lines(answers) if output.suffix == ".jsonl" else _csv(file.rows(answers))
    with replacing_files(output.parent) as files:
        files.write(output.name, text)
    scores = file.scores(answers) if arguments.score else {}
    _report(arguments, len(answers), seconds, scores)
    return OK


class Model(NamedTuple):
    """A fine-tuned model: its encoder, what it was trained for, and what scores examples."""

    bert: Bert
    task: str
    predict: Callable[..., Sequence[Logits]]


def _load(arguments: argparse.Namespace) -> Model:
    if is_frozen(arguments.model):
        classifier = load_frozen(arguments.model, arguments.backend)
        return Model(classifier.encoder, "sequence_classification", classifier.predict)
    bert = load_with_tokenizer(arguments.model, backend=arguments.backend)
    if bert.task not in TASKS:
        raise CommandError(
            f"{arguments.model}: a model for the task {bert.task!r}, which predicts nothing here; "
            f"npbert finetune makes models for {', '.join(TASKS)}"
        )
    return Model(bert, bert.task, partial(predict, bert))


def _answers(arguments: argparse.Namespace, model: Model, file: TaskFile) -> list[Record]:
    examples = encode_file(file, model.bert, length_limit(arguments, model.bert))
    with progress_bar("predicting", total=len(examples)) as advance:
        logits = model.predict(examples, arguments.batch_tokens, advance)
    return file.answers(logits, model.bert.config)


def _report(arguments: argparse.Namespace, count: int, seconds: float, scores: Record) -> None:
    if arguments.json:
        summary = {"output": arguments.output, "predictions": count, "seconds": seconds, **scores}
        print(json.dumps(summary, indent=2))
        return
    say(f"{arguments.output}: {count} predictions, in {seconds:.1f} s ({count / seconds:.0f}/s)")
    if scores:
        say(numbers(scores))


def _checked_output(name: str) -> Path:
    path = checked_output(name)
    if path.suffix not in FORMATS:
        raise UsageError(f"{name}: the name must end in {' or '.join(FORMATS)}")
    return path


def _json_lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _csv(rows: Sequence[Record]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
