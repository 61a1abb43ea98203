"""Every activation that a Hugging Face configuration may name in ``hidden_act``, with its derivative.

Each is described by three formulas.  Most activations are x times a gate, or a saturating function::

    kept  = kept(x)            the costly intermediate, computed once and kept for the backward
    y     = value(x, kept)
    dy/dx = slope(x, kept)

References
----------
Transformers, ``transformers/activations.py``: names, definitions and the values of all constants.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from npbert.ops.array_module import Array, array_module
from npbert.ops.erf import normal_cdf, normal_pdf
from npbert.ops.gelu import CUBIC, gelu_gate, gelu_slope
from npbert.ops.sigmoid import sigmoid


class Activation(NamedTuple):
    """The three formulas of one activation."""

    kept: Callable[[Array], Array]
    value: Callable[[Array, Array], Array]
    slope: Callable[[Array, Array], Array]


class ActivationCache(NamedTuple):
    """What the backward needs."""

    x: Array  # the shape of x: the slope depends on it
    kept: Array  # the shape of x: the intermediate of the forward that the slope uses again
    name: str  # which activation


def activation_forward(x: Array, name: str) -> tuple[Array, ActivationCache]:
    """Apply the activation called `name`, element by element.

    Parameters
    ----------
    x : array of any shape, float32, float64 or complex128
    name : str
        One of `ACTIVATIONS`: a value of ``hidden_act`` of a Hugging Face configuration.

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : ActivationCache

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> import numpy as np
    >>> y, cache = activation_forward(np.array([-2.0, 0.0, 2.0]), "relu")
    >>> y
    array([0., 0., 2.])
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act is {name!r}; it must be one of {', '.join(ACTIVATIONS)}")
    activation = ACTIVATIONS[name]
    kept = activation.kept(x)
    return activation.value(x, kept), ActivationCache(x, kept, name)


def activation_backward(dy: Array, cache: ActivationCache) -> Array:
    """Return the gradient of the activation's input, dy * slope.

    At a corner (relu at 0) the slope is the one that PyTorch takes.

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : ActivationCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`

    Examples
    --------
    >>> import numpy as np
    >>> y, cache = activation_forward(np.array([-2.0, 0.0, 2.0]), "relu")
    >>> activation_backward(np.array([5.0, 6.0, 7.0]), cache)
    array([0., 0., 7.])
    """
    return dy * ACTIVATIONS[cache.name].slope(cache.x, cache.kept)


def _identity(x: Array) -> Array:
    return x


def _gated(x: Array, gate: Array) -> Array:
    return x * gate


def _kept(x: Array, kept: Array) -> Array:
    return kept


def _between(x: Array, low: float, high: float) -> Array:
    """Return where low < x < high."""
    return (x.real > low) & (x.real < high)


def _clip(x: Array, low: float, high: float) -> Array:
    """Return x limited to [low, high]; NaN stays NaN."""
    where = array_module(x).where
    return where(x.real <= low, low, where(x.real >= high, high, x))


def _relu(x: Array) -> Array:
    return array_module(x).where(x.real <= 0, 0.0, x)


def _softplus(x: Array) -> Array:
    """Return log(1 + exp(x)); from 20 on x itself, as PyTorch has it."""
    xp = array_module(x)
    large = x.real > SOFTPLUS_LIMIT
    return xp.where(large, x, xp.log1p(xp.exp(xp.where(large, 0.0, x))))


def _softplus_slope(x: Array) -> Array:
    return array_module(x).where(x.real > SOFTPLUS_LIMIT, 1.0, sigmoid(x))


def _tanh(x: Array) -> Array:
    return array_module(x).tanh(x)


SOFTPLUS_LIMIT = 20.0

# Hugging Face's constants, all with the digits that it uses.
GELU_FAST_SCALE = 0.7978845608  # sqrt(2 / pi), cut off
QUICK_GELU_SCALE = 1.702
LAPLACE_MEAN = 0.707107
LAPLACE_DEVIATION = 0.282095
LEAKY_RELU_SLOPE = 0.01

