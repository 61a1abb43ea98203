"""Checkpoints as transformers lays them out: ``config.json`` beside ``model.safetensors``.

The weights may also be split over several files ("shards"), with an index that says which holds what.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npbert.checkpoint.files import FileSet, replacing_files
from npbert.config import BertConfig
from npbert.params import Params, check_task, validate_params

CONFIG_NAME: Final = "config.json"
WEIGHTS_NAME: Final = "model.safetensors"
INDEX_NAME: Final = "model.safetensors.index.json"
SHARD_PATTERN: Final = "model-*-of-*.safetensors"

# The transformers class whose state dictionary a task's parameters are.
ARCHITECTURES: Final = {
    "encoder": "BertModel",
    "pretraining": "BertForPreTraining",
    "masked_lm": "BertForMaskedLM",
    "next_sentence": "BertForNextSentencePrediction",
    "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification",
    "question_answering": "BertForQuestionAnswering",
    "multiple_choice": "BertForMultipleChoice",
}

# Weights in formats that are not read, and their glob patterns.
OTHER_WEIGHTS: Final = {
    "PyTorch": ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
    "TensorFlow": ("tf_model*.h5", "*.ckpt.index", "*.ckpt-*.index"),
    "Flax": ("flax_model*.msgpack",),
}

# The types of a safetensors file that are read, and how NumPy sees their bytes.
NUMPY_TYPES: Final = {
    "BF16": "<u2",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I32": "<i4",
    "I64": "<i8",
    "BOOL": "?",
}
WRITABLE_TYPES: Final = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Checkpoint:
    """What a directory holds, as it stands there.

    Parameters
    ----------
    directory : pathlib.Path
    config : dict
        The contents of ``config.json``; see `npbert.BertConfig.from_dict`.
    tensors : dict of str to ndarray
        Under the names in the file; see `npbert.params.canonical_names`.
    """

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, NDArray[Any]]


def task_from_architectures(architectures: tuple[str, ...] | list[str] | None) -> str | None:
    """Return the task whose transformers class a configuration names first, or None.

    Examples
    --------
    >>> task_from_architectures(("BertForMaskedLM",))
    'masked_lm'
    """
    tasks = {architecture: task for task, architecture in ARCHITECTURES.items()}
    return next((tasks[name] for name in architectures or () if name in tasks), None)


def read_checkpoint(directory: Path | str, dtype: DTypeLike | None = None) -> Checkpoint:
    """Read a directory's configuration and tensors.

    Parameters
    ----------
    directory : path
        Holds ``config.json`` and either ``model.safetensors`` or ``model.safetensors.index.json`` with
        its shards. As in transformers, the single file is read where both exist.
    dtype : dtype, optional
        The floating type of the result. None: that of the file, with bfloat16 and float16 widened to
        float32 (which is exact). Tensors of integers are never converted.

    Returns
    -------
    Checkpoint

    Raises
    ------
    FileNotFoundError
        If the directory, the configuration, the weights or a shard does not exist. Names the file, and
        says how to convert weights of another format.
    ValueError
        If a file is not valid JSON or not whole, holds a type that NumPy does not have, or the index
        and the shards disagree. Names the file.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    config = read_json_object(directory / CONFIG_NAME)
    if (directory / WEIGHTS_NAME).exists():
        tensors = read_safetensors(directory / WEIGHTS_NAME)
    elif (directory / INDEX_NAME).exists():
        tensors = _read_shards(directory / INDEX_NAME)
    else:
        raise FileNotFoundError(_no_weights_message(directory))
    return Checkpoint(directory, config, {name: _widened(value, dtype) for name, value in tensors.items()})


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it does not hold one JSON object. Names the file, and the line of the error.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds a {type(value).__name__}; it must be a JSON object")
    return value


