"""Softmax cross-entropy over class scores:  loss = -log softmax(logits)[label]."""

from typing import NamedTuple

from npbert.ops.array_module import Array, array_module
from npbert.ops.softmax import softmax_forward


class CrossEntropyCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    probs: Array  # (..., C), softmax of the logits
    labels: Array  # (...), with 0 in the place of ignored ones
    counted: Array  # (...) bool, False where the label is ignored
    weight: float  # what one example's loss counts: 1 for a sum, 1 / n for a mean over n


def cross_entropy_forward(
    logits: Array, labels: Array, ignore_index: int = -100, reduction: str = "mean"
) -> tuple[Array, CrossEntropyCache]:
    """Compare class scores with the right classes.

    Parameters
    ----------
    logits : (..., C) floating
        Unnormalised scores.
    labels : (...) integer
        The right class, in ``[0, C)``, or ``ignore_index``.
    ignore_index : int
        Examples with this label count neither in the sum nor in the mean's divisor.
    reduction : "mean" or "sum"
        Over all examples that count. With none, the loss is 0 and so are the gradients (a mean over
        nothing is NaN in PyTorch).

    Returns
    -------
    loss : () floating
    cache : CrossEntropyCache

    Examples
    --------
    >>> import numpy as np
    >>> loss, cache = cross_entropy_forward(np.zeros((3, 4)), np.array([1, -100, 3]))
    >>> round(float(loss), 4)  # log 4
    1.3863
    """
    xp = array_module(logits)
    counted = labels != ignore_index  # (...)
    safe_labels = xp.where(counted, labels, 0)  # (...)
    weight = reduction_weight(reduction, int(counted.sum()))

    row_max = logits.real.max(axis=-1, keepdims=True)  # (..., 1), a constant: it cancels
    shifted = logits - row_max  # (..., C)
    log_total = xp.log(xp.exp(shifted).sum(axis=-1))  # (...)
    label_logit = xp.take_along_axis(shifted, safe_labels[..., None], axis=-1)[..., 0]  # (...)
    losses = xp.where(counted, log_total - label_logit, 0)  # (...)
    loss = losses.sum() * weight

    probs, _ = softmax_forward(logits)
    return loss, CrossEntropyCache(probs, safe_labels, counted, weight)


def cross_entropy_backward(dloss: Array, cache: CrossEntropyCache) -> Array:
    """Backward of :func:`cross_entropy_forward`.

    ``loss = log sum_j exp(x_j) - x_label``, so ``∂loss/∂x_j = p_j - [j = label]``: what the model
    believes minus what is true. Every row sums to 0.

    Parameters
    ----------
    dloss : () floating
    cache : CrossEntropyCache

    Returns
    -------
    dlogits : (..., C)
    """
    xp = array_module(cache.probs)
    classes = cache.probs.shape[-1]
    is_label = cache.labels[..., None] == xp.arange(classes)  # (..., C)
    dlosses = xp.where(cache.counted, dloss * cache.weight, 0).astype(cache.probs.dtype)  # (...)
    dlogits = (cache.probs - is_label) * dlosses[..., None]  # (..., C)
    return dlogits


def reduction_weight(reduction: str, count: int) -> float:
    """Return what one of ``count`` terms weighs in a "mean" or a "sum" (no terms: any weight will do)."""
    if reduction == "mean":
        return 1 / max(count, 1)
    if reduction == "sum":
        return 1.0
    raise ValueError(f'reduction is {reduction!r}; it must be "mean" or "sum"')
