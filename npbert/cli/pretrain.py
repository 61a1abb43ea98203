"""``npbert pretrain``: from text files to a model that fills masks."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from npbert.bert import Bert
from npbert.checkpoint.huggingface import CONFIG_NAME, read_json_object
from npbert.cli.arguments import add_command, positive
from npbert.cli.errors import CommandError, UsageError
from npbert.cli.models import load_with_tokenizer
from npbert.cli.parallel import on_all_ranks
from npbert.cli.training import TrainingDefaults, add_training_options, run_training, share
from npbert.config import BertConfig
from npbert.data.masking import MaskingOptions
from npbert.data.pretraining import PretrainingData
from npbert.params import init_params
from npbert.tokenizer import WordPieceTokenizer
from npbert.tokenizer.files import read_vocabulary
from npbert.training.communicator import Communicator
from npbert.training.step import Batch

DESCRIPTION = """\
Pre-train a BERT on text: it learns to fill in masked words and to tell whether
two sentences follow each other. A corpus is plain text, a sentence a line and
an empty line between documents, or .jsonl with {"text": ...} or
{"sentences": [...]}; it is streamed, so it may be larger than memory.

Ctrl-C saves a checkpoint, and so does --save-every; the same command with
--resume goes on from the last one, to the very bits of an uninterrupted run.

mpirun -n 4 npbert pretrain ... trains on four processes: each step is made of
four times as many batches, one or --accumulate of each process. To save and
stop there, kill -USR1 mpirun: after Ctrl-C Open MPI's gives no time to save."""

EXAMPLES = """\
npbert pretrain --corpus corpus.txt --config config.json --vocab vocab.txt --out model --steps 20000
npbert pretrain --corpus corpus.txt --config config.json --out model
npbert pretrain --corpus more.jsonl --model ./bert-base-uncased --out adapted --learning-rate 5e-5
npbert pretrain --corpus corpus.txt --config config.json --out model --resume"""

DEFAULTS: Final = TrainingDefaults(batch_size=32, learning_rate=1e-4, warmup=0.1)
VOCAB_NAME: Final = "vocab.txt"
MASKINGS: Final[dict[str, dict[str, Any]]] = {
    "token": {},
    "whole-word": {"whole_word": True},
    "ngram": {"whole_word": True, "max_ngram": 3},
}


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "pretrain",
        on_all_ranks(run),
        summary="train a model on text, from nothing or from a checkpoint",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--corpus", metavar="FILE", nargs="+", required=True, help="text to learn from, UTF-8"
    )
    parser.add_argument("--held-out", metavar="FILE", nargs="+", help="text to evaluate on")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--config", metavar="FILE", help="a config.json: train a new model of this shape")
    start.add_argument("--model", metavar="DIR", help="train this checkpoint further")
    parser.add_argument(
        "--vocab",
        metavar="FILE",
        help=f"the new model's vocabulary, a word piece a line (default: {VOCAB_NAME} beside --config; "
        "without one, it is made from the corpus, which needs the extra tokenizers)",
    )
    parser.add_argument(
        "--steps", type=positive, default=10_000, metavar="N", help="optimiser steps (default: 10000)"
    )
    group = parser.add_argument_group("making examples of text")
    group.add_argument(
        "--max-length",
        type=positive,
        metavar="N",
        help="tokens of one (default: what the model has positions for)",
    )
    group.add_argument("--mask-rate", type=share, default=0.15, metavar="SHARE", help="(default: 0.15)")
    group.add_argument(
        "--masking", choices=tuple(MASKINGS), default="token", help="what is masked (default: token)"
    )
    group.add_argument(
        "--static-masks",
        type=positive,
        metavar="K",
        help="draw masks and pairs K times and repeat them (default: anew in each epoch)",
    )
    group.add_argument(
        "--no-next-sentence", action="store_true", help="only fill masks: no pairs, and no head for them"
    )
    group.add_argument(
        "--short-seq-prob",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="of examples that are made shorter than they could be (default: 0.1)",
    )
    group.add_argument(
        "--buffer-tokens",
        type=positive,
        default=1 << 20,
        metavar="N",
        help="text that is shuffled together, which bounds the memory (default: 1048576)",
    )
    add_training_options(parser, DEFAULTS)


