"""A learned mix of a model's layers:  y = γ Σ_j s_j h_j  with  s = softmax(w).

The layers stay as they are; what is learned is how much each of them counts, and how much all do together.

References
----------
Peters et al. (2018), Deep contextualized word representations (ELMo), equation 1; Peters, Ruder and Smith
(2019), To Tune or Not to Tune?, section 3.
"""

from typing import NamedTuple

from npbert.ops import softmax_backward, softmax_forward
from npbert.ops.array_module import Array, array_module
from npbert.ops.softmax import SoftmaxCache


class LayerMixCache(NamedTuple):
    """What the backward pass needs from the forward pass."""

    layers: Array  # (B, J, D), kept: dweight is a product with it
    softmax: SoftmaxCache  # holds the shares s, (J,)
    gamma: Array  # (1,)


def layer_mix_forward(layers: Array, weight: Array, gamma: Array) -> tuple[Array, LayerMixCache]:
    """Mix the vectors that the layers have for each text.

    Parameters
    ----------
    layers : (B, J, D) floating
        Of J layers.
    weight : (J,) floating
        Equal weights give the mean.
    gamma : (1,) floating

    Returns
    -------
    y : (B, D)
    cache : LayerMixCache

    Examples
    --------
    >>> import numpy as np
    >>> layers = np.array([[[1.0, 2.0], [3.0, 6.0]]])
    >>> layer_mix_forward(layers, np.zeros(2), np.array([10.0]))[0]
    array([[20., 40.]])
    """
    xp = array_module(layers)
    shares, softmax_cache = softmax_forward(weight)  # (J,)
    mean = xp.einsum("bjd,j->bd", layers, shares)  # (B, J, D), (J,) -> (B, D)
    y = gamma * mean  # (B, D)
    return y, LayerMixCache(layers, softmax_cache, gamma)


def layer_mix_backward(dy: Array, cache: LayerMixCache) -> tuple[Array, Array]:
    """Backward of :func:`layer_mix_forward`; the layers are features that do not learn, and get no gradient.

    From ``y_bd = γ Σ_j s_j h_bjd``::

        dγ = Σ_bd dy_bd Σ_j s_j h_bjd        ds_j = γ Σ_bd dy_bd h_bjd

    Both are made of ``Σ_bd dy_bd h_bjd``, one number a layer; ds then goes back through the softmax.

    Parameters
    ----------
    dy : (B, D) floating
    cache : LayerMixCache

    Returns
    -------
    dweight : (J,)
    dgamma : (1,)
    """
    layers, softmax_cache, gamma = cache
    xp = array_module(dy)
    products = xp.einsum("bd,bjd->j", dy, layers)  # (B, D), (B, J, D) -> (J,)
    dgamma = (products * softmax_cache.probs).sum(keepdims=True)  # (1,)
    dshares = gamma * products  # (J,)
    dweight = softmax_backward(dshares, softmax_cache)  # (J,)
    return dweight, dgamma
