"""``npbert embed``: texts to vectors, a line a row."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npbert.bert import DEFAULT_BATCH_TOKENS
from npbert.checkpoint import replacing_files
from npbert.cli.arguments import add_command, add_json, positive
from npbert.cli.console import say
from npbert.cli.errors import OK
from npbert.cli.models import add_backend_option, add_encoder_option, load_encoder
from npbert.cli.outputs import checked_output
from npbert.cli.texts import STANDARD_INPUT, read_lines

DESCRIPTION = """\
Turn texts into vectors: row i of the NumPy array that is written is line i of
the input, an empty line included. Pooling and normalisation are the
checkpoint's."""

EXAMPLES = """\
npbert embed reviews.txt -o reviews.npy
zcat reviews.txt.gz | npbert embed - -o reviews.npy --model ./my-model"""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "embed",
        run,
        summary="turn a file of texts into an array of vectors",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default=STANDARD_INPUT,
        help="texts, UTF-8, one a line; - for the standard input (default)",
    )
    parser.add_argument("-o", "--output", metavar="OUT.npy", required=True, help="the array to write")
    add_encoder_option(parser)
    add_backend_option(parser)
    parser.add_argument(
        "--batch-tokens",
        type=positive,
        default=DEFAULT_BATCH_TOKENS,
        metavar="N",
        help=f"most tokens in a batch, which bounds the memory (default: {DEFAULT_BATCH_TOKENS})",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="what is computed in and written (default: float32)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read, encode, write, and say what was written."""
    output = checked_output(arguments.output)  # now, not after minutes of work
    texts = read_lines(arguments.file)
    bert = load_encoder(arguments.model, arguments.dtype, arguments.backend)

    start = time.perf_counter()
    vectors = bert.encode(texts, arguments.batch_tokens, progress=True)
    seconds = time.perf_counter() - start
    _write_array(output, vectors)

    rows, width = vectors.shape
    if arguments.json:
        summary = {"output": arguments.output, "shape": [rows, width], "dtype": str(vectors.dtype)}
        print(json.dumps(summary | {"seconds": seconds}, indent=2))
    else:
        rate = rows / seconds
        say(f"{arguments.output}: {rows} x {width} {vectors.dtype}, in {seconds:.1f} s ({rate:.0f} texts/s)")
    return OK


def _write_array(path: Path, array: NDArray[Any]) -> None:
    """Write beside and rename: a reader sees the whole array, or what was there before."""
    with replacing_files(path.parent) as files, files.new_file(path.name).open("wb") as file:
        np.save(file, array)
