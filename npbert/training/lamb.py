"""LAMB: Adam's direction, at a length that is a fraction of each parameter's own."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from npbert.backends import ShareOut, in_turn
from npbert.ops.array_module import Array, array_module
from npbert.training.adamw import adam_direction, update_moments
from npbert.training.blocks import Block, scratch_like
from npbert.training.clipping import sum_of_squares
from npbert.training.optimizer import Optimizer, check_above_0, check_below_1, decays_by_default


class LAMB(Optimizer):
    """Layer-wise adaptive moments, for large batches.

    In step t, for each parameter θ (the whole array), with gradient g, learning rate α and weight decay λ::

        m ← β₁ m + (1 - β₁) g             m̂ = m / (1 - β₁ᵗ)
        v ← β₂ v + (1 - β₂) g²            v̂ = v / (1 - β₂ᵗ)
        u = m̂ / (√v̂ + ε) + λ θ
        θ ← θ - α (‖θ‖ / ‖u‖) u

    The quotient of the norms, the trust ratio, is 1 where either norm is 0. Without bias correction, m̂ = m
    and v̂ = v. The paper's function φ of ‖θ‖ is the identity.

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
    adapts : callable, optional
        Told a parameter's name and array, answers whether it has a trust ratio other than 1. By default, as
        in the authors' code, that is where weight decay applies: not biases, nor layer norms. For the paper's
        algorithm as printed: always.

    References
    ----------
    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
    arXiv:1904.00962, 2019, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"weight": np.array([4.0, 3.0])}  # of norm 5
    >>> LAMB(params, weight_decay=0.0).step({"weight": np.array([0.1, 0.0])}, learning_rate=0.5)
    >>> params["weight"].round(3)
    array([1.5, 3. ])
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        bias_correction: bool = True,
        weight_decay: float = 0.01,
        decays: Callable[[str, Array], bool] = decays_by_default,
        adapts: Callable[[str, Array], bool] | None = None,
        share_out: ShareOut = in_turn,
    ) -> None:
        super().__init__(params, ("mean", "square"), weight_decay, decays, share_out)
        check_below_1("beta1", beta1)
        check_below_1("beta2", beta2)
        check_above_0("epsilon", epsilon)
        self.beta1, self.beta2, self.epsilon = float(beta1), float(beta2), float(epsilon)
        self.bias_correction = bias_correction
        self._adapts = {name: (adapts or decays)(name, p) for name, p in params.items()}

    def _move(self, grads: Mapping[str, Array], learning_rate: float) -> None:
        # u is worked out twice, to have its norm before it is used: it need not be kept anywhere.
        squares: dict[Block, tuple[float, float]] = {}

        def measure(piece: list[Block]) -> None:
            for block in piece:
                theta, m, v = self.parts(block)
                g = block.of(grads)
                update_moments(m, v, g, self.beta1, self.beta2, scratch_like(g, "term"))
                u = self._direction(block)
                squares[block] = sum_of_squares(theta), sum_of_squares(u)

        self.share_out(measure, self.pieces)
        ratios = self._trust_ratios(squares)

        def move(piece: list[Block]) -> None:
            for block in piece:
                theta = block.of(self.params)
                u = self._direction(block)
                u *= learning_rate * ratios[block.name]
                theta -= u

        self.share_out(move, self.pieces)

    def _direction(self, block: Block) -> Array:
        """The part of u that a block is about."""
        theta, m, v = self.parts(block)
        correction1 = 1 - self.beta1**self.steps if self.bias_correction else 1.0
        correction2 = 1 - self.beta2**self.steps if self.bias_correction else 1.0
        u = adam_direction(m, v, correction1, correction2, self.epsilon, out=scratch_like(theta, "direction"))
        decay = scratch_like(theta, "term")
        array_module(theta).multiply(theta, self.decay[block.name], out=decay)
        u += decay
        return u

    def _trust_ratios(self, squares: Mapping[Block, tuple[float, float]]) -> dict[str, float]:
        """‖θ‖ / ‖u‖ of each parameter, from the sums of squares of its blocks."""
        totals = {name: np.zeros(2) for name in self.params}
        for piece in self.pieces:  # in this order, whichever thread was first
            for block in piece:
                totals[block.name] += squares[block]
        ratios = {}
        for name, (theta_square, u_square) in totals.items():
            has_ratio = self._adapts[name] and theta_square > 0 and u_square > 0
            ratios[name] = math.sqrt(theta_square / u_square) if has_ratio else 1.0
        return ratios