_GELU_ERF = Activation(
    kept=partial(gelu_gate, form="erf"), value=_gated, slope=partial(gelu_slope, form="erf")
)
_GELU_TANH = Activation(
    kept=partial(gelu_gate, form="tanh"), value=_gated, slope=partial(gelu_slope, form="tanh")
)
_SILU = Activation(kept=sigmoid, value=_gated, slope=lambda x, s: s + x * s * (1.0 - s))

ACTIVATIONS = {
    "gelu": _GELU_ERF,
    "gelu_python": _GELU_ERF,
    "gelu_10": Activation(
        kept=_GELU_ERF.kept,
        value=lambda x, gate: _clip(x * gate, -10.0, 10.0),
        slope=lambda x, gate: _GELU_ERF.slope(x, gate) * ((x * gate).real <= 10.0),
    ),
    "gelu_new": _GELU_TANH,
    "gelu_accurate": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "gelu_python_tanh": _GELU_TANH,
    "gelu_fast": Activation(
        kept=lambda x: sigmoid(2.0 * GELU_FAST_SCALE * x * (1.0 + CUBIC * x * x)),
        value=_gated,
        slope=lambda x, s: s + x * s * (1.0 - s) * 2.0 * GELU_FAST_SCALE * (1.0 + 3.0 * CUBIC * x * x),
    ),
    "quick_gelu": Activation(
        kept=lambda x: sigmoid(QUICK_GELU_SCALE * x),
        value=_gated,
        slope=lambda x, s: s + QUICK_GELU_SCALE * x * s * (1.0 - s),
    ),
    "silu": _SILU,
    "swish": _SILU,
    "mish": Activation(
        kept=lambda x: _tanh(_softplus(x)),
        value=_gated,
        slope=lambda x, t: t + x * (1.0 - t * t) * _softplus_slope(x),
    ),
    "relu": Activation(kept=_identity, value=lambda x, _: _relu(x), slope=lambda x, _: x.real > 0),
    "relu2": Activation(kept=_relu, value=lambda x, r: r * r, slope=lambda x, r: 2.0 * r),
    "relu6": Activation(
        kept=_identity, value=lambda x, _: _clip(x, 0.0, 6.0), slope=lambda x, _: _between(x, 0.0, 6.0)
    ),
    "leaky_relu": Activation(
        kept=lambda x: array_module(x).where(x.real > 0, array_module(x).ones_like(x), LEAKY_RELU_SLOPE),
        value=_gated,
        slope=_kept,
    ),
    # x relu6(x + 3) / 6, where the gate relu6(x + 3) / 6 has slope 1/6 between -3 and 3.
    "hardswish": Activation(
        kept=lambda x: _clip(x + 3.0, 0.0, 6.0) / 6.0,
        value=_gated,
        slope=lambda x, gate: gate + _between(x, -3.0, 3.0) * x / 6.0,
    ),
    "sigmoid": Activation(kept=sigmoid, value=_kept, slope=lambda x, s: s * (1.0 - s)),
    "tanh": Activation(kept=_tanh, value=_kept, slope=lambda x, t: 1.0 - t * t),
    "laplace": Activation(
        kept=lambda x: normal_cdf((x - LAPLACE_MEAN) / LAPLACE_DEVIATION),
        value=_kept,
        slope=lambda x, _: normal_pdf((x - LAPLACE_MEAN) / LAPLACE_DEVIATION) / LAPLACE_DEVIATION,
    ),
    "sqrtsoftplus": Activation(
        kept=lambda x: array_module(x).sqrt(_softplus(x)),
        value=_kept,
        # Below -745 exp(x) is 0, and so is the slope: 0 / 1 instead of 0 / 0.
        slope=lambda x, root: _softplus_slope(x) / (2.0 * array_module(x).where(root.real > 0, root, 1.0)),
    ),
    "linear": Activation(kept=_identity, value=_kept, slope=lambda x, _: array_module(x).ones_like(x)),
}

# Those that are GELU in one of its two forms, to the last digit of their constants.
GELU_FORMS = {
    "gelu": "erf",
    "gelu_python": "erf",
    "gelu_new": "tanh",
    "gelu_accurate": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
}
