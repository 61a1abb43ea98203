"""``npbert fill-mask``: words for the gaps in a text."""

import argparse
import json
from typing import Any

from npbert.checkpoint.shipped import NPBERT_TINY
from npbert.cli.arguments import add_command, add_json, positive
from npbert.cli.console import Column, say, table
from npbert.cli.errors import OK, CommandError
from npbert.cli.models import add_backend_option, load_with_tokenizer
from npbert.params import TASKS_WITH_DECODER

DESCRIPTION = """\
Propose words for each [MASK] in a text, with their probabilities. The model
that npbert ships, npbert-tiny, has learned from dictionaries: it is at its best
with sentences like definitions. --model takes another one whose checkpoint
scores words (BertForMaskedLM or BertForPreTraining, such as bert-base-uncased);
a sentence encoder such as MiniLM has no such scores."""

EXAMPLES = """\
npbert fill-mask "an oak is a large [MASK]."
npbert fill-mask "The capital of France is [MASK]." --model ./bert-base-uncased
npbert fill-mask "[MASK] is hot." --model ./my-model --top-k 3 --json"""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "fill-mask",
        run,
        summary="propose words for the gaps in a text",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("text", metavar="TEXT", help="a text with one or more [MASK]")
    parser.add_argument(
        "--model",
        metavar="DIR",
        default=NPBERT_TINY,
        help=f"a Hugging Face directory with a head that scores words (default: {NPBERT_TINY})",
    )
    parser.add_argument(
        "--top-k", type=positive, default=5, metavar="K", help="words to show for each mask (default: 5)"
    )
    add_backend_option(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load, predict, and print."""
    bert = load_with_tokenizer(arguments.model, backend=arguments.backend)
    if bert.task not in TASKS_WITH_DECODER:
        raise CommandError(
            f"{arguments.model}: a model for the task {bert.task!r}, which scores no words; "
            "give one whose config.json says BertForMaskedLM or BertForPreTraining"
        )
    predictions = bert.fill_mask(arguments.text, arguments.top_k)

    if arguments.json:
        masks = [[prediction._asdict() for prediction in words] for words in predictions]
        print(json.dumps({"text": arguments.text, "masks": masks}, indent=2))
        return OK
    for number, words in enumerate(predictions, start=1):
        if len(predictions) > 1:
            if number > 1:
                say()
            say(f"mask {number}", "strong")
        rows = [(f"{word.probability:.4f}", word.token) for word in words]
        table([Column("probability", "right"), Column("word")], rows)
    return OK
