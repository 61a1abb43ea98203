"""Every activation on all workers, a block at a time; the two forms of GELU in their own, shorter way.

As `npbert.cpu.gelu` does, the forward keeps dy/dx and nothing else, and the backward is one product.
"""

import numpy as np

from npbert.cpu.gelu import GeluCache, gelu_forward, product
from npbert.cpu.workers import BLOCK, row_blocks, share_out
from npbert.ops import activations as textbook
from npbert.ops import gelu as textbook_gelu
from npbert.ops.activations import ACTIVATIONS, GELU_FORMS, ActivationCache
from npbert.ops.array_module import Array


def activation_forward(
    x: Array, name: str
) -> tuple[Array, GeluCache | ActivationCache | textbook_gelu.GeluCache]:
    """Apply the activation called `name`, element by element; see :func:`npbert.ops.activation_forward`.

    Parameters
    ----------
    x : array of any shape, float32 or float64
        Anything else is left to the textbook.
    name : str
        One of `npbert.ops.activations.ACTIVATIONS`.

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : GeluCache
        The slope, whatever the activation.

    Raises
    ------
    ValueError
        For another name.
    """
    if name in GELU_FORMS:
        return gelu_forward(x, GELU_FORMS[name])
    if name not in ACTIVATIONS or x.dtype not in (np.float32, np.float64):
        return textbook.activation_forward(x, name)
    activation = ACTIVATIONS[name]
    y, slope = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    x_flat, y_flat, slope_flat = x.reshape(-1), y.reshape(-1), slope.reshape(-1)

    def work(part: slice) -> None:
        kept = activation.kept(x_flat[part])
        y_flat[part] = activation.value(x_flat[part], kept)
        slope_flat[part] = activation.slope(x_flat[part], kept)

    share_out(work, row_blocks(x.size, BLOCK))
    return y, GeluCache(slope)


def activation_backward(dy: Array, cache: GeluCache | ActivationCache | textbook_gelu.GeluCache) -> Array:
    """Return the gradient of the activation's input; see :func:`npbert.ops.activation_backward`.

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : GeluCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`
    """
    if isinstance(cache, GeluCache):
        return product(dy, cache.slope)
    if isinstance(cache, textbook_gelu.GeluCache):
        return textbook_gelu.gelu_backward(dy, cache)
    return textbook.activation_backward(dy, cache)
