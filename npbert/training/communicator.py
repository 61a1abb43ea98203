"""What the training loop asks of the processes that train together; here, of one alone."""

from typing import Protocol

from npbert.params import Params


class Communicator(Protocol):
    """Processes ("ranks") that each work on some batches of a step.

    Attributes
    ----------
    rank : int
        Of this process, from 0 on; rank 0 writes the files.
    size : int
        How many there are.
    """

    rank: int
    size: int

    def sum_gradients(self, grads: Params) -> Params:
        """Return the sums over all ranks, in the order of the ranks, the same to the last bit on each."""

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Return the sums over all ranks, as `sum_gradients` does."""

    def wait_for_all(self) -> None:
        """Return when all ranks have called this."""


class Alone:
    """The communicator of a process that trains by itself."""

    rank = 0
    size = 1

    def sum_gradients(self, grads: Params) -> Params:
        """Return the gradients as they are."""
        return grads

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Return the numbers as they are."""
        return numbers

    def wait_for_all(self) -> None:
        """Return at once."""
