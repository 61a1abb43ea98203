"""What ``npbert finetune`` and ``npbert predict`` share: the options that say how a file is read."""

import argparse
import warnings
from typing import Final

from npbert.bert import Bert
from npbert.cli.arguments import positive
from npbert.cli.errors import UsageError
from npbert.config import BertConfig
from npbert.data.conll import SEPARATORS
from npbert.data.labelled import EncodedExample
from npbert.data.tables import Columns
from npbert.loading import load_config
from npbert.progress import progress_bar
from npbert.training.tasks import QuestionFile, SentenceFile, TaskFile, TextFile

TASKS: Final = ("sequence_classification", "token_classification", "question_answering")
PROBLEMS: Final = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
LONGEST_WINDOW: Final = (
    384  # of question answering, as in Google's script: attention's time grows as its square
)


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Declare how files are read."""
    parser.add_argument(
        "--max-length",
        type=positive,
        metavar="N",
        help="tokens of one example (default: as many as the model takes; 384 for question answering)",
    )
    group = parser.add_argument_group("sequence classification (files .csv, .tsv, .jsonl)")
    group.add_argument(
        "--text", default="text", metavar="COLUMN", help="the column of the texts (default: text)"
    )
    group.add_argument("--pair", metavar="COLUMN", help="the column of second texts, for pairs")
    group.add_argument(
        "--label", default="label", metavar="COLUMN", help="the column of the labels (default: label)"
    )
    group.add_argument(
        "--label-separator",
        default=",",
        metavar="TEXT",
        help="between several labels in one field (default: a comma)",
    )
    group = parser.add_argument_group("token classification (CoNLL files: a word and its tag a line)")
    group.add_argument(
        "--token-column", type=column, default=1, metavar="N", help="of the words, from 1 (default: 1)"
    )
    group.add_argument(
        "--tag-column",
        type=column,
        default=-1,
        metavar="N",
        help="of the tags, from 1, or from the last: -1 (default: -1)",
    )
    group.add_argument(
        "--separator", choices=tuple(SEPARATORS), default="whitespace", help="(default: whitespace)"
    )
    group = parser.add_argument_group("question answering (JSON files as those of SQuAD)")
    group.add_argument(
        "--stride",
        type=positive,
        default=128,
        metavar="N",
        help="tokens from one window of a long text to the next (default: 128)",
    )
    group.add_argument(
        "--max-answer",
        type=positive,
        default=30,
        metavar="N",
        help="tokens of the longest answer (default: 30)",
    )


def open_file(
    arguments: argparse.Namespace,
    task: str,
    path: str,
    *,
    problem_type: str,
    labelled: bool = True,
    may_be_none: bool | None = None,
) -> TaskFile:
    """Read a file of a task, as the options say."""
    if task == "token_classification":
        tag_column = arguments.tag_column if labelled else None
        return SentenceFile(path, arguments.token_column, tag_column, arguments.separator)
    if task == "question_answering":
        return QuestionFile(path, arguments.stride, arguments.max_answer, may_be_none, labelled)
    columns = Columns(arguments.text, arguments.pair, arguments.label if labelled else None)
    return TextFile(path, columns, problem_type, arguments.label_separator)


def encode_file(file: TaskFile, bert: Bert, max_length: int) -> list[EncodedExample]:
    """Tokenize a file, with a progress bar."""
    assert bert.tokenizer is not None
    with progress_bar("tokenizing", total=file.count) as advance:
        return file.encode(bert.tokenizer, bert.config, max_length, advance)


def length_limit(arguments: argparse.Namespace, bert: Bert) -> int:
    """Return the most tokens of an example: what is asked for, which the model must take, or a default."""
    limit = bert.max_tokens
    if arguments.max_length is None:
        return min(limit, LONGEST_WINDOW) if bert.task == "question_answering" else limit
    if arguments.max_length > bert.config.max_position_embeddings:
        raise UsageError(
            f"--max-length {arguments.max_length} is more than the model's "
            f"{bert.config.max_position_embeddings} positions"
        )
    length: int = arguments.max_length
    return length


def quiet_config(source: str) -> BertConfig:
    """Read a checkpoint's configuration; what there is to warn of, the loading of the model will say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_config(source)


def column(text: str) -> int:
    """Return the number of a column that a text spells: from 1, or from the last: -1."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
    if number == 0:
        raise argparse.ArgumentTypeError("0 is no column; they are counted from 1, or from the last: -1")
    return number
