"""Stochastic gradient descent, with momentum."""

from collections.abc import Callable, Mapping

from npbert.backends import ShareOut, in_turn
from npbert.ops.array_module import Array, array_module
from npbert.training.blocks import Block, scratch_like
from npbert.training.optimizer import Optimizer, check_below_1, decays_by_default


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as in torch.

    In each step, for each element θ of a parameter, with gradient g, learning rate α, weight decay λ and
    momentum μ::

        d = g + λ θ
        b ← μ b + d
        θ ← θ - α b            or, with Nesterov's momentum,  θ ← θ - α (d + μ b)

    Parameters
    ----------
    params : mapping of str to floating array of any shape
    momentum : float
        From 0 to below 1. With 0, nothing is kept for the parameters.
    nesterov : bool
        Needs a momentum.
    weight_decay, decays, share_out
        See `Optimizer`.

    References
    ----------
    - Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    - Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013: Nesterov's.

    Examples
    --------
    >>> import numpy as np
    >>> params = {"weight": np.array([1.0])}
    >>> sgd = SGD(params, momentum=0.5, weight_decay=0.0)
    >>> for _ in range(2):
    ...     sgd.step({"weight": np.array([1.0])}, learning_rate=0.25)
    >>> params["weight"]  # 1 - 0.25 * 1 - 0.25 * 1.5
    array([0.375])
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.01,
        decays: Callable[[str, Array], bool] = decays_by_default,
        share_out: ShareOut = in_turn,
    ) -> None:
        check_below_1("momentum", momentum)
        if nesterov and not momentum:
            raise ValueError("nesterov is True, and momentum is 0; Nesterov's momentum must be above 0")
        kept = ("momentum",) if momentum else ()
        super().__init__(params, kept, weight_decay, decays, share_out)
        self.momentum, self.nesterov = float(momentum), nesterov

    def _move(self, grads: Mapping[str, Array], learning_rate: float) -> None:
        def work(piece: list[Block]) -> None:
            for block in piece:
                g = block.of(grads)
                xp, d = array_module(g), scratch_like(g, "direction")
                theta, *kept = self.parts(block)
                # d = g + λ θ
                xp.multiply(theta, self.decay[block.name], out=d)
                d += g
                for b in kept:  # one, or none
                    # b ← μ b + d
                    b *= self.momentum
                    b += d
                    if self.nesterov:
                        term = scratch_like(g, "term")
                        xp.multiply(b, self.momentum, out=term)
                        d += term
                    else:
                        d[...] = b
                # θ ← θ - α d
                d *= learning_rate
                theta -= d

        self.share_out(work, self.pieces)