def run(arguments: argparse.Namespace) -> int:
    """Read, train, and say how it went."""
    bert = _start_model(arguments)
    source = _data(arguments, bert, arguments.corpus)
    held_out: Callable[[], Iterable[Batch]] | None = None
    if arguments.held_out is not None:
        held_out = _data(arguments, bert, arguments.held_out).one_pass
    return run_training(arguments, bert, source, arguments.steps, _identity(arguments), held_out)


def _start_model(arguments: argparse.Namespace) -> Bert:
    task = "masked_lm" if arguments.no_next_sentence else "pretraining"
    if arguments.model is not None:
        if arguments.vocab is not None:
            raise UsageError("--vocab is for a new model; --model brings its own")
        return load_with_tokenizer(arguments.model, task, arguments.dtype, arguments.backend)
    path = Path(arguments.config)
    if path.is_dir():
        path = path / CONFIG_NAME
    values = read_json_object(path)
    tokenizer = _tokenizer(arguments, path, values.get("vocab_size"))
    config = BertConfig.from_dict({"vocab_size": tokenizer.vocab_size, **values})
    params = init_params(config, task, arguments.seed)
    return Bert(config, params, tokenizer, task, arguments.dtype, arguments.backend)


def _tokenizer(arguments: argparse.Namespace, config: Path, vocab_size: Any) -> WordPieceTokenizer:
    """Return the tokenizer of a new model: the vocabulary that is given, or one made from the corpus."""
    path = Path(arguments.vocab) if arguments.vocab is not None else config.with_name(VOCAB_NAME)
    if path.is_dir() or (arguments.vocab is None and path.exists()):
        return WordPieceTokenizer.from_directory(path if path.is_dir() else path.parent)
    if arguments.vocab is not None:
        return WordPieceTokenizer(read_vocabulary(path))
    if not isinstance(vocab_size, int):
        raise CommandError(
            f"{config}: no vocab_size, and there is no {path}; give --vocab, or say how large a vocabulary "
            "is to be made from the corpus"
        )
    from npbert.data.vocabulary import train_wordpiece

    ranks: Communicator = arguments.ranks
    return ranks.make_once(lambda: train_wordpiece(arguments.corpus, vocab_size))


def _data(arguments: argparse.Namespace, bert: Bert, paths: list[str]) -> PretrainingData:
    assert bert.tokenizer is not None
    limit = bert.config.max_position_embeddings
    max_length = arguments.max_length if arguments.max_length is not None else limit
    if max_length > limit:
        raise UsageError(f"--max-length {max_length} is more than the model's {limit} positions")
    return PretrainingData(
        paths,
        bert.tokenizer,
        batch_size=arguments.batch_size,
        max_length=max_length,
        masking=MaskingOptions(rate=arguments.mask_rate, **MASKINGS[arguments.masking]),
        next_sentence=not arguments.no_next_sentence,
        short_seq_prob=arguments.short_seq_prob,
        static_copies=arguments.static_masks,
        buffer_tokens=arguments.buffer_tokens,
        seed=arguments.seed,
    )


def _identity(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what says which examples a run sees, for its checkpoints."""
    names = (
        "batch_size",
        "max_length",
        "mask_rate",
        "masking",
        "static_masks",
        "no_next_sentence",
        "short_seq_prob",
        "buffer_tokens",
    )
    corpus = [[Path(path).name, Path(path).stat().st_size] for path in arguments.corpus]
    return {"corpus": corpus, **{name: getattr(arguments, name) for name in names}}
