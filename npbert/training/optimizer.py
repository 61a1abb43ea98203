"""What all optimisers have in common: checks, the arrays that they keep, and who works on which block.

An optimiser changes the parameters' arrays in place, and keeps an array or two of the same shape for each
(`Optimizer.state`). It goes through them block by block (`npbert.training.blocks`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from npbert.backends import ShareOut
from npbert.ops.array_module import Array, array_module
from npbert.training.blocks import Block, pieces_of

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
    kept : iterable of str
        Names of the kinds of arrays that it keeps, of which there is one for each parameter; zeros at first.
    weight_decay : float
        At least 0.
    decays : callable
        Told a parameter's name and array, answers whether ``weight_decay`` applies to it.
    share_out : callable
        See `npbert.backends.ShareOut`.

    Attributes
    ----------
    steps : int
        How many were taken.

    Raises
    ------
    ValueError
        For parameters, or numbers, that are not as above.
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        kept: Iterable[str],
        weight_decay: float,
        decays: Callable[[str, Array], bool],
        share_out: ShareOut,
    ) -> None:
        for name, value in params.items():
            _check_parameter(name, value)
        check_at_least_0("weight_decay", weight_decay)
        # Numbers are Python's: with one of NumPy's float64, NumPy would work in float64 all through.
        self.decay = {name: float(weight_decay) if decays(name, p) else 0.0 for name, p in params.items()}
        self.params = params
        self.steps = 0
        self.share_out = share_out
        self.pieces = pieces_of(params)
        self.kept = {
            kind: {name: array_module(p).zeros_like(p) for name, p in params.items()} for kind in kept
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
        check_at_least_0("learning_rate", learning_rate)
        self.steps += 1
        contiguous = {name: array_module(g).ascontiguousarray(g) for name, g in grads.items()}
        self._move(contiguous, float(learning_rate))
        if self.steps % STEPS_BETWEEN_CLEANINGS == 0:
            self.share_out(self._clean, self.pieces)

    @abstractmethod
    def _move(self, grads: Mapping[str, Array], learning_rate: float) -> None:
        """Take a step, which `steps` has already counted; the gradients are right, and C-contiguous."""

    def state(self) -> dict[str, Array]:
        """Return what the optimiser has kept, the arrays themselves, named "mean.<parameter>" and so on."""
        return {f"{kind}.{name}": x for kind, kept in self.kept.items() for name, x in kept.items()}

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
            state[name][...] = array_module(state[name]).asarray(value)
        self.steps = steps

    def parts(self, block: Block) -> list[Array]:
        """Return a block of its parameter, and of the arrays that are kept for it; views, all (n,)."""
        return [block.of(self.params), *(block.of(kept) for kept in self.kept.values())]

    def _clean(self, piece: list[Block]) -> None:
        for block in piece:
            for kept in self.parts(block)[1:]:
                smallest = NEARLY_SUBNORMAL * float(np.finfo(kept.dtype).smallest_normal)
                kept[abs(kept) < smallest] = 0


def check_at_least_0(name: str, value: float) -> None:
    """Raise a ValueError unless a number is at least 0, and finite."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be at least 0, and finite")


def check_above_0(name: str, value: float) -> None:
    """Raise a ValueError unless a number is above 0, and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be above 0, and finite")


def check_below_1(name: str, value: float) -> None:
    """Raise a ValueError unless a number is at least 0, and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; it must be at least 0 and below 1")


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
