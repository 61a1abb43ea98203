"""Binary cross-entropy on logits, for labels that do not exclude one another:

loss = mean of -t log σ(x) - (1 - t) log(1 - σ(x)),  σ(x) = 1 / (1 + exp(-x)).
"""

from typing import NamedTuple

from npbert.ops.array_module import Array, array_module
from npbert.ops.cross_entropy import reduction_weight
from npbert.ops.sigmoid import sigmoid


class BinaryCrossEntropyCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    logits: Array  # (...)
    targets: Array  # (...)
    weight: float  # what one element counts: 1 for a sum, 1 / n for a mean over n


def bce_with_logits_forward(
    logits: Array, targets: Array, reduction: str = "mean"
) -> tuple[Array, BinaryCrossEntropyCache]:
    """Compare independent yes-or-no scores with the right answers.

    ``-log σ(x) = log(1 + exp(-x))`` turns the formula into ``x (1 - t) + log(1 + exp(-x))``. With
    ``log(1 + exp(-x)) = max(-x, 0) + log(1 + exp(-|x|))`` no exponential overflows.

    Parameters
    ----------
    logits : (...) floating
    targets : (...) floating
        Usually 0 or 1; anything between is a soft label.
    reduction : "mean" or "sum"
        Over all elements.

    Returns
    -------
    loss : () floating
    cache : BinaryCrossEntropyCache

    Examples
    --------
    >>> import numpy as np
    >>> loss, cache = bce_with_logits_forward(np.zeros(3), np.array([0.0, 1.0, 1.0]))
    >>> round(float(loss), 4)  # log 2
    0.6931
    """
    xp = array_module(logits)
    weight = reduction_weight(reduction, logits.size)
    positive = logits.real > 0
    magnitude = xp.where(positive, logits, -logits)  # |x|, spelled so that it stays analytic
    softplus_of_minus = xp.where(positive, 0, -logits) + xp.log1p(xp.exp(-magnitude))  # log(1 + exp(-x))
    loss = (logits * (1 - targets) + softplus_of_minus).sum() * weight
    return loss, BinaryCrossEntropyCache(logits, targets, weight)


def bce_with_logits_backward(dloss: Array, cache: BinaryCrossEntropyCache) -> tuple[Array, Array]:
    """Backward of :func:`bce_with_logits_forward`.

    ``∂loss/∂x = (1 - t) - σ(-x) = σ(x) - t``  and  ``∂loss/∂t = -x``.

    Parameters
    ----------
    dloss : () floating
        Of the arrays' dtype, or a Python number.
    cache : BinaryCrossEntropyCache

    Returns
    -------
    dlogits, dtargets : (...)
    """
    logits, targets, weight = cache
    dlogits = (sigmoid(logits) - targets) * (dloss * weight)  # (...)
    dtargets = -logits * (dloss * weight)  # (...)
    return dlogits, dtargets
