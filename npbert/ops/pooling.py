"""From one vector a token to one vector a text: the first token's, or the mean; and unit length."""

from typing import NamedTuple

from npbert.ops.array_module import Array, array_module


class ClsPoolingCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    shape: tuple[int, int, int]  # (B, T, D)


def cls_pooling_forward(x: Array) -> tuple[Array, ClsPoolingCache]:
    """Take the first token's vector, BERT's ``[CLS]``.

    Parameters
    ----------
    x : (B, T, D) floating

    Returns
    -------
    y : (B, D)
        A view of ``x``.
    cache : ClsPoolingCache
    """
    return x[:, 0], ClsPoolingCache(x.shape)


def cls_pooling_backward(dy: Array, cache: ClsPoolingCache) -> Array:
    """Backward of :func:`cls_pooling_forward`: the first token gets it all, the others nothing.

    Parameters
    ----------
    dy : (B, D) floating
    cache : ClsPoolingCache

    Returns
    -------
    dx : (B, T, D)
    """
    xp = array_module(dy)
    dx = xp.zeros(cache.shape, dtype=dy.dtype)  # (B, T, D)
    dx[:, 0] = dy
    return dx


class MeanPoolingCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    weights: Array  # (B, T, 1), 1 / n for each of a text's n tokens, 0 for padding


def mean_pooling_forward(x: Array, mask: Array) -> tuple[Array, MeanPoolingCache]:
    """Average the vectors of a text's real tokens.

    Parameters
    ----------
    x : (B, T, D) floating
    mask : (B, T) bool
        True for real tokens. A text without any has the mean 0.

    Returns
    -------
    y : (B, D)
    cache : MeanPoolingCache

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0], [3.0], [99.0]]])
    >>> mean_pooling_forward(x, np.array([[True, True, False]]))[0]
    array([[2.]])
    """
    xp = array_module(x)
    counts = xp.maximum(mask.sum(axis=1, keepdims=True), 1)  # (B, 1)
    weights = (mask / counts).astype(x.real.dtype)[:, :, None]  # (B, T, 1)
    y = (x * weights).sum(axis=1)  # (B, T, D) -> (B, D)
    return y, MeanPoolingCache(weights)


def mean_pooling_backward(dy: Array, cache: MeanPoolingCache) -> Array:
    """Backward of :func:`mean_pooling_forward`: each token gets its weight's share.

    Parameters
    ----------
    dy : (B, D) floating
    cache : MeanPoolingCache

    Returns
    -------
    dx : (B, T, D)
    """
    return dy[:, None, :] * cache.weights  # (B, 1, D) * (B, T, 1) -> (B, T, D)


class L2NormalizeCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    y: Array  # (..., D), the unit vectors
    divisor: Array  # (..., 1), the lengths, but never below eps
    is_clamped: Array  # (..., 1) bool, True where the length was below eps


def l2_normalize_forward(x: Array, eps: float = 1e-12) -> tuple[Array, L2NormalizeCache]:
    """Divide each vector by its Euclidean length, so that a dot product is a cosine.

    Parameters
    ----------
    x : (..., D) floating
    eps : float
        The smallest divisor: a zero vector stays zero.

    Returns
    -------
    y : (..., D)
    cache : L2NormalizeCache

    Examples
    --------
    >>> import numpy as np
    >>> l2_normalize_forward(np.array([3.0, 4.0]))[0]
    array([0.6, 0.8])
    """
    xp = array_module(x)
    length = xp.sqrt((x * x).sum(axis=-1, keepdims=True))  # (..., 1)
    is_clamped = length.real < eps  # (..., 1)
    divisor = xp.where(is_clamped, eps, length).astype(x.dtype)  # (..., 1)
    y = x / divisor  # (..., D)
    return y, L2NormalizeCache(y, divisor, is_clamped)


def l2_normalize_backward(dy: Array, cache: L2NormalizeCache) -> Array:
    """Backward of :func:`l2_normalize_forward`.

    With ``y = x / r`` and ``r = |x|``:  ``∂r/∂x_j = y_j``, hence ``dx = (dy - y (dy · y)) / r``: what
    points along y changes only the length, and is taken out. Below eps the divisor is a constant and
    only ``dx = dy / eps`` remains.

    Parameters
    ----------
    dy : (..., D) floating
    cache : L2NormalizeCache

    Returns
    -------
    dx : (..., D)
    """
    y, divisor, is_clamped = cache
    xp = array_module(dy)
    along_y = (dy * y).sum(axis=-1, keepdims=True)  # (..., 1)
    through_length = xp.where(is_clamped, 0, y * along_y)  # (..., D)
    return (dy - through_length) / divisor  # (..., D)
