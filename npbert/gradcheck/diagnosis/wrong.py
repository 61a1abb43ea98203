"""A wrong gradient beside its reference, and the question whether a pattern explains the difference."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npbert.gradcheck.pair import Array
from npbert.gradcheck.round_off import row_norm

# What a pattern may leave unexplained: this part of a row's error, and round-off.
UNEXPLAINED = 1e-6
ROUND_OFF = 1e-12
# Entries of an error that a pattern must explain beyond the numbers that it was fitted with.
SPARE = 2


@dataclass(frozen=True)
class Wrong:
    """One wrong gradient.

    Attributes
    ----------
    name : str
        The tensor.
    gradient, reference : ndarray
        Of the same shape; the reference is 0 where it is not known.
    known : ndarray of bool
        Where it is.
    noise : ndarray
        How far the two may be apart for no reason: the round-off of either.
    """

    name: str
    gradient: Array
    reference: Array
    known: Array
    noise: Array

    @cached_property
    def error(self) -> Array:
        """Gradient minus reference; 0 where the reference is not known."""
        return np.where(self.known, self.gradient - self.reference, 0.0)

    @cached_property
    def limit(self) -> Array:
        """How close to the gradient a pattern must come, entry by entry."""
        size = row_norm(np.where(self.known, self.gradient, 0.0)) + row_norm(self.reference)
        round_off = self.noise + ROUND_OFF * size + 8 * np.finfo(float).eps * np.max(size, initial=0.0)
        return np.asarray(UNEXPLAINED * row_norm(self.error) + round_off)

    @cached_property
    def differs(self) -> Array:
        """Where the gradient is wrong."""
        size = row_norm(np.where(self.known, self.gradient, 0.0)) + row_norm(self.reference)
        return np.abs(self.error) > self.noise + 1e-10 * size

    @cached_property
    def entries(self) -> int:
        """How many entries can tell a right pattern from a wrong one: they are known, and not both zero."""
        return int(np.sum(self.known & ((self.gradient != 0) | (self.reference != 0))))

    def fits(self, pattern: Array, parameters: int = 0) -> bool:
        """Tell whether the gradient follows a pattern, to round-off.

        Parameters
        ----------
        pattern : ndarray
            What the gradient should be if the pattern were true.
        parameters : int
            How many numbers of the pattern were taken from the gradient itself.
        """
        if np.shape(pattern) != self.gradient.shape or self.entries < parameters + SPARE:
            return False
        apart = np.where(self.known, np.abs(self.gradient - pattern), 0.0)
        return bool(np.all(apart <= self.limit))

    def explained(self, pattern: Array) -> float:
        """Return the fraction of the error that a pattern explains."""
        size = float(np.linalg.norm(self.error))
        left = np.where(self.known, self.gradient - pattern, 0.0)
        return max(0.0, 1.0 - float(np.linalg.norm(left)) / size) if size > 0 else 0.0
