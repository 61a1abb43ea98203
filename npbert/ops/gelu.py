"""GELU, the activation of BERT's feed-forward layers, in both forms that are in use.

``"erf"`` is the definition, and what Hugging Face calls ``gelu``; ``"tanh"`` is the older approximation,
Hugging Face's ``gelu_new`` and Google's code.  They differ by up to 4.7e-4, so a checkpoint must be run
with the one it was trained with.  Both are x times a gate that goes from 0 to 1::

    y = x g(x)
    "erf":   g(x) = normal_cdf(x) = (1 + erf(x / sqrt(2))) / 2
    "tanh":  g(x) = (1 + tanh(u(x))) / 2,    u(x) = sqrt(2 / pi) (x + 0.044715 x^3)

Neither is evaluated as written here: 1 + erf and 1 + tanh cancel in the left tail, where the result would
lose its digits and then its sign.  `normal_cdf` does not cancel, and (1 + tanh(u)) / 2 = sigmoid(2 u).

References
----------
D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", arXiv:1606.08415, 2016.
"""

import math
from typing import NamedTuple

from npbert.ops.array_module import Array, array_module
from npbert.ops.elementwise import elementwise
from npbert.ops.erf import normal_cdf, normal_pdf
from npbert.ops.sigmoid import sigmoid

SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
CUBIC = 0.044715


class GeluCache(NamedTuple):
    """What the backward needs."""

    x: Array  # the shape of x: the slope depends on it
    gate: Array  # the shape of x: g(x), kept because it is the costly part
    form: str  # "erf" or "tanh"


def gelu_forward(x: Array, form: str = "erf") -> tuple[Array, GeluCache]:
    """Gaussian error linear unit, element by element.

    Parameters
    ----------
    x : array of any shape, float32, float64 or complex128
    form : "erf" or "tanh"

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : GeluCache

    Raises
    ------
    ValueError
        For another `form`.

    Examples
    --------
    >>> import numpy as np
    >>> y, cache = gelu_forward(np.array([-1.0, 0.0, 1.0]))
    >>> y.round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    gate = gelu_gate(x, form)
    return x * gate, GeluCache(x, gate, form)


def gelu_backward(dy: Array, cache: GeluCache) -> Array:
    """Return the gradient of GELU's input.

    From y = x g(x) follows dy/dx = g(x) + x g'(x), with::

        "erf":   g'(x) = normal_pdf(x) = exp(-x^2 / 2) / sqrt(2 pi)
        "tanh":  g'(x) = 2 u'(x) g(x) (1 - g(x)),    u'(x) = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)

    the latter because sigmoid' = sigmoid (1 - sigmoid).

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : GeluCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`

    Examples
    --------
    >>> import numpy as np
    >>> y, cache = gelu_forward(np.array([-1.0, 0.0, 1.0]))
    >>> gelu_backward(np.array([1.0, 1.0, 1.0]), cache).round(4)
    array([-0.0833,  0.5   ,  1.0833])
    """
    return dy * gelu_slope(cache.x, cache.gate, cache.form)


def gelu_gate(x: Array, form: str) -> Array:
    """Return g(x), the factor of x in GELU, from 0 to 1."""
    if form == "erf":
        return normal_cdf(x)
    if form == "tanh":
        return elementwise(lambda x: sigmoid(2.0 * _u(x)), x)
    raise ValueError(f'form is {form!r}; it must be "erf" or "tanh"')


def gelu_slope(x: Array, gate: Array, form: str) -> Array:
    """Return dy/dx = g(x) + x g'(x), given gate = g(x)."""
    dgate_dx = normal_pdf(x) if form == "erf" else elementwise(_tanh_gate_slope, x)
    return gate + x * dgate_dx


def _u(x: Array) -> Array:
    return SQRT_2_OVER_PI * x * (1.0 + CUBIC * x * x)


def _tanh_gate_slope(x: Array) -> Array:
    """Return g'(x), where g (1 - g) = sigmoid(2 u) sigmoid(-2 u) = e / (1 + e)^2 with e = exp(-2 |u|)."""
    xp = array_module(x)
    u = _u(x)
    du_dx = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x)
    e = xp.exp(-2.0 * xp.copysign(1.0, u.real) * u)
    return 2.0 * du_dx * e / (1.0 + e) ** 2
