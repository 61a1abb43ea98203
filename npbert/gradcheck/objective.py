"""The scalar function that the oracles differentiate: ``L(leaves) = sum(dy * f(leaves))``."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npbert.gradcheck.oracles import Terms
from npbert.gradcheck.pair import Array, BrokenPair, Pair


class Objective:
    """The pair's forward, contracted with fixed cotangents, in float64 or complex128.

    Parameters
    ----------
    pair : Pair
        What to evaluate.
    values : sequence of ndarray
        The leaves' float64 values.
    cotangents : sequence of ndarray or None
        One an output of the forward.
    copies : bool
        Give the forward copies of its arguments: needed where it writes to them.
    """

    def __init__(self, pair: Pair, values: Sequence[Array], cotangents: Sequence[Any], copies: bool) -> None:
        self.pair = pair
        self.values = list(values)
        self.cotangents = list(cotangents)
        self.evaluations = 0
        self._shapes = [None if dout is None else dout.shape for dout in cotangents]
        self._copies = copies
        # All leaves are complex in a complex step, whichever of them is varied: a forward that allocates
        # its result with one argument's dtype then behaves the same for every direction.
        self._complex = [value.astype(np.complex128) for value in values]

    def with_cotangents(self, cotangents: Sequence[Any]) -> "Objective":
        """Return the same forward, contracted with other cotangents of the same shapes."""
        other = copy.copy(self)
        other.cotangents = list(cotangents)
        return other

    def outputs(self, direction: Mapping[int, Array], t: complex) -> list[Array]:
        """Return the outputs that have a cotangent, at the leaves moved by ``t`` along ``direction``."""
        moved = list(self._complex if isinstance(t, complex) else self.values)
        for number, along in direction.items():
            moved[number] = moved[number] + t * along
        self.evaluations += 1
        with np.errstate(all="ignore"), warnings.catch_warnings():
            # An imaginary part that the forward drops is found and reported by name, not as a warning.
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
            outputs = self.pair.forward(self.pair.arguments(moved, self._copies)).outputs
        shapes = [None if one is None else one.shape for one in outputs]
        if len(shapes) != len(self._shapes) or any(
            shape != expected and expected is not None
            for shape, expected in zip(shapes, self._shapes, strict=True)
        ):
            raise BrokenPair("output shape", f"the outputs' shapes change with the arguments: {shapes}")
        return [out for out, dout in zip(outputs, self.cotangents, strict=True) if dout is not None]

    def terms(self, outputs: Sequence[Array]) -> Array:
        """Return every product of an output's entry with its cotangent, in one flat array."""
        cotangents = [dout for dout in self.cotangents if dout is not None]
        return np.concatenate([np.ravel(out * dout) for out, dout in zip(outputs, cotangents, strict=True)])

    def along(self, direction: Mapping[int, Array]) -> Terms:
        """Return ``terms(t)`` for the oracles, along a direction given as ``{leaf number: array}``."""
        return lambda t: self.terms(self.outputs(direction, t))

    def scale(self, number: int) -> float:
        """Return the typical size of a leaf's entries (root mean square), 1 where they are all zero."""
        value = self.values[number]
        size = float(np.sqrt(np.mean(np.square(value)))) if value.size else 0.0
        return size if size > 0 else 1.0


def unit(value: Array, index: tuple[int, ...]) -> Array:
    """Return the direction of one coordinate: zeros like ``value``, with a one at ``index``."""
    direction = np.zeros(value.shape)
    direction[index] = 1.0
    return direction
