"""How a sentence encoder pools: the files that sentence-transformers puts beside a checkpoint.

``modules.json`` lists what is done to a text: a Transformer, a Pooling, and perhaps a Normalize. npbert
reads what versions 2 to 6 of sentence-transformers write, and writes the older layout, which all of them
read. What it cannot do is an error that names it: another module (Dense, LayerNorm, ...), another way
to pool (max, weighted, several at once), a prompt put before every text, truncated embeddings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from npbert.checkpoint.huggingface import json_text, read_json, read_json_object
from npbert.pooling import PoolingSettings

MODULES_NAME: Final = "modules.json"
SETTINGS_NAME: Final = "sentence_bert_config.json"
POOLING_DIRECTORY: Final = "1_Pooling"
# The modules that npbert does, in the order it does them; the last may be absent.
MODULES: Final = ("Transformer", "Pooling", "Normalize")

# The keys of 1_Pooling/config.json before version 6 named the mode; each switched one on.
POOLING_SWITCHES: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# Settings that would change an embedding, with the values under which they do not.
NEUTRAL_SETTINGS: Final[dict[str, tuple[Any, ...]]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": ({}, None),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    "model_args": ({}, None),
    "model_kwargs": ({}, None),
    "tokenizer_args": ({}, None),
    "processor_kwargs": ({}, None),
    "config_args": ({}, None),
    "config_kwargs": ({}, None),
}


def transformer_directory(directory: Path | str) -> Path:
    """Return where the BERT of a sentence encoder lies: the directory itself, or one that it names.

    Parameters
    ----------
    directory : path
        With or without a ``modules.json``.

    Returns
    -------
    pathlib.Path
    """
    directory = Path(directory)
    if not (directory / MODULES_NAME).exists():
        return directory
    return _read_modules(directory)["Transformer"]


def read_pooling(directory: Path | str) -> PoolingSettings:
    """Read how a checkpoint's directory pools.

    Without a ``modules.json`` it is the mean of the tokens, not normalised, as sentence-transformers
    takes it for a plain transformers directory. ``max_seq_length`` is that of
    ``sentence_bert_config.json``, or else the ``model_max_length`` of ``tokenizer_config.json``.

    Parameters
    ----------
    directory : path

    Returns
    -------
    PoolingSettings

    Raises
    ------
    FileNotFoundError
        If a module's file is missing.
    ValueError
        If a file is not valid JSON, or asks for something npbert does not do. Names the file.
    """
    directory = Path(directory)
    if (directory / MODULES_NAME).exists():
        settings = _read_sentence_encoder(directory)
    else:
        settings = {"max_seq_length": _tokenizer_limit(directory)}
    try:
        return PoolingSettings(**settings)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None


def _read_sentence_encoder(directory: Path) -> dict[str, Any]:
    """Return the fields of `PoolingSettings`, not yet validated."""
    modules = _read_modules(directory)
    _refuse_prompts(directory / "config_sentence_transformers.json")
    _refuse_other_normalize(modules.get("Normalize"))
    max_seq_length, do_lower_case = _read_settings(modules["Transformer"] / SETTINGS_NAME)
    if max_seq_length is None:
        max_seq_length = _tokenizer_limit(modules["Transformer"])
    return {
        "mode": _pooling_mode(modules["Pooling"] / "config.json"),
        "normalize": "Normalize" in modules,
        "max_seq_length": max_seq_length,
        "do_lower_case": do_lower_case,
    }


def _read_modules(directory: Path) -> dict[str, Path]:
    """Return the directory of each module, by the last part of its type."""
    path = directory / MODULES_NAME
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: holds a {type(entries).__name__}; it must be a list of modules")
    modules: dict[str, Path] = {}
    for entry in entries:
        kind, place = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ValueError(f"{path}: the module {entry!r} must have a type and a path")
        package, _, name = kind.rpartition(".")
        if not package.startswith("sentence_transformers.") or name not in MODULES:
            raise ValueError(f"{path}: npbert does not support the module {kind}; supported: {MODULES}")
        if name in modules:
            raise ValueError(f"{path}: has two modules {name}; npbert supports one")
        modules[name] = directory / place
    if tuple(modules) not in (MODULES[:2], MODULES):
        raise ValueError(
            f"{path}: the modules are {tuple(modules)}; npbert supports {MODULES}, the last optional"
        )
    return modules


def _refuse_unsupported(path: Path, settings: Any, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise for a setting that has another value than the neutral ones."""
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: {settings!r} must be a JSON object")
    for name, values in neutral.items():
        if name in settings and settings[name] not in values:
            value = settings[name]
            raise ValueError(
                f"{path}: {name} is {value!r}, which npbert does not support; supported: {values[0]!r}"
            )


