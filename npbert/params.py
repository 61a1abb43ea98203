"""Every parameter's name, shape and initialiser.

The parameters of a model are one flat dictionary from name to array. The names are those of the state
dictionary of the transformers class for the task: `BertModel`'s for "encoder"
("embeddings.word_embeddings.weight"), and "bert." before them, plus the head's own, for every other task.

The decoder of the masked-language-model head
---------------------------------------------
``cls.predictions`` computes ``logits = transform(x) @ weight.T + bias``. Which tensors these two are
depends on ``tie_word_embeddings``; `decoder_names` says it in code:

- tied: the weight is the word embedding, the bias is ``cls.predictions.bias``; neither
  ``cls.predictions.decoder.weight`` nor ``cls.predictions.decoder.bias`` is a parameter.
- untied: they are ``cls.predictions.decoder.weight`` and ``cls.predictions.decoder.bias``. As in
  transformers 5, ``cls.predictions.bias`` then still exists, is saved and loaded, and is used nowhere: its
  gradient is zero. In transformers 4 the two biases are one tensor, saved as ``cls.predictions.bias``
  alone. Such a checkpoint is accepted, and its bias becomes ``cls.predictions.decoder.bias`` as well.
  (transformers 5 itself would start that bias at zero. And transformers 4, given a file with two
  different biases, uses ``cls.predictions.bias``: it misreads untied heads trained in transformers 5
  or here.)

Tables that are not used
------------------------
With "relative_key" and "relative_key_query" positions transformers 4 keeps an
``embeddings.position_embeddings.weight`` that no computation reads. It is a parameter here too, so that
a checkpoint is written back whole; its gradient is zero. "sinusoidal" has no position table.
"""

import warnings
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npbert.config import BertConfig

T = TypeVar("T")
Shape = tuple[int, ...]
Params = dict[str, NDArray[Any]]

TASKS: Final = (
    "encoder",
    "pretraining",
    "masked_lm",
    "next_sentence",
    "sequence_classification",
    "token_classification",
    "question_answering",
    "multiple_choice",
)
TASKS_WITHOUT_POOLER: Final = ("masked_lm", "token_classification", "question_answering")
TASKS_WITH_DECODER: Final = ("pretraining", "masked_lm")

BODY_PREFIX: Final = "bert."
BODY_MODULES: Final = ("embeddings.", "encoder.", "pooler.")
HEAD_MODULES: Final = ("cls.", "classifier.", "qa_outputs.")
# Constants that transformers registers as buffers, and old versions saved.
BUFFERS: Final = ("embeddings.position_ids", "embeddings.token_type_ids")

WORD_EMBEDDINGS: Final = "embeddings.word_embeddings.weight"
PREDICTIONS_BIAS: Final = "cls.predictions.bias"
DECODER_WEIGHT: Final = "cls.predictions.decoder.weight"
DECODER_BIAS: Final = "cls.predictions.decoder.bias"


def parameter_shapes(config: BertConfig, task: str) -> dict[str, Shape]:
    """Return the name and shape of every parameter, in transformers' order.

    Parameters
    ----------
    config : BertConfig
    task : str
        One of `TASKS`.

    Returns
    -------
    dict of str to tuple of int

    Raises
    ------
    ValueError
        If there is no such task, or the configuration cannot have it (question answering with
        ``num_labels`` other than 2).

    Examples
    --------
    >>> config = BertConfig(hidden_size=6, num_attention_heads=2, num_hidden_layers=1)
    >>> list(parameter_shapes(config, "question_answering").items())[-2:]
    [('qa_outputs.weight', (2, 6)), ('qa_outputs.bias', (2,))]
    """
    check_task(task)
    body = _body_shapes(config, pooler=task not in TASKS_WITHOUT_POOLER)
    if task == "encoder":
        return body
    return with_prefix(body, BODY_PREFIX) | _head_shapes(config, task)


def check_task(task: str) -> None:
    """Raise a ValueError that lists the tasks unless ``task`` is one of them."""
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it must be one of {', '.join(TASKS)}")


