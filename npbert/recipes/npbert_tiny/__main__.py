"""``python -m npbert.recipes.npbert_tiny``: the steps that make npbert-tiny, each a command."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from npbert.checkpoint.files import write_text_atomically
from npbert.checkpoint.huggingface import json_text
from npbert.cli.arguments import Parser, add_command, add_debug
from npbert.cli.errors import OK, exit_code_of, warnings_in_one_line
from npbert.data.vocabulary import train_wordpiece
from npbert.recipes.npbert_tiny.corpus import TRAIN_NAME, build_corpus, download_packages
from npbert.recipes.npbert_tiny.settings import CONFIG, MAX_LENGTH, MODEL_NAME, VOCAB_SIZE
from npbert.tokenizer import WordPieceTokenizer

PROGRAM = "python -m npbert.recipes.npbert_tiny"
DESCRIPTION = f"""\
Make {MODEL_NAME}, the model that npbert ships, from Debian packages. The steps
are commands, in this order; all of them work in one directory, WORK."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step, and return its exit code: 0 fine, 1 failed, 2 bad usage."""
    arguments = argparse.Namespace(debug=False)
    try:
        build_parser().parse_args(argv, arguments)
        with warnings_in_one_line(PROGRAM):
            code: int = arguments.run(arguments)
        return code
    except (Exception, KeyboardInterrupt) as error:
        if arguments.debug:
            raise
        return exit_code_of(error, PROGRAM)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all steps."""
    parser = Parser(prog=PROGRAM, description=DESCRIPTION)
    add_debug(parser)
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    _add_corpus_step(steps)
    _add_vocabulary_step(steps)
    return parser


def _add_corpus_step(steps: Any) -> None:
    step = add_command(
        steps,
        "corpus",
        _corpus,
        summary="write train.txt and held_out.txt",
        description=(
            "Write WORK/train.txt and WORK/held_out.txt from the files of Debian packages,\n"
            "and print how many documents, sentences and words there are, as JSON."
        ),
        examples=f"{PROGRAM} corpus work --download\n{PROGRAM} corpus work --root unpacked",
    )
    _add_work(step)
    where = step.add_mutually_exclusive_group()
    where.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        default=Path("/"),
        help="where the packages are unpacked (default: /, where they are installed)",
    )
    where.add_argument(
        "--download", action="store_true", help="fetch the packages with apt-get, and unpack them elsewhere"
    )


def _corpus(arguments: argparse.Namespace) -> int:
    if arguments.download:
        with tempfile.TemporaryDirectory() as directory:
            download_packages(Path(directory))
            counts = build_corpus(Path(directory), arguments.work)
    else:
        counts = build_corpus(arguments.root, arguments.work)
    print(json.dumps(counts, indent=2))
    return OK


def _add_vocabulary_step(steps: Any) -> None:
    step = add_command(
        steps,
        "vocabulary",
        _vocabulary,
        summary="choose the word pieces, and write config.json",
        description=(
            f"Choose {VOCAB_SIZE:,} word pieces for WORK/train.txt, and write the files of the\n"
            'tokenizer and the model\'s config.json. Needs the extra "tokenizers".'
        ),
        examples=f"{PROGRAM} vocabulary work",
    )
    _add_work(step)


def _vocabulary(arguments: argparse.Namespace) -> int:
    vocab = train_wordpiece([arguments.work / TRAIN_NAME], VOCAB_SIZE).vocab
    if len(vocab) != VOCAB_SIZE:
        raise ValueError(f"the corpus has only {len(vocab)} word pieces, of {VOCAB_SIZE}")
    WordPieceTokenizer(vocab, model_max_length=MAX_LENGTH).save(arguments.work)
    write_text_atomically(arguments.work / "config.json", json_text(CONFIG.to_dict()))
    print(json.dumps({"vocab_size": len(vocab)}))
    return OK


def _add_work(step: argparse.ArgumentParser) -> None:
    step.add_argument("work", metavar="WORK", type=Path, help="the directory for all files")


if __name__ == "__main__":
    sys.exit(main())