def _refuse_prompts(path: Path) -> None:
    """Refuse what would be put before every text, and embeddings cut short."""
    if not path.exists():
        return
    settings = read_json_object(path)
    _refuse_unsupported(path, settings, {"truncate_dim": (None,), "model_type": ("SentenceTransformer",)})
    name = settings.get("default_prompt_name")
    prompts = settings.get("prompts") or {}
    prompt = prompts.get(name) if isinstance(prompts, dict) else prompts
    if prompt:
        raise ValueError(f"{path}: default_prompt_name puts {prompt!r} before each text; npbert does not")


def _refuse_other_normalize(directory: Path | None) -> None:
    """Refuse a Normalize that works on something else than the pooled vector; older ones have no file."""
    if directory is not None and (directory / "config.json").exists():
        path = directory / "config.json"
        names = dict.fromkeys(("module_input_name", "module_output_name"), ("sentence_embedding", None))
        _refuse_unsupported(path, read_json_object(path), names)


def _read_settings(path: Path) -> tuple[int | None, bool]:
    """Return ``max_seq_length`` and ``do_lower_case``."""
    if not path.exists():
        return None, False
    settings = read_json_object(path)
    _refuse_unsupported(path, settings, NEUTRAL_SETTINGS)
    modalities = settings.get("modality_config", {})
    if not isinstance(modalities, dict):
        raise ValueError(f"{path}: modality_config is {modalities!r}; it must be a JSON object")
    text = modalities.get("text", {})
    _refuse_unsupported(path, text, {"method": ("forward",), "method_output_name": ("last_hidden_state",)})
    return settings.get("max_seq_length"), settings.get("do_lower_case", False)


def _tokenizer_limit(directory: Path) -> int | None:
    """Return the tokenizer's ``model_max_length``, unless it is absent or stands for no limit."""
    path = directory / "tokenizer_config.json"
    if not path.exists():
        return None
    limit = read_json_object(path).get("model_max_length")
    # transformers writes 1e30, as a float or an integer, where there is no limit.
    return limit if isinstance(limit, int) and limit < 1e18 else None


def _pooling_mode(path: Path) -> str:
    """Return the one pooling mode that a Pooling module's configuration switches on."""
    settings = read_json_object(path)
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for switch, mode in POOLING_SWITCHES.items() if settings.get(switch, False)]
    elif not isinstance(modes, list):
        modes = [modes]
    if len(modes) > 1:
        joined = ", ".join(map(str, modes))
        raise ValueError(f"{path}: pooling joins {joined}; npbert supports one of them at a time")
    # Nothing switched on means the mean, as in sentence-transformers.
    return str(modes[0]) if modes else "mean"


def pooling_files(settings: PoolingSettings, hidden_size: int) -> dict[str, str]:
    """Return the files that tell sentence-transformers to pool like this.

    Parameters
    ----------
    settings : PoolingSettings
    hidden_size : int
        Width of a token's vector.

    Returns
    -------
    dict of str to str
        Contents by file name, relative to the checkpoint's directory; for the ``other_files`` of
        `npbert.checkpoint.write_checkpoint`.
    """
    modules = [("Transformer", ""), ("Pooling", POOLING_DIRECTORY)]
    if settings.normalize:
        modules.append(("Normalize", "2_Normalize"))
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (name, path) in enumerate(modules)
    ]
    switches = {switch: mode == settings.mode for switch, mode in POOLING_SWITCHES.items()}
    limits = {"max_seq_length": settings.max_seq_length, "do_lower_case": settings.do_lower_case}
    return {
        MODULES_NAME: json_text(entries),
        f"{POOLING_DIRECTORY}/config.json": json_text({"word_embedding_dimension": hidden_size, **switches}),
        SETTINGS_NAME: json_text(limits),
    }