def decoder_names(config: BertConfig) -> tuple[str, str]:
    """Return the names of the decoder's weight (V, D) and bias (V,), as the module's text explains.

    Examples
    --------
    >>> decoder_names(BertConfig())
    ('bert.embeddings.word_embeddings.weight', 'cls.predictions.bias')
    """
    if config.tie_word_embeddings:
        return BODY_PREFIX + WORD_EMBEDDINGS, PREDICTIONS_BIAS
    return DECODER_WEIGHT, DECODER_BIAS


def _body_shapes(config: BertConfig, pooler: bool) -> dict[str, Shape]:
    D, F, P = config.hidden_size, config.intermediate_size, config.max_position_embeddings
    shapes: dict[str, Shape] = {WORD_EMBEDDINGS: (config.vocab_size, D)}
    if config.position_embedding_type != "sinusoidal":
        shapes["embeddings.position_embeddings.weight"] = (P, D)
    shapes["embeddings.token_type_embeddings.weight"] = (config.type_vocab_size, D)
    shapes |= _layernorm_shapes("embeddings.LayerNorm", D)
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        shapes |= _linear_shapes(f"{layer}.attention.self.query", D, D)
        shapes |= _linear_shapes(f"{layer}.attention.self.key", D, D)
        shapes |= _linear_shapes(f"{layer}.attention.self.value", D, D)
        if config.position_embedding_type in ("relative_key", "relative_key_query"):
            # One row for each distance from -(P-1) to P-1, shared by the heads.
            shapes[f"{layer}.attention.self.distance_embedding.weight"] = (2 * P - 1, config.head_width)
        shapes |= _linear_shapes(f"{layer}.attention.output.dense", D, D)
        shapes |= _layernorm_shapes(f"{layer}.attention.output.LayerNorm", D)
        shapes |= _linear_shapes(f"{layer}.intermediate.dense", F, D)
        shapes |= _linear_shapes(f"{layer}.output.dense", D, F)
        shapes |= _layernorm_shapes(f"{layer}.output.LayerNorm", D)
    if pooler:
        shapes |= _linear_shapes("pooler.dense", D, D)
    return shapes


def _head_shapes(config: BertConfig, task: str) -> dict[str, Shape]:
    D, V = config.hidden_size, config.vocab_size
    shapes: dict[str, Shape] = {}
    if task in TASKS_WITH_DECODER:
        shapes[PREDICTIONS_BIAS] = (V,)
        shapes |= _linear_shapes("cls.predictions.transform.dense", D, D)
        shapes |= _layernorm_shapes("cls.predictions.transform.LayerNorm", D)
        if not config.tie_word_embeddings:
            shapes |= _linear_shapes("cls.predictions.decoder", V, D)
    if task in ("pretraining", "next_sentence"):
        shapes |= _linear_shapes("cls.seq_relationship", 2, D)
    if task in ("sequence_classification", "token_classification"):
        shapes |= _linear_shapes("classifier", config.num_labels, D)
    if task == "multiple_choice":
        shapes |= _linear_shapes("classifier", 1, D)
    if task == "question_answering":
        # One score for being the start, one for being the end; transformers too fails with any other number.
        if config.num_labels != 2:
            raise ValueError(f"num_labels is {config.num_labels}; question answering needs 2 (start and end)")
        shapes |= _linear_shapes("qa_outputs", 2, D)
    return shapes


def _linear_shapes(name: str, out_features: int, in_features: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out_features, in_features), f"{name}.bias": (out_features,)}


