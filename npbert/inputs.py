"""The door: what a user passes to a model is checked here, once, and nowhere behind it.

Every rejection is a ValueError that names the argument, the value, where it stands, and the limit.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npbert.config import BertConfig
from npbert.ops.array_module import Array, to_numpy
from npbert.ops.embedding import default_position_ids


class ModelInputs(NamedTuple):
    """What the body of a model is run on."""

    input_ids: Array | None  # (B, T) int64, or None
    inputs_embeds: Array | None  # (B, T, D) floating, or None: exactly one of the two is given
    position_ids: Array  # (B, T) int64
    token_type_ids: Array  # (B, T) int64
    key_mask: Array | None  # (B, T) bool, True for real tokens; None: all are
    choices: int  # how many texts in a row belong to one question (multiple choice); else 1
    read_mask: Array | None = None  # (B, T) bool, True for tokens whose result is looked at; None: all are

    @property
    def shape(self) -> tuple[int, int]:
        """Batch and tokens."""
        batch, tokens = self.position_ids.shape
        return batch, tokens


def prepare_inputs(
    config: BertConfig,
    task: str,
    dtype: DTypeLike,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    inputs_embeds: Any = None,
    past_key_values_length: int = 0,
) -> ModelInputs:
    """Check a model's inputs and fill in what was left out.

    Parameters
    ----------
    config : BertConfig
    task : str
        For "multiple_choice" every array has an axis of choices after the batch, (B, C, T); the choices
        are laid out as B * C texts.
    dtype : dtype
        The model's; ``inputs_embeds`` are cast to it.
    input_ids : (B, T) integer, optional
        In ``[0, vocab_size)``.
    attention_mask : (B, T) of 0 and 1, or bool, optional
        1 for real tokens; all, where not given. A text without any real token is allowed: attention
        then yields 0.
    token_type_ids : (B, T) integer, optional
        In ``[0, type_vocab_size)``; zeros where not given.
    position_ids : (B, T), (1, T) or (T,) integer, optional
        In ``[0, max_position_embeddings)``; ``past_key_values_length, past_key_values_length + 1, ...``
        where not given.
    inputs_embeds : (B, T, D) floating, optional
        Word vectors in the place of ``input_ids``.
    past_key_values_length : int
        Where the positions start.

    Returns
    -------
    ModelInputs

    Raises
    ------
    ValueError
        For a wrong shape, dtype or value, for both or neither of ``input_ids`` and ``inputs_embeds``, for
        an empty batch, and for a text longer than there are positions.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise ValueError(f"{given} of input_ids and inputs_embeds given; exactly one is needed")

    # Everything is checked as it was given, so that a message has the shapes and indices of the caller.
    if input_ids is not None:
        input_ids = integers("input_ids", input_ids)
        shape = input_ids.shape
        _check_axes(task, "input_ids", shape, hidden_axis=False)
        check_range("input_ids", input_ids, config.vocab_size, "vocab_size")
    else:
        inputs_embeds = floats("inputs_embeds", inputs_embeds).astype(dtype, copy=False)
        _check_axes(task, "inputs_embeds", inputs_embeds.shape, hidden_axis=True)
        *axes, width = inputs_embeds.shape
        shape = tuple(axes)
        if width != config.hidden_size:
            raise ValueError(
                f"inputs_embeds has {width} numbers a token; hidden_size is {config.hidden_size}"
            )
    if 0 in shape:
        raise ValueError(f"the batch is empty: {math.prod(shape[:-1])} texts of {shape[-1]} tokens")

    if token_type_ids is None:
        token_type_ids = np.zeros(shape, dtype=np.int64)
    else:
        token_type_ids = integers("token_type_ids", token_type_ids)
        check_shape("token_type_ids", token_type_ids, shape)
        check_range("token_type_ids", token_type_ids, config.type_vocab_size, "type_vocab_size")
    key_mask = None if attention_mask is None else _prepare_mask(attention_mask, shape)
    position_ids = _prepare_positions(config, position_ids, past_key_values_length, shape)
    return ModelInputs(
        _one_text_a_row(input_ids, shape),
        _one_text_a_row(inputs_embeds, shape),
        _one_text_a_row(position_ids, shape),
        _one_text_a_row(token_type_ids, shape),
        _one_text_a_row(key_mask, shape),
        shape[1] if task == "multiple_choice" else 1,
    )


def _check_axes(task: str, name: str, shape: tuple[int, ...], hidden_axis: bool) -> None:
    axes = ["batch", "tokens"]
    if task == "multiple_choice":
        axes.insert(1, "choices")
    if hidden_axis:
        axes.append("hidden")
    if len(shape) != len(axes):
        raise ValueError(f"{name} has shape {shape}; it must be ({', '.join(axes)})")


