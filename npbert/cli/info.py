"""``npbert info``: what is installed, and what a model is."""

import argparse
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import npbert
from npbert.backends import BACKENDS, find_backend
from npbert.checkpoint import PoolingSettings, find_installed_model, transformer_directory
from npbert.checkpoint.huggingface import SHARD_PATTERN, WEIGHTS_NAME
from npbert.checkpoint.source import INSTALLED_MODEL, find_directory
from npbert.cli.arguments import add_command, add_json
from npbert.cli.console import Column, say, table
from npbert.cli.errors import OK
from npbert.cli.models import HOW_TO_INSTALL_WEIGHTS
from npbert.errors import BackendError
from npbert.tokenizer import WordPieceTokenizer

DESCRIPTION = """\
Show the versions and the machine that npbert works with; or, given a model,
what it is."""

EXAMPLES = """\
npbert info
npbert info ./my-model --json"""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "info",
        run,
        summary="show versions and the machine, or what a model is",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a Hugging Face directory")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print names and values."""
    facts = installation() if arguments.model is None else model(arguments.model)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return OK
    table(
        [Column("what"), Column("value", wraps=True)], [(name, _shown(value)) for name, value in _flat(facts)]
    )
    if facts.get(INSTALLED_MODEL, "") is None:
        say(f"\nFor real weights: {HOW_TO_INSTALL_WEIGHTS}")
    return OK


def installation() -> dict[str, Any]:
    """Return what npbert runs on."""
    from threadpoolctl import threadpool_info

    libraries = [
        f"{library['internal_api']} {library['version'] or ''}".strip()
        + f", {library['num_threads']} threads"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    installed = find_installed_model()
    backends = {name: _what_is_missing(name) for name in BACKENDS}
    return {
        "npbert": npbert.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": libraries,
        "cpus": _usable_cpus(),
        "backends": [name for name, reason in backends.items() if reason is None],
        "other backends": {name: reason for name, reason in backends.items() if reason is not None},
        INSTALLED_MODEL: None if installed is None else str(installed),
    }


def _what_is_missing(backend: str) -> str | None:
    """Return why a backend does not work here; None where it does."""
    try:
        find_backend(backend)
    except BackendError as error:
        return str(error)
    return None


def model(source: str) -> dict[str, Any]:
    """Return what the model ``source`` is, once it has been loaded, and so checked."""
    bert = npbert.load(source)
    directory = find_directory(source)
    tokenizer = bert.tokenizer
    pooling = bert.pooling if bert.pooling is not None else PoolingSettings()
    return {
        "directory": str(directory),
        "task": bert.task,
        "parameters": sum(value.size for value in bert.params.values()),
        "dtype in file": stored_dtypes(transformer_directory(directory)),
        "tokenizer": None if tokenizer is None else _describe_tokenizer(tokenizer),
        "pooling": {"mode": pooling.mode, "normalize": pooling.normalize},
        "max length": bert.max_tokens,
        "config": bert.config.to_dict(),
    }


def stored_dtypes(directory: Path) -> list[str]:
    """Return the floating types of the tensors in a directory's files, as safetensors names them.

    Examples
    --------
    ``stored_dtypes(path)`` is ``["F32"]`` for most checkpoints.
    """
    from safetensors import safe_open

    single = directory / WEIGHTS_NAME
    paths = [single] if single.exists() else sorted(directory.glob(SHARD_PATTERN))
    found = set()
    for path in paths:
        with safe_open(path, framework="numpy") as file:
            found |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return sorted(kind for kind in found if "F" in kind)


def _describe_tokenizer(tokenizer: WordPieceTokenizer) -> str:
    case = "lower-cases" if tokenizer.do_lower_case else "keeps case"
    return f"WordPiece, {tokenizer.vocab_size} tokens, {case}"


def _usable_cpus() -> int:
    """The number of processors that this process may use, where the system says so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _flat(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values, with those inside of dictionaries under "outer.inner"."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "none" if value is None else str(value)
