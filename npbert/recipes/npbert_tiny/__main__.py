"""``python -m npbert.recipes.npbert_tiny``: the steps that make npbert-tiny, each a command."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from npbert.bert import Bert
from npbert.checkpoint.files import write_text_atomically
from npbert.checkpoint.huggingface import CONFIG_NAME, json_text
from npbert.cli import main as npbert_command
from npbert.cli.arguments import Parser, add_command, add_debug
from npbert.cli.errors import OK, exit_code_of, warnings_in_one_line
from npbert.cli.models import load_with_tokenizer
from npbert.data.vocabulary import train_wordpiece
from npbert.recipes.npbert_tiny.corpus import HELD_OUT_NAME, TRAIN_NAME, build_corpus, download_packages
from npbert.recipes.npbert_tiny.evaluation import baseline_figures, model_figures
from npbert.recipes.npbert_tiny.export import export_model
from npbert.recipes.npbert_tiny.settings import CONFIG, MAX_LENGTH, MODEL_NAME, TRAINING, VOCAB_SIZE
from npbert.tokenizer import WordPieceTokenizer

PROGRAM = "python -m npbert.recipes.npbert_tiny"
RUN_NAME = "run"
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
    _add_train_step(steps)
    _add_evaluate_step(steps)
    _add_export_step(steps)
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
    write_text_atomically(arguments.work / CONFIG_NAME, json_text(CONFIG.to_dict()))
    print(json.dumps({"vocab_size": len(vocab)}))
    return OK


def _add_train_step(steps: Any) -> None:
    options = pretrain_options(Path("WORK"))
    step = add_command(
        steps,
        "train",
        _train,
        summary="pre-train the model: an hour on two cores",
        description=f"Run npbert {' '.join(options)}",
        examples=f"{PROGRAM} train work\n{PROGRAM} train work --resume",
    )
    _add_work(step)
    step.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


def pretrain_options(work: Path) -> list[str]:
    """Return the arguments of npbert that train the model."""
    files = {
        "corpus": work / TRAIN_NAME,
        "held-out": work / HELD_OUT_NAME,
        "config": work / CONFIG_NAME,
        "out": work / RUN_NAME,
    }
    arguments = ["pretrain"]
    for name, value in {**files, **TRAINING}.items():
        arguments += [f"--{name}"] if value is None else [f"--{name}", str(value)]
    return arguments


def _train(arguments: argparse.Namespace) -> int:
    return npbert_command([*pretrain_options(arguments.work), *(["--resume"] if arguments.resume else [])])


def _add_evaluate_step(steps: Any) -> None:
    step = add_command(
        steps,
        "evaluate",
        _evaluate,
        summary="compare the model with its baselines on the held-out text",
        description="Print accuracy and perplexity on WORK/held_out.txt, of the model and of its\n"
        "baselines (unigram, left neighbour, both neighbours), as JSON.",
        examples=f"{PROGRAM} evaluate work",
    )
    _add_work(step)
    _add_model(step)


def _evaluate(arguments: argparse.Namespace) -> int:
    bert = _trained(arguments)
    assert bert.tokenizer is not None
    figures = model_figures(bert, arguments.work) | baseline_figures(bert.tokenizer, arguments.work)
    print(json.dumps(figures, indent=2))
    return OK


def _add_export_step(steps: Any) -> None:
    step = add_command(
        steps,
        "export",
        _export,
        summary="write the model as it ships, with its model card",
        description="Round the model to float16, and write it to OUT with its tokenizer and a model\n"
        "card. Prints what the evaluate step prints, with the figures before rounding.",
        examples=f"{PROGRAM} export work --out {MODEL_NAME}",
    )
    _add_work(step)
    _add_model(step)
    step.add_argument("--out", metavar="OUT", type=Path, required=True, help="the directory to write")


def _export(arguments: argparse.Namespace) -> int:
    print(json.dumps(export_model(_trained(arguments), arguments.work, arguments.out), indent=2))
    return OK


def _add_model(step: argparse.ArgumentParser) -> None:
    step.add_argument(
        "--model", metavar="DIR", type=Path, help=f"the trained model (default: WORK/{RUN_NAME})"
    )


def _trained(arguments: argparse.Namespace) -> Bert:
    source = arguments.work / RUN_NAME if arguments.model is None else arguments.model
    return load_with_tokenizer(str(source), task="pretraining")


def _add_work(step: argparse.ArgumentParser) -> None:
    step.add_argument("work", metavar="WORK", type=Path, help="the directory for all files")


if __name__ == "__main__":
    sys.exit(main())