def _one_text_a_row(array: Array | None, shape: tuple[int, ...]) -> Array | None:
    """Lay the choices of multiple choice out as texts of their own:  (B, C, T, ...) -> (B * C, T, ...)."""
    if array is None:
        return None
    return array.reshape(-1, shape[-1], *array.shape[len(shape) :])


def _prepare_positions(
    config: BertConfig, position_ids: Any, past_key_values_length: int, shape: tuple[int, ...]
) -> Array:
    limit = config.max_position_embeddings
    tokens = shape[-1]
    if isinstance(past_key_values_length, bool) or not isinstance(past_key_values_length, int | np.integer):
        raise ValueError(f"past_key_values_length is {past_key_values_length!r}; it must be an integer")
    if past_key_values_length < 0:
        raise ValueError(f"past_key_values_length is {past_key_values_length}; it must be at least 0")
    if tokens > limit:
        raise ValueError(f"the text has {tokens} tokens; max_position_embeddings is {limit}")
    if position_ids is None:
        if past_key_values_length + tokens > limit:
            raise ValueError(
                f"the text has {tokens} tokens after past_key_values_length {past_key_values_length}; "
                f"max_position_embeddings is {limit}"
            )
        return default_position_ids(math.prod(shape[:-1]), tokens, int(past_key_values_length), np)
    position_ids = integers("position_ids", position_ids)
    if position_ids.shape not in ((tokens,), (1, tokens), shape):
        raise ValueError(f"position_ids has shape {position_ids.shape}; it must be {shape}, or one row of it")
    check_range("position_ids", position_ids, limit, "max_position_embeddings")
    return np.broadcast_to(position_ids, shape)


def _prepare_mask(attention_mask: Any, shape: tuple[int, ...]) -> Array:
    attention_mask = as_array("attention_mask", attention_mask)
    check_shape("attention_mask", attention_mask, shape)
    if attention_mask.dtype.kind not in "biuf":
        raise ValueError(f"attention_mask has dtype {attention_mask.dtype}; it must be bool, or 0 and 1")
    bad = (attention_mask != 0) & (attention_mask != 1)
    if bad.any():
        index = first_index(bad)
        value = attention_mask[index]
        raise ValueError(f"attention_mask is {value} at {list(index)}; it must be 1 (a token) or 0 (padding)")
    return attention_mask.astype(bool)


def check_dropout_seed(dropout_seed: Any) -> int | None:
    """Return the seed as an int, or raise a ValueError unless it is None or an integer in ``[0, 2^64)``."""
    if dropout_seed is None:
        return None
    if isinstance(dropout_seed, bool) or not isinstance(dropout_seed, int | np.integer):
        raise ValueError(f"dropout_seed is {dropout_seed!r}; it must be an integer, or None")
    if not 0 <= dropout_seed < 2**64:
        raise ValueError(f"dropout_seed is {dropout_seed}; it must be in [0, 2^64)")
    return int(dropout_seed)


# Checks that labels need too ----------------------------------------------------------------------------


def integers(name: str, value: Any) -> Array:
    """Return ``value`` as an int64 array, or raise a ValueError that names it."""
    array = as_array(name, value)
    if array.size == 0:  # NumPy takes [] to be floating
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}; it must be an integer type")
    return array.astype(np.int64, copy=False)


def floats(name: str, value: Any) -> Array:
    """Return ``value`` as a floating array of finite numbers, or raise a ValueError that names it."""
    array = as_array(name, value)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise ValueError(f"{name} has dtype {array.dtype}; it must be a floating type")
    bad = ~np.isfinite(array)
    if bad.any():
        index = first_index(bad)
        raise ValueError(f"{name} is {array[index]} at {list(index)}; it must be finite")
    return array


def as_array(name: str, value: Any) -> Array:
    """Return ``value``, also a device's, as a NumPy array, or raise a ValueError that names it."""
    try:
        return to_numpy(value)
    except ValueError:
        raise ValueError(f"{name} is no array: its rows differ in length") from None


def check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless ``array`` has this shape."""
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}")


def check_range(name: str, ids: Array, limit: int, limit_name: str, allowed: int | None = None) -> None:
    """Raise a ValueError unless every id is in ``[0, limit)``, or equal to ``allowed``."""
    bad = (ids < 0) | (ids >= limit)
    if allowed is not None:
        bad &= ids != allowed
    if bad.any():
        index = first_index(bad)
        or_allowed = "" if allowed is None else f", or {allowed}"
        raise ValueError(
            f"{name} is {ids[index]} at {list(index)}; it must be in [0, {limit}){or_allowed} "
            f"({limit_name} is {limit})"
        )


def first_index(bad: Array) -> tuple[int, ...]:
    """Return the index of the first True."""
    return tuple(int(i) for i in np.argwhere(bad)[0])
