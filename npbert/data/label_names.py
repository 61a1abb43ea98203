"""From the names of labels to the numbers that a model is trained on, and which names there are."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npbert.data.tables import Label, TextExample
from npbert.data.wording import listed, shown

Array = NDArray[Any]

MIN_CLASSES: Final = 2


def label_names(path: Path | str, examples: Iterable[TextExample], problem_type: str) -> tuple[str, ...]:
    """Return the names of all labels in a training file; the place of a name is its number.

    Parameters
    ----------
    path : path
        For messages.
    examples : iterable of TextExample
    problem_type : str
        As in `npbert.BertConfig`. A regression has no names.

    Returns
    -------
    tuple of str
        Sorted: as numbers, if all are integers, and else as texts.

    Raises
    ------
    ValueError
        If there is only one class, or, where a text may have several labels, none at all.
    """
    if problem_type == "regression":
        return ()
    found: set[str] = set()
    for example in examples:
        found.update(_names_of(example.label))
    if problem_type == "multi_label_classification":
        if not found:
            raise ValueError(f"{path}: no row has a label; there is nothing to learn")
    else:
        check_classes(path, found)
    return sorted_names(found)


def check_classes(path: Path | str, names: Iterable[str]) -> None:
    """Raise a ValueError that names the file if its labels are all the same."""
    names = sorted(names)
    if len(names) < MIN_CLASSES:
        raise ValueError(f"{path}: all labels are {names[0]!r}; to learn anything takes at least 2 classes")


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names as numbers, if all are integers, and else as texts.

    Examples
    --------
    >>> sorted_names({"10", "9"}), sorted_names({"10", "9", "a"})
    (('9', '10'), ('10', '9', 'a'))
    """
    names = list(names)
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def label_array(
    path: Path | str, example: TextExample, numbers: Mapping[str, int], problem_type: str
) -> Array:
    """Return the label of a text as `npbert.Bert.loss_and_grads` takes it, without the axis of the batch.

    Parameters
    ----------
    path : path
        For messages.
    example : TextExample
        With a label.
    numbers : mapping of str to int
        The number of each name, of C names.
    problem_type : str

    Returns
    -------
    () int64, the number of the class; (C,) float64 of 0 and 1 for several labels; (1,) float64 for a number

    Raises
    ------
    ValueError
        For a label that has no number; names the file, the line, the label and those there are.
    """
    if problem_type == "regression":
        return np.array([example.label], dtype=np.float64)
    found = [label_number(path, name, numbers, example.line) for name in _names_of(example.label)]
    if problem_type == "multi_label_classification":
        applies = np.zeros(len(numbers))
        applies[found] = 1
        return applies
    return np.array(found[0], dtype=np.int64)


def label_number(path: Path | str, name: str, numbers: Mapping[str, int], line: int) -> int:
    """Return the number of a label; a ValueError for one that has none names the file and the line."""
    if name not in numbers:
        raise ValueError(f"{path}: line {line}: unknown label {shown(name)}; known: {listed(list(numbers))}")
    return numbers[name]


def _names_of(label: Label | None) -> tuple[str, ...]:
    if isinstance(label, str):
        return (label,)
    return label if isinstance(label, tuple) else ()