def _layernorm_shapes(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def init_params(config: BertConfig, task: str, seed: int, dtype: DTypeLike = np.float32) -> Params:
    """Draw fresh parameters as transformers does: N(0, initializer_range) weights, zero biases.

    The word embedding of ``pad_token_id`` is zero; layer normalisation starts as the identity. Every
    tensor has its own generator, keyed by the seed and its name, so the body does not depend on the task.

    Parameters
    ----------
    config : BertConfig
    task : str
        One of `TASKS`.
    seed : int
        At least 0.
    dtype : dtype, optional
        A floating type. The numbers are drawn in float64 and rounded.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If the task, the seed or the dtype is not a valid one.

    Examples
    --------
    >>> config = BertConfig(vocab_size=9, hidden_size=6, num_attention_heads=2, num_hidden_layers=1)
    >>> encoder = init_params(config, "encoder", seed=0)
    >>> pretraining = init_params(config, "pretraining", seed=0)
    >>> bool(np.all(encoder["pooler.dense.weight"] == pretraining["bert.pooler.dense.weight"]))
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be an integer of at least 0")
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        raise ValueError(f"dtype is {dtype}; it must be a floating type")
    shapes = parameter_shapes(config, task)
    return {name: draw_parameter(config, name, shape, seed, dtype) for name, shape in shapes.items()}


def draw_parameter(
    config: BertConfig, name: str, shape: Shape, seed: int, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """Draw one parameter as `init_params` does, which checks the arguments.

    Parameters
    ----------
    config : BertConfig
    name, shape
        One entry of `parameter_shapes`.
    seed, dtype
        As for `init_params`.

    Returns
    -------
    ndarray
    """
    name_in_body = name.removeprefix(BODY_PREFIX)
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape, dtype)
    if name.endswith("bias"):
        return np.zeros(shape, dtype)
    key = np.random.SeedSequence([int(seed), zlib.crc32(name_in_body.encode())])
    draws = np.random.default_rng(key).standard_normal(shape)
    value = (config.initializer_range * draws).astype(dtype)
    if name_in_body == WORD_EMBEDDINGS and config.pad_token_id is not None:
        value[config.pad_token_id] = 0
    return value


def subset(params: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Return the entries whose name starts with ``prefix``, without it.

    Examples
    --------
    >>> subset({"bert.pooler.dense.bias": 1, "classifier.bias": 2}, "bert.")
    {'pooler.dense.bias': 1}
    """
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


def with_prefix(params: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Return the same entries under names that start with ``prefix``.

    Examples
    --------
    >>> with_prefix({"pooler.dense.bias": 1}, "bert.")
    {'bert.pooler.dense.bias': 1}
    """
    return {prefix + name: value for name, value in params.items()}


def canonical_names(params: Mapping[str, NDArray[Any]], config: BertConfig, task: str) -> Params:
    """Return a checkpoint's tensors under the names, and in the order, of `parameter_shapes`.

    Accepts names with and without "bert.", and "gamma" and "beta" for a layer norm's weight and bias.
    Leaves out the buffers that old versions saved, the heads (and the pooler) that the task does not use,
    and copies of tied tensors. Completes the decoder's bias as the module's text explains. Nothing is
    checked for presence, shape or value here: that is `validate_params`.

    Parameters
    ----------
    params : mapping of str to ndarray
    config : BertConfig
    task : str
        One of `TASKS`.

    Returns
    -------
    dict of str to ndarray
        The same arrays, not copies.

    Raises
    ------
    ValueError
        If two names mean the same parameter, if a tensor of the body is none that the configuration has
        (a layer beyond ``num_hidden_layers``, say), or if a tensor that the configuration ties to another
        one differs from it.

    Warns
    -----
    UserWarning
        For a tensor outside the body that belongs to no head npbert knows: it is left out.
    """
    found: Params = {}
    strangers: list[str] = []
    for name, value in params.items():
        canonical = _canonical_name(name)
        if canonical.removeprefix(BODY_PREFIX) in BUFFERS:
            continue
        if canonical in found:
            raise ValueError(f"the parameter {canonical} is given twice, once as {name!r}")
        if not canonical.startswith((BODY_PREFIX, *HEAD_MODULES)):
            strangers.append(name)
            continue
        found[canonical] = value
    if strangers:
        warnings.warn(
            f"tensors that belong to no part of a BERT are left out: {_listed(strangers)}",
            UserWarning,
            stacklevel=2,
        )
    _complete_decoder(found, config)
    _refuse_unknown_body(found, config)
    if task == "encoder":
        found = subset(found, BODY_PREFIX)
    return {name: found[name] for name in parameter_shapes(config, task) if name in found}


def _canonical_name(name: str) -> str:
    """The name as a class with a head has it: with "bert.", and a layer norm's "weight" and "bias"."""
    if name.endswith("LayerNorm.gamma"):
        name = name.removesuffix("gamma") + "weight"
    elif name.endswith("LayerNorm.beta"):
        name = name.removesuffix("beta") + "bias"
    return BODY_PREFIX + name if name.startswith(BODY_MODULES) else name


def _complete_decoder(found: Params, config: BertConfig) -> None:
    """Resolve, in place, the pairs of tensors that are one tensor when tied."""
    word_embeddings = BODY_PREFIX + WORD_EMBEDDINGS
    if config.tie_word_embeddings:
        _merge_tied(found, DECODER_WEIGHT, word_embeddings)
        _merge_tied(found, DECODER_BIAS, PREDICTIONS_BIAS)
    elif DECODER_BIAS in found:
        found.setdefault(PREDICTIONS_BIAS, found[DECODER_BIAS].copy())
    elif PREDICTIONS_BIAS in found:
        found[DECODER_BIAS] = found[PREDICTIONS_BIAS].copy()


def _merge_tied(found: Params, copy: str, original: str) -> None:
    """Drop ``copy``, which must equal ``original`` or stand for it (a writer may keep either name)."""
    if copy not in found:
        return
    value = found.pop(copy)
    if not np.array_equal(value, found.setdefault(original, value), equal_nan=True):
        raise ValueError(
            f"{copy} differs from {original}, but tie_word_embeddings is True; "
            "set tie_word_embeddings=False to keep both"
        )


def _refuse_unknown_body(found: Params, config: BertConfig) -> None:
    known = with_prefix(_body_shapes(config, pooler=True), BODY_PREFIX)
    unknown = [name for name in found if name.startswith(BODY_PREFIX) and name not in known]
    if unknown:
        raise ValueError(
            f"not parameters of a BERT with num_hidden_layers {config.num_hidden_layers} and "
            f"position_embedding_type {config.position_embedding_type!r}: {_listed(unknown)}"
        )


def validate_params(params: Mapping[str, NDArray[Any]], config: BertConfig, task: str) -> None:
    """Check that ``params`` are the parameters of a model: names, shapes, floating types, finite values.

    The pooler of the task "encoder" may be absent; the model then has no ``pooler_output``.

    Parameters
    ----------
    params : mapping of str to ndarray
        As `canonical_names` returns them.
    config : BertConfig
    task : str
        One of `TASKS`.

    Raises
    ------
    ValueError
        Naming the tensors that are missing or unexpected, or the first one with a wrong shape, a type
        that is not floating, or a value that is not finite (with its index).
    """
    shapes = parameter_shapes(config, task)
    if task == "encoder" and not subset(params, "pooler."):
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("pooler.")}
    if missing := [name for name in shapes if name not in params]:
        raise ValueError(f"missing for the task {task!r}: {_listed(missing)}")
    if unexpected := [name for name in params if name not in shapes]:
        raise ValueError(f"not parameters of the task {task!r}: {_listed(unexpected)}")
    for name, shape in shapes.items():
        _validate_tensor(name, params[name], shape)


def _validate_tensor(name: str, value: NDArray[Any], shape: Shape) -> None:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is a {type(value).__name__}; it must be a NumPy array")
    if value.shape != shape:
        raise ValueError(f"{name} has the shape {value.shape}; the configuration asks for {shape}")
    if value.dtype.kind != "f":
        raise ValueError(f"{name} has the dtype {value.dtype}; it must be a floating type")
    finite = np.isfinite(value)
    if not finite.all():
        index = tuple(int(i) for i in np.unravel_index(np.argmin(finite), shape))
        raise ValueError(f"{name} is {value[index]} at {index}; parameters must be finite")


def _listed(names: Iterable[str], limit: int = 8) -> str:
    """Names for a message: all of them, or the first few and a count."""
    names = list(names)
    if len(names) > limit:
        return ", ".join(names[:limit]) + f" and {len(names) - limit} more"
    return ", ".join(names)