def read_json(path: Path) -> Any:
    """Return the JSON value in a file; errors name the file, as in `read_json_object`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a safetensors file by name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not whole, or holds a type that NumPy does not have. Names the file.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            for name, kind in types.items():
                if kind not in NUMPY_TYPES:
                    raise ValueError(f"{path}: {name} has the type {kind}, which npbert does not read")
            if "BF16" not in types.values():
                return {name: file.get_tensor(name) for name in types}
        # NumPy has no bfloat16: the package hands such tensors over only as bytes.
        records = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        return {name: _from_record(record) for name, record in records}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from None


def _from_record(record: Mapping[str, Any]) -> NDArray[Any]:
    value = np.frombuffer(record["data"], NUMPY_TYPES[record["dtype"]]).reshape(record["shape"])
    if record["dtype"] == "BF16":
        return (value.astype(np.uint32) << 16).view(np.float32)  # a bfloat16 is the upper half of a float32
    return value.copy()


def _read_shards(index: Path) -> dict[str, NDArray[Any]]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ValueError(f"{index}: its weight_map must map names of tensors to names of files")
    tensors: dict[str, NDArray[Any]] = {}
    for file in sorted(set(weight_map.values())):
        shard = index.parent / file
        if shard.parent != index.parent:
            raise ValueError(f"{index}: the shard {file!r} must lie beside it")
        if not shard.exists():
            raise FileNotFoundError(f"{shard}: no such file, but {index.name} names it")
        found = read_safetensors(shard)
        promised = {name for name, home in weight_map.items() if home == file}
        if promised != set(found):
            odd = sorted(promised ^ set(found))[0]
            where = "lacks" if odd in promised else "holds"
            raise ValueError(f"{shard}: {where} the tensor {odd}, unlike what {index.name} says")
        tensors |= found
    return tensors


def _widened(value: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    if value.dtype.kind != "f":
        return value
    if dtype is None:
        dtype = np.float32 if value.dtype.itemsize < 4 else value.dtype
    return value.astype(dtype, copy=False)


def _no_weights_message(directory: Path) -> str:
    message = f"{directory}: neither {WEIGHTS_NAME} nor {INDEX_NAME}"
    for framework, patterns in OTHER_WEIGHTS.items():
        if found := sorted(path.name for pattern in patterns for path in directory.glob(pattern)):
            return (
                f"{message}; npbert does not read {framework}'s {found[0]}. Convert it with transformers: "
                "AutoModelForPreTraining.from_pretrained(directory).save_pretrained(directory)"
            )
    return message


def write_checkpoint(
    directory: Path | str,
    config: BertConfig,
    params: Mapping[str, NDArray[Any]],
    task: str,
    max_shard_size: int | None = None,
    other_files: Mapping[str, bytes | str] | None = None,
) -> None:
    """Write a directory that transformers loads, bit for bit, with the class of the task.

    The files appear all together, or, if anything fails, not at all. Weights of an earlier checkpoint
    in the same directory, which a reader might prefer to the new ones, are removed.

    Parameters
    ----------
    directory : path
        Made if need be.
    config : BertConfig
        ``architectures`` and ``dtype`` are written as the task and the parameters have them.
    params : mapping of str to ndarray
        As `npbert.params.parameter_shapes` names them; float16, float32 or float64.
    task : str
        One of `npbert.params.TASKS`.
    max_shard_size : int, optional
        Bytes of tensors in one file; a larger tensor gets a file of its own. None: one file.
    other_files : mapping of str to bytes or str, optional
        Contents of more files (vocabulary, pooling, ...) by their names.

    Raises
    ------
    ValueError
        If the parameters are not those of such a model, or the shard size is not positive.
    """
    check_task(task)
    validate_params(params, config, task)
    for name, value in params.items():
        if value.dtype.name not in WRITABLE_TYPES:
            raise ValueError(
                f"{name} has the dtype {value.dtype}; a file can hold {', '.join(WRITABLE_TYPES)}"
            )
    if max_shard_size is not None and max_shard_size < 1:
        raise ValueError(f"max_shard_size is {max_shard_size}; it must be at least 1")
    with replacing_files(directory) as files:
        names = _write_weights(files, dict(params), max_shard_size)
        for stale in (WEIGHTS_NAME, INDEX_NAME, *(path.name for path in files.directory.glob(SHARD_PATTERN))):
            if stale not in names:
                files.remove(stale)
        for name, data in (other_files or {}).items():
            files.write(name, data)
        files.write(CONFIG_NAME, json_text(_config_of_files(config, params, task)))


def json_text(value: Any) -> str:
    """Return a JSON file's contents, indented, with sorted keys where it is an object."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _config_of_files(config: BertConfig, params: Mapping[str, NDArray[Any]], task: str) -> dict[str, Any]:
    values = config.replace(architectures=(ARCHITECTURES[task],)).to_dict()
    # transformers converts weights to this type on loading: that of the file the config came from would
    # round ours. ("torch_dtype" is its old name.)
    values.pop("torch_dtype", None)
    values["dtype"] = np.result_type(*{value.dtype for value in params.values()}).name
    return values


def _write_weights(files: FileSet, params: Params, max_shard_size: int | None) -> set[str]:
    """Write one file, or shards and their index; return the names."""
    shards = _split(params, max_shard_size)
    if len(shards) == 1:
        save_safetensors(files.new_file(WEIGHTS_NAME), params)
        return {WEIGHTS_NAME}
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_safetensors(files.new_file(name), shard)
        weight_map |= dict.fromkeys(shard, name)
    total_size = sum(value.nbytes for value in params.values())
    files.write(INDEX_NAME, json_text({"metadata": {"total_size": total_size}, "weight_map": weight_map}))
    return {INDEX_NAME, *weight_map.values()}


def _split(params: Params, max_shard_size: int | None) -> list[Params]:
    shards: list[Params] = [{}]
    size = 0
    for name, value in params.items():
        if max_shard_size is not None and shards[-1] and size + value.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    return shards


def save_safetensors(path: Path, params: Params) -> None:
    """Write a safetensors file.

    Raises
    ------
    OSError
        If it cannot be written, say because the disk is full. Names the file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # The package writes an array's memory as it lies, whatever its strides say.
    contiguous = {name: np.ascontiguousarray(value) for name, value in params.items()}
    # transformers 4 refuses a file that does not say which framework its tensors are for.
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None
