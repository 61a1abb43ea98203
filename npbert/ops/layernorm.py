"""Layer normalisation over the last axis:  y = x̂ · weight + bias,  x̂ = (x - mean) / sqrt(var + eps)."""

from typing import NamedTuple

from npbert.ops.array_module import Array, array_module


class LayerNormCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    x_hat: Array  # (..., D), the normalised rows: both dx and dweight are written in terms of it
    inv_std: Array  # (..., 1), 1 / sqrt(var + eps): one number a row
    weight: Array  # (D,)


def layernorm_forward(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, LayerNormCache]:
    """Normalise each row of ``x`` to mean 0 and variance 1, then scale and shift it.

    The variance is the biased one (divided by D, not D - 1), as in ``torch.nn.LayerNorm``. It is taken
    from the centred row (two passes): ``mean(x²) - mean(x)²`` would cancel where the mean is large.

    Parameters
    ----------
    x : (..., D) floating
    weight, bias : (D,) floating
        Often called gamma and beta.
    eps : float
        Added to the variance, inside the root. BERT's is 1e-12.

    Returns
    -------
    y : (..., D)
    cache : LayerNormCache

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450, 2016, equations 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> y, cache = layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=0.0)
    >>> y
    array([[-1.,  1.]])
    """
    xp = array_module(x)
    mean = x.mean(axis=-1, keepdims=True)  # (..., 1)
    centred = x - mean  # (..., D)
    variance = (centred * centred).mean(axis=-1, keepdims=True)  # (..., 1)
    inv_std = 1 / xp.sqrt(variance + eps)  # (..., 1)
    x_hat = centred * inv_std  # (..., D)
    y = x_hat * weight + bias  # (..., D)
    return y, LayerNormCache(x_hat, inv_std, weight)


def layernorm_backward(dy: Array, cache: LayerNormCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`layernorm_forward`.

    From ``y = x̂ w + b``:  ``dw = sum dy x̂``,  ``db = sum dy``,  ``dx̂ = dy w``.
    A row's ``x̂`` depends on all of its x's, through the mean and through the variance::

        x̂_i = (x_i - m) s,   m = mean(x),   s = 1 / sqrt(var + eps)
        ∂m/∂x_j = 1/D,       ∂s/∂x_j = -s² x̂_j / D
        dx_j = s (dx̂_j - mean(dx̂) - x̂_j mean(dx̂ x̂))

    The first mean is what flows through m, the second what flows through s.

    Parameters
    ----------
    dy : (..., D) floating
    cache : LayerNormCache

    Returns
    -------
    dx : (..., D)
    dweight, dbias : (D,)
    """
    x_hat, inv_std, weight = cache
    leading_axes = tuple(range(dy.ndim - 1))

    dbias = dy.sum(axis=leading_axes)  # (D,)
    dweight = (dy * x_hat).sum(axis=leading_axes)  # (D,)
    dx_hat = dy * weight  # (..., D)
    through_mean = dx_hat.mean(axis=-1, keepdims=True)  # (..., 1)
    through_variance = (dx_hat * x_hat).mean(axis=-1, keepdims=True)  # (..., 1)
    dx = (dx_hat - through_mean - x_hat * through_variance) * inv_std  # (..., D)
    return dx, dweight, dbias
