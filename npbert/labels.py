"""What a loss compares a model's answers with, checked as :mod:`npbert.inputs` checks the questions."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from npbert.config import BertConfig
from npbert.inputs import ModelInputs, as_array, check_range, check_shape, first_index, floats, integers
from npbert.ops.array_module import Array

IGNORE_INDEX: Final = -100  # the label of a place that does not count, as in Hugging Face and PyTorch

LABELS_OF_TASK: Final[dict[str, tuple[str, ...]]] = {
    "encoder": (),
    "pretraining": ("labels", "next_sentence_label"),
    "masked_lm": ("labels",),
    "next_sentence": ("labels",),
    "sequence_classification": ("labels",),
    "token_classification": ("labels",),
    "question_answering": ("start_positions", "end_positions"),
    "multiple_choice": ("labels",),
}


class Labels(NamedTuple):
    """Checked labels. Which fields are set depends on the task; none: no loss is asked for."""

    labels: Array | None = None
    next_sentence_label: Array | None = None
    start_positions: Array | None = None
    end_positions: Array | None = None
    problem_type: str | None = None  # the loss of sequence classification

    @property
    def is_empty(self) -> bool:
        """Whether nothing was given."""
        return all(field is None for field in self)


def prepare_labels(
    config: BertConfig,
    task: str,
    dtype: DTypeLike,
    inputs: ModelInputs,
    labels: Any = None,
    next_sentence_label: Any = None,
    start_positions: Any = None,
    end_positions: Any = None,
) -> Labels:
    """Check the labels of a task.

    Parameters
    ----------
    config : BertConfig
    task : str
    dtype : dtype
        The model's; floating labels are cast to it.
    inputs : ModelInputs
        What the labels belong to.
    labels : array, optional
        pretraining, masked_lm: (B, T) integer in ``[0, vocab_size)``, or -100 where nothing is asked.
        next_sentence: (B,) integer, 0 = the second sentence follows the first, 1 = it does not.
        sequence_classification: by ``config.problem_type``: (B,) integer in ``[0, num_labels)``, or -100;
        or floating (B, num_labels), for a regression on one value also (B,).
        token_classification: (B, T) integer in ``[0, num_labels)``, or -100.
        multiple_choice: (B,) integer, the right choice, or -100.
    next_sentence_label : (B,) integer, optional
        pretraining: as for next_sentence.
    start_positions, end_positions : (B,) integer, optional
        question_answering: at least 0. A position beyond the text does not count, as in transformers.

    Returns
    -------
    Labels

    Raises
    ------
    ValueError
        For labels that the task does not have, and for a wrong shape, dtype or value.
    """
    given = {
        "labels": labels,
        "next_sentence_label": next_sentence_label,
        "start_positions": start_positions,
        "end_positions": end_positions,
    }
    for name, value in given.items():
        if value is not None and name not in LABELS_OF_TASK[task]:
            expected = " and ".join(LABELS_OF_TASK[task]) or "none"
            raise ValueError(f"{name} is given, but the labels of the task {task} are: {expected}")
    if all(value is None for value in given.values()):
        return Labels()

    batch, _ = inputs.shape
    if task in ("pretraining", "masked_lm"):
        words = _classes("labels", labels, inputs.shape, config.vocab_size, "vocab_size")
        pairs = _classes("next_sentence_label", next_sentence_label, (batch,), 2, "the number of classes")
        return Labels(labels=words, next_sentence_label=pairs)
    if task == "next_sentence":
        return Labels(labels=_classes("labels", labels, (batch,), 2, "the number of classes"))
    if task == "sequence_classification":
        return _sequence_labels(config, dtype, batch, labels)
    if task == "token_classification":
        return Labels(labels=_classes("labels", labels, inputs.shape, config.num_labels, "num_labels"))
    if task == "multiple_choice":
        questions = batch // inputs.choices
        return Labels(
            labels=_classes("labels", labels, (questions,), inputs.choices, "the number of choices")
        )
    if start_positions is None or end_positions is None:
        raise ValueError("only one of start_positions and end_positions is given; both are needed")
    return Labels(
        start_positions=_positions("start_positions", start_positions, inputs),
        end_positions=_positions("end_positions", end_positions, inputs),
    )


def _classes(name: str, value: Any, shape: tuple[int, ...], classes: int, classes_name: str) -> Array | None:
    """Check class labels: each in ``[0, classes)``, or -100."""
    if value is None:
        return None
    labels = integers(name, value)
    if labels.shape == (*shape, 1):
        labels = labels[..., 0]
    check_shape(name, labels, shape)
    check_range(name, labels, classes, classes_name, allowed=IGNORE_INDEX)
    return labels


def _positions(name: str, value: Any, inputs: ModelInputs) -> Array:
    """Check places in a text; those beyond its end become -100."""
    batch, tokens = inputs.shape
    positions = integers(name, value)
    if positions.shape == (batch, 1):
        positions = positions[:, 0]
    check_shape(name, positions, (batch,))
    if (positions < 0).any():
        index = first_index(positions < 0)
        raise ValueError(f"{name} is {positions[index]} at {list(index)}; it must be at least 0")
    return np.where(positions < tokens, positions, IGNORE_INDEX)


def _sequence_labels(config: BertConfig, dtype: DTypeLike, batch: int, value: Any) -> Labels:
    """Check the labels of sequence classification, and settle which of its three losses is meant."""
    problem_type = config.problem_type or _guess_problem_type(config, value)
    if problem_type == "single_label_classification":
        labels = _classes("labels", value, (batch,), config.num_labels, "num_labels")
    else:
        labels = floats("labels", value).astype(dtype, copy=False)
        if problem_type == "regression" and config.num_labels == 1 and labels.shape == (batch,):
            labels = labels[:, None]
        check_shape("labels", labels, (batch, config.num_labels))
    return Labels(labels=labels, problem_type=problem_type)


def _guess_problem_type(config: BertConfig, labels: Any) -> str:
    """Decide as transformers does: one value is a regression, integers are classes."""
    if config.num_labels == 1:
        return "regression"
    if as_array("labels", labels).dtype.kind in "iu":
        return "single_label_classification"
    return "multi_label_classification"
