"""What scikit-learn hands over as y, as numbers of classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from npbert.data.wording import shown
from npbert.sklearn.texts import is_missing

Array = NDArray[Any]


def classes_and_numbers(y: Any, estimator: str) -> tuple[Array, Array]:
    """Return which classes there are, and the number of each label's class.

    Parameters
    ----------
    y : array-like, (n,)
        Texts, integers or bools; (n, 1) with scikit-learn's warning.
    estimator : str
        Whose labels these are, for messages.

    Returns
    -------
    classes : (C,) array
        Sorted, of the labels' type.
    numbers : (n,) integer
        ``classes[numbers]`` are the labels.

    Raises
    ------
    ValueError
        If there are no labels, fewer than two classes, or something that is not a class: None, NaN, numbers
        that are not whole, labels of several types, several labels for a text.

    Examples
    --------
    >>> classes_and_numbers(["good", "bad", "good"], "BertClassifier")
    (array(['bad', 'good'], dtype='<U4'), array([1, 0, 1]))
    """
    if y is None:
        raise ValueError(f"{estimator} requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    for index, label in enumerate(labels):
        if is_missing(label):
            raise ValueError(f"y[{index}] is {label}; every text needs a label")
    try:
        classes, numbers = np.unique(labels, return_inverse=True)
    except TypeError:  # a text is neither less nor more than a number
        types = sorted({type(label).__name__ for label in labels})
        raise ValueError(f"y has labels of several types ({', '.join(types)}); make them one") from None
    check_classification_targets(labels)
    if len(classes) < 2:
        found = "no labels" if len(classes) == 0 else f"only one class, {shown(classes.tolist()[0])}"
        raise ValueError(f"y has {found}; {estimator} needs at least 2 classes")
    return classes, numbers
