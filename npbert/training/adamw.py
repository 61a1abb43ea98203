"""AdamW: steps of about the learning rate for every element, whatever the size of its gradients."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from npbert.backends import ShareOut, in_turn
from npbert.ops.array_module import Array, array_module
from npbert.training.blocks import Block, scratch_like
from npbert.training.optimizer import Optimizer, check_above_0, check_below_1, decays_by_default


class AdamW(Optimizer):
    """Adam with decoupled weight decay; with ``bias_correction=False``, as Google's BERT has it.

    In step t, for each element θ of a parameter, with gradient g, learning rate α and weight decay λ::

        m ← β₁ m + (1 - β₁) g             m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) g²            v̂ = v / (1 - β₂ᵗ)
        θ ← (1 - α λ) θ - α m̂ / (√v̂ + ε)

    Without bias correction, m̂ = m and v̂ = v.

    Parameters
    ----------
    params : mapping of str to floating array of any shape
    beta1, beta2 : float
        From 0 to below 1.
    epsilon : float
        Above 0.
    bias_correction : bool
    weight_decay, decays, share_out
        See `Optimizer`.

    References
    ----------
    - Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, algorithm 1.
    - Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"weight": np.array([1.0, 1.0])}
    >>> AdamW(params, weight_decay=0.0).step({"weight": np.array([5.0, -0.1])}, learning_rate=0.25)
    >>> params["weight"].round(6)
    array([0.75, 1.25])
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        bias_correction: bool = True,
        weight_decay: float = 0.01,
        decays: Callable[[str, Array], bool] = decays_by_default,
        share_out: ShareOut = in_turn,
    ) -> None:
        super().__init__(params, ("mean", "square"), weight_decay, decays, share_out)
        check_below_1("beta1", beta1)
        check_below_1("beta2", beta2)
        check_above_0("epsilon", epsilon)
        self.beta1, self.beta2, self.epsilon = float(beta1), float(beta2), float(epsilon)
        self.bias_correction = bias_correction

    def _move(self, grads: Mapping[str, Array], learning_rate: float) -> None:
        correction1 = 1 - self.beta1**self.steps if self.bias_correction else 1.0
        correction2 = 1 - self.beta2**self.steps if self.bias_correction else 1.0

        def work(piece: list[Block]) -> None:
            for block in piece:
                theta, m, v = self.parts(block)
                g = block.of(grads)
                scratch = scratch_like(g, "term")
                update_moments(m, v, g, self.beta1, self.beta2, scratch)
                u = adam_direction(m, v, correction1, correction2, self.epsilon, out=scratch)
                # θ ← (1 - α λ) θ - α u
                theta *= 1 - learning_rate * self.decay[block.name]
                u *= learning_rate
                theta -= u

        self.share_out(work, self.pieces)


def bert_adam(params: Mapping[str, Array], **options: Any) -> AdamW:
    """Return the optimiser that Google trained BERT with, ``AdamWeightDecayOptimizer``.

    It has no bias correction, an epsilon of 1e-6, and a weight decay of 0.01.

    Parameters
    ----------
    params : mapping of str to floating array of any shape
    **options
        Those of `AdamW`, to change any of these.

    Returns
    -------
    AdamW

    References
    ----------
    https://github.com/google-research/bert/blob/master/optimization.py
    """
    return AdamW(params, **{"epsilon": 1e-6, "bias_correction": False, **options})


def update_moments(m: Array, v: Array, g: Array, beta1: float, beta2: float, term: Array) -> None:
    """Take a gradient into the moving averages of the gradients and of their squares, in place.

    Parameters
    ----------
    m, v, g : (n,) floating
    beta1, beta2 : float
    term : (n,) floating
        Scratch memory.
    """
    xp = array_module(g)
    # m ← β₁ m + (1 - β₁) g
    xp.multiply(g, 1 - beta1, out=term)
    m *= beta1
    m += term
    # v ← β₂ v + (1 - β₂) g²
    xp.multiply(g, g, out=term)
    term *= 1 - beta2
    v *= beta2
    v += term


def adam_direction(
    m: Array, v: Array, correction1: float, correction2: float, epsilon: float, *, out: Array
) -> Array:
    """Return m̂ / (√v̂ + ε), where m̂ is m / correction1 and v̂ is v / correction2.

    Parameters
    ----------
    m, v : (n,) floating
    correction1, correction2, epsilon : float
    out : (n,) floating
        Takes the result.

    Returns
    -------
    out
    """
    xp = array_module(m)
    # √v̂ + ε
    xp.sqrt(v, out=out)
    out *= 1 / math.sqrt(correction2)
    out += epsilon
    # m̂ / (√v̂ + ε)
    xp.divide(m, out, out=out)
    out *= 1 / correction1
    return out
