"""Optimisers: how the parameters move, given their gradients.

An optimiser changes the parameters' arrays in place, and keeps an array or two of the same shape for each
(`Optimizer.state`). It goes through them block by block (`npbert.training.blocks`): all that is done to an
element depends on that element alone, so no result depends on the blocks, or on who worked on them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import numpy as np

from npbert.ops.array_module import Array, array_module
from npbert.training.blocks import Block, ShareOut, in_turn, pieces_of, scratch_like

# A parameter without a gradient (a word that does not occur) leaves averages behind that shrink in every
# step, until they are subnormal: below the smallest number with a full mantissa. Processors take 40 times as
# long for these. So, every so many steps, what might get there before the next time becomes 0.
STEPS_BETWEEN_CLEANINGS: Final = 64
NEARLY_SUBNORMAL: Final = 2.0**20  # times the smallest normal number: 1.2e-32 in float32


def decays_by_default(name: str, value: Array) -> bool:
    """Return whether weight decay applies to a parameter: not to biases, nor to layer norms.

    Examples
    --------
    >>> decays_by_default("bert.pooler.dense.weight", None), decays_by_default("bert.pooler.dense.bias", None)
    (True, False)
    >>> decays_by_default("bert.embeddings.LayerNorm.weight", None)
    False
    """
    return not name.endswith("bias") and "LayerNorm" not in name


class Optimizer(ABC):
    """What all optimisers have in common.

    Parameters
    ----------
    params : mapping of str to floating array of any shape
        Changed in place by `step`. C-contiguous, float32 or float64.
    weight_decay : float
        At least 0.
    decays : callable
        Told a parameter's name and array, answers whether ``weight_decay`` applies to it.
    share_out : callable
        See `npbert.training.blocks.in_turn`.

    Attributes
    ----------
    steps : int
        How many were taken.

    Raises
    ------
    ValueError
        For parameters, or numbers, that are not as above.
    """

    KEPT: ClassVar[tuple[str, ...]]  # names of the arrays that it has for each parameter

    def __init__(
        self,
        params: Mapping[str, Array],
        *,
        weight_decay: float,
        decays: Callable[[str, Array], bool],
        share_out: ShareOut,
    ) -> None:
        for name, value in params.items():
            _check_parameter(name, value)
        _check_at_least_0("weight_decay", weight_decay)
        self.params = params
        self.steps = 0
        self.share_out = share_out
        self._pieces = pieces_of(params)
        self._decay = {name: weight_decay if decays(name, p) else 0.0 for name, p in params.items()}
        self._kept = {
            kind: {name: array_module(p).zeros_like(p) for name, p in params.items()} for kind in self.KEPT
        }

    def step(self, grads: Mapping[str, Array], learning_rate: float) -> None:
        """Move every parameter against its gradient.

        Parameters
        ----------
        grads : mapping of str to array
            A gradient for each parameter, of its shape and dtype. Not changed, and not searched for values
            that are not finite: `npbert.training.clipping` comes across these.
        learning_rate : float
            At least 0.

        Raises
        ------
        ValueError
            If a gradient is missing or of no parameter, or has another shape or dtype, or if the learning
            rate is negative or not finite. Nothing has changed then.
        """
        _check_grads(grads, self.params)
        _check_at_least_0("learning_rate", learning_rate)
        self.steps += 1
        self._move({name: grads[name].reshape(-1) for name in self.params}, float(learning_rate))
        if self.steps % STEPS_BETWEEN_CLEANINGS == 0:
            self.share_out(self._clean, self._pieces)

    @abstractmethod
    def _move(self, flat_grads: dict[str, Array], learning_rate: float) -> None:
        """Take a step, which `steps` has already counted."""

    def state(self) -> dict[str, Array]:
        """Return what the optimiser has kept, the arrays themselves, named "mean.<parameter>" and so on."""
        return {f"{kind}.{name}": x for kind, kept in self._kept.items() for name, x in kept.items()}

    def load_state(self, arrays: Mapping[str, Array], steps: int) -> None:
        """Go on where another optimiser of the same kind was.

        Parameters
        ----------
        arrays : mapping of str to array
            Its `state`; copied.
        steps : int
            How many steps it had taken.

        Raises
        ------
        ValueError
            If an array is missing or unexpected, has another shape or dtype than its parameter, or has a
            value that is not finite, or a mean of squares that is negative. Nothing has changed then.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps is {steps!r}; it must be an integer of at least 0")
        state = self.state()
        _check_same_names(arrays, state, "array of the optimiser's state")
        for name, value in arrays.items():
            _check_same_kind(name, value, state[name])
            _check_values(name, value, negative=not name.startswith("square."))
        for name, value in arrays.items():
            state[name][...] = value
        self.steps = steps

    def _blocks_of(self, block: Block) -> list[Array]:
        """The parts of a parameter, and of what is kept of it, that a block is about; views, all flat."""
        return [block.of(self.params), *(block.of(kept) for kept in self._kept.values())]

    def _clean(self, piece: list[Block]) -> None:
        for block in piece:
            for kept in self._blocks_of(block)[1:]:
                smallest = NEARLY_SUBNORMAL * float(np.finfo(kept.dtype).smallest_normal)
                kept[abs(kept) < smallest] = 0


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
        At least 0.
    bias_correction : bool
    weight_decay, decays, share_out
        See `Optimizer`.

    References
    ----------
    - Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, algorithm 1.
    - Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101, algorithm 2.

    Examples
    --------
    >>> params = {"weight": np.array([1.0, 1.0])}
    >>> AdamW(params, weight_decay=0.0).step({"weight": np.array([5.0, -0.1])}, learning_rate=0.25)
    >>> params["weight"].round(6)
    array([0.75, 1.25])
    """

    KEPT = ("mean", "square")  # m and v

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
        super().__init__(params, weight_decay=weight_decay, decays=decays, share_out=share_out)
        _check_below_1("beta1", beta1)
        _check_below_1("beta2", beta2)
        _check_at_least_0("epsilon", epsilon)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.bias_correction = bias_correction

    def _move(self, flat_grads: dict[str, Array], learning_rate: float) -> None:
        correction1 = 1 - self.beta1**self.steps if self.bias_correction else 1.0
        correction2 = 1 - self.beta2**self.steps if self.bias_correction else 1.0

        def work(piece: list[Block]) -> None:
            for block in piece:
                theta, m, v = self._blocks_of(block)
                update_moments(m, v, block.of(flat_grads), self.beta1, self.beta2)
                u = adam_direction(m, v, correction1, correction2, self.epsilon)
                u *= learning_rate
                theta *= 1 - learning_rate * self._decay[block.name]
                theta -= u

        self.share_out(work, self._pieces)


def update_moments(m: Array, v: Array, g: Array, beta1: float, beta2: float) -> None:
    """Take a gradient into the moving averages of the gradients and of their squares, in place.

    Parameters
    ----------
    m, v, g : (n,) floating
    beta1, beta2 : float
    """
    xp = array_module(g)
    term = scratch_like(g)
    # m ← β₁ m + (1 - β₁) g
    xp.multiply(g, 1 - beta1, out=term)
    m *= beta1
    m += term
    # v ← β₂ v + (1 - β₂) g²
    xp.multiply(g, g, out=term)
    term *= 1 - beta2
    v *= beta2
    v += term


def adam_direction(m: Array, v: Array, correction1: float, correction2: float, epsilon: float) -> Array:
    """Return m̂ / (√v̂ + ε), where m̂ is m / correction1 and v̂ is v / correction2.

    Parameters
    ----------
    m, v : (n,) floating
    correction1, correction2, epsilon : float

    Returns
    -------
    (n,)
        In `scratch_like`'s memory.
    """
    xp = array_module(m)
    u = scratch_like(m)
    xp.sqrt(v, out=u)
    u *= 1 / math.sqrt(correction2)
    u += epsilon
    xp.divide(m, u, out=u)
    u *= 1 / correction1
    return u


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


OPTIMIZERS: Final[dict[str, Callable[..., Optimizer]]] = {"adamw": AdamW, "bert_adam": bert_adam}


def _check_parameter(name: str, value: Array) -> None:
    if value.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name} has the dtype {value.dtype}; an optimiser needs float32 or float64")
    if not value.flags.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous; an optimiser changes parameters in place")
    if not getattr(value.flags, "writeable", True):  # CuPy's are always writeable
        raise ValueError(f"{name} is read-only; an optimiser changes parameters in place")


def _check_grads(grads: Mapping[str, Array], params: Mapping[str, Array]) -> None:
    _check_same_names(grads, params, "gradient")
    for name, grad in grads.items():
        _check_same_kind(f"the gradient of {name}", grad, params[name])


def _check_same_names(given: Mapping[str, Array], expected: Mapping[str, Array], what: str) -> None:
    for name in expected:
        if name not in given:
            raise ValueError(f"there is no {what} named {name}")
    for name in given:
        if name not in expected:
            raise ValueError(f"there is an unexpected {what}, named {name}")


def _check_same_kind(what: str, value: Array, expected: Array) -> None:
    if value.shape != expected.shape:
        raise ValueError(f"{what} has the shape {value.shape}; it must be {expected.shape}")
    if value.dtype != expected.dtype:
        raise ValueError(f"{what} has the dtype {value.dtype}; it must be {expected.dtype}")


def _check_values(name: str, value: Array, negative: bool) -> None:
    xp = array_module(value)
    right = xp.isfinite(value) if negative else xp.isfinite(value) & (value >= 0)
    if not right.all():
        index = tuple(int(i) for i in np.unravel_index(int(xp.argmin(right)), value.shape))
        wanted = "finite" if negative else "finite and not negative"
        raise ValueError(f"{name} is {float(value[index])} at {index}; it must be {wanted}")


def _check_at_least_0(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be at least 0, and finite")


def _check_below_1(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; it must be at least 0 and below 1")
