"""The estimators for scikit-learn's own checks, which know no texts: each row of numbers is spelled as one.

Only how X is read differs, and what the tags say of it. All else is the estimators' own.
"""

import string
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from npbert.sklearn import BertClassifier, SentenceEncoder
from tests.sklearn.small import save_model

FEATURES = string.ascii_lowercase
STEP, FARTHEST = 0.25, 20  # numbers from -5 to 5 in steps of a quarter have words of their own


def spelled(rows: Any) -> list[str]:
    """Return a text for each row: a word for each number, of a letter for the feature and the level.

    Examples
    --------
    >>> spelled([[0.3, -5.0], [1.0, 99.0]])
    ['a21 b0', 'a24 b40']
    """
    levels = np.clip(np.rint(np.asarray(rows, dtype=float) / STEP), -FARTHEST, FARTHEST) + FARTHEST
    return [
        " ".join(f"{feature}{level:.0f}" for feature, level in zip(FEATURES, row, strict=False))
        for row in levels
    ]


def save_model_for_numbers(directory: Path, **settings: Any) -> str:
    """Write a model that knows the words of `spelled`; return where."""
    words = [f"{feature}{level}" for feature in FEATURES for level in range(2 * FARTHEST + 1)]
    return save_model(directory, words, **settings)


class _OfNumbers:
    def _texts(self, X: Any, reset: bool) -> list[str]:
        return spelled(validate_data(self, X, reset=reset))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


class ClassifierOfNumbers(_OfNumbers, BertClassifier):
    """`BertClassifier`, of rows of numbers."""


class EncoderOfNumbers(_OfNumbers, SentenceEncoder):
    """`SentenceEncoder`, of rows of numbers."""
